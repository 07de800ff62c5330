"""Task rows: the typed state of every (study, detector), changed only along the table of ``core.states``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import tasks
from wetread.adapters.index.upsert import replace_row, replace_rows
from wetread.core.ports.database import Transaction
from wetread.core.ports.work import Task
from wetread.core.priority import Priority
from wetread.core.states import AiState, check_transition

# Statements of every evaluation, made once.
_OF_STUDY: Final = (
    select(tasks)
    .where(tasks.c.tenant == bindparam("of"), tasks.c.study_uid == bindparam("study"))
    .order_by(tasks.c.detector)
)
_ONE: Final = select(tasks).where(
    tasks.c.tenant == bindparam("of"),
    tasks.c.study_uid == bindparam("study"),
    tasks.c.detector == bindparam("name"),
)


class SqlTasks:
    """TaskRepository on SQL."""

    def get(self, tx: Transaction, tenant: str, study_uid: str, detector: str) -> Task | None:
        """Return the task, or None."""
        row = connection_of(tx).execute(_ONE, {"of": tenant, "study": study_uid, "name": detector}).one_or_none()
        return _task(row) if row else None

    def of_study(self, tx: Transaction, tenant: str, study_uid: str) -> list[Task]:
        """Return all tasks of a study, by detector name."""
        return [_task(row) for row in connection_of(tx).execute(_OF_STUDY, {"of": tenant, "study": study_uid})]

    def put(self, tx: Transaction, task: Task) -> None:
        """Insert or update. Raises Conflict on an illegal state change."""
        former = self.get(tx, task.tenant, task.study_uid, task.detector)
        check_transition(former.state if former else None, task.state, task.reason)
        replace_row(connection_of(tx), tasks, _values(task))

    def put_all(self, tx: Transaction, changed: Sequence[Task]) -> None:
        """Insert or update tasks of one study. Raises Conflict on an illegal state change."""
        if not changed:
            return
        former = {task.detector: task.state for task in self.of_study(tx, changed[0].tenant, changed[0].study_uid)}
        for task in changed:
            check_transition(former.get(task.detector), task.state, task.reason)
        replace_rows(connection_of(tx), tasks, [_values(task) for task in changed])

    def by_run(self, tx: Transaction, run_id: str) -> Task | None:
        """Return the task whose run in flight has this id, or None."""
        row = connection_of(tx).execute(select(tasks).where(tasks.c.run_id == run_id)).one_or_none()
        return _task(row) if row else None

    def by_workitem(self, tx: Transaction, tenant: str, workitem_uid: str) -> Task | None:
        """Return the task that a workitem stands for now, or None."""
        query = select(tasks).where(tasks.c.tenant == tenant, tasks.c.workitem_uid == workitem_uid)
        row = connection_of(tx).execute(query).one_or_none()
        return _task(row) if row else None

    def in_flight(self, tx: Transaction) -> list[Task]:
        """Return all tasks of all tenants that have a run in flight."""
        return [_task(row) for row in connection_of(tx).execute(select(tasks).where(tasks.c.run_id.is_not(None)))]

    def search(
        self,
        tx: Transaction,
        tenant: str,
        states: Sequence[AiState] = (),
        *,
        reason: str | None = None,
        limit: int = 100,
    ) -> list[Task]:
        """Return a tenant's tasks, latest change first."""
        query = select(tasks).where(tasks.c.tenant == tenant)
        if states:
            query = query.where(tasks.c.state.in_([str(state) for state in states]))
        if reason is not None:
            query = query.where(tasks.c.reason == reason)
        query = query.order_by(tasks.c.updated_at.desc(), tasks.c.study_uid, tasks.c.detector).limit(limit)
        return [_task(row) for row in connection_of(tx).execute(query)]


def _values(task: Task) -> dict[str, Any]:
    return dataclasses.asdict(task) | {"state": str(task.state), "priority": str(task.priority)}


def _task(row: Row[Any]) -> Task:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented mapping view
    return Task(**values | {"state": AiState(values["state"]), "priority": Priority(values["priority"])})
