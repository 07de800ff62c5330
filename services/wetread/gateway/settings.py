"""Typed settings of the gateway; every limit has its unit and its reason here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wetread.core.dicom.header import HeaderLimits
from wetread.core.tenants import DuplicatePolicy, Tenants


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """``duplicates``: what happens to an instance whose UID is stored with other content."""

    duplicates: DuplicatePolicy = "reject"
    group_instances: int = 64
    """Instances per commit group: bounds the index transaction."""
    group_bytes: int = 32 << 20
    """Bytes per commit group: bounds what one sync has to write."""
    in_flight_bytes: int = 64 << 20
    """Received but not yet durable bytes of all requests; beyond it no new part is read (TCP back-pressure)."""
    part_bytes: int = 16 << 30
    """Size of one part; larger ones fail with A700."""
    request_bytes: int = 64 << 30
    request_parts: int = 20_000
    part_header_bytes: int = 8192
    metadata_bytes: int = 64 << 20
    """JSON or XML of one request that brings metadata and bulk data apart."""
    assembled_bytes: int = 1 << 30
    """Bulk data of one instance that is put together from them."""
    spool_bytes: int = 16 << 20
    """Parts beyond this size go to a scratch file instead of memory."""
    idle_seconds: float = 30.0
    """A body that sends nothing for this long is given up (408)."""
    slow_grace_seconds: float = 60.0
    """After so much waiting for a body it has to have come at ``slowest_bytes_per_second`` or more (408)."""
    slowest_bytes_per_second: int = 16 << 10
    back_pressure_seconds: float = 10.0
    """A request waits so long for memory that others hold, then it is answered with 503."""
    requests_at_once: int = 512
    """Store requests of all tenants that may be open in one process; further ones are answered with 503."""
    header: HeaderLimits = field(default_factory=HeaderLimits)
    tenants: Tenants = field(default_factory=Tenants)
    """What each tenant may use, on top of the limits above."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``public_base_url``: scheme, host and prefix that clients see, without ``base_path``; empty: of each request."""

    public_base_url: str = ""
    base_path: str = "/dicom-web"
    frames_per_request: int = 10_000
    url_bytes: int = 16 << 10
    frame_bytes: int = 1 << 30
    """Decoded size of one frame: checked before a decoder may allocate it."""
    codec_processes: int = 2
    """Processes that decompress and compress; started when first needed."""
    codec_cache_bytes: int = 64 << 20
    """Decompressed, transcoded and rendered frames that are kept for whoever asks next."""
    qido_empty_status: Literal[200, 204] = 200
    strict_negotiation: bool = False
    """Refuse requests without ``Accept``, and those that mix DICOM with rendered media types (PS3.18 8.7.5)."""
    ingest: IngestSettings = field(default_factory=IngestSettings)
