"""All settings, read once from the environment (prefix ``WETREAD_``); docs/settings.md documents each (tested)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, Literal, Self

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
    ups_lease: float = Field(
        default=900.0, gt=0, description="Silence after which an external performer of a workitem counts as lost."
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
    def database_path(self) -> Path:
        """The one SQLite file: index, events, work and durable queues."""
        return self.data / "wetread.db"

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
