"""Results on their way to DICOM destinations: which study goes where, how often it was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from wetread.core.ports.database import Transaction


class SendState(StrEnum):
    """State of one result on its way to one destination."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class ResultSend:
    """The series of one result for one destination (its AE title). ``due_at``: Unix seconds of the next attempt."""

    tenant: str
    destination: str
    event_id: str
    study_uid: str
    series_uids: tuple[str, ...]
    state: SendState
    attempts: int
    due_at: float
    last_error: str
    updated_at: float


class ResultSends(Protocol):
    """Rows of (tenant, destination, event), and how far each destination has read the events."""

    def cursor(self, tx: Transaction, tenant: str, destination: str) -> int | None:
        """Return the cursor of the last event that was looked at for a destination; None for a new one."""

    def move(self, tx: Transaction, tenant: str, destination: str, cursor: int) -> None:
        """Remember the cursor, in the transaction that opens what was found up to it."""

    def open(self, tx: Transaction, send: ResultSend) -> None:
        """Insert a send; one that is known stays as it is."""

    def due(self, tx: Transaction, tenant: str, destination: str, *, now: float, limit: int) -> Sequence[ResultSend]:
        """Return pending sends whose time has come, oldest first."""

    def record(self, tx: Transaction, send: ResultSend) -> None:
        """Write the outcome of an attempt."""
