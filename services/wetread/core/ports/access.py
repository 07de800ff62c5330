"""Who calls, and the audit trail of what they did."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wetread.core.access import Caller
from wetread.core.ports.database import Transaction


class Authenticator(Protocol):
    """Credentials become callers: the only source of the tenant."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller of an ``Authorization`` value. Raises NotAuthenticated, Unavailable."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who did what to which study, with which outcome: no patient data, no query values.

    ``tenant``: empty when nobody could be recognised. ``action``: method and route, or DIMSE service.
    ``study_uid``: of a study or workitem, empty when there is none. ``outcome``: HTTP or DIMSE status.
    """

    tenant: str
    actor: str
    action: str
    study_uid: str
    outcome: str
    address: str


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """``count`` equal accesses between ``at`` and ``until`` (Unix seconds); ``request_id`` of the first.

    ``digest`` is over this entry and the digest of the tenant's entry before it.
    """

    number: int
    access: Access
    at: float
    until: float
    count: int
    request_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """Which entries: ``after`` a number, of a time span [since, until), of a study, by an actor. None: any."""

    after: int = 0
    since: float | None = None
    until: float | None = None
    study_uid: str | None = None
    actor: str | None = None


class AccessLog(Protocol):
    """Takes note of accesses, off the path of the request."""

    def note(self, access: Access, *, at: float, request_id: str = "") -> None:
        """Take note. Never blocks, never raises; durable within the flush interval."""


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of a chain: ``digest`` is SHA-256 of the digest of the tenant's entry before it, and of ``told``."""

    number: int
    tenant: str
    told: bytes
    digest: str

    def follows(self, before: str) -> bool:
        """Whether this entry comes after the one with the digest *before* (empty for the first), and says so still."""
        return chained(before, self.told) == self.digest


def chained(before: str, told: bytes) -> str:
    """Return the digest of an entry that tells *told* after the one with the digest *before* (empty for the first)."""
    return hashlib.sha256(before.encode() + told).hexdigest()


class Chain(Protocol):
    """Append-only entries, each tenant's chained by digests."""

    def audit_links(self, tx: Transaction, after: int, *, limit: int) -> Sequence[Link]:
        """Return the entries of all tenants behind a number, oldest first."""


class AccessTrail(Chain, Protocol):
    """The stored accesses: append-only, each tenant's chained by digests."""

    def append(self, tx: Transaction, entries: Sequence[AccessEntry]) -> None:
        """Append; ``number`` and ``digest`` are given here."""

    def entries(self, tx: Transaction, tenant: str | None, wanted: AccessFilter, *, limit: int) -> list[AccessEntry]:
        """Return entries, oldest first; of all tenants when *tenant* is None."""

    def expire(self, tx: Transaction, before: float, *, limit: int) -> int:
        """Forget entries whose end is before a time, oldest first; return how many."""
