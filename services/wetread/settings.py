"""All settings, read once from the environment (prefix ``WETREAD_``); docs/settings.md documents each (tested)."""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wetread.core.channels import sink_url

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
"""A web origin in the form that browsers send: lower case, no path, no default port (RFC 6454 6.2)."""

_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signature algorithms of tokens: those whose keys an issuer can publish (RFC 7518 3.1, RFC 8037)."""


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

    model_config = SettingsConfigDict(env_prefix="WETREAD_", frozen=True, extra="ignore", populate_by_name=True)

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
    queues: str = Field(
        default="", description="Queues that this process takes, by comma. Empty: all that its services can work on."
    )
    host: str = Field(default="127.0.0.1", description="Address to bind. Without authentication loopback only.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    web_processes: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Processes at the port. Unset: one per core, 4 at most; 1 where the database is shared.",
    )
    public_base_url: str | None = Field(
        default=None, description="Absolute URL of the service for emitted links, such as https://host/wetread."
    )
    trusted_proxies: str = Field(
        default="",
        description="Networks of reverse proxies that are believed, such as 10.0.0.0/8, by comma. Empty: none.",
    )
    proxy_headers: Literal["x-forwarded", "forwarded"] = Field(
        default="x-forwarded",
        description="What trusted proxies write: X-Forwarded-For, -Proto, -Host, -Port, -Prefix; or RFC 7239.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys: lines of 'sha256-of-key tenant name [scopes] [until=YYYY-MM-DD]'.",
    )
    oidc_issuer: str | None = Field(
        default=None, description="Issuer of bearer tokens, exactly as in its discovery document; https."
    )
    oidc_audience: str | None = Field(default=None, description="What tokens have to name as their audience.")
    oidc_algorithms: str = Field(
        default="RS256,PS256,ES256,ES384,EdDSA", description="Signature algorithms accepted, by comma."
    )
    oidc_tenant_claim: str = Field(default="tenant", description="Claim of a token that names the tenant.")
    oidc_scope_claim: str = Field(default="scope", description="Claim of a token that lists the scopes.")
    oidc_leeway: float = Field(default=30.0, ge=0, le=300, description="Seconds that the issuer's clock may differ.")
    tenants_file: Path | None = Field(default=None, description="YAML file of limits per tenant. Unset: no limits.")
    audit_days: float = Field(default=2190.0, ge=0, description="How long the audit trail is kept; 0: for ever.")
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
    ups_lease: float = Field(
        default=900.0, gt=0, description="Silence after which an external performer of a workitem counts as lost."
    )
    slide_workers: int | None = Field(
        default=None,
        ge=1,
        description="Processes that read one slide. Unset: the number of cores less one, at least one.",
    )
    inference_threads: int = Field(default=2, ge=1, description="Threads of one inference.")
    viewer: Path = Field(
        default=Path(sys.prefix) / "share" / "wetread" / "viewer",
        description="Folder of the OHIF viewer, filled by `make viewer`; the default is inside the Python environment.",
    )
    webhook_allow_private: bool | None = Field(
        default=None,
        description="Allow webhooks to loopback and private addresses. Unset: only when bound to loopback.",
    )
    event_sink: str | None = Field(
        default=None,
        validation_alias=AliasChoices("WETREAD_EVENT_SINK", "K_SINK"),
        description="URL that gets every event as CloudEvents 1.0 over HTTP. K_SINK (Knative) says the same.",
    )
    event_sink_mode: Literal["structured", "binary"] = Field(
        default="structured", description="Content mode of the CloudEvents for the sink."
    )
    smtp_host: str | None = Field(default=None, description="Mail server of mail channels. Unset: no mail is sent.")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Port of the mail server.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="Encryption towards the mail server; it never falls back to plain text."
    )
    smtp_user: str = Field(default="", description="User at the mail server; empty: none.")
    smtp_password_file: Path | None = Field(default=None, description="File with the password at the mail server.")
    smtp_from: str = Field(default="wetread@localhost", description="Sender address of mails.")
    max_part_bytes: int = Field(default=16 * 2**30, description="Largest single STOW part.")
    max_request_bytes: int = Field(default=64 * 2**30, description="Largest STOW request.")
    qido_empty_status: Annotated[Literal[200, 204], BeforeValidator(int)] = Field(
        default=200, description="Answer of a search without matches; editions of PS3.18 differ."
    )
    strict_negotiation: bool = Field(
        default=False, description="Refuse requests without Accept, or that mix DICOM with rendered media types."
    )
    dimse_port: int | None = Field(
        default=None, ge=0, le=65535, description="DICOM port of the DIMSE edge; set: `wetread up` runs it too."
    )
    dimse_host: str = Field(
        default="127.0.0.1", description="Address the DICOM port binds. Loopback only unless peers are configured."
    )
    dimse_http_port: int = Field(
        default=0, ge=0, le=65535, description="Port of health and metrics of the DIMSE process of `wetread up`."
    )
    dimse_ae_title: str = Field(default="WETREAD", description="Our AE title.")
    dimse_peers: Path | None = Field(
        default=None, description="YAML file of the AEs that may associate, with addresses and tenant."
    )
    dimse_tls_certificate: Path | None = Field(default=None, description="PEM chain; set: the DICOM port speaks TLS.")
    dimse_tls_key: Path | None = Field(default=None, description="PEM key of the certificate.")
    dimse_tls_authorities: Path | None = Field(
        default=None, description="PEM authorities; set: peers have to show a certificate that one of them signed."
    )
    dimse_max_associations: int = Field(default=32, ge=1, le=1000, description="DICOM associations at a time.")
    dimse_max_pdu: int = Field(
        default=131072, ge=4096, le=2**24, description="Largest DICOM PDU that peers may send, in bytes."
    )
    dimse_idle: float = Field(default=60.0, gt=0, description="Silence after which an association is aborted.")
    cors_origins: str = Field(
        default="", description="Web origins whose pages may read answers, such as https://viewer.example, by comma."
    )
    cross_origin_resource_policy: Literal["cross-origin", "same-site", "same-origin"] = Field(
        default="cross-origin", description="Which sites may embed answers (viewer pages under COEP need it)."
    )
    log_level: str = Field(default="info", description="Log level of the JSON log on standard error.")
    telemetry_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("WETREAD_TELEMETRY_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Collector of traces, metrics and logs, OTLP over HTTP: http://collector:4318. Unset: none.",
    )
    telemetry_headers: str = Field(
        default="",
        repr=False,
        validation_alias=AliasChoices("WETREAD_TELEMETRY_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
        description="Headers for the collector, name=value by comma, values URL-encoded (a credential).",
    )
    telemetry_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        validation_alias=AliasChoices("WETREAD_TELEMETRY_RATIO", "OTEL_TRACES_SAMPLER_ARG"),
        description="Share of the traces that begin here and are kept; a caller's own traceparent decides for its own.",
    )
    telemetry_signals: str = Field(default="traces,metrics,logs", description="What goes to the collector, by comma.")
    telemetry_off: bool = Field(
        default=False,
        validation_alias=AliasChoices("WETREAD_TELEMETRY_OFF", "OTEL_SDK_DISABLED"),
        description="Send nothing, whatever the other settings of telemetry say.",
    )

    @field_validator("event_sink")
    @classmethod
    def _sink(cls, value: str | None) -> str | None:
        return None if value is None else sink_url(value)

    @field_validator("telemetry_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            msg = "a collector is an absolute http or https URL without query"
            raise ValueError(msg)
        return value

    @field_validator("telemetry_signals")
    @classmethod
    def _signals(cls, value: str) -> str:
        named = [part.strip() for part in value.split(",") if part.strip()]
        if any(name not in {"traces", "metrics", "logs"} for name in named):
            msg = "signals are some of traces, metrics, logs"
            raise ValueError(msg)
        return ",".join(named)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            named = [str(ipaddress.ip_network(part.strip())) for part in value.split(",") if part.strip()]
        except ValueError as error:
            msg = "trusted proxies are networks such as 10.0.0.0/8 or fd00::/8, without host bits, by comma"
            raise ValueError(msg) from error
        return ",".join(named)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        origins = [part.strip() for part in value.split(",") if part.strip()]
        if any(not _ORIGIN.fullmatch(origin) for origin in origins):
            msg = "an origin is scheme://host[:port] in lower case, without path; there is no wild card"
            raise ValueError(msg)
        return ",".join(origins)

    @field_validator("oidc_algorithms")
    @classmethod
    def _algorithms(cls, value: str) -> str:
        named = [part.strip() for part in value.split(",") if part.strip()]
        if not named or any(name not in _ALGORITHMS for name in named):
            # Never "none", and never HS*: its key would be one that the issuer publishes (RFC 8725 3.1).
            msg = f"algorithms are some of {', '.join(_ALGORITHMS)}"
            raise ValueError(msg)
        return ",".join(named)

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not (parts.scheme == "https" or plain) or not parts.hostname or parts.query or parts.fragment:
            msg = "an issuer is an https URL (http on loopback only) without query"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _audience_with_issuer(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            msg = "WETREAD_OIDC_ISSUER and WETREAD_OIDC_AUDIENCE go together"
            raise ValueError(msg)
        return self

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
        if not is_loopback(self.host) and not self.authentication:
            msg = (
                f"refusing to bind {self.host}: without authentication the server binds loopback only; "
                "set WETREAD_API_KEYS_FILE or WETREAD_OIDC_ISSUER"
            )
            raise ValueError(msg)
        if not is_loopback(self.dimse_host) and self.dimse_peers is None:
            msg = (
                f"refusing to bind {self.dimse_host} for DICOM: without peers it binds loopback only; "
                "set WETREAD_DIMSE_PEERS"
            )
            raise ValueError(msg)
        if (self.dimse_tls_certificate is None) != (self.dimse_tls_key is None):
            msg = "WETREAD_DIMSE_TLS_CERTIFICATE and WETREAD_DIMSE_TLS_KEY go together"
            raise ValueError(msg)
        if self.dimse_tls_authorities is not None and self.dimse_tls_certificate is None:
            msg = "WETREAD_DIMSE_TLS_AUTHORITIES needs WETREAD_DIMSE_TLS_CERTIFICATE"
            raise ValueError(msg)
        return self

    @property
    def authentication(self) -> bool:
        """Whether callers have to show a credential."""
        return self.api_keys_file is not None or self.oidc_issuer is not None

    @property
    def database(self) -> Path | str:
        """The one database of index, events, work and durable queues: a SQLite file, or the URL of a shared one."""
        return self.data / "wetread.db" if self.database_url is None else self.database_url

    @property
    def shared(self) -> bool:
        """Whether several machines may share the database (cluster profile)."""
        return self.database_url is not None and not self.database_url.startswith("sqlite")

    @property
    def proxy_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Networks of the reverse proxies that are believed."""
        return tuple(ipaddress.ip_network(part) for part in self.trusted_proxies.split(",") if part)

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Web origins whose pages may read answers."""
        return frozenset(self.cors_origins.split(",")) - {""}

    @property
    def chosen_queues(self) -> tuple[str, ...]:
        """Queues that this process is told to take; empty: all that its services can work on."""
        return tuple(part.strip() for part in self.queues.split(",") if part.strip())

    @property
    def allow_private_webhooks(self) -> bool:
        """Whether webhook targets may be loopback or private addresses."""
        return is_loopback(self.host) if self.webhook_allow_private is None else self.webhook_allow_private

    def environment(self) -> dict[str, str]:
        """Return the environment variables that give a child process these settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"WETREAD_{name.upper()}": str(value) for name, value in values.items()}
