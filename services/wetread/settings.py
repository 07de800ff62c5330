"""All settings, read once from the environment (prefix ``WETREAD_``); docs/settings.md documents each (tested)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
"""A web origin in the form that browsers send: lower case, no path, no default port (RFC 6454 6.2)."""


def is_loopback(host: str) -> bool:
    """Return whether *host* names this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """Settings of one process. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="WETREAD_", frozen=True, extra="ignore")

    data: Path = Field(default=Path("wetread-data"), description="Folder of the embedded profile: database, segments.")
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="URL of the database, postgresql://user:password@host/name. Unset: SQLite in the data folder.",
    )
    database_url_file: Path | None = Field(
        default=None, description="File that holds the database URL (a mounted secret)."
    )
    object_store_url: str | None = Field(
        default=None, description="Where instances lie, s3://bucket/prefix. Unset: segment files in the data folder."
    )
    object_store_endpoint: str | None = Field(
        default=None, description="URL of an S3-compatible service. Unset: AWS. Credentials: AWS_* variables or roles."
    )
    object_store_region: str | None = Field(default=None, description="Region of the bucket. Unset: AWS_REGION.")
    object_store_class: str = Field(default="STANDARD", description="Storage class of new objects (the hot one).")
    read_cache: Path | None = Field(
        default=None, description="Folder of the read cache on a local disk. Unset: cache in the data folder."
    )
    read_cache_bytes: int = Field(default=10 * 2**30, ge=0, description="Room of the read cache; 0: none.")
    migrate: bool = Field(
        default=True, description="Create or migrate tables at start. Off: refuse to start on an older schema."
    )
    instance: str = Field(
        default="",
        pattern=r"^[a-z0-9]{0,16}$",
        description="Name of this process among those that share a database: lower-case letters and digits.",
    )
    host: str = Field(default="127.0.0.1", description="Address to bind. Loopback only unless API keys are configured.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    public_base_url: str | None = Field(
        default=None, description="Absolute URL of the service for emitted links, such as https://host/wetread."
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of API keys: lines of 'sha256-of-key tenant name'. Unset: no authentication."
    )
    detectors: str = Field(default="", description="Extra folders of detectors, separated by ':'.")
    workflows: Path | None = Field(default=None, description="Folder of workflow files; unset: the bundled ones.")
    quiet_series: float = Field(default=3.0, gt=0, description="Silence after which a series counts as complete.")
    quiet_study: float = Field(default=10.0, gt=0, description="Silence after which a study counts as complete.")
    max_wait: float = Field(default=900.0, gt=0, description="Longest wait for completeness; then the run is forced.")
    inference_url: str | None = Field(
        default=None, description="Inference server, grpc://host:port (Triton, KServe). Unset: ONNX Runtime in process."
    )
    inference_lane: Literal["stat", "routine"] = Field(
        default="routine", description="Priority of this process's requests at the inference server."
    )
    inference_threads: int = Field(default=2, ge=1, description="Threads of one inference.")
    webhook_allow_private: bool | None = Field(
        default=None,
        description="Allow webhooks to loopback and private addresses. Unset: only when bound to loopback.",
    )
    max_part_bytes: int = Field(default=16 * 2**30, description="Largest single STOW part.")
    max_request_bytes: int = Field(default=64 * 2**30, description="Largest STOW request.")
    cors_origins: str = Field(
        default="", description="Web origins whose pages may read answers, such as https://viewer.example, by comma."
    )
    cross_origin_resource_policy: Literal["cross-origin", "same-site", "same-origin"] = Field(
        default="cross-origin", description="Which sites may embed answers (viewer pages under COEP need it)."
    )
    log_level: str = Field(default="info", description="Log level of the JSON log on standard error.")

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        origins = [part.strip() for part in value.split(",") if part.strip()]
        if any(not _ORIGIN.fullmatch(origin) for origin in origins):
            msg = "an origin is scheme://host[:port] in lower case, without path; there is no wild card"
            raise ValueError(msg)
        return ",".join(origins)

    @model_validator(mode="before")
    @classmethod
    def _secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        path = values.get("database_url_file")
        if path and not values.get("database_url"):
            try:
                values = values | {"database_url": Path(path).read_text("utf-8").strip()}
            except OSError as error:
                msg = f"the file of the database URL cannot be read: {error.strerror}"
                raise ValueError(msg) from error
        return values

    @model_validator(mode="after")
    def _loopback_without_credentials(self) -> Self:
        if not is_loopback(self.host) and self.api_keys_file is None:
            msg = (
                f"refusing to bind {self.host}: without authentication the server binds loopback only; "
                "set WETREAD_API_KEYS_FILE"
            )
            raise ValueError(msg)
        return self

    @property
    def database(self) -> Path | str:
        """The one database of index, events, work and durable queues: a SQLite file, or the URL of a shared one."""
        return self.data / "wetread.db" if self.database_url is None else self.database_url

    @property
    def shared(self) -> bool:
        """Whether several machines may share the database (cluster profile)."""
        return self.database_url is not None and not self.database_url.startswith("sqlite")

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Web origins whose pages may read answers."""
        return frozenset(self.cors_origins.split(",")) - {""}

    @property
    def allow_private_webhooks(self) -> bool:
        """Whether webhook targets may be loopback or private addresses."""
        return is_loopback(self.host) if self.webhook_allow_private is None else self.webhook_allow_private

    def environment(self) -> dict[str, str]:
        """Return the environment variables that give a child process these settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"WETREAD_{name.upper()}": str(value) for name, value in values.items()}
