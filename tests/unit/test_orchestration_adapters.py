"""The task tables: legal changes only, one current result, idempotent writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.databases import database_at
from tests.orchestration_detectors import result_of
from tests.orchestration_fakes import TENANT, FakeClock

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.decisions import SqlDecisions, SqlManifests, SqlQuietWatches, SqlRunInputs
from wetread.adapters.index.results import SqlResults
from wetread.adapters.index.tasks import SqlTasks
from wetread.core.completeness import StudyManifest
from wetread.core.errors import Conflict, NotFound
from wetread.core.findings import StoredSeries
from wetread.core.ports.inference import RunRequest
from wetread.core.ports.orchestration import Decision, QuietWatch, RunInput
from wetread.core.ports.work import Task
from wetread.core.priority import Priority
from wetread.core.states import AiState


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Iterator[SqlDatabase]:
    made = database_at(tmp_path / "t.db")
    made.create_schema()
    yield made
    made.close()


TASK = Task(TENANT, "1", "ich", "0.1.0", AiState.AWAITING_IMAGES, priority=Priority.STAT, due_at=5.0, updated_at=1.0)


def test_tasks_round_trip_and_refuse_illegal_changes(database: SqlDatabase) -> None:
    tasks = SqlTasks()
    with database.write() as tx:
        assert tasks.get(tx, TENANT, "1", "ich") is None
        tasks.put(tx, TASK)
        assert tasks.get(tx, TENANT, "1", "ich") == TASK
        running = replace(TASK, state=AiState.QUEUED, run_id="r", runs=1, early=True, workitem_uid="2.25.1")
        tasks.put(tx, running)
        assert tasks.by_run(tx, "r") == running
        assert tasks.in_flight(tx) == [running]
        assert tasks.by_run(tx, "x") is None
        with pytest.raises(Conflict):
            tasks.put(tx, replace(TASK, state=AiState.FAILED))
        with pytest.raises(Conflict):
            tasks.put(tx, Task(TENANT, "1", "other", "1.0.0", AiState.POSITIVE))
        tasks.put(tx, replace(TASK, detector="a", updated_at=9.0))
        tasks.put(tx, replace(TASK, tenant="other"))
        assert [t.detector for t in tasks.of_study(tx, TENANT, "1")] == ["a", "ich"]
        assert [t.detector for t in tasks.search(tx, TENANT)] == ["a", "ich"]
        assert [t.detector for t in tasks.search(tx, TENANT, [AiState.QUEUED])] == ["ich"]
        assert len(tasks.search(tx, TENANT, limit=1)) == 1
        left_out = [
            replace(TASK, study_uid="2", detector=name, state=AiState.NOT_APPLICABLE, reason="no_workflow")
            for name in ("a", "b")
        ]
        tasks.put_all(tx, left_out)
        tasks.put_all(tx, [])
        assert tasks.of_study(tx, TENANT, "2") == left_out
        wanted = replace(left_out[1], state=AiState.AWAITING_IMAGES, reason=None)
        late = replace(left_out[0], detector="c")
        tasks.put_all(tx, [wanted, late])
        assert tasks.of_study(tx, TENANT, "2") == [left_out[0], wanted, late]
        with pytest.raises(Conflict):
            tasks.put_all(tx, [replace(TASK, study_uid="3", state=AiState.POSITIVE)])
        with pytest.raises(Conflict):
            tasks.put_all(tx, [replace(late, detector="d"), replace(late, state=AiState.FAILED)])


def request(key: str) -> RunRequest:
    return RunRequest(TENANT, "1", "1.1", "ich", "0.1.0", (), result_key=key, input_digest=key)


STORED = (StoredSeries(modality="SR", series_uid="2.25.1", sop_instance_uids=("2.25.2",)),)


def test_one_result_is_current_and_the_others_are_kept(database: SqlDatabase) -> None:
    results = SqlResults(FakeClock())
    first, second = result_of(request("a"), AiState.POSITIVE), result_of(request("b"), AiState.NEGATIVE)
    with database.write() as tx:
        assert results.get(tx, TENANT, "a") is None
        assert results.put(tx, first, ())
        assert not results.put(tx, first, STORED), "a known key is kept"
        results.attach(tx, TENANT, "a", STORED)
        assert results.get(tx, TENANT, "a") == (first, STORED)
        assert results.put(tx, second, ())
        assert results.current(tx, TENANT, "1") == [(second, ())]
        assert results.get(tx, TENANT, "a") == (first, STORED), "superseded, not deleted"
        assert not results.put(tx, first, ())
        assert results.current(tx, TENANT, "1") == [(first, STORED)], "its input has come back"
        with pytest.raises(NotFound):
            results.attach(tx, TENANT, "nobody", STORED)


def test_a_preliminary_result_is_replaced_by_its_final_and_keeps_its_objects(database: SqlDatabase) -> None:
    results = SqlResults(FakeClock())
    final = result_of(request("a"), AiState.POSITIVE)
    early = final.model_copy(update={"preliminary": True, "state": AiState.PRELIMINARY_POSITIVE})
    with database.write() as tx:
        assert results.put(tx, early, ())
        results.attach(tx, TENANT, "a", STORED)
        assert results.put(tx, final, ())
        assert results.current(tx, TENANT, "1") == [(final, STORED)]
        assert not results.put(tx, early, ()), "never back to preliminary"
    hidden = result_of(request("h"), AiState.NEGATIVE).model_copy(update={"preliminary": True})
    with database.write() as tx:
        results.put(tx, hidden, (), current=False)
        assert [r.run.result_key for r, _ in results.current(tx, TENANT, "1")] == ["a"]


def test_small_tables(database: SqlDatabase) -> None:
    decisions, inputs, manifests, watches = SqlDecisions(), SqlRunInputs(), SqlManifests(), SqlQuietWatches()
    with database.write() as tx:
        for signal, at in (("commit", 1.0), ("quiet_series", 2.0), ("commit", 3.0)):
            decisions.put(tx, Decision(TENANT, "1", 4, signal, at, "d", {"plans": [at]}))
        assert decisions.signals(tx, TENANT, "1", 4) == {"commit", "quiet_series"}
        assert decisions.signals(tx, TENANT, "1", 5) == frozenset()
        assert [d.trace["plans"] for d in decisions.of_study(tx, TENANT, "1")] == [[2.0], [3.0]]
        chosen = RunInput(TENANT, "d" * 64, "1", "1.1", tuple(f"1.1.{n}" for n in range(500)))
        inputs.put(tx, chosen)
        inputs.put(tx, replace(chosen, series_uid="other"))
        assert inputs.get(tx, TENANT, "d" * 64) == chosen
        with pytest.raises(NotFound):
            inputs.get(tx, "other", "d" * 64)
        assert manifests.get(tx, TENANT, "1") is None
        manifests.put(tx, TENANT, "1", StudyManifest(instances=3), 1.0)
        manifests.put(tx, TENANT, "1", StudyManifest(instances=4), 2.0)
        assert manifests.get(tx, TENANT, "1") == StudyManifest(instances=4)
        watches.put(tx, QuietWatch(TENANT, "1", 1, 5.0))
        watches.put(tx, QuietWatch(TENANT, "1", 2, 5.0))
        assert watches.get(tx, TENANT, "1") == QuietWatch(TENANT, "1", 2, 5.0)
        watches.delete(tx, TENANT, "1")
        assert watches.get(tx, TENANT, "1") is None
