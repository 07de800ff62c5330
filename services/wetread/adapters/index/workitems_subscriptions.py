"""Subscriptions to the UPS worklist: PS3.4 table CC.2.3-2 as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, insert, select, update

from wetread.adapters.index import workitems_events
from wetread.adapters.index.tables import ups_subscriptions, workitems
from wetread.core.ups import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION
from wetread.core.ups_events import creation, state_report
from wetread.core.ups_matching import Key, matches

WORKLISTS = (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION)
_table = ups_subscriptions.c


def subscribers(connection: Connection, tenant: str, uid: str) -> dict[str, bool]:
    """Return AE title -> deletion lock of one workitem."""
    rows = connection.execute(
        select(_table.aet, _table.deletion_lock).where(_table.tenant == tenant, _table.workitem_uid == uid)
    )
    return {row.aet: row.deletion_lock for row in rows}


def everybody(connection: Connection) -> set[tuple[str, str]]:
    """Return every (tenant, AE title) with any subscription."""
    return {(row.tenant, row.aet) for row in connection.execute(select(_table.tenant, _table.aet).distinct())}


def subscribe(
    connection: Connection, tenant: str, uid: str, aet: str, *, lock: bool, keys: Sequence[Key], now: float
) -> None:
    """Set a subscription and send the initial events that the table asks for.

    Specific: always one. Global or filtered with lock: one per workitem that was not subscribed to. Without: none.
    """
    _put(connection, tenant, uid, aet, lock=lock, keys=keys, now=now)
    if uid not in WORKLISTS:
        row = connection.execute(
            select(workitems.c.dataset_json).where(workitems.c.tenant == tenant, workitems.c.uid == uid)
        ).one()
        event = state_report(orjson.loads(row.dataset_json))
        workitems_events.queue(connection, tenant, uid, [aet], [event], now)
        return
    mine = select(_table.workitem_uid).where(_table.tenant == tenant, _table.aet == aet)
    unsubscribed = connection.execute(
        select(workitems.c.uid, workitems.c.dataset_json)
        .where(workitems.c.tenant == tenant, workitems.c.uid.not_in(mine))
        .order_by(workitems.c.created_at, workitems.c.uid)
    ).all()
    for row in unsubscribed:
        dataset = orjson.loads(row.dataset_json)
        if matches(dataset, keys):
            _add(connection, tenant, row.uid, [(aet, uid, lock)], now)
            if lock:
                workitems_events.queue(connection, tenant, row.uid, [aet], [state_report(dataset)], now)


def unsubscribe(connection: Connection, tenant: str, uid: str, aet: str) -> None:
    """End a subscription. Global: all of the AE's. Filtered: the filter and what came through it."""
    scope = delete(ups_subscriptions).where(_table.tenant == tenant, _table.aet == aet)
    if uid == FILTERED_SUBSCRIPTION:
        scope = scope.where(_table.origin == FILTERED_SUBSCRIPTION)
    elif uid != GLOBAL_SUBSCRIPTION:
        scope = scope.where(_table.workitem_uid == uid)
    connection.execute(scope)


def suspend(connection: Connection, tenant: str, uid: str, aet: str) -> None:
    """Stop subscribing an AE to new workitems."""
    connection.execute(
        delete(ups_subscriptions).where(_table.tenant == tenant, _table.aet == aet, _table.workitem_uid == uid)
    )


def on_created(connection: Connection, tenant: str, uid: str, dataset: Mapping[str, Any], now: float) -> None:
    """Subscribe the AEs with a matching worklist subscription to a new workitem and tell them (CC.2.4.3)."""
    joined = _joining(connection, tenant, dataset, known=())
    _add(connection, tenant, uid, [(aet, origin, lock) for aet, (origin, lock) in joined.items()], now)
    workitems_events.queue(connection, tenant, uid, joined, creation(dataset), now)


def on_changed(
    connection: Connection, tenant: str, uid: str, dataset: Mapping[str, Any], known: Iterable[str], now: float
) -> None:
    """Subscribe the AEs whose filter a changed workitem now matches, and tell them its state. *known*: subscribers."""
    joined = _joining(connection, tenant, dataset, known=known, only=FILTERED_SUBSCRIPTION)
    _add(connection, tenant, uid, [(aet, origin, lock) for aet, (origin, lock) in joined.items()], now)
    workitems_events.queue(connection, tenant, uid, joined, [state_report(dataset)], now)


def _joining(
    connection: Connection, tenant: str, dataset: Mapping[str, Any], *, known: Iterable[str], only: str | None = None
) -> dict[str, tuple[str, bool]]:
    rows = connection.execute(
        select(_table.aet, _table.workitem_uid, _table.deletion_lock, _table.filter_json)
        .where(_table.tenant == tenant, _table.workitem_uid.in_([only] if only else WORKLISTS))
        .order_by(_table.workitem_uid)  # the global subscription comes first and wins
    )
    joined: dict[str, tuple[str, bool]] = {}
    for row in rows:
        if row.aet not in known and row.aet not in joined and matches(dataset, _keys(row.filter_json)):
            joined[row.aet] = (row.workitem_uid, row.deletion_lock)
    return joined


def _put(
    connection: Connection, tenant: str, uid: str, aet: str, *, lock: bool, keys: Sequence[Key], now: float
) -> None:
    values = {
        "origin": uid,
        "deletion_lock": lock,
        "filter_json": orjson.dumps([[key.path, key.vr, key.value] for key in keys]).decode(),
        "created_at": now,
    }
    changed = connection.execute(
        update(ups_subscriptions)
        .where(_table.tenant == tenant, _table.aet == aet, _table.workitem_uid == uid)
        .values(values)
    )
    if changed.rowcount == 0:
        connection.execute(insert(ups_subscriptions).values(tenant=tenant, aet=aet, workitem_uid=uid, **values))


def _add(connection: Connection, tenant: str, uid: str, rows: Sequence[tuple[str, str, bool]], now: float) -> None:
    if rows:
        connection.execute(
            insert(ups_subscriptions),
            [
                {"tenant": tenant, "aet": aet, "workitem_uid": uid, "origin": origin, "deletion_lock": lock,
                 "filter_json": "[]", "created_at": now}
                for aet, origin, lock in rows
            ],
        )  # fmt: skip


def _keys(filter_json: str) -> list[Key]:
    return [Key(tuple(path), vr, value) for path, vr, value in orjson.loads(filter_json)]
