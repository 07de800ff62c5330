"""Dead records whose bytes may go: found by age, never while an instance is indexed from them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, select, tuple_, union

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import dead_records, erased_records, instances, tombstones
from wetread.adapters.index.upsert import insert_row
from wetread.core.ports.database import Transaction


class SqlErasures:
    """The part of the archive that looks after dead records."""

    def erasable(self, tx: Transaction, *, until: float, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return (tenant, locator) of records to erase, in that order."""
        connection: Connection = connection_of(tx)
        dead = union(
            select(dead_records.c.tenant, dead_records.c.locator, dead_records.c.sop_uid).where(
                dead_records.c.dead_at < until
            ),
            select(tombstones.c.tenant, tombstones.c.locator, tombstones.c.sop_uid).where(
                tombstones.c.removed_at < until
            ),
        ).subquery()
        gone = exists().where(erased_records.c.tenant == dead.c.tenant, erased_records.c.locator == dead.c.locator)
        live = exists().where(
            instances.c.tenant == dead.c.tenant,
            instances.c.sop_uid == dead.c.sop_uid,
            instances.c.locator == dead.c.locator,
        )
        query = (
            select(dead.c.tenant, dead.c.locator)
            .where(tuple_(dead.c.tenant, dead.c.locator) > tuple_(*after), ~gone, ~live)
            .order_by(dead.c.tenant, dead.c.locator)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in connection.execute(query)]

    def erased(self, tx: Transaction, records: Sequence[tuple[str, str]], *, at: float) -> None:
        """Note what is gone."""
        for tenant, locator in records:
            insert_row(connection_of(tx), erased_records, {"tenant": tenant, "locator": locator, "erased_at": at})
