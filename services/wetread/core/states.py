"""The AI states of (study, detector): no state is silent, and "not run" is never "negative".

The table below is the only place that knows which change is legal; an illegal one raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from wetread.core.errors import Conflict


class AiState(StrEnum):
    """State of one detector on one study."""

    AWAITING_IMAGES = "awaiting_images"
    QUEUED = "queued"
    RUNNING = "running"
    PRELIMINARY_POSITIVE = "preliminary_positive"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    INDETERMINATE = "indeterminate"
    MEASURED = "measured"
    NOT_APPLICABLE = "not_applicable"
    NOT_PROCESSABLE = "not_processable"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class StudyAiState(StrEnum):
    """Summary of a study in lists (``ai.state``)."""

    POSITIVE = "positive"
    FAILED = "failed"
    PENDING = "pending"
    INDETERMINATE = "indeterminate"
    NEGATIVE = "negative"
    MEASURED = "measured"
    NOT_APPLICABLE = "not_applicable"


S = AiState

PENDING: Final = frozenset({S.AWAITING_IMAGES, S.QUEUED, S.RUNNING})
READ: Final = frozenset({S.POSITIVE, S.NEGATIVE, S.INDETERMINATE, S.MEASURED})
"""Final states in which the detector ran on the complete input: the workitem ends COMPLETED."""
FINAL: Final = READ | {S.NOT_APPLICABLE, S.NOT_PROCESSABLE, S.FAILED, S.CANCELLED, S.SUPERSEDED}
REASONED: Final = frozenset({S.NOT_APPLICABLE, S.NOT_PROCESSABLE, S.FAILED, S.CANCELLED})
"""States that must carry a reason."""

RETRYABLE: Final = frozenset({S.NOT_PROCESSABLE, S.FAILED, S.CANCELLED})
"""States without an answer that a person may ask to be tried again."""

UNANSWERED: Final = RETRYABLE
"""Final states in which a wanted task gave no answer (``on_failure`` of workflows)."""

CANCELLABLE: Final = PENDING | {S.PRELIMINARY_POSITIVE}
"""States that a person or a UPS client may call off."""

RERUNNABLE: Final = READ | RETRYABLE
"""States after which a run may be asked for again, with the model and the parameters of today."""

BY_PERSON: Final = frozenset({"operator", "ups_request"})
"""Reasons of ``cancelled`` that only a person takes back: no evaluation starts such a pair again."""

_OUTCOMES: Final = READ | {S.NOT_APPLICABLE, S.NOT_PROCESSABLE, S.FAILED, S.CANCELLED}

TRANSITIONS: Final[dict[AiState | None, frozenset[AiState]]] = {
    None: frozenset({S.AWAITING_IMAGES, S.QUEUED, S.NOT_APPLICABLE, S.NOT_PROCESSABLE}),
    S.AWAITING_IMAGES: frozenset({S.QUEUED, S.NOT_APPLICABLE, S.NOT_PROCESSABLE, S.FAILED, S.CANCELLED}),
    S.QUEUED: _OUTCOMES | {S.RUNNING, S.AWAITING_IMAGES, S.PRELIMINARY_POSITIVE, S.SUPERSEDED},
    # A retried attempt goes back to the queue; an early negative goes back to waiting.
    S.RUNNING: _OUTCOMES | {S.QUEUED, S.AWAITING_IMAGES, S.PRELIMINARY_POSITIVE, S.SUPERSEDED},
    S.PRELIMINARY_POSITIVE: _OUTCOMES | {S.QUEUED, S.SUPERSEDED},
    # More images, another model or a human retry re-open a finished pair.
    **dict.fromkeys(READ, frozenset({S.QUEUED, S.SUPERSEDED})),
    S.NOT_APPLICABLE: frozenset({S.AWAITING_IMAGES, S.QUEUED, S.NOT_PROCESSABLE, S.SUPERSEDED}),
    S.NOT_PROCESSABLE: frozenset({S.AWAITING_IMAGES, S.QUEUED, S.NOT_APPLICABLE, S.SUPERSEDED}),
    S.FAILED: frozenset({S.QUEUED, S.AWAITING_IMAGES, S.SUPERSEDED}),
    S.CANCELLED: frozenset({S.QUEUED, S.AWAITING_IMAGES, S.SUPERSEDED}),
    S.SUPERSEDED: frozenset(),
}


def check_transition(old: AiState | None, new: AiState, reason: str | None) -> None:
    """Raise Conflict unless *old* -> *new* is in the table and a reasoned state has its reason.

    Repeating the current state is legal (messages come twice).
    """
    if new != old and new not in TRANSITIONS[old]:
        msg = f"illegal AI state change {old} -> {new}"
        raise Conflict(msg)
    if new in REASONED and not reason:
        msg = f"state {new} needs a reason"
        raise Conflict(msg)


def summarise(states: Iterable[AiState]) -> StudyAiState:
    """Return a study's summary over its non-shadow tasks: the first that any of them has.

    A study without any task has nothing that applies to it.
    """
    present = set(states)
    ranking: list[tuple[StudyAiState, frozenset[AiState]]] = [
        (StudyAiState.POSITIVE, frozenset({S.POSITIVE, S.PRELIMINARY_POSITIVE})),
        (StudyAiState.FAILED, frozenset({S.FAILED, S.NOT_PROCESSABLE, S.CANCELLED})),
        (StudyAiState.PENDING, PENDING),
        (StudyAiState.INDETERMINATE, frozenset({S.INDETERMINATE})),
        (StudyAiState.NEGATIVE, frozenset({S.NEGATIVE})),
        (StudyAiState.MEASURED, frozenset({S.MEASURED})),
    ]
    for summary, members in ranking:
        if present & members:
            return summary
    return StudyAiState.NOT_APPLICABLE
