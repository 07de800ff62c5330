"""Why a pair ended without an answer: the typed reasons of ``failed`` and ``cancelled``, in one place.

Reasons of ``not_applicable`` and ``not_processable`` are the detectors' words (docs/detectors.md). The table in
docs/workflows.md is checked against this one, and a test provokes each.
"""

from __future__ import annotations

from typing import Final

FAILED: Final[dict[str, str]] = {
    "crashed": "the detector, its process or its selection ended with an error",
    "timeout": "the run, or an external performer, was over its time",
    "out_of_memory": "the run needed more memory than there was",
    "model_unavailable": "the model could not be loaded",
    "dead_letter": "every attempt failed, or the run ended its process again and again",
    "not_claimed": "no external performer took the workitem in time",
    "performer_lost": "the external performer fell silent",
    "performer_discontinued": "the external performer ended the workitem CANCELED",
    "outputs_missing": "the external performer's outputs were deleted before they were imported",
    "discarded": "an operator took it off the dead letters",
}

CANCELLED: Final[dict[str, str]] = {
    "operator": "an operator called it off",
    "ups_request": "a UPS client called it off",
    "study_deleted": "the study was deleted",
}
