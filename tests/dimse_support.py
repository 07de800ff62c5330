"""A DIMSE edge on a free port over the parts of a gateway, and dcmtk's tools as peers."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gateway_support import CODECS, Parts
from tests.gateway_support import build as build_gateway

from wetread.adapters.index.dicom_sends import SqlResultSends
from wetread.adapters.index.usage import SqlUsageMeter
from wetread.bootstrap.house import SystemClock
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE
from wetread.core.events import Event
from wetread.core.ports.access import Access
from wetread.core.tenants import Tenants
from wetread.dimse.ports import DimsePorts
from wetread.dimse.service import Edge
from wetread.dimse.settings import DimseSettings
from wetread.gateway.intake import GroupIntake
from wetread.gateway.settings import GatewaySettings


@dataclass
class Counts:
    """The meter of a test."""

    associations: Counter[str] = field(default_factory=Counter)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    sends: Counter[tuple[str, str]] = field(default_factory=Counter)
    limits: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    ends: dict[str, float] = field(default_factory=dict)

    def association(self, outcome: str) -> None:
        self.associations[outcome] += 1

    def request(self, service: str, status: int, _seconds: float) -> None:
        self.requests[service, status] += 1

    def received(self, size: int) -> None:
        self.bytes += size

    def limited(self, limit: str) -> None:
        self.limits[limit] += 1

    def sent(self, purpose: str, outcome: str) -> None:
        self.sends[purpose, outcome] += 1

    def certificates(self, ends: Mapping[str, float]) -> None:
        self.ends |= ends


class Events:
    """An event log that holds what a test puts in."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def after(self, _tx: Any, tenant: str, cursor: int, *, limit: int = 100, types: Any = None) -> list[Event]:
        found = [e for e in self.events if e.tenant == tenant and e.cursor > cursor and (not types or e.type in types)]
        return found[:limit]

    def latest(self, _tx: Any) -> int:
        return max((event.cursor for event in self.events), default=0)


class Accesses:
    """An access log that keeps what it is told."""

    def __init__(self) -> None:
        self.noted: list[Access] = []

    def note(self, access: Access, *, at: float, request_id: str = "") -> None:
        assert at > 0
        assert not request_id
        self.noted.append(access)


@dataclass
class Running:
    """One edge and its insides."""

    edge: Edge
    parts: Parts
    meter: Counts
    events: Events

    @property
    def port(self) -> int:
        assert self.edge.server is not None
        return self.edge.server.port

    def dcmtk(self, tool: str, *arguments: str | Path, calling: str = "CT1", called: str = "WETREAD") -> Any:
        """Run one of dcmtk's SCUs against the edge."""
        command = [tool, "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(self.port), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def ports(parts: Parts, meter: Counts, events: Events, tenants: Tenants | None = None) -> DimsePorts:
    return DimsePorts(
        database=parts.database,
        durable=parts.database,
        archive=parts.archive,
        objects=parts.objects,
        intake=GroupIntake(parts.database, parts.archive, parts.objects, parts.ingest),
        events=events,
        sends=SqlResultSends(),
        access=Accesses(),
        decompress=lambda stored: CODECS.transcode(stored, EXPLICIT_LE),
        clock=SystemClock(),
        meter=meter,
        tenants=tenants or Tenants(),
        usage=SqlUsageMeter(),
    )


@contextmanager
def edge(
    folder: Path, *, tenants: Tenants | None = None, gateway: GatewaySettings | None = None, **changes: Any
) -> Iterator[Running]:
    """Yield a listening edge; keyword arguments are settings."""
    parts = build_gateway(folder, settings=gateway)
    meter, events = Counts(), Events()
    settings = DimseSettings(port=0, scratch=folder / "scratch", drain_seconds=2.0, **changes)
    running = Edge(ports(parts, meter, events, tenants), settings)
    try:
        running.open()
        yield Running(running, parts, meter, events)
    finally:
        running.close()
        parts.objects.close()
        parts.database.close()


def write_peers(path: Path, *peers: Sequence[str]) -> Path:
    """Write a peers file of flow mappings."""
    path.write_text("peers:\n" + "".join(f"  - {{{', '.join(peer)}}}\n" for peer in peers), encoding="utf-8")
    return path
