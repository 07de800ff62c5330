"""The one door to the durable queue: DBOS enqueues inside our own transactions.

Always on a named queue, always with a priority (due time), always a portable JSON payload: see docs/adr/0301.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus
from sqlalchemy import text

from wetread.adapters.index.database import connection_of
from wetread.adapters.workqueue.signals import LATER, NOW, channel_of
from wetread.core import tracing
from wetread.core.errors import ConfigurationError
from wetread.core.ports.database import Transaction
from wetread.core.ports.orchestration import DeadWork
from wetread.core.priority import queue_number
from wetread.core.workqueue import APPLICATION, APPLICATION_VERSION, QUEUES

TRACE_ATTRIBUTE: Final = "dbos.otelContext"
"""Attribute of a workflow that DBOS itself keeps trace contexts in. Workers of the release before do not mind it."""
_NOTIFY: Final = text("SELECT pg_notify(:channel, :payload)")
_WAITING: Final = frozenset({"ENQUEUED", "DELAYED"})
_ENDED: Final = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})


class DbosWorkQueue:
    """WorkQueue on DBOS. The transactions given to it must be on the database of *url* (the outbox).

    Builds nothing until first used; the DBOS tables must exist (``create_queue_schema``).
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: DBOSClient | None = None

    @property
    def client(self) -> DBOSClient:
        """The DBOS client (status look-ups, cancellation, resumption)."""
        if self._client is None:
            self._client = DBOSClient(
                system_database_url=self._url,
                serializer=DBOSPortableJSONSerializer(),
                application_name=APPLICATION,
                lazy=True,
            )
        return self._client

    def enqueue(
        self,
        tx: Transaction,
        *,
        workflow: str,
        workflow_id: str,
        queue: str,
        due: float,
        arguments: Mapping[str, Any],
        delay_seconds: float | None = None,
    ) -> None:
        """Enqueue in the given transaction; the same id again is ignored. Raises ConfigurationError."""
        if queue not in QUEUES:
            msg = f"there is no queue {queue!r}"
            raise ConfigurationError(msg)
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "workflow_id": workflow_id,
            "queue_name": queue,
            "priority": queue_number(due),
            "app_version": APPLICATION_VERSION,
        }
        delay = max(0.0, delay_seconds or 0.0)
        if delay:
            options["delay_seconds"] = delay
        traceparent = tracing.current()
        if traceparent is not None:  # kept with the row: whoever runs it, and however often, is in the same trace
            options["attributes"] = {TRACE_ATTRIBUTE: {"traceparent": traceparent}}
        connection = connection_of(tx)
        self.client.enqueue_in_transaction(connection, options, **arguments)
        if connection.dialect.name == "postgresql":
            connection.execute(_NOTIFY, {"channel": channel_of(queue), "payload": LATER if delay else NOW})

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.destroy()
            self._client = None


class DbosRunControl:
    """RunControl on DBOS: cancellation, end states, dead workflows."""

    def __init__(self, queue: DbosWorkQueue) -> None:
        self._queue = queue

    def cancel(self, workflow_ids: Sequence[str]) -> None:
        """Cancel; finished and unknown ids are ignored."""
        alive = {status.workflow_id for status in self._statuses(workflow_ids) if status.status not in _ENDED}
        for workflow_id in alive:
            self._queue.client.cancel_workflow(workflow_id)

    def move(self, workflow_ids: Sequence[str], queue: str) -> None:
        """Move those that still wait to another queue; DBOS keeps their number (docs/adr/0301)."""
        waiting = [s.workflow_id for s in self._statuses(workflow_ids) if s.status in _WAITING]
        if waiting:
            self._queue.client.resume_workflows(waiting, queue_name=queue)

    def end_states(self, workflow_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the end states of those that have ended."""
        return {s.workflow_id: s.status for s in self._statuses(workflow_ids) if s.status in _ENDED}

    def dead(self, names: Sequence[str], *, since: float) -> Sequence[DeadWork]:
        """Return workflows of these names that ended without success since a Unix time."""
        found = self._queue.client.list_workflows(
            name=list(names),
            status=sorted(_ENDED - {"SUCCESS"}),
            completed_after=datetime.fromtimestamp(since, tz=UTC).isoformat(),
            load_output=False,
        )
        return [DeadWork(s.workflow_id, s.name, s.status, _keywords(s)) for s in found]

    def _statuses(self, workflow_ids: Sequence[str]) -> list[WorkflowStatus]:
        if not workflow_ids:
            return []
        return self._queue.client.list_workflows(workflow_ids=list(workflow_ids), load_input=False, load_output=False)


def _keywords(status: WorkflowStatus) -> dict[str, Any]:
    given: Mapping[str, Any] = status.input or {}
    return dict(given["kwargs"]) if "kwargs" in given else {}


def create_queue_schema(url: str) -> None:
    """Create or migrate the DBOS tables (idempotent) and register every queue, so that no poller starts late."""
    from dbos import DBOS

    DBOS.migrate(url)
    client = DBOSClient(system_database_url=url, serializer=DBOSPortableJSONSerializer(), application_name=APPLICATION)
    try:
        for name, lane in QUEUES.items():
            client.register_queue(
                name,
                worker_concurrency=lane.concurrency,
                polling_interval_sec=lane.polling_seconds,
                on_conflict="always_update",
            )
    finally:
        client.destroy()
