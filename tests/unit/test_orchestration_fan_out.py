"""Fan-out over series and joins: one task per series, one value for those that need them."""

from __future__ import annotations

import pytest
from tests.orchestration_detectors import FakeRunner, result_of
from tests.orchestration_fakes import STUDY, TENANT
from tests.orchestration_world import World, workflow

from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.detector import InputSet
from wetread.core.errors import ConfigurationError
from wetread.core.states import AiState
from wetread.core.workflow import pair_name
from wetread.orchestration.dry_run import dry_run
from wetread.orchestration.external import ExternalRunner
from wetread.orchestration.ports import Rules

TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))
EACH_CT = "select(s for s in series if s.modality == 'CT')"
ONE, TWO = "1.2.3.1", "1.2.3.2"


class PerSeries(FakeRunner):
    """Reads whatever series it is shown; ``positive`` names the series in which it finds something."""

    positive: frozenset[str] = frozenset()

    def __init__(self):
        super().__init__(None, "ich", "sum")
        self.answer = lambda request: result_of(
            request, AiState.POSITIVE if request.series_uid in self.positive else AiState.NEGATIVE
        )

    def select(self, detector, study):
        series = next(s for s in study.series if s.modality == "CT")
        uids = tuple(i.sop_instance_uid for i in series.instances)
        return InputSet(series.series_instance_uid, uids, "enough", "the only one")


def world(folder, *, join="all", condition=None):
    tasks = {
        "each": {"uses": "detector/ich@*", "for": EACH_CT},
        "sum": {"uses": "detector/sum@*", "needs": ["each"], "join": join} | ({"if": condition} if condition else {}),
    }
    triage = [{"if": "result('each').state == 'positive'", "then": {"raise_to": "stat"}}]
    declared = workflow(tasks=tasks, triage=triage)
    made = World(folder, rules=Rules((declared,), TRUSTED, early_settle_seconds=0.0), runner=PerSeries())
    made.use(ExternalRunner(made.runner, made.rules.external))
    return made


def deliver(made):
    made.deliver(range(1, 9), series=ONE)
    made.deliver(range(1, 9), series=TWO)
    made.deliver(range(1, 3), series="1.2.3.9", modality="SR", body_part="", transfer_end=True)
    made.settle()


def pairs(made):
    with made.reads() as tx:
        return {t.detector: t for t in made.ports.tasks.of_study(tx, TENANT, STUDY)}


@pytest.fixture
def fanned(tmp_path):
    made = world(tmp_path)
    yield made
    made.close()


def test_each_series_has_a_task_a_result_and_a_report_of_its_own(fanned):
    fanned.runner.positive = frozenset({TWO})
    deliver(fanned)
    tasks = pairs(fanned)
    one, two = tasks[pair_name("ich", ONE)], tasks[pair_name("ich", TWO)]
    assert (one.state, two.state) == (AiState.NEGATIVE, AiState.POSITIVE)
    assert one.workitem_uid != two.workitem_uid
    assert {fanned.workitems.items[t.workitem_uid]["state"] for t in tasks.values()} == {"COMPLETED"}
    assert {r.run.detector for r in fanned.current()} == set(tasks)
    assert sorted((r.detector, r.series_uid) for r in fanned.runner.runs)[:2] == [("ich", ONE), ("ich", TWO)]
    assert len(fanned.log("finding.positive")) == 1
    assert fanned.log("result.superseded") == [], "one series does not take the place of the other"
    assert all(ONE not in name and TWO not in name for name in tasks), "no UID in a name: names are metric labels"


def test_a_series_that_comes_late_gets_its_task_and_the_others_are_not_read_again(fanned):
    deliver(fanned)
    before = len(fanned.runner.runs)
    fanned.deliver(range(1, 9), series="1.2.3.3", transfer_end=True)
    fanned.settle()
    assert pairs(fanned)[pair_name("ich", "1.2.3.3")].state is AiState.NEGATIVE
    assert [r.series_uid for r in fanned.runner.runs[before:] if r.detector == "ich"] == ["1.2.3.3"]


def test_what_waited_under_the_detectors_own_name_ends_when_its_series_have_theirs(tmp_path):
    tasks = {"each": {"uses": "detector/ich@*", "for": EACH_CT}}
    declared = workflow(tasks=tasks, triage=[], on={"event": "study.stable", "when": "True"})
    made = World(tmp_path, rules=Rules((declared,), TRUSTED, early_settle_seconds=0.0), runner=PerSeries())
    made.use(ExternalRunner(made.runner, made.rules.external))
    try:
        made.deliver(range(1, 9), series=ONE)
        made.drain()
        assert made.task().state is AiState.AWAITING_IMAGES
        deliver(made)
        states = {name: (task.state, task.reason) for name, task in pairs(made).items()}
        assert states.pop("ich") == (AiState.NOT_APPLICABLE, "per_series")
        assert {state for state, _ in states.values()} == {AiState.NEGATIVE}
    finally:
        made.close()


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        ("result('each').state == 'positive'", AiState.NEGATIVE),
        ("result('each').volume_ml > 20", AiState.NEGATIVE),
        ("result('each').volume_ml > 30", AiState.NOT_APPLICABLE),
    ],
)
def test_a_join_sees_one_value_for_all(tmp_path, condition, state):
    made = world(tmp_path, condition=condition)
    try:
        made.runner.positive = frozenset({ONE, TWO})  # 12 mL each
        made.runner.answer = lambda request: result_of(
            request, AiState.POSITIVE if request.detector == "ich" else AiState.NEGATIVE
        )
        deliver(made)
        assert pairs(made)["sum"].state is state
    finally:
        made.close()


def test_without_a_series_to_fan_out_over_the_detector_does_not_apply(fanned):
    fanned.deliver(range(1, 3), series="1.2.3.9", modality="SR", body_part="HEAD", transfer_end=True)
    fanned.settle()
    assert {t.state for t in pairs(fanned).values()} == {AiState.NOT_APPLICABLE}


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"a": {"uses": "detector/ich@*", "for": "any(s.modality == 'CT' for s in series)"}}, "not a list of series"),
        ({"a": {"uses": "evidence/standard", "for": EACH_CT}}, "only a detector"),
        (
            {
                "a": {"uses": "detector/ich@*"},
                "b": {"uses": "detector/sum@*", "needs": ["a"], "join": {"n_of": 2}},
            },
            "n_of 2 of 1",
        ),
    ],
)
def test_a_fan_out_or_join_that_cannot_be_is_an_error_of_the_file(tasks, words):
    with pytest.raises(ConfigurationError, match=words):
        workflow(tasks=tasks, triage=())


def test_n_of_starts_when_enough_have_ended(tmp_path):
    tasks = {
        "a": {"uses": "detector/ich@*"},
        "b": {"uses": "detector/slow@*", "performer": "external"},
        "c": {"uses": "detector/sum@*", "needs": ["a", "b"], "join": {"n_of": 1}},
    }
    declared = workflow(tasks=tasks, triage=())
    made = World(tmp_path, rules=Rules((declared,), TRUSTED, early_settle_seconds=0.0), runner=PerSeries())
    made.use(ExternalRunner(made.runner, made.rules.external))
    try:
        made.deliver(range(1, 9), series=ONE, transfer_end=True)
        made.drain()
        assert pairs(made)["slow"].state is AiState.QUEUED
        assert pairs(made)["sum"].state is AiState.NEGATIVE
    finally:
        made.close()


def test_the_dry_run_shows_every_series_of_a_fan_out(fanned):
    deliver(fanned)
    facts = fanned.studies.studies[TENANT, STUDY]
    outcome = dry_run(facts, fanned.rules, fanned.runner, at=0.0)
    shown = {d.plan.detector: d for d in outcome.detectors}
    assert set(shown) == {pair_name("ich", ONE), pair_name("ich", TWO), "sum"}
    verdict = shown[pair_name("ich", TWO)]
    assert [s.series.series_instance_uid for s in verdict.series if s.selected] == [TWO]
    assert verdict.plan.verdict == "run"
    assert shown["sum"].plan.detail == "waits for each"
