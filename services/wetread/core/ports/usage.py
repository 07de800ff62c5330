"""What tenants use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wetread.core.ports.database import Transaction


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant has stored."""

    instances: int
    stored_bytes: int


class UsageMeter(Protocol):
    """Measures what a tenant uses."""

    def usage(self, tx: Transaction, tenant: str) -> Usage:
        """Return what is indexed for *tenant* now."""
