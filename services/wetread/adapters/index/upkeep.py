"""What is looked after once for a whole deployment, whichever of its processes comes first."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import upkeep
from wetread.adapters.index.upsert import replace_row
from wetread.core.ports.database import Transaction

AUDIT_CHAIN: Final = "audit-chain"
BACKUP: Final = "backup"


class SqlUpkeep:
    """One row per name: when it was begun last, when it ended last, and how many faults it found then."""

    def begin(self, tx: Transaction, name: str, *, now: float, every_seconds: float) -> bool:
        """Return whether it is due, and take it on; others are told False until it is due again."""
        connection = connection_of(tx)
        begun = connection.execute(select(upkeep.c.begun_at).where(upkeep.c.name == name)).scalar()
        if begun is not None and now - begun < every_seconds:
            return False
        replace_row(connection, upkeep, {"name": name, "begun_at": now})
        return True

    def end(self, tx: Transaction, name: str, *, begun: float, ended: float, faults: int = 0) -> None:
        """Note that it was done."""
        row = {"name": name, "begun_at": begun, "ended_at": ended, "faults": faults}
        replace_row(connection_of(tx), upkeep, row)
