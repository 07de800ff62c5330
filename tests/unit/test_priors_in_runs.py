"""Earlier results as part of a run: found by Patient ID, sealed into its input, read again when one comes late."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import pytest
from sqlalchemy import insert
from tests.orchestration_detectors import FakeRunner, result_of
from tests.orchestration_fakes import TENANT, FakeClock
from tests.orchestration_world import World

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import studies
from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.findings import ResultSet
from wetread.core.manifest import PriorNeeds
from wetread.core.ports.inference import RunRequest
from wetread.core.priority import Priority
from wetread.core.states import AiState
from wetread.orchestration.requests import Verb

NEW, OLD = "1.2.900", "1.2.100"
TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))
PATIENT = {"patient_id": "P-77", "birth_date": "19600102", "sex": "F"}


class Comparing(FakeRunner):
    """A detector that asks for earlier results, and says in its record what it was handed."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        info = self._infos["ich"]
        needs = info.manifest.input.model_copy(update={"priors": PriorNeeds(results=2)})
        object.__setattr__(info, "manifest", info.manifest.model_copy(update={"input": needs}))
        self.answer = self._answer

    def _answer(self, request: RunRequest) -> ResultSet:
        result = result_of(request, AiState.POSITIVE)
        assert request.priors is not None, "a detector that asks is always answered"
        run = result.run.model_copy(update={"priors": request.priors.record()})
        return result.model_copy(update={"run": run})


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path, policy=TRUSTED, runner=Comparing())
    yield made
    made.close()


def arrive(world: World, study: str, day: str, *, tenant: str = TENANT, issuer: str = "", **changes: str) -> None:
    """Index a study of the patient on *day*, and let its run come to its end."""
    index(world, study, day, tenant=tenant, issuer=issuer, **changes)
    if tenant == TENANT:
        world.deliver(range(1, 9), study=study, series=f"{study}.1", transfer_end=True)
        world.settle()


def index(world: World, study: str, day: str, *, tenant: str = TENANT, issuer: str = "", **changes: str) -> None:
    values = {**PATIENT, "study_uid": study, "study_date": day, "study_time": "080000", "tenant": tenant, **changes}
    attributes = {"00100021": {"vr": "LO", "Value": [issuer]}} if issuer else {}
    rest = {"received_at": 1.0, "last_received_at": 1.0, "attributes_json": orjson.dumps(attributes)}
    with world.database.write() as tx:
        connection_of(tx).execute(insert(studies).values(**values, **rest))


def handed(world: World, study: str = NEW) -> list[str]:
    [result] = world.current(study)
    assert result.run.priors is not None
    return [prior.study_uid for prior in result.run.priors.results]


def test_a_run_is_handed_what_is_there_and_an_old_study_is_read_as_it_was(each_database: str, world: World) -> None:
    arrive(world, OLD, "20250101")
    arrive(world, NEW, "20260101")
    assert (handed(world, OLD), handed(world, NEW)) == ([], [OLD])
    [last] = [run for run in world.runner.runs if run.study_uid == NEW]
    assert last.priors is not None
    [prior] = last.priors.results
    assert (prior.days, prior.findings[0].measurements[0].value) == (365.0, 12.0)
    assert prior.result_key == world.current(OLD)[0].run.result_key
    task = world.task(study=NEW)
    with world.reads() as tx:
        kept = world.ports.inputs.get(tx, TENANT, task.input_digest)
        other = world.ports.inputs.get(tx, TENANT, world.task(study=OLD).input_digest)
        [decision] = world.ports.decisions.of_study(tx, TENANT, NEW)[-1:]
    assert kept.priors == last.priors, "kept with the input: a second attempt is handed the same"
    assert not other.priors
    assert decision.trace["plans"][0]["priors"] == [OLD]


def test_a_prior_that_comes_late_has_the_study_read_again_once(world: World) -> None:
    arrive(world, NEW, "20260101")
    first = world.current(NEW)[0].run
    assert first.priors is not None
    assert first.priors.results == ()
    arrive(world, OLD, "20250101")
    second = world.current(NEW)[0].run
    assert handed(world) == [OLD]
    assert second.result_key != first.result_key
    assert world.task(study=NEW).priority is Priority.BATCH, "nobody waits behind it"
    count = len(world.runner.runs)
    for study in (OLD, NEW):  # asked for by a person: the same input is the same result, nothing is read
        world.requests.ask(TENANT, Verb.RERUN, study, "ich")
        world.settle()
    assert len(world.runner.runs) == count
    assert world.current(NEW)[0].run.result_key == second.result_key
    with world.reads() as tx:
        assert world.ports.results.get(tx, TENANT, first.result_key) is not None, "superseded, not deleted"


def test_a_run_in_flight_is_not_stopped_for_a_prior_and_read_again_afterwards(world: World) -> None:
    index(world, NEW, "20260101")
    world.deliver(range(1, 9), study=NEW, series=f"{NEW}.1", transfer_end=True)
    world.step()
    begun = world.task(study=NEW)
    assert begun.state is AiState.QUEUED
    index(world, OLD, "20250101")
    with world.database.write() as tx:
        stored = result_of(RunRequest(TENANT, OLD, "1.1", "ich", "0.1.0", (), result_key="x"), AiState.POSITIVE)
        world.ports.results.put(tx, stored, ())
    world.evaluator.evaluate(TENANT, NEW, 1, "quiet_study", {})
    assert world.task(study=NEW).run_id == begun.run_id
    world.settle()
    assert [[p.study_uid for p in run.priors.results] for run in world.runner.runs] == [[], [OLD]]
    assert handed(world) == [OLD]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"birth_date": "19610102"}, ["birth_date"]),
        ({"sex": "M"}, ["sex"]),
        ({"issuer": "ELSEWHERE"}, ["issuer"]),
        ({"patient_id": "P-78"}, []),
        ({"patient_id": ""}, []),
    ],
)
def test_another_patient_is_never_handed_in(
    world: World, changes: dict[str, str], reason: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    arrive(world, OLD, "20250101", **changes)
    arrive(world, NEW, "20260101")
    assert handed(world) == []
    [result] = world.current(NEW)
    assert result.run.priors is not None
    assert list(result.run.priors.left_out) == reason
    assert not any(text in caplog.text for text in ("P-77", "P-78", "19600102", "19610102", OLD, NEW))


def test_a_study_without_a_patient_and_another_tenant_have_no_past(world: World) -> None:
    arrive(world, OLD, "20250101", patient_id="")
    arrive(world, NEW, "20260101", patient_id="")
    assert handed(world) == []
    with world.database.write() as tx:
        stored = result_of(RunRequest("other", "1.2.5", "1.1", "ich", "0.1.0", (), result_key="x"), AiState.POSITIVE)
        world.ports.results.put(tx, stored, ())
    arrive(world, "1.2.5", "20250101", tenant="other")
    arrive(world, "1.2.901", "20260101")
    assert handed(world, "1.2.901") == []
    with world.reads() as tx:
        assert world.ports.results.of_patient(tx, "other", "1.2.901", "ich") is None
        assert world.ports.results.read_later(tx, "other", "1.2.901", "ich") == []


def test_a_detector_that_does_not_ask_is_called_as_before(tmp_path: Path) -> None:
    world = World(tmp_path, policy=TRUSTED)
    arrive(world, OLD, "20250101")
    arrive(world, NEW, "20260101")
    assert [run.priors for run in world.runner.runs] == [None, None]
    assert world.current(NEW)[0].run.priors is None
    world.close()
