"""The one door to the durable queue: DBOS enqueues inside our own transactions.

Always on a named queue, always with a priority (due time), always a portable JSON payload: see docs/adr/0301.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions

from wetread.adapters.index.database import connection_of
from wetread.core.errors import ConfigurationError
from wetread.core.ports.database import Transaction
from wetread.core.priority import queue_number
from wetread.core.workqueue import APPLICATION, APPLICATION_VERSION, QUEUES


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
        if delay_seconds is not None and delay_seconds > 0:
            options["delay_seconds"] = delay_seconds
        self.client.enqueue_in_transaction(connection_of(tx), options, **arguments)

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.destroy()
            self._client = None


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
