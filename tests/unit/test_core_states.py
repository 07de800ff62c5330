"""States of (study, detector): the table, the summary, and that nothing illegal passes silently."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.errors import Conflict
from wetread.core.states import (
    FINAL,
    PENDING,
    REASONED,
    TRANSITIONS,
    AiState,
    StudyAiState,
    check_transition,
    summarise,
)


def test_every_state_has_a_row_and_every_row_names_states() -> None:
    assert set(TRANSITIONS) == {None, *AiState}
    assert all(isinstance(target, AiState) for targets in TRANSITIONS.values() for target in targets)


@pytest.mark.parametrize(("old", "new"), list(itertools.product([None, *AiState], AiState)))
def test_only_listed_changes_are_legal(old: AiState | None, new: AiState) -> None:
    reason = "timeout" if new in REASONED else None
    if new == old or new in TRANSITIONS[old]:
        check_transition(old, new, reason)
    else:
        with pytest.raises(Conflict):
            check_transition(old, new, reason)


@pytest.mark.parametrize("state", sorted(REASONED))
def test_a_reasoned_state_without_reason_is_refused(state: AiState) -> None:
    with pytest.raises(Conflict):
        check_transition(AiState.QUEUED, state, None)


def test_superseded_is_the_end() -> None:
    assert not TRANSITIONS[AiState.SUPERSEDED]


@pytest.mark.parametrize(
    ("states", "summary"),
    [
        ([], StudyAiState.NOT_APPLICABLE),
        ([AiState.NEGATIVE, AiState.PRELIMINARY_POSITIVE], StudyAiState.POSITIVE),
        ([AiState.NEGATIVE, AiState.NOT_PROCESSABLE], StudyAiState.FAILED),
        ([AiState.NEGATIVE, AiState.RUNNING], StudyAiState.PENDING),
        ([AiState.NEGATIVE, AiState.INDETERMINATE], StudyAiState.INDETERMINATE),
        ([AiState.NEGATIVE, AiState.MEASURED], StudyAiState.NEGATIVE),
        ([AiState.MEASURED, AiState.NOT_APPLICABLE], StudyAiState.MEASURED),
        ([AiState.NOT_APPLICABLE, AiState.SUPERSEDED], StudyAiState.NOT_APPLICABLE),
    ],
)
def test_summary(states: list[AiState], summary: StudyAiState) -> None:
    assert summarise(states) == summary


@given(st.lists(st.sampled_from(list(AiState)), max_size=6))
def test_negative_only_when_nothing_is_pending_failed_or_positive(states: list[AiState]) -> None:
    if summarise(states) == StudyAiState.NEGATIVE:
        worse = PENDING | {AiState.FAILED, AiState.NOT_PROCESSABLE, AiState.POSITIVE, AiState.PRELIMINARY_POSITIVE}
        assert AiState.NEGATIVE in states
        assert not worse & set(states)


def test_pending_and_final_do_not_overlap() -> None:
    assert not PENDING & FINAL
