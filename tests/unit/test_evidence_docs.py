from __future__ import annotations

from pathlib import Path

from wetread.adapters.evidence.reference_header import DERIVED_FRAME_OF_REFERENCE, NO_GEOMETRY
from wetread.adapters.evidence.stamp import SERIES_NUMBERS
from wetread.core.codes import PRIVATE_SCHEME
from wetread.core.states import FINAL, AiState

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text()


def test_results_page_names_what_the_encoders_write() -> None:
    for number in SERIES_NUMBERS.values():
        assert f"| {number} |" in PAGE
    for flag in (DERIVED_FRAME_OF_REFERENCE, NO_GEOMETRY, "segmentation_omitted", PRIVATE_SCHEME):
        assert f"`{flag}`" in PAGE


def test_results_page_lists_every_final_state_of_a_run() -> None:
    for state in FINAL - {AiState.CANCELLED, AiState.SUPERSEDED}:
        assert f"`{state}`" in PAGE
