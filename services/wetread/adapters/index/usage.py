"""What tenants use, counted from the index."""

from __future__ import annotations

from sqlalchemy import func, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import instances
from wetread.core.ports.database import Transaction
from wetread.core.ports.usage import Usage


class SqlUsageMeter:
    """The port on the table of instances."""

    def usage(self, tx: Transaction, tenant: str) -> Usage:
        """Return number and size of a tenant's instances."""
        query = select(func.count(), func.coalesce(func.sum(instances.c.length), 0)).where(instances.c.tenant == tenant)
        count, size = connection_of(tx).execute(query).one()
        return Usage(int(count), int(size))
