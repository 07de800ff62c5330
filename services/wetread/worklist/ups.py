"""The UPS worklist service: the transactions of PS3.18 chapter 11 as calls, without HTTP.

Each call is one database transaction: workitem, events and whatever the hooks change commit together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wetread.core.errors import Conflict, InvalidInput
from wetread.core.identifiers import check_uid, random_uid
from wetread.core.ports.database import Clock, Database, Transaction
from wetread.core.ports.ups import Performer, SearchPage, UpsRepository, UpsRow
from wetread.core.ups import (
    DECLINES,
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    INCONSISTENT_STATE,
    NOT_CONTACTED,
    Lock,
    UpsState,
    UpsStatus,
    change_state,
    check_update,
    refuse,
    request_cancel,
    same_lock,
    transaction_hash,
)
from wetread.core.ups_attributes import SOP_INSTANCE, STATE, created, discontinued, in_state, missing_for, updated
from wetread.core.ups_dataset import TRANSACTION_UID, read_dataset, text
from wetread.core.ups_events import ScpStatus, cancel_requested, scp_status
from wetread.core.ups_matching import Key

WORKLISTS = frozenset({GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION})


@dataclass(frozen=True, slots=True)
class UpsSettings:
    """Policy of the worklist. Times in seconds; each value is described in docs/ups.md."""

    public_base_url: str | None = None
    """Absolute URL in front of ``/dicom-web``; None: what the request says."""
    ae_title: str = "WETREAD"
    """(0074,1236) of cancel requests whose credential has no AE title of its own."""
    worklist_label: str = "wetread"
    lease_s: float = 900.0
    """An external performer that sends nothing for so long is flagged."""
    event_retention_s: float = 3600.0
    finished_retention_s: float = 30 * 86400.0
    deletion_locks: bool = True
    deletion_lock_s: float = 30 * 86400.0
    search_limit: int = 5000
    search_count_to: int = 100
    """A search that cannot be counted by the database counts at most so many matches beyond its page."""
    max_body_bytes: int = 16 * 2**20
    strict_negotiation: bool = False
    """A request without ``Accept`` is refused (PS3.18 8.7.5)."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins of web pages, other than our own, that may open the event channel."""
    poll_s: float = 0.1
    send_timeout_s: float = 10.0
    """A subscriber that does not take a message for so long is closed with 1013."""


def _decline(_tx: Transaction, _tenant: str, _uid: str) -> bool:
    return False


def _ignore(_tx: Transaction, _tenant: str, _uid: str, _state: UpsState) -> None:
    return None


@dataclass(frozen=True, slots=True)
class UpsHooks:
    """What other services do in the transaction of a change; an exception refuses the change.

    ``on_cancel_requested(tx, tenant, uid)``: somebody asks to cancel a running task of ours. True: it will stop and
    finish the workitem itself; False: it declines (C313), as does a service that was given no hook.
    ``on_state_changed(tx, tenant, uid, state)``: an outside request changed the state of a workitem that our
    orchestration scheduled (claimed, completed, cancelled).
    """

    on_cancel_requested: Callable[[Transaction, str, str], bool] = _decline
    on_state_changed: Callable[[Transaction, str, str, UpsState], None] = _ignore


@dataclass(frozen=True, slots=True)
class Outcome:
    """Success, with the warnings of the standard that come with it; ``uid`` where one was created."""

    uid: str = ""
    warnings: tuple[UpsStatus, ...] = field(default=())


class UpsService:
    """Create, search, retrieve, update, change state, request cancellation, subscribe; all per tenant."""

    def __init__(
        self, database: Database, repository: UpsRepository, clock: Clock, settings: UpsSettings, hooks: UpsHooks
    ) -> None:
        self.database = database
        self.repository = repository
        self.clock = clock
        self.settings = settings
        self._hooks = hooks

    def create(self, tenant: str, uid: str | None, body: Any) -> Outcome:
        """Create a workitem (RAD-80; PS3.18 11.4). Raises InvalidInput, Conflict (0111)."""
        dataset, dropped = read_dataset(body)
        named = text(dataset, SOP_INSTANCE)
        if uid and named and uid != named:
            msg = "the UID of the request and (0008,0018) of the dataset differ"
            raise InvalidInput(msg, dicom_status=UpsStatus.INVALID_ATTRIBUTE_VALUE)
        uid = check_uid(uid or named or random_uid(), "workitem UID")
        if uid in WORKLISTS:
            msg = "a well-known UID cannot be a workitem"
            raise InvalidInput(msg)
        workitem, modified = created(dataset, uid, self.clock.now(), self.settings.worklist_label)
        with self.database.write() as tx:
            if not self.repository.insert(tx, tenant, uid, workitem, ours=False):
                msg = "a workitem with this UID exists"
                raise Conflict(msg, dicom_status=UpsStatus.DUPLICATE_INSTANCE)
        warnings = [UpsStatus.CREATED_WITH_MODIFICATIONS] if modified or dropped else []
        return Outcome(uid, tuple(warnings))

    def retrieve(self, tenant: str, uid: str) -> Mapping[str, Any]:
        """Return a workitem, never with its Transaction UID (RAD-83; PS3.18 11.5). Raises NotFound, Gone."""
        with self.database.read() as tx:
            return self.repository.load(tx, tenant, check_uid(uid)).dataset

    def search(self, tenant: str, keys: Sequence[Key], *, limit: int | None, offset: int) -> SearchPage:
        """Return matching workitems in reading order (RAD-81; PS3.18 11.9)."""
        most = self.settings.search_limit
        with self.database.read() as tx:
            return self.repository.search(
                tx,
                tenant,
                keys,
                limit=most if limit is None else min(limit, most),
                offset=offset,
                count_to=self.settings.search_count_to,
            )

    def update(self, tenant: str, uid: str, transaction_uid: str | None, body: Any) -> Outcome:
        """Replace attributes (RAD-84; PS3.18 11.6). Raises InvalidInput, WorkitemStateError, NotFound, Gone."""
        changes, dropped = read_dataset(body)
        presented = transaction_uid or text(changes, TRANSACTION_UID)
        with self.database.write() as tx:
            row = self.repository.load(tx, tenant, check_uid(uid))
            check_update(row.state, self._lock(row, presented))
            dataset, modified = updated(row.dataset, changes, self.clock.now())
            self.repository.save(tx, row, dataset)
        warnings = [UpsStatus.UPDATED_WITH_MODIFICATIONS] if modified else []
        return Outcome(warnings=(*warnings, *([UpsStatus.OPTIONAL_NOT_SUPPORTED] if dropped else [])))

    def change_state(self, tenant: str, uid: str, body: Any) -> Outcome:
        """Claim, complete or cancel as the performer (RAD-82, RAD-85; PS3.18 11.7, PS3.4 CC.2.1).

        Raises InvalidInput, WorkitemStateError, NotFound, Gone.
        """
        request, _ = read_dataset(body)
        try:
            wanted = UpsState(text(request, STATE))
        except ValueError:
            msg = "(0074,1000) must be IN PROGRESS, COMPLETED or CANCELED"
            raise InvalidInput(msg, dicom_status=UpsStatus.INVALID_ATTRIBUTE_VALUE) from None
        presented = text(request, TRANSACTION_UID)
        with self.database.write() as tx:
            row = self.repository.load(tx, tenant, check_uid(uid))
            lock = self._lock(row, presented)
            ruling = change_state(row.state, wanted, lock, final_state_met=not missing_for(row.dataset, wanted))
            if ruling.warning:
                return Outcome(warnings=(ruling.warning,))
            if wanted is UpsState.IN_PROGRESS:
                taken = self.repository.claim(tx, row, transaction_hash(tenant, uid, presented), Performer.EXTERNAL)
                if taken is None:
                    # Another claimer won after our read: the same answer as reading its claim (C301 of the loser).
                    change_state(UpsState.IN_PROGRESS, wanted, Lock.WRONG, final_state_met=False)
            else:
                self.repository.save(tx, row, in_state(row.dataset, wanted, self.clock.now()))
            self._tell_owner(tx, row, wanted)
        return Outcome()

    def request_cancel(self, tenant: str, uid: str, body: Any, requesting_aet: str) -> Outcome:
        """Ask for cancellation (RAD-88; PS3.18 11.8, PS3.4 CC.2.2). Raises WorkitemStateError, NotFound, Gone."""
        request = read_dataset(body)[0] if body not in (None, []) else {}
        with self.database.write() as tx:
            row = self.repository.load(tx, tenant, check_uid(uid))
            ruling = request_cancel(row.state)
            if ruling.warning:
                return Outcome(warnings=(ruling.warning,))
            if ruling.path:
                self._cancel_scheduled(tx, row, request)
            else:
                self._ask_performer(tx, row, request, requesting_aet)
        return Outcome()

    def _cancel_scheduled(self, tx: Transaction, row: UpsRow, request: Mapping[str, Any]) -> None:
        # Nobody will ever know this lock: the step passes through IN PROGRESS only because the standard wants both
        # state reports (PS3.4 CC.2.2.3).
        lock = transaction_hash(row.tenant, row.uid, random_uid())
        taken = self.repository.claim(tx, row, lock, Performer.NOBODY)
        if taken is None:
            raise refuse(UpsStatus.ALREADY_IN_PROGRESS, INCONSISTENT_STATE)
        reasoned = discontinued(taken.dataset, request)
        self.repository.save(tx, taken, in_state(reasoned, UpsState.CANCELED, self.clock.now()))
        self._tell_owner(tx, row, UpsState.CANCELED)

    def _ask_performer(self, tx: Transaction, row: UpsRow, request: Mapping[str, Any], requesting_aet: str) -> None:
        told = self.repository.tell(tx, row.tenant, row.uid, cancel_requested(requesting_aet, request))
        if row.performer is Performer.OURS:
            if not self._hooks.on_cancel_requested(tx, row.tenant, row.uid):
                raise refuse(UpsStatus.PERFORMER_DECLINES, DECLINES)
        elif told == 0:
            raise refuse(UpsStatus.PERFORMER_NOT_CONTACTED, NOT_CONTACTED)

    def _tell_owner(self, tx: Transaction, row: UpsRow, state: UpsState) -> None:
        if row.ours:
            self._hooks.on_state_changed(tx, row.tenant, row.uid, state)

    @staticmethod
    def _lock(row: UpsRow, presented: str) -> Lock:
        if not presented:
            return Lock.MISSING
        check_uid(presented, "Transaction UID")
        if row.state is UpsState.SCHEDULED:
            return Lock.RIGHT
        hashed = transaction_hash(row.tenant, row.uid, presented)
        return Lock.RIGHT if same_lock(row.transaction_hash, hashed) else Lock.WRONG

    # --- subscriptions ---------------------------------------------------------------------------------------------

    def subscribe(self, tenant: str, uid: str, aet: str, *, lock: bool, keys: Sequence[Key]) -> Outcome:
        """Subscribe an AE title (RAD-86; PS3.18 11.10). Raises InvalidInput, NotFound, Gone."""
        if bool(keys) != (uid == FILTERED_SUBSCRIPTION):
            msg = "the filtered worklist needs a filter" if not keys else "only the filtered worklist takes a filter"
            raise InvalidInput(msg)
        granted = lock and self.settings.deletion_locks
        with self.database.write() as tx:
            self.repository.subscribe(tx, tenant, check_uid(uid), aet, lock=granted, keys=keys)
        return Outcome(warnings=(UpsStatus.LOCK_NOT_GRANTED,) if lock and not granted else ())

    def unsubscribe(self, tenant: str, uid: str, aet: str) -> None:
        """End a subscription (PS3.18 11.11). Raises NotFound, Gone."""
        with self.database.write() as tx:
            self.repository.unsubscribe(tx, tenant, check_uid(uid), aet)

    def suspend(self, tenant: str, uid: str, aet: str) -> None:
        """Stop subscribing an AE title to new workitems (PS3.18 11.12). Raises WorkitemStateError (C314)."""
        if uid not in WORKLISTS:
            text_of_table = "Specified action not appropriate for specified instance."
            raise refuse(UpsStatus.ACTION_NOT_APPROPRIATE, text_of_table)
        with self.database.write() as tx:
            self.repository.suspend(tx, tenant, uid, aet)

    # --- housekeeping ----------------------------------------------------------------------------------------------

    def announce(self, status: ScpStatus) -> int:
        """Tell every subscriber that the service restarted or goes down (PS3.4 CC.2.4.3)."""
        with self.database.write() as tx:
            return self.repository.announce(tx, scp_status(status))

    def flag_silent(self, now: float) -> list[tuple[str, str]]:
        """Flag external performers that missed their lease; return (tenant, UID) of the newly flagged."""
        with self.database.write() as tx:
            return self.repository.flag_silent(tx, now - self.settings.lease_s)

    def prune(self, now: float) -> int:
        """Remove what the retention policy no longer keeps; return how many workitems went."""
        with self.database.write() as tx:
            return self.repository.prune(
                tx,
                finished_before=now - self.settings.finished_retention_s,
                locked_after=now - self.settings.deletion_lock_s,
                events_before=now - self.settings.event_retention_s,
            )
