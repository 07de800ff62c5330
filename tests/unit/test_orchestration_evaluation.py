"""What happens to a study, by order of arrival: same images, same final state, one notification per finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.orchestration_detectors import FakeRunner, result_of
from tests.orchestration_fakes import STUDY, TENANT, FakeClock
from tests.orchestration_world import World, workflow

from wetread.core.completeness import CompletenessPolicy, SourceMatch, SourcePolicy, StudyManifest, Timing
from wetread.core.errors import ComputationFailed, NotProcessable, Unavailable, Unprocessable
from wetread.core.facts import Source
from wetread.core.identifiers import derived_uid
from wetread.core.priority import Priority
from wetread.core.states import AiState
from wetread.core.workqueue import run_request
from wetread.orchestration.ports import Rules


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def at_once(world: World) -> None:
    world.deliver(range(1, 9), transfer_end=True)


def shuffled(world: World) -> None:
    for number in (5, 2, 8, 1, 7, 3, 6, 4):
        world.deliver([number])
        world.advance(0.2)
    world.deliver([], transfer_end=True)


def duplicated(world: World) -> None:
    for numbers in ([1, 2, 3], [2, 3, 4], [1, 2, 3, 4, 5, 6], [7, 8], [7, 8]):
        world.deliver(numbers)
        world.advance(0.1)
    world.deliver([], transfer_end=True)


def slow_trickle(world: World) -> None:
    for number in range(1, 9):
        world.deliver([number], transfer_end=True)
        world.advance(2.0)


def very_slow_trickle(world: World) -> None:
    for number in range(1, 9):
        world.deliver([number], transfer_end=True)
        world.advance(5.0)


def late_slice(world: World) -> None:
    world.deliver([1, 2, 3, 5, 6, 7, 8], transfer_end=True)
    world.advance(30)
    world.deliver([4], transfer_end=True)


def sent_again(world: World) -> None:
    at_once(world)
    world.advance(60)
    at_once(world)


def two_series(world: World) -> None:
    world.deliver([1], series="1.2.3.0", transfer_end=False)
    world.deliver(range(1, 9), transfer_end=True)
    world.advance(1)
    world.deliver(range(1, 4), series="1.2.3.7", transfer_end=True)


ORDERS = [at_once, shuffled, duplicated, slow_trickle, very_slow_trickle, late_slice, sent_again, two_series]


@pytest.mark.parametrize("arrive", ORDERS, ids=lambda f: f.__name__)
def test_every_order_of_arrival_ends_alike(world: World, arrive: Callable[[World], None]) -> None:
    arrive(world)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    [result] = world.current()
    assert set(result.sop_instance_uids) == {f"1.2.3.1.{n}" for n in range(1, 9)}
    [stored] = world.stored()
    assert {s.modality: s.series_uid for s in stored} == {
        m: derived_uid(result.run.result_key, r) for r, m in (("sr", "SR"), ("seg", "SEG"), ("sc", "OT"))
    }
    told = world.log("finding.positive")
    assert len(told) == 1, "one notification per finding"
    assert not world.log("finding.retracted")
    assert world.reading.classes[STUDY][0] is Priority.STAT
    assert {(r.source, r.priority) for r in world.reading.reasons} == {
        ("order", Priority.ROUTINE),
        ("rule", Priority.URGENT),
        ("ai", Priority.STAT),
    }
    states = [history[-1] for history in world.workitems.history.values()]
    again = arrive in {very_slow_trickle, late_slice}  # a pause of over 3 s ends a series
    assert states.count("COMPLETED") == 1 or again
    assert set(states) <= {"COMPLETED", "CANCELED"}, "no workitem is left open"
    assert world.workitems.items[world.task().workitem_uid]["state"] == "COMPLETED"
    ready = [e for e in world.log("result.ready") if not e.data["preliminary"]]
    assert {e.data["result_key"] for e in ready} >= {result.run.result_key}


@pytest.mark.parametrize("arrive", ORDERS, ids=lambda f: f.__name__)
def test_the_result_key_does_not_depend_on_the_order(
    tmp_path: Path, world: World, arrive: Callable[[World], None]
) -> None:
    (tmp_path / "reference").mkdir()
    reference = World(tmp_path / "reference")
    at_once(reference)
    reference.settle()
    arrive(world)
    world.settle()
    assert world.current()[0].run.result_key == reference.current()[0].run.result_key
    reference.close()


def test_a_study_in_several_requests_is_read_once(tmp_path: Path) -> None:
    """The early run of the first requests waits a moment, and the rest of the study takes its place unstarted."""
    world = World(tmp_path, rules=Rules((workflow(),), CompletenessPolicy(), early_settle_seconds=1.0))
    world.deliver(range(1, 8), transfer_end=True)
    world.advance(0.4)
    world.deliver([8], transfer_end=True)
    world.evaluator.post_manifest("default", STUDY, StudyManifest(instances=8))
    world.settle()
    assert [len(run.instances) for run in world.runner.runs] == [8]
    assert world.task().state is AiState.POSITIVE
    world.close()


def test_a_positive_is_told_before_its_report_and_at_once(world: World) -> None:
    at_once(world)
    world.drain()
    assert world.task().state is AiState.PRELIMINARY_POSITIVE
    [told] = world.log("finding.positive")
    assert told.data["preliminary"] is True
    assert told.data["notify"] == ["stroke-team"]
    assert told.data["volume_ml"] == 12.0
    assert told.stamps["received"] <= told.stamps["evaluated"] <= told.stamps["started"] < told.stamps["inferred"]
    assert told.stamps["inferred"] - told.stamps["received"] == pytest.approx(2.5), "nothing but inference in between"
    kinds = [str(e.type) for e in world.log()]
    assert kinds.index("finding.positive") < kinds.index("result.ready")
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert len(world.runner.runs) == 1, "promoted without a second run"
    assert world.ingest.writes == 3, "objects are written once"
    assert not world.current()[0].preliminary


def test_an_early_negative_stays_pending_until_the_input_is_complete(world: World) -> None:
    world.runner.positive_from = 99
    at_once(world)
    world.drain()
    assert len(world.runner.runs) == 1
    assert world.task().state is AiState.AWAITING_IMAGES
    assert world.current() == []
    assert world.ingest.writes == 0, "nothing says negative yet"
    world.settle()
    assert world.task().state is AiState.NEGATIVE
    assert len(world.runner.runs) == 1
    assert [s.modality for s in world.stored()[0]] == ["SR"]
    assert not world.log("finding.positive")


def test_an_early_run_that_fails_is_visible_at_once_and_more_images_give_it_another(world: World) -> None:
    world.runner.errors = [ComputationFailed("out_of_memory")]
    world.deliver(range(1, 8), transfer_end=True)
    world.drain()
    assert (world.task().state, world.task().reason) == (AiState.FAILED, "out_of_memory")
    assert world.log("task.failed")[0].data["reason"] == "out_of_memory"
    world.deliver([8], transfer_end=True)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert [len(run.instances) for run in world.runner.runs] == [7, 8]
    assert [result.state for result in world.current()] == [AiState.POSITIVE], "the failure's report is superseded"


def test_an_early_run_that_fails_on_the_whole_input_stands_when_the_study_turns_out_complete(world: World) -> None:
    world.runner.errors = [ComputationFailed("out_of_memory")]
    at_once(world)
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.FAILED, "out_of_memory")
    assert len(world.runner.runs) == 1, "the same input is not tried again by itself"
    assert [s.modality for s in world.stored()[0]] == ["SR"]
    assert [item["state"] for item in world.workitems.items.values()] == ["CANCELED"]


def test_an_early_refusal_of_the_data_is_no_answer_until_the_input_is_complete(world: World) -> None:
    refused = (AiState.NOT_PROCESSABLE, "missing_slices")
    world.runner.answer = lambda run: result_of(run, *((AiState.POSITIVE,) if len(run.instances) == 8 else refused))
    world.deliver(range(1, 8), transfer_end=True)
    world.drain()
    assert world.task().state is AiState.AWAITING_IMAGES
    assert world.ingest.writes == 0
    world.deliver([8], transfer_end=True)
    world.settle()
    assert world.task().state is AiState.POSITIVE


def test_no_early_run_inside_a_young_transfer_but_inside_a_long_one(world: World) -> None:
    world.deliver(range(1, 6))
    world.drain()
    assert world.runner.runs == []
    for number in range(6, 9):
        world.advance(2.0)
        world.deliver([number])
        world.drain()
    assert [len(run.instances) for run in world.runner.runs] == [8]


def test_early_off_waits_for_completeness(tmp_path: Path) -> None:
    world = World(tmp_path, policy=CompletenessPolicy(default=Timing(early=False)))
    at_once(world)
    world.drain()
    assert world.runner.runs == []
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert len(world.runner.runs) == 1
    world.close()


def test_complete_while_the_early_run_is_in_flight_makes_it_final(world: World) -> None:
    world.runner.positive_from = 99
    at_once(world)
    [item] = world.queue.ready()
    item.done = True
    world.execute(item)
    assert world.task().state is AiState.QUEUED
    assert world.task().early
    world.evaluator.post_manifest("default", STUDY, StudyManifest(instances=8))
    for queued in world.queue.ready():
        if queued.workflow == "evaluate_study":
            queued.done = True
            world.execute(queued)
    assert not world.task().early
    world.settle()
    assert world.task().state is AiState.NEGATIVE
    assert len(world.runner.runs) == 1


def test_more_images_while_an_early_run_is_in_flight_supersede_it(world: World) -> None:
    at_once(world)
    evaluation = world.queue.ready()[0]
    evaluation.done = True
    world.execute(evaluation)
    first = world.task()
    world.deliver([9, 10], transfer_end=True)
    evaluations = [q for q in world.queue.ready() if q.workflow == "evaluate_study"]
    for queued in evaluations:
        queued.done = True
        world.execute(queued)
    assert world.task().run_id == first.run_id, "a second early run is never started beside the first"
    world.clock.time += 3.5
    for queued in world.queue.ready():
        if queued.workflow == "study_quiet":
            queued.done = True
            world.execute(queued)
    second = world.task()
    assert second.run_id != first.run_id
    assert first.run_id in world.queue.cancelled
    assert world.workitems.items[first.workitem_uid]["state"] == "CANCELED"
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert len(world.current()[0].sop_instance_uids) == 10
    assert len(world.log("finding.positive")) == 1


def test_a_late_image_turns_positive_to_negative_never_silently(world: World) -> None:
    world.runner.answer = lambda r: result_of(r, AiState.POSITIVE if len(r.instances) == 8 else AiState.NEGATIVE)
    at_once(world)
    world.settle()
    world.deliver([9], transfer_end=True)
    world.settle()
    assert world.task().state is AiState.NEGATIVE
    [retracted] = world.log("finding.retracted")
    assert retracted.data["code"] == "1386000"
    assert len(world.log("result.superseded")) == 1
    assert world.reading.classes[STUDY][0] is Priority.STAT, "AI may only raise"
    world.deliver([10], transfer_end=True)
    world.runner.answer = None
    world.settle()
    assert len(world.log("finding.positive")) == 2, "a new episode is told again"


def test_images_of_an_unrelated_series_change_nothing(world: World) -> None:
    at_once(world)
    world.settle()
    key = world.current()[0].run.result_key
    world.deliver([1, 2], series="1.2.3.99", transfer_end=True)
    world.settle()
    assert len(world.runner.runs) == 1
    assert world.current()[0].run.result_key == key


def test_a_transfer_that_is_repeated_after_a_crash_ends_the_first_one(tmp_path: Path) -> None:
    """The sender could not know that everything had arrived. It sent all of it again: duplicates, nothing else."""
    world = World(tmp_path, policy=CompletenessPolicy(default=Timing(treat_transfer_end_as="complete")))

    def repeat() -> bool:
        with world.database.write() as tx:
            waits = world.outbox.waits(tx, TENANT, STUDY)
            if waits:
                world.outbox.transfer_repeated(tx, TENANT, STUDY, received_at=world.clock.now())
        return waits

    assert not repeat(), "there is no such study"
    world.deliver([1, 2, 3])
    assert repeat()
    assert repeat(), "as long as nobody has looked; it is the same evaluation"
    world.drain()
    assert len(world.runner.runs) == 1
    [stable] = world.log("study.stable")
    assert stable.data["by"] == "transfer_end", "not by silence"
    assert not repeat(), "its end is known"
    world.settle()
    assert len(world.runner.runs) == 1
    world.close()


def test_an_old_input_that_comes_back_is_not_run_again(world: World) -> None:
    at_once(world)
    world.settle()
    world.deliver([4], transfer_end=True, content="re-sent with other pixels")
    world.settle()
    assert len(world.runner.runs) == 2
    world.deliver([4], transfer_end=True)
    world.settle()
    assert len(world.runner.runs) == 2, "the first input's result stands again"
    assert world.task().state is AiState.POSITIVE
    assert world.current()[0].run.result_key == world.task().result_key


def test_reruns_after_the_second_are_damped(world: World) -> None:
    at_once(world)
    world.settle()
    waits = []
    for number in range(9, 13):
        world.deliver([number], transfer_end=True)
        began = world.clock.time
        runs = len(world.runner.runs)
        world.settle()
        assert len(world.runner.runs) == runs + 1
        waits.append(world.runner.runs[-1].started_at - began)
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(3.0, abs=0.2)
    assert waits[3] == pytest.approx(3.0 + 20.0, abs=0.2)


# --- not applicable, not processable, failed -------------------------------------------------------------------------


def test_a_chest_ct_is_not_applicable_without_a_workitem(world: World) -> None:
    world.deliver(range(1, 9), body_part="CHEST", transfer_end=True)
    world.drain()
    assert world.task().state is AiState.AWAITING_IMAGES, "images of a head may still come"
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.NOT_APPLICABLE, "body_part")
    assert world.workitems.items == {}
    assert world.runner.runs == []
    assert world.ingest.writes == 0


def test_a_study_that_no_rule_wants_ends_visibly(world: World) -> None:
    world.deliver([1], modality="CR", transfer_end=True)
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.NOT_APPLICABLE, "modality")


def test_a_rule_that_says_no_although_the_detector_could_is_tenant_policy(world: World) -> None:
    world.deliver(range(1, 9), contrast=True, transfer_end=True)
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.NOT_APPLICABLE, "tenant_policy")


def test_a_detector_asked_for_by_name_reads_what_no_rule_wants(world: World) -> None:
    world.deliver(range(1, 9), contrast=True, transfer_end=True)
    world.settle()
    assert world.task().state is AiState.NOT_APPLICABLE
    generation = world.studies.studies["default", STUDY].generation
    evaluation = world.evaluator.evaluate("default", STUDY, generation, run_request("ich"), {})
    world.evaluator.cancel(evaluation)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert len(world.runner.runs) == 1


def test_a_head_that_follows_a_chest_is_run_after_all(world: World) -> None:
    world.deliver(range(1, 4), body_part="CHEST", series="1.2.3.5", transfer_end=True)
    world.advance(60)
    assert world.task().state is AiState.NOT_APPLICABLE
    at_once(world)
    world.settle()
    assert world.task().state is AiState.POSITIVE


def test_too_few_slices_are_refused_with_a_report(world: World) -> None:
    world.deliver([1, 2], transfer_end=True)
    world.drain()
    assert world.task().state is AiState.AWAITING_IMAGES
    world.settle()
    task = world.task()
    assert (task.state, task.reason) == (AiState.NOT_PROCESSABLE, "missing_slices")
    item = world.workitems.items[task.workitem_uid]
    assert item["state"] == "CANCELED"
    reason = item["dataset"]["00741002"]["Value"][0]["0074100E"]["Value"][0]
    assert reason["00080100"]["Value"] == ["missing_slices"]
    assert [s.modality for s in world.stored()[0]] == ["SR"]
    assert item["dataset"]["00741216"]["Value"][0]["00404033"]["Value"], "the report is referenced"
    world.deliver(range(3, 9), transfer_end=True)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert world.task().workitem_uid != task.workitem_uid


def test_a_refusal_by_the_data_waits_for_the_whole_study(world: World) -> None:
    world.runner.select_error = NotProcessable("mixed_orientation", "two stacks")
    at_once(world)
    world.advance(5)
    assert world.task().state is AiState.AWAITING_IMAGES
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.NOT_PROCESSABLE, "mixed_orientation")


def test_a_detector_whose_selection_breaks_is_failed_not_silent(world: World) -> None:
    world.runner.select_error = KeyError("bug")
    at_once(world)
    world.settle()
    task = world.task()
    assert (task.state, task.reason) == (AiState.FAILED, "crashed")
    assert world.workitems.items[task.workitem_uid]["state"] == "CANCELED"
    assert world.log("task.failed")


def test_the_image_check_of_the_detector_may_say_not_applicable(world: World) -> None:
    world.runner.answer = lambda r: result_of(r, AiState.NOT_APPLICABLE, "body_part")
    world.deliver(range(1, 9), body_part="", transfer_end=True)
    world.settle()
    task = world.task()
    assert (task.state, task.reason) == (AiState.NOT_APPLICABLE, "body_part")
    assert world.workitems.items[task.workitem_uid]["state"] == "CANCELED"
    assert [s.modality for s in world.stored()[0]] == ["SR"]


def test_transient_errors_are_tried_again_and_permanent_ones_are_not(world: World) -> None:
    world.runner.errors = [Unavailable("loading"), Unavailable("loading")]
    at_once(world)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert world.task().attempt == 3
    assert len(world.log("task.started")) == 3


@pytest.mark.parametrize(
    ("error", "reason", "dead"),
    [
        (ComputationFailed("timeout", "60 s"), "timeout", False),
        (ComputationFailed("out_of_memory"), "out_of_memory", False),
        (RuntimeError("bug"), "crashed", False),
        (MemoryError(), "out_of_memory", False),
        (Unavailable("never"), "dead_letter", True),
    ],
)
def test_every_failure_has_a_typed_reason(world: World, error: Exception, reason: str, dead: bool) -> None:
    world.runner.errors = [error] * 10
    at_once(world)
    world.settle()
    task = world.task()
    assert (task.state, task.reason) == (AiState.FAILED, reason)
    assert world.workitems.items[task.workitem_uid]["state"] == "CANCELED"
    assert bool(world.log("task.dead")) is dead
    assert task.run_id is None


def test_a_workitem_called_off_from_outside_cancels_the_task(world: World) -> None:
    at_once(world)
    item = world.queue.ready()[0]
    item.done = True
    world.execute(item)
    uid = world.task().workitem_uid
    world.workitems.items[uid]["state"] = "CANCELED"
    world.settle()
    assert (world.task().state, world.task().reason) == (AiState.CANCELLED, "ups_request")
    assert world.runner.runs == []


def test_a_report_that_cannot_be_stored_does_not_undo_the_finding(world: World) -> None:
    world.ingest.failure = 0xC000
    at_once(world)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    [dead] = world.log("task.dead")
    assert dead.data["stage"] == "evidence"
    assert world.log("finding.positive")
    assert not world.log("result.ready")


def test_a_report_from_before_the_database_was_restored_stands(world: World) -> None:
    """Its objects have the same UIDs and another time of the run; those of anybody else are no report of ours."""
    at_once(world)
    world.settle()
    ready = world.log("result.ready")[-1]
    world.ingest.failure = 0xB00E
    stored = world.composition.store("default", ready.data["result_key"], again=True)
    assert [one["series_uid"] for one in stored] == [one["series_uid"] for one in ready.data["stored"]]
    facts = world.studies.studies["default", STUDY]
    others = tuple(replace(series, detector_result=False) for series in facts.series)
    world.studies.studies["default", STUDY] = replace(facts, series=others)
    with pytest.raises(ComputationFailed):
        world.composition.store("default", ready.data["result_key"], again=True)


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_manifest_before_or_after_the_images_makes_them_complete(world: World) -> None:
    listed = StudyManifest(sop_instance_uids=tuple(f"1.2.3.1.{n}" for n in range(1, 9)))
    world.evaluator.post_manifest("default", STUDY, listed)
    world.deliver(range(1, 5), transfer_end=True)
    world.advance(20)
    assert world.task().state is not AiState.POSITIVE, "the sender says that more will come, whatever the timers say"
    world.deliver(range(5, 9))
    world.drain()
    assert world.task().state is AiState.POSITIVE, "no timer was needed"
    assert world.log("study.stable")


def test_a_manifest_that_says_nothing_is_refused(world: World) -> None:
    with pytest.raises(Unprocessable):
        world.evaluator.post_manifest("default", STUDY, StudyManifest())
    with pytest.raises(Unprocessable):
        world.evaluator.post_manifest("default", STUDY, StudyManifest(sop_instance_uids=("not a uid",)))


def test_a_source_that_must_send_a_manifest_is_forced_after_the_longest_wait(tmp_path: Path) -> None:
    policy = CompletenessPolicy(
        sources=(SourcePolicy(match=SourceMatch(client="tele*"), require="manifest", max_wait=120.0, early=False),)
    )
    world = World(tmp_path, policy=policy)
    world.deliver(range(1, 9), transfer_end=True, source=Source(client="telerad-a"))
    world.advance(100)
    assert world.task().state is AiState.AWAITING_IMAGES
    world.advance(60)
    assert world.task().state is AiState.POSITIVE
    assert "forced" in world.current()[0].quality
    world.settle()
    world.close()


def test_the_end_of_a_trusted_transfer_is_complete(tmp_path: Path) -> None:
    policy = CompletenessPolicy(
        sources=(SourcePolicy(match=SourceMatch(ae="CT_ER*"), treat_transfer_end_as="complete"),)
    )
    world = World(tmp_path, policy=policy)
    world.deliver(range(1, 9), transfer_end=True, source=Source(ae="CT_ER"))
    world.drain()
    assert world.task().state is AiState.POSITIVE
    assert world.task().priority is Priority.STAT
    [run] = [q for q in world.queue.items.values() if q.workflow == "run_task"]
    assert run.queue == "detector.cpu.stat"
    world.settle()
    world.close()


def test_a_declared_count_makes_a_series_complete(world: World) -> None:
    world.deliver(range(1, 8), declared=8)
    world.drain()
    assert world.runner.runs == []
    world.deliver([8], declared=8)
    world.drain()
    assert world.task().state is AiState.POSITIVE


def test_a_forced_end_of_an_endless_trickle(tmp_path: Path) -> None:
    world = World(tmp_path, policy=CompletenessPolicy(default=Timing(max_wait=30.0, early=False)))
    for number in range(1, 25):
        world.deliver([number], transfer_end=True)
        world.advance(2.0)
    assert world.task().state is AiState.POSITIVE, "did not wait for ever"
    assert any("forced" in r.quality for r in world.current())
    world.settle()
    world.close()


def test_stable_is_said_once_per_generation_and_the_timer_ends(world: World) -> None:
    at_once(world)
    world.settle()
    [stable] = world.log("study.stable")
    assert stable.data["by"] == "quiet_study"
    with world.reads() as tx:
        assert world.ports.watches.get(tx, "default", STUDY) is None
    assert world.queue.next_at() is None


def test_no_timer_is_set_by_the_wake_up_that_completes_a_study(world: World) -> None:
    at_once(world)
    world.settle()
    timers = [item for item in world.queue.items.values() if item.workflow == "study_quiet"]
    assert {world.evaluator.wake(**item.arguments).outcome for item in timers} == {"replaced"}, "each has rung"
    with world.reads() as tx:
        signals = world.ports.decisions.signals(tx, TENANT, STUDY, world.studies.facts(tx, TENANT, STUDY).generation)
    assert len(timers) == len({s for s in signals if s.startswith("quiet")})


def test_detectors_are_loaded_before_writers_are_kept_waiting(world: World) -> None:
    """Imports take seconds, and every STOW waits for the writers' turn."""
    prepared = []

    def loads() -> None:
        with world.database.write():  # would wait for ever inside the evaluation's own transaction
            prepared.append(world.clock.now())

    world.runner.preparation = loads
    at_once(world)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    world.operations.perform(TENANT, STUDY, "ich", "rerun", "", "")
    evaluations = [item for item in world.queue.items.values() if item.workflow in {"evaluate_study", "study_quiet"}]
    assert len(prepared) == len(evaluations) + 1


def test_every_message_may_come_twice(world: World) -> None:
    at_once(world)
    world.settle()
    before = (world.task(), len(world.log()), world.ingest.writes)
    for item in list(world.queue.items.values()):
        world.execute(item)
    world.settle()
    assert (world.task(), len(world.log()), world.ingest.writes) == before


def test_a_shadow_detector_stores_but_tells_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, runner=FakeRunner(FakeClock(), shadow=True))
    at_once(world)
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert world.task().shadow
    assert not world.log("finding.positive")
    assert world.reading.classes[STUDY][0] is Priority.URGENT, "only the rule raised it"
    assert all(e.data["shadow"] for e in world.log("result.ready"))
    world.close()
