"""The client for asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import httpx

from wetread.client import calls, models, workitem_calls
from wetread.client.answers import checked, error_of, unreachable
from wetread.client.stream import READ_SECONDS, STREAM_PATH, EventStream
from wetread.client.workitem import DISCONTINUED, Claim, Code, Dataset, NewWorkitem, Performed, Workitem, discontinued
from wetread.core.errors import WorkitemStateError
from wetread.core.identifiers import random_uid
from wetread.core.priority import Priority
from wetread.core.states import StudyAiState
from wetread.core.ups import UpsState

Value = TypeVar("Value")


class AsyncClient:
    """A connection to one server; use it as an async context manager, in one event loop.

    Every method raises the typed errors of ``wetread.core.errors``: those of the server, and Unavailable when it does
    not answer. *transport*: another way to the server than the network. *pause*: how to wait before reconnecting.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = timeout_seconds
        self._pause = pause
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers=headers, timeout=timeout_seconds, transport=transport
        )
        self.workitems = AsyncWorkitems(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: calls.Call[Value]) -> Value:
        """Send a call and read its answer."""
        try:
            response = await self._http.request(
                call.method,
                call.path,
                params=call.params,
                json=call.json,
                headers=call.headers,
                timeout=self._timeout + call.extra_seconds,
            )
        except httpx.TransportError as error:
            raise unreachable(error) from error
        return call.read(checked(response))

    # --- worklist and studies --------------------------------------------------------------------------------------

    async def worklist_page(
        self,
        *,
        priority: Priority | None = None,
        modality: str | None = None,
        state: StudyAiState | None = None,
        text: str = "",
        limit: int = 50,
        cursor: str | None = None,
    ) -> models.WorklistPage:
        """Return one page of open studies in reading order."""
        return await self.send(
            calls.worklist(priority=priority, modality=modality, state=state, text=text, limit=limit, cursor=cursor)
        )

    async def worklist(
        self,
        *,
        priority: Priority | None = None,
        modality: str | None = None,
        state: StudyAiState | None = None,
        text: str = "",
    ) -> AsyncIterator[models.WorklistItem]:
        """Yield all open studies in reading order, page by page."""
        cursor: str | None = None
        while True:
            page = await self.worklist_page(
                priority=priority, modality=modality, state=state, text=text, limit=200, cursor=cursor
            )
            for item in page.items:
                yield item
            cursor = page.next
            if cursor is None:
                return

    async def raise_study(self, study_uid: str, priority: Priority, reason: str) -> models.WorklistItem:
        """Raise a study by hand; nothing ever lowers one."""
        return await self.send(calls.raise_study(study_uid, priority, reason))

    async def findings(self, study_uid: str, wait_seconds: float = 0.0) -> models.Findings:
        """Return every detector's standing; waits up to *wait_seconds* until all are final."""
        deadline = time.monotonic() + wait_seconds
        while True:
            remaining = deadline - time.monotonic()
            answer = await self.send(calls.findings(study_uid, max(0.0, remaining)))
            if answer.final or time.monotonic() >= deadline:
                return answer

    async def manifest(
        self, study_uid: str, *, instances: int | None = None, sop_instance_uids: Iterable[str] | None = None
    ) -> models.Manifest:
        """Say what a study consists of: a count, or the UIDs."""
        return await self.send(calls.manifest(study_uid, instances=instances, sop_instance_uids=sop_instance_uids))

    async def timeline(self, study_uid: str, limit: int = 200) -> models.Timeline:
        """Return what happened to a study."""
        return await self.send(calls.timeline(study_uid, limit))

    async def tasks(self, state: str | None = None, limit: int = 100) -> tuple[models.Task, ...]:
        """Return AI tasks of all studies, latest change first; *state*: an AI state, or ``dead``."""
        return (await self.send(calls.tasks(state, limit))).tasks

    async def task(self, study_uid: str, detector: str) -> models.TaskDetail:
        """Return one task with its events."""
        return await self.send(calls.task(study_uid, detector))

    async def retry_task(self, study_uid: str, detector: str, reason: str = "") -> models.TaskDetail:
        """Try again what ended without an answer. Raises Conflict when the task's state does not allow it."""
        return await self.send(calls.retry_task(study_uid, detector, reason))

    async def cancel_task(self, study_uid: str, detector: str, reason: str = "") -> models.Requested:
        """Call a waiting or running task off. Raises Conflict when its state does not allow it."""
        return await self.send(calls.operate_task(study_uid, detector, "cancel", reason))

    async def discard_task(self, study_uid: str, detector: str, reason: str = "") -> models.Requested:
        """Take a failed task off the dead letters. Raises Conflict when its state does not allow it."""
        return await self.send(calls.operate_task(study_uid, detector, "discard", reason))

    async def rerun_task(self, study_uid: str, detector: str, reason: str = "") -> models.Requested:
        """Run again with the model of today. Raises Conflict when the task's state does not allow it."""
        return await self.send(calls.operate_task(study_uid, detector, "rerun", reason))

    async def reencode_task(self, study_uid: str, detector: str, reason: str = "") -> models.Requested:
        """Write the DICOM objects of a result again. Raises Conflict when the task's state does not allow it."""
        return await self.send(calls.operate_task(study_uid, detector, "re-encode", reason))

    async def reevaluate(self, study_uid: str) -> None:
        """Evaluate today's rules on a study again."""
        await self.send(calls.reevaluate(study_uid))

    async def renotify(self, after: int) -> models.Renotified:
        """Deliver the events after a cursor to the webhooks again."""
        return await self.send(calls.renotify(after))

    async def explanation(self, study_uid: str, *, every: bool = False) -> models.StudyExplanation:
        """Return why a study was decided on as it was: the latest decision, or all."""
        return await self.send(calls.explanation(study_uid, every=every))

    # --- the reader ------------------------------------------------------------------------------------------------

    async def assign_study(self, study_uid: str, reader: str | None = None, reason: str = "") -> models.WorklistItem:
        """Take a study to read it, or give it to *reader*. Raises Conflict when somebody else holds it."""
        return await self.send(calls.reading(study_uid, "assign", reason, reader))

    async def release_study(self, study_uid: str, reason: str = "") -> models.WorklistItem:
        """Put a study back into its place; another reader's study needs a reason (Unprocessable)."""
        return await self.send(calls.reading(study_uid, "release", reason))

    async def complete_study(self, study_uid: str, reason: str = "") -> models.WorklistItem:
        """Say that a study has been read: it leaves the list."""
        return await self.send(calls.reading(study_uid, "complete", reason))

    async def acknowledge_finding(self, study_uid: str, finding_id: str) -> models.FindingFeedback:
        """Say that a person has seen a finding: nobody else is called any more. Raises NotFound."""
        return await self.send(calls.verdict(study_uid, finding_id, "acknowledge", {}))

    async def accept_finding(self, study_uid: str, finding_id: str, reason: str = "") -> models.FindingFeedback:
        """Agree with a finding."""
        return await self.send(calls.verdict(study_uid, finding_id, "accept", {"reason": reason}))

    async def reject_finding(self, study_uid: str, finding_id: str, reason: str) -> models.FindingFeedback:
        """Disagree with a finding. Raises Unprocessable without a reason."""
        return await self.send(calls.verdict(study_uid, finding_id, "reject", {"reason": reason}))

    async def edit_finding(
        self,
        study_uid: str,
        finding_id: str,
        reason: str,
        *,
        measurements: Sequence[models.MeasurementEdit] = (),
        laterality: str | None = None,
        comment: str = "",
    ) -> models.FindingFeedback:
        """Correct a finding; the recorded result stays. Raises Unprocessable for a measurement it does not have."""
        body = calls.edited(reason, measurements, laterality, comment)
        return await self.send(calls.verdict(study_uid, finding_id, "edit", body))

    # --- the service -----------------------------------------------------------------------------------------------

    async def detectors(self) -> tuple[models.Detector, ...]:
        """Return the detectors with what their cards say."""
        return (await self.send(calls.detectors())).detectors

    async def sla_report(
        self, since: datetime | None = None, to: datetime | None = None, by: Sequence[str] = ()
    ) -> models.Sla:
        """Return turnaround of the studies received from *since* until *to* (the last day); *by*: site, modality."""
        return await self.send(calls.sla_report(since, to, by))

    async def usage(self, since: datetime | None = None, to: datetime | None = None) -> models.Usage:
        """Return what was used from *since* until *to* (the last day). Times need a zone."""
        return await self.send(calls.usage(since, to))

    # --- events and webhooks ---------------------------------------------------------------------------------------

    async def events(self, after: int = 0, types: Sequence[str] = (), limit: int = 100) -> models.Events:
        """Return events after a cursor."""
        return await self.send(calls.events(after, types, limit))

    async def follow(self, after: int | None = None, types: Sequence[str] = ()) -> AsyncIterator[models.Event]:
        """Yield events as they happen, from now or after a cursor; reconnects and misses nothing. Never ends by itself.

        Raises Gone when the server's stream is another one (new data), and the server's refusals.
        """
        stream = EventStream(after, types)
        while True:
            params, headers = stream.request()
            try:
                timeout = httpx.Timeout(self._timeout, read=READ_SECONDS)
                async with self._http.stream(
                    "GET", STREAM_PATH, params=params, headers=headers, timeout=timeout
                ) as answer:
                    if answer.is_success:
                        async for line in answer.aiter_lines():
                            event = stream.line(line)
                            if event is not None:
                                yield event
                    elif answer.status_code < 500:
                        await answer.aread()
                        raise error_of(answer)
            except httpx.TransportError:
                pass  # the cursor is kept: the next connection goes on from it
            await self._pause(stream.retry_seconds)

    async def subscribe(
        self, url: str, types: Sequence[str] = (), *, include_patient: bool = False, secrets: Sequence[str] = ()
    ) -> models.SubscriptionWithSecrets:
        """Subscribe a webhook receiver; the answer shows its secrets, no later one does."""
        return await self.send(calls.subscribe(url, types, include_patient=include_patient, secrets=secrets))

    async def subscriptions(self) -> tuple[models.Subscription, ...]:
        """Return all subscriptions."""
        return (await self.send(calls.subscriptions())).subscriptions

    async def subscription(self, subscription_id: str) -> models.Subscription:
        """Return one subscription."""
        return await self.send(calls.subscription(subscription_id))

    async def unsubscribe(self, subscription_id: str) -> None:
        """End a subscription."""
        await self.send(calls.unsubscribe(subscription_id))

    async def rotate_secret(self, subscription_id: str) -> models.SubscriptionWithSecrets:
        """Make a new signing secret; the old one stays valid until the next rotation."""
        return await self.send(calls.rotate_secret(subscription_id))

    async def test_delivery(self, subscription_id: str) -> models.TestDelivery:
        """Send a signed sample now."""
        return await self.send(calls.test_delivery(subscription_id))

    async def deliveries(
        self, subscription_id: str, state: str | None = None, limit: int = 100
    ) -> tuple[models.Delivery, ...]:
        """Return the latest deliveries, newest first."""
        return (await self.send(calls.deliveries(subscription_id, state, limit))).deliveries


class AsyncWorkitems:
    """UPS-RS: the AI tasks and any other work as a standard worklist."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, new: NewWorkitem | Dataset, uid: str | None = None) -> str:
        """Create a workitem and return its UID."""
        return await self._client.send(workitem_calls.create(new, uid or random_uid()))

    async def search(
        self,
        state: UpsState | None = None,
        *,
        keys: Mapping[str, str] | None = None,
        everything: bool = False,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Workitem]:
        """Return the workitems that match, most urgent first; *keys*: keywords or tags with values."""
        return await self._client.send(
            workitem_calls.search(state, keys=keys, everything=everything, limit=limit, offset=offset)
        )

    async def get(self, uid: str) -> Workitem:
        """Return one workitem."""
        return await self._client.send(workitem_calls.get(uid))

    async def claim(self, uid: str, transaction_uid: str | None = None) -> Claim:
        """Take a workitem. Raises WorkitemStateError (C301) when somebody else was faster.

        Claiming again with one's own Transaction UID succeeds: after a lost answer nobody knows which of the two it is.
        """
        claim = Claim(uid, transaction_uid or random_uid())
        try:
            await self._client.send(workitem_calls.change_state(uid, UpsState.IN_PROGRESS, claim.transaction_uid))
        except WorkitemStateError as error:
            if not workitem_calls.is_own_claim(error):
                raise
        return claim

    async def update(self, item: Claim | str, changes: Dataset) -> None:
        """Change attributes of a claimed workitem, or of a scheduled one by its UID."""
        uid, key = (item.uid, item.transaction_uid) if isinstance(item, Claim) else (item, None)
        await self._client.send(workitem_calls.update(uid, changes, key))

    async def complete(self, claim: Claim, performed: Performed | Dataset) -> None:
        """Say what was performed and end COMPLETED."""
        await self.update(claim, performed.dataset() if isinstance(performed, Performed) else performed)
        await self._client.send(workitem_calls.change_state(claim.uid, UpsState.COMPLETED, claim.transaction_uid))

    async def cancel(self, claim: Claim, reason: Code = DISCONTINUED, note: str = "") -> None:
        """Give a claimed workitem up: CANCELED with a coded reason."""
        await self.update(claim, discontinued(reason, note))
        await self._client.send(workitem_calls.change_state(claim.uid, UpsState.CANCELED, claim.transaction_uid))

    async def request_cancel(self, uid: str, reason: str = "") -> None:
        """Ask that a workitem be cancelled, whoever performs it."""
        await self._client.send(workitem_calls.request_cancel(uid, reason))
