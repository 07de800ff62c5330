"""Workitems on SQL: our own tasks (`WorkitemRepository`) and the UPS-RS service (`UpsRepository`) share one table.

Every change of a workitem goes through ``insert``, ``claim`` or ``save``, and those write the UPS events of the
change in the same transaction: a state can never change without its subscribers hearing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import delete, exists, insert, select, update

from wetread.adapters.index import workitems_events, workitems_search, workitems_subscriptions
from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import ups_subscriptions, workitem_tombstones, workitems
from wetread.adapters.index.upsert import insert_row
from wetread.adapters.index.workitems_rows import columns, read_row
from wetread.core.errors import Gone, NotFound, Unavailable
from wetread.core.identifiers import random_uid
from wetread.core.ports.database import Clock, Transaction
from wetread.core.ports.ups import Performer, QueuedEvent, SearchPage, UpsRow
from wetread.core.ports.workitems import Workitem
from wetread.core.ups import INCONSISTENT_STATE, UpsState, UpsStatus, check_update, refuse, transaction_hash
from wetread.core.ups import Lock as UidLock
from wetread.core.ups_attributes import STATE, created, discontinued, in_state, missing_for, performed_by_us, updated
from wetread.core.ups_dataset import element, merged
from wetread.core.ups_events import UpsEvent, changes
from wetread.core.ups_matching import Key

_OWN_WORKLIST: Final = "wetread"
_table = workitems.c


class SqlWorkitems:
    """Implements `UpsRepository`. ``worklist_label``: (0074,1202) of our own tasks that bring none."""

    def __init__(self, clock: Clock, *, worklist_label: str = _OWN_WORKLIST) -> None:
        self._clock = clock
        self._worklist_label = worklist_label

    # --- workitems of our own tasks --------------------------------------------------------------------------------

    def schedule(self, tx: Transaction, tenant: str, uid: str, dataset: Mapping[str, Any]) -> bool:
        """Create in state SCHEDULED; False: it already exists. Raises InvalidInput on missing attributes."""
        scheduled = merged(dataset, {STATE: element("CS", UpsState.SCHEDULED)})
        complete, _ = created(scheduled, uid, self._clock.now(), self._worklist_label)
        return self.insert(tx, tenant, uid, complete, ours=True)

    def start(self, tx: Transaction, tenant: str, uid: str) -> None:
        """Claim for our own performer; repeating is harmless.

        Raises WorkitemStateError: somebody else holds the claim (C302) or it has ended, for example was cancelled
        while it waited (C300): the task must not run.
        """
        row = self.load(tx, tenant, uid)
        if row.performer is Performer.OURS and not row.state.final:
            return
        # Nobody ever knows this Transaction UID, so nobody else can update or end the workitem.
        lock = transaction_hash(tenant, uid, random_uid())
        if self.claim(tx, row, lock, Performer.OURS) is None:
            ended = self.load(tx, tenant, uid).state.final
            status = UpsStatus.MAY_NO_LONGER_BE_UPDATED if ended else UpsStatus.ALREADY_IN_PROGRESS
            raise refuse(status, INCONSISTENT_STATE)

    def update(self, tx: Transaction, tenant: str, uid: str, attributes: Mapping[str, Any]) -> None:
        """Replace top-level attributes. Raises WorkitemStateError (C300) once the workitem has ended."""
        row = self.load(tx, tenant, uid)
        check_update(row.state, UidLock.MISSING if row.state is UpsState.SCHEDULED else UidLock.RIGHT)
        dataset, _ = updated(row.dataset, attributes, self._clock.now())
        self.save(tx, row, dataset)

    def finish(self, tx: Transaction, tenant: str, uid: str, *, completed: bool, attributes: Mapping[str, Any]) -> None:
        """End in COMPLETED or CANCELED; what the final state needs beyond *attributes* is filled in.

        A workitem that has ended stays as it is.
        """
        row = self.load(tx, tenant, uid)
        if row.state.final:
            return
        if row.state is UpsState.SCHEDULED:
            claimed = self.claim(tx, row, transaction_hash(tenant, uid, random_uid()), Performer.OURS)
            row = claimed or self.load(tx, tenant, uid)
        now = self._clock.now()
        state = UpsState.COMPLETED if completed else UpsState.CANCELED
        dataset, _ = updated(row.dataset, attributes, now)
        if completed:
            dataset = performed_by_us(dataset, row.claimed_at or now, now)
        elif missing_for(dataset, state):
            dataset = discontinued(dataset, {})
        self.save(tx, row, in_state(dataset, state, now))

    def get(self, tx: Transaction, tenant: str, uid: str) -> Workitem:
        """Return a workitem. Raises NotFound."""
        row = self.load(tx, tenant, uid)
        return Workitem(tenant, uid, row.state, row.dataset, row.updated_at)

    # --- any workitem ----------------------------------------------------------------------------------------------

    def insert(self, tx: Transaction, tenant: str, uid: str, dataset: Mapping[str, Any], *, ours: bool) -> bool:
        """Create a SCHEDULED workitem; False: the UID is or was taken."""
        connection = connection_of(tx)
        now = self._clock.now()
        removed = select(workitem_tombstones).where(
            workitem_tombstones.c.tenant == tenant, workitem_tombstones.c.uid == uid
        )
        if connection.execute(removed).first() is not None:
            return False
        row = {"tenant": tenant, "uid": uid, "ours": ours, "created_at": now, "updated_at": now, **columns(dataset)}
        if not insert_row(connection, workitems, row):
            return False
        workitems_subscriptions.on_created(connection, tenant, uid, dataset, now)
        return True

    def load(self, tx: Transaction, tenant: str, uid: str) -> UpsRow:
        """Return a workitem. Raises NotFound or Gone, both with C307."""
        connection = connection_of(tx)
        row = connection.execute(select(workitems).where(_table.tenant == tenant, _table.uid == uid)).first()
        if row is not None:
            return read_row(row)
        tombstone = connection.execute(
            select(workitem_tombstones).where(workitem_tombstones.c.tenant == tenant, workitem_tombstones.c.uid == uid)
        ).first()
        if tombstone is not None:
            msg = "the workitem was removed after it had ended"
            raise Gone(msg, dicom_status=UpsStatus.NO_SUCH_INSTANCE)
        msg = "no such workitem"
        raise NotFound(msg, dicom_status=UpsStatus.NO_SUCH_INSTANCE)

    def claim(self, tx: Transaction, row: UpsRow, transaction_hash: str, performer: Performer) -> UpsRow | None:
        """SCHEDULED -> IN PROGRESS in one conditional UPDATE: of any number of claimers exactly one wins."""
        now = self._clock.now()
        dataset = in_state(row.dataset, UpsState.IN_PROGRESS, now)
        claimed = replace(
            row,
            state=UpsState.IN_PROGRESS,
            dataset=dataset,
            transaction_hash=transaction_hash,
            performer=performer,
            claimed_at=now,
            updated_at=now,
        )
        won = connection_of(tx).execute(
            update(workitems)
            .where(_table.tenant == row.tenant, _table.uid == row.uid, _table.state == UpsState.SCHEDULED)
            .values(
                transaction_hash=transaction_hash,
                performer=performer,
                claimed_at=now,
                updated_at=now,
                **columns(dataset),
            )
        )
        if won.rowcount != 1:
            return None
        self._announce(tx, row, dataset)
        return claimed

    def save(self, tx: Transaction, row: UpsRow, dataset: Mapping[str, Any]) -> None:
        """Write *dataset* over the version in *row*. Raises Unavailable when that is no longer the current one."""
        written = connection_of(tx).execute(
            update(workitems)
            .where(_table.tenant == row.tenant, _table.uid == row.uid)
            .where(_table.state == row.state, _table.updated_at == row.updated_at)
            .values(updated_at=self._clock.now(), flagged_at=None, **columns(dataset))
        )
        if written.rowcount != 1:
            msg = "the workitem changed at the same moment"
            raise Unavailable(msg)
        self._announce(tx, row, dataset)

    def _announce(self, tx: Transaction, row: UpsRow, dataset: Mapping[str, Any]) -> None:
        connection = connection_of(tx)
        now = self._clock.now()
        subscribed = workitems_subscriptions.subscribers(connection, row.tenant, row.uid)
        caused = changes(row.dataset, dataset)
        workitems_events.queue(connection, row.tenant, row.uid, subscribed, caused, now)
        workitems_subscriptions.on_changed(connection, row.tenant, row.uid, dataset, subscribed, now)

    def tell(self, tx: Transaction, tenant: str, uid: str, event: UpsEvent) -> int:
        """Queue an event for all subscribers of a workitem; return to how many."""
        connection = connection_of(tx)
        subscribed = workitems_subscriptions.subscribers(connection, tenant, uid)
        return workitems_events.queue(connection, tenant, uid, subscribed, [event], self._clock.now())

    def search(
        self, tx: Transaction, tenant: str, keys: Sequence[Key], *, limit: int, offset: int, count_to: int
    ) -> SearchPage:
        """Return one page of matching workitems in reading order."""
        return workitems_search.search(connection_of(tx), tenant, keys, limit=limit, offset=offset, count_to=count_to)

    # --- subscriptions and events ----------------------------------------------------------------------------------

    def subscribe(self, tx: Transaction, tenant: str, uid: str, aet: str, *, lock: bool, keys: Sequence[Key]) -> None:
        """Subscribe (PS3.4 table CC.2.3-2). Raises NotFound or Gone for an unknown workitem."""
        if uid not in workitems_subscriptions.WORKLISTS:
            self.load(tx, tenant, uid)
        workitems_subscriptions.subscribe(
            connection_of(tx), tenant, uid, aet, lock=lock, keys=keys, now=self._clock.now()
        )

    def unsubscribe(self, tx: Transaction, tenant: str, uid: str, aet: str) -> None:
        """End a subscription. Raises NotFound or Gone for an unknown workitem."""
        if uid not in workitems_subscriptions.WORKLISTS:
            self.load(tx, tenant, uid)
        workitems_subscriptions.unsubscribe(connection_of(tx), tenant, uid, aet)

    def suspend(self, tx: Transaction, tenant: str, uid: str, aet: str) -> None:
        """Stop subscribing an AE to new workitems."""
        workitems_subscriptions.suspend(connection_of(tx), tenant, uid, aet)

    def subscribers(self, tx: Transaction, tenant: str, uid: str) -> dict[str, bool]:
        """Return AE title -> deletion lock."""
        return workitems_subscriptions.subscribers(connection_of(tx), tenant, uid)

    def announce(self, tx: Transaction, event: UpsEvent) -> int:
        """Queue an event of the provider itself for everybody."""
        connection = connection_of(tx)
        told = 0
        for tenant, aet in sorted(workitems_subscriptions.everybody(connection)):
            told += workitems_events.queue(connection, tenant, "", [aet], [event], self._clock.now())
        return told

    def events_after(
        self, tx: Transaction, tenant: str, aet: str, cursor: int, *, limit: int, not_before: float
    ) -> list[QueuedEvent]:
        """Return an AE's events after *cursor*."""
        return workitems_events.after(connection_of(tx), tenant, aet, cursor, limit=limit, not_before=not_before)

    def new_for(self, tx: Transaction, cursor: int) -> tuple[int, set[tuple[str, str]]]:
        """Return the newest cursor and who has events after *cursor*."""
        return workitems_events.new_for(connection_of(tx), cursor)

    def delivered_up_to(self, tx: Transaction, tenant: str, aet: str) -> int:
        """Return the delivery cursor of an AE."""
        return workitems_events.delivered_up_to(connection_of(tx), tenant, aet)

    def mark_delivered(self, tx: Transaction, tenant: str, aet: str, cursor: int) -> None:
        """Move the delivery cursor of an AE forward."""
        workitems_events.mark_delivered(connection_of(tx), tenant, aet, cursor)

    # --- housekeeping ----------------------------------------------------------------------------------------------

    def flag_silent(self, tx: Transaction, before: float) -> list[tuple[str, str]]:
        """Flag and return the claimed workitems of external performers that were not updated since *before*."""
        connection = connection_of(tx)
        silent = (
            _table.state == UpsState.IN_PROGRESS,
            _table.performer == Performer.EXTERNAL,
            _table.updated_at < before,
            _table.flagged_at.is_(None),
        )
        found = connection.execute(select(_table.tenant, _table.uid).where(*silent).order_by(_table.updated_at)).all()
        connection.execute(update(workitems).where(*silent).values(flagged_at=self._clock.now()))
        return [(row.tenant, row.uid) for row in found]

    def prune(self, tx: Transaction, *, finished_before: float, locked_after: float, events_before: float) -> int:
        """Remove old finished workitems; a deletion lock set after *locked_after* keeps its workitem."""
        connection = connection_of(tx)
        locked = exists().where(
            ups_subscriptions.c.tenant == _table.tenant,
            ups_subscriptions.c.workitem_uid == _table.uid,
            ups_subscriptions.c.deletion_lock,
            ups_subscriptions.c.created_at >= locked_after,
        )
        old = connection.execute(
            select(_table.tenant, _table.uid).where(
                _table.state.in_([UpsState.COMPLETED, UpsState.CANCELED]), _table.updated_at < finished_before, ~locked
            )
        ).all()
        for row in old:
            tombstone = {"tenant": row.tenant, "uid": row.uid, "removed_at": self._clock.now()}
            connection.execute(insert(workitem_tombstones).values(tombstone))
            connection.execute(delete(workitems).where(_table.tenant == row.tenant, _table.uid == row.uid))
            connection.execute(
                delete(ups_subscriptions).where(
                    ups_subscriptions.c.tenant == row.tenant, ups_subscriptions.c.workitem_uid == row.uid
                )
            )
        workitems_events.prune(connection, events_before)
        return len(old)
