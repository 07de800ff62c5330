"""A state machine over arrivals, failures, lost and repeated messages: whatever happens, no state is silent."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.orchestration_detectors import result_of
from tests.orchestration_fakes import STUDY
from tests.orchestration_world import World

from wetread.core.errors import ComputationFailed, Unavailable
from wetread.core.priority import Priority
from wetread.core.states import FINAL, READ, REASONED, AiState


class StudyMachine(RuleBasedStateMachine):
    """Slices arrive in any order and groups; the queue is driven one message at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self._folder.name))
        self.world.runner.answer = lambda r: result_of(
            r, AiState.POSITIVE if len(r.instances) % 2 == 0 else AiState.NEGATIVE
        )
        self.begun = False
        self.urgency = Priority.BATCH.rank

    def teardown(self) -> None:
        if self.begun:
            self.world.runner.errors = []
            self.world.settle()
            task = self.world.task()
            assert task.state in FINAL, f"{task.state} is no end"
            assert task.run_id is None
            for history in self.world.workitems.history.values():
                assert history[-1] in {"COMPLETED", "CANCELED"}
            if task.state in READ:
                [result] = self.world.current()
                assert result.state is task.state
                assert len(result.sop_instance_uids) == self.slices()
                assert not result.preliminary
            events = self.world.log()
            assert len({e.id for e in events}) == len(events)
            self.check_notifications()
        self.world.close()
        self._folder.cleanup()

    def slices(self) -> int:
        return len(self.world.studies.studies["default", STUDY].series[0].instances)

    def check_notifications(self) -> None:
        """Told and taken back alternate, and the last word agrees with the current result."""
        kinds = [str(e.type) for e in self.world.log("finding.positive", "finding.retracted")]
        assert all(kind == ("finding.positive", "finding.retracted")[i % 2] for i, kind in enumerate(kinds))
        current = self.world.current()
        if self.world.task().state in READ:
            assert bool(current and current[0].state is AiState.POSITIVE) == (len(kinds) % 2 == 1)

    @rule(numbers=st.lists(st.integers(1, 9), min_size=1, max_size=9), end=st.booleans())
    def images(self, numbers: list[int], end: bool) -> None:
        self.begun = True
        self.world.deliver(numbers, transfer_end=end)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def one_message(self) -> None:
        self.world.step()

    @precondition(lambda self: self.world.queue.items)
    @rule(pick=st.randoms(use_true_random=False))
    def a_message_again(self, pick) -> None:
        self.world.execute(pick.choice(list(self.world.queue.items.values())))

    @rule(error=st.sampled_from([Unavailable("x"), ComputationFailed("timeout"), RuntimeError("bug")]))
    def trouble(self, error: Exception) -> None:
        self.world.runner.errors.append(error)

    @precondition(lambda self: self.begun)
    @invariant()
    def nothing_is_silent(self) -> None:
        task = self.world.task()
        if task is None:
            assert self.world.queue.next_at() is not None, "nobody has looked yet, but somebody will"
            return
        if task.state in REASONED:
            assert task.reason
        if task.state not in FINAL:
            assert self.world.queue.next_at() is not None, "a pending state has something that will end it"
        order = self.world.reading.classes[STUDY][0].rank
        assert order <= self.urgency, "a class never falls"
        self.urgency = order


StudyMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestStudyMachine = StudyMachine.TestCase
