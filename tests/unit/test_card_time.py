"""What a study costs, as cards and their pages say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wetread.detection.evaluation.report import timing
from wetread.detection.registry import read_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
LIBRARIES_MIB = 250
"""What a detector's process holds before its first study; the manifest's memory is what a study may add."""
MEASURED = sorted(path.parent.name for path in MODELS.glob("*/cases.py"))


@pytest.mark.parametrize("name", MEASURED)
def test_every_measured_detector_says_how_long_a_large_study_takes_and_inside_its_limits(name) -> None:
    card = json.loads((MODELS / name / "model-card.json").read_text("utf-8"))
    page = (MODELS / name / "README.md").read_text("utf-8")
    resources = read_folder(MODELS / name).info.manifest.resources
    assert all(line in page.splitlines() for line in timing(card))
    for row in card["timing"]["rows"]:
        assert 0 < row["seconds"] < resources.timeout_s
        assert row["peak_mib"] < LIBRARIES_MIB + resources.memory_mb


def test_a_page_names_input_seconds_and_peak() -> None:
    kept = {
        "command": "make bench",
        "machine": "2 cores",
        "rows": [{"input": "300 planes", "seconds": 5.8, "peak_mib": 1352}],
    }
    assert timing({"timing": kept}) == [
        "## Time",
        "",
        "Of the detector alone, by `make bench` on 2 cores:",
        "",
        "- 300 planes: 5.8 s, peak of the process 1,352 MiB",
        "",
    ]
    assert timing({}) == []
