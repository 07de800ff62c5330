"""What the DIMSE edge needs from the outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wetread.core.ports.access import AccessLog
from wetread.core.ports.archive import Archive
from wetread.core.ports.database import Clock, Database
from wetread.core.ports.events import EventLog
from wetread.core.ports.ingest import Intake
from wetread.core.ports.objects import ObjectStore
from wetread.core.ports.sends import ResultSends
from wetread.core.ports.usage import UsageMeter
from wetread.core.tenants import Tenants


class Meter(Protocol):
    """What is counted. Labels are names of services and outcomes: never a title, an address or a UID."""

    def association(self, outcome: str) -> None:
        """Count an association or a refused connection."""

    def request(self, service: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""

    def received(self, size: int) -> None:
        """Count the bytes of a stored instance."""

    def limited(self, limit: str) -> None:
        """Count what was refused for a limit: associations, rate, size, storage."""

    def sent(self, purpose: str, outcome: str) -> None:
        """Count an instance that we sent."""

    def certificates(self, ends: Mapping[str, float]) -> None:
        """Say when the certificates in use end, Unix seconds by file: certificate, authorities."""


@dataclass(frozen=True, slots=True)
class DimsePorts:
    """``database``: of the index. ``decompress``: a PS3.10 file as Explicit VR Little Endian, raises NotProcessable.

    ``durable``: the database with synced commits, for what cannot be rebuilt from stored instances. ``tenants``: what
    each may use; ``usage``: measures those with a storage quota (None: there are no quotas).
    """

    database: Database
    durable: Database
    archive: Archive
    objects: ObjectStore
    intake: Intake
    events: EventLog
    sends: ResultSends
    access: AccessLog
    decompress: Callable[[bytes], bytes]
    clock: Clock
    meter: Meter
    tenants: Tenants = field(default_factory=Tenants)
    usage: UsageMeter | None = None
