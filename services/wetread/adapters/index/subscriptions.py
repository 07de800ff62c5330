"""Webhook receivers as rows."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Row, delete, insert, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import subscriptions
from wetread.core.errors import NotFound
from wetread.core.events import EventType
from wetread.core.ports import Deliveries, Subscription, Transaction


class SqlSubscriptions:
    """``Subscriptions`` on the index database."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def put(self, tx: Transaction, subscription: Subscription) -> None:
        connection = connection_of(tx)
        connection.execute(_where(delete(subscriptions), subscription.tenant, subscription.id))
        connection.execute(
            insert(subscriptions).values(
                tenant=subscription.tenant,
                id=subscription.id,
                url=subscription.url,
                types_json=orjson.dumps([str(name) for name in subscription.types]).decode(),
                secrets_json=orjson.dumps(list(subscription.secrets)).decode(),
                include_patient=subscription.include_patient,
                active=subscription.active,
                created_at=subscription.created_at,
            )
        )

    def get(self, tx: Transaction, tenant: str, subscription_id: str) -> Subscription:
        row = connection_of(tx).execute(_where(select(subscriptions), tenant, subscription_id)).first()
        if row is None:
            msg = "no such subscription"
            raise NotFound(msg)
        return subscription_of(row)

    def of_tenant(self, tx: Transaction, tenant: str) -> list[Subscription]:
        query = select(subscriptions).where(subscriptions.c.tenant == tenant)
        rows = connection_of(tx).execute(query.order_by(subscriptions.c.created_at, subscriptions.c.id))
        return [subscription_of(row) for row in rows]

    def delete(self, tx: Transaction, tenant: str, subscription_id: str, *, now: float) -> None:
        gone = connection_of(tx).execute(_where(delete(subscriptions), tenant, subscription_id))
        if gone.rowcount == 0:
            msg = "no such subscription"
            raise NotFound(msg)
        self._deliveries.abandon(tx, tenant, subscription_id, now=now, error="subscription deleted")


def subscription_of(row: Row[Any]) -> Subscription:
    """Return the value of a row of ``subscriptions``."""
    return Subscription(
        tenant=row.tenant,
        id=row.id,
        url=row.url,
        types=tuple(EventType(name) for name in orjson.loads(row.types_json)),
        secrets=tuple(orjson.loads(row.secrets_json)),
        include_patient=row.include_patient,
        active=row.active,
        created_at=row.created_at,
    )


def _where(statement: Any, tenant: str, subscription_id: str) -> Any:
    return statement.where(subscriptions.c.tenant == tenant, subscriptions.c.id == subscription_id)
