"""What people and UPS clients ask of tasks: cancel, discard, rerun, re-encode, re-evaluate, expedite, explain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.orchestration_detectors import FakeRunner
from tests.orchestration_fakes import STUDY, TENANT
from tests.orchestration_world import World, workflow

from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.errors import ComputationFailed, ConfigurationError, Conflict, NotFound, Unavailable
from wetread.core.facts import Source
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.states import AiState
from wetread.core.ups import UpsState
from wetread.core.workqueue import OPERATE, RUN
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.explain import Explainer
from wetread.orchestration.operations import Operations
from wetread.orchestration.ports import Rules
from wetread.orchestration.requests import Verb

CLOSED = range(1, 9)
TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, policy=TRUSTED)
    yield made
    made.close()


def ask(world, verb, detector="ich", text=""):
    return world.requests.ask(TENANT, verb, STUDY, detector, text)


def queued(world):
    """Deliver a complete study and stop before its run."""
    world.deliver(CLOSED, transfer_end=True)
    world.step()
    assert world.task().state is AiState.QUEUED


def failed(world, error):
    world.runner.errors = [error] * 9
    world.deliver(CLOSED, transfer_end=True)
    world.settle()
    world.runner.errors = []
    assert world.task().state is AiState.FAILED


def test_a_cancelled_task_never_runs_until_a_person_asks_for_it(world):
    queued(world)
    run = world.task().run_id
    ask(world, Verb.CANCEL, text="wrong patient")
    world.settle()
    task = world.task()
    assert (task.state, task.reason, task.detail) == (AiState.CANCELLED, "operator", "wrong patient")
    assert run in world.queue.cancelled
    assert world.workitems.items[task.workitem_uid]["state"] == "CANCELED"
    assert world.runner.runs == []
    world.deliver(range(1, 20), transfer_end=True)  # more images start nothing that somebody called off
    world.settle()
    assert world.task().state is AiState.CANCELLED
    assert world.runner.runs == []


def test_a_waiting_task_called_off_on_the_ups_worklist_says_so_at_once(world):
    world.deliver(CLOSED)
    world.drain()
    task = world.task()
    assert task.state is AiState.AWAITING_IMAGES
    with world.database.write() as tx:
        world.requests.workitem_changed(tx, TENANT, task.workitem_uid, UpsState.CANCELED)
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.CANCELLED, "ups_request")
    assert world.runner.runs == []


def test_a_ups_cancel_request_is_taken_while_the_task_lives_and_declined_afterwards(world):
    queued(world)
    uid = world.task().workitem_uid
    with world.database.write() as tx:
        assert world.requests.cancel_requested(tx, TENANT, uid) is True
        assert world.requests.cancel_requested(tx, TENANT, "9.9.9") is False
    world.settle()
    assert world.task().state is AiState.CANCELLED
    with world.database.write() as tx:
        assert world.requests.cancel_requested(tx, TENANT, uid) is False


def test_a_discarded_dead_letter_stays_failed_and_says_what_it_was(world):
    failed(world, Unavailable("no model"))
    assert world.task().reason == "dead_letter"
    ask(world, Verb.DISCARD, text="scanner test")
    world.settle()
    task = world.task()
    assert (task.state, task.reason, task.detail) == (AiState.FAILED, "discarded", "was dead_letter: scanner test")
    assert [e.data["text"] for e in world.log("task.discarded")] == ["scanner test"]
    ask(world, Verb.DISCARD)  # a second time changes nothing that matters
    world.settle()
    assert world.task().state is AiState.FAILED


def test_a_rerun_reads_again_with_the_detector_of_today_in_the_batch_lane(world):
    world.deliver(CLOSED, transfer_end=True)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    ask(world, Verb.RERUN)
    world.settle()
    assert len(world.runner.runs) == 1, "the same detector has read this input: its result stands"
    world.runner._infos["ich"] = replace(world.runner._infos["ich"], version="0.2.0")
    before = world.task().result_key
    ask(world, Verb.RERUN, text="new version")
    world.settle()
    task = world.task()
    assert [r.version for r in world.runner.runs] == ["0.1.0", "0.2.0"]
    assert task.result_key != before
    assert (task.version, task.priority) == ("0.2.0", Priority.BATCH)
    assert [q.queue for q in world.queue.items.values() if q.workflow == RUN][-1] == "detector.cpu.batch"
    assert len(world.log("result.superseded")) == 1
    started = world.log("task.started")[-1]
    assert "received" not in started.stamps, "the turnaround of the images is not that of the request"
    assert started.stamps["requested"] <= started.stamps["started"]


def test_encoding_again_writes_the_same_objects(world):
    world.deliver(CLOSED, transfer_end=True)
    world.settle()
    stored, writes = list(world.ingest.stored), world.ingest.writes
    ask(world, Verb.REENCODE)
    world.settle()
    assert world.ingest.stored == stored, "the same UIDs"
    assert world.ingest.writes == 2 * writes
    assert len(world.encoder.seen) == 2


@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.DISCARD])
def test_a_verb_that_the_state_does_not_allow_is_a_conflict(world, verb):
    world.deliver(CLOSED, transfer_end=True)
    world.settle()
    with pytest.raises(Conflict, match="the task is positive"):
        ask(world, verb)
    with pytest.raises(NotFound):
        ask(world, verb, detector="other")
    with pytest.raises(NotFound):
        world.requests.ask_study(TENANT, Verb.REEVALUATE, "9.9")


def test_a_request_overtaken_by_the_outcome_does_nothing(world):
    queued(world)
    ask(world, Verb.CANCEL)
    [request] = [q for q in world.queue.items.values() if q.workflow == OPERATE]
    [run] = [q for q in world.queue.items.values() if q.workflow == RUN]
    run.done = True
    world.execute(run)
    request.done = True
    world.execute(request)
    assert world.task().state is AiState.POSITIVE


def test_a_study_raised_by_hand_takes_its_queued_run_to_the_stat_lane(world):
    queued(world)
    assert [q.queue for q in world.queue.items.values() if q.workflow == RUN] == ["detector.cpu"]
    with world.database.write() as tx:
        reason = Reason("manual", "phone call", Priority.STAT, world.clock.now())
        world.reading.raise_to(tx, TENANT, STUDY, reason)
        world.requests.enqueue(tx, TENANT, Verb.EXPEDITE, STUDY)
    [request] = [q for q in world.queue.items.values() if q.workflow == OPERATE]
    request.done = True
    world.execute(request)
    task = world.task()
    assert task.priority is Priority.STAT
    assert [q.queue for q in world.queue.items.values() if q.workflow == RUN] == ["detector.cpu.stat"]
    assert world.workitems.items[task.workitem_uid]["dataset"]["00741200"]["Value"] == ["HIGH"]
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert len(world.runner.runs) == 1


# --- explanation -----------------------------------------------------------------------------------------------------


def explainer(world, today=None):
    return Explainer(world.database, world.ports.decisions, world.ports.rule_sets, today or world.rules.workflows)


def test_every_decision_replays_to_itself_and_todays_rules_stand_beside(world):
    world.deliver(CLOSED, source=Source(ae="CT_ER"), transfer_end=False)
    world.settle()
    world.deliver(range(1, 12), transfer_end=True)
    world.settle()
    answer = explainer(world).explain(TENANT, STUDY, every=True)
    assert len(answer["decisions"]) > 2
    for decision in answer["decisions"]:
        assert decision["replayed"] is True
        assert decision["agrees"] is True
        assert decision["rules_changed"] is False
        assert decision["workflows"] == decision["today"]
        [rule] = decision["workflows"]
        assert rule["matched"] is True
        assert "like(s.body_part, '*HEAD*')" in str(rule["when"]["steps"])
        assert rule["conditions"]["priority.stat_if"]["value"] is True
    assert rule["conditions"]["triage[0].if"]["value"] is True, "the result of the run was known to the last decision"
    elsewhere = workflow(on={"event": "study.changed", "when": "any(s.modality == 'MR' for s in series)"})
    [latest] = explainer(world, (elsewhere,)).explain(TENANT, STUDY)["decisions"]
    assert (latest["agrees"], latest["rules_changed"]) == (True, True)
    assert [rule["matched"] for rule in latest["today"]] == [False]


def test_a_tampered_decision_does_not_agree(world):
    world.deliver(CLOSED, transfer_end=True)
    world.settle()
    with world.database.write() as tx:
        last = world.ports.decisions.of_study(tx, TENANT, STUDY)[-1]
        world.ports.decisions.put(tx, replace(last, trace={**last.trace, "rules": {"head-ct": False}}))
    [decision] = explainer(world).explain(TENANT, STUDY)["decisions"]
    assert decision["agrees"] is False
    with pytest.raises(NotFound):
        explainer(world).explain(TENANT, "9.9.9")


def test_a_missing_attribute_is_unknown_again_and_instances_are_kept_when_rules_name_them(tmp_path):
    rule = "any(i.number > 3 for i in instances) and study.sex == 'F'"
    named = workflow(on={"event": "study.changed", "when": rule})
    world = World(tmp_path, rules=Rules((named,), TRUSTED, early_settle_seconds=0.0))
    try:
        world.deliver(CLOSED, transfer_end=True)
        world.settle()
        [decision] = explainer(world).explain(TENANT, STUDY)["decisions"]
        assert decision["agrees"] is True
        assert [r["matched"] for r in decision["workflows"]] == ["unknown"]
        assert "i.number" in str(decision["workflows"][0]["when"])
    finally:
        world.close()


def test_reevaluation_starts_what_todays_rules_newly_want_and_raises_by_them(tmp_path):
    modest = workflow(triage=())
    world = World(tmp_path, rules=Rules((modest,), TRUSTED, early_settle_seconds=0.0))
    try:
        world.deliver(CLOSED, transfer_end=True)
        world.settle()
        assert world.reading.classes[STUDY][0] is Priority.URGENT
        today = Rules((workflow(),), TRUSTED, early_settle_seconds=0.0)
        world.evaluator = Evaluator(world.ports, today)
        world.operations = Operations(world.ports, today, world.evaluator)
        world.requests.ask_study(TENANT, Verb.REEVALUATE, STUDY)
        world.settle()
        assert world.reading.classes[STUDY][0] is Priority.STAT
        assert len(world.runner.runs) == 1, "nothing was read twice"
        assert len(world.log("finding.positive")) == 1, "nobody was told twice"
    finally:
        world.close()


def test_a_crash_is_failed_and_can_be_run_again(world):
    failed(world, ComputationFailed("crashed", "boom"))
    ask(world, Verb.RERUN)
    world.settle()
    assert world.task().state is AiState.POSITIVE


# --- deletion --------------------------------------------------------------------------------------------------------


def removed(world):
    with world.database.write() as tx:
        world.outbox.study_removed(tx, TENANT, STUDY)


def test_nothing_goes_on_for_a_deleted_study_and_its_workitems_end(world):
    queued(world)
    run, uid = world.task().run_id, world.task().workitem_uid
    del world.studies.studies[TENANT, STUDY]
    removed(world)
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.CANCELLED, "study_deleted")
    assert run in world.queue.cancelled
    assert world.workitems.items[uid]["state"] == "CANCELED"
    assert world.runner.runs == []
    assert world.ingest.stored == []


def test_a_report_of_a_study_deleted_meanwhile_is_not_written(world):
    world.deliver(CLOSED, transfer_end=True)
    while world.task() is None or world.task().state is not AiState.POSITIVE:
        world.step()
    del world.studies.studies[TENANT, STUDY]
    world.settle()
    assert world.ingest.stored == []
    assert world.log("task.dead") == []


def test_what_is_left_of_a_study_is_evaluated_anew(world):
    world.deliver(CLOSED, transfer_end=True)
    world.settle()
    facts = world.studies.studies[TENANT, STUDY]
    [series] = [s for s in facts.series if not s.detector_result]
    fewer = replace(series, instances=series.instances[:5])
    others = tuple(s for s in facts.series if s.detector_result)
    world.studies.studies[TENANT, STUDY] = replace(facts, series=(fewer, *others), generation=facts.generation + 1)
    removed(world)
    world.settle()
    assert [len(r.instances) for r in world.runner.runs] == [8, 5]
    assert len(world.log("result.superseded")) == 1


# --- failures are reported -------------------------------------------------------------------------------------------


def test_a_failure_gets_a_report_and_its_workitem_names_it(world):
    failed(world, ComputationFailed("crashed", "boom"))
    task = world.task()
    [result] = world.current()
    assert (result.state, result.reason, result.run.result_key) == (AiState.FAILED, "crashed", task.result_key)
    assert [s.modality for s in world.stored()[0]] == ["SR"]
    item = world.workitems.items[task.workitem_uid]
    assert item["state"] == "CANCELED"
    assert item["dataset"]["00741216"]["Value"][0]["00404033"]["Value"], "the report is an output"
    ask(world, Verb.RERUN)
    world.settle()
    assert [r.state for r in world.current()] == [AiState.POSITIVE]
    assert len(world.log("result.superseded")) == 1


# --- on_failure ------------------------------------------------------------------------------------------------------


def pair(tmp_path, on_failure, *, fails):
    tasks = {
        "first": {"uses": "detector/ich@*", "on_failure": on_failure},
        "second": {"uses": "detector/other@*", "needs": ["first"]}
        if on_failure != {"run": "second"}
        else {"uses": "detector/other@*"},
    }
    made = World(
        tmp_path,
        rules=Rules((workflow(tasks=tasks, triage=()),), TRUSTED, early_settle_seconds=0.0),
        runner=FakeRunner(None, "ich", "other"),
    )
    made.runner.errors = [ComputationFailed("crashed", "boom")] if fails else []
    made.deliver(CLOSED, transfer_end=True)
    made.settle()
    try:
        return made.task("ich"), made.task("other"), [r.detector for r in made.runner.runs]
    finally:
        made.close()


@pytest.mark.parametrize(
    ("on_failure", "fails", "second", "ran"),
    [
        ("continue", True, AiState.POSITIVE, ["ich", "other"]),
        ("stop", True, AiState.NOT_APPLICABLE, ["ich"]),
        ("stop", False, AiState.POSITIVE, ["ich", "other"]),
        ({"run": "second"}, True, AiState.POSITIVE, ["ich", "other"]),
        ({"run": "second"}, False, AiState.NOT_APPLICABLE, ["ich"]),
    ],
)
def test_on_failure_decides_what_follows(tmp_path, on_failure, fails, second, ran):
    one, other, runs = pair(tmp_path, on_failure, fails=fails)
    assert one.state is (AiState.FAILED if fails else AiState.POSITIVE)
    assert (other.state, runs) == (second, ran)
    if second is AiState.NOT_APPLICABLE:
        assert other.reason == "tenant_policy"
        assert "first" in other.detail


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"run": "nobody"}, "continue", "there is no task 'nobody'"),
        ({"run": "second"}, {"run": "first"}, "in a circle"),
    ],
)
def test_a_fallback_that_cannot_be_is_an_error_of_the_file(first, second, words):
    tasks = {
        "first": {"uses": "detector/ich@*", "on_failure": first},
        "second": {"uses": "detector/other@*", "on_failure": second},
    }
    with pytest.raises(ConfigurationError, match=words):
        workflow(tasks=tasks, triage=())
