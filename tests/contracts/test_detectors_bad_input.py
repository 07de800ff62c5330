"""Must show 7: every detector folder answers every kind of bad input with a typed reason, and never crashes."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.detection.commands import detect
from wetread.detection.registry import read_folder
from wetread.testing.bad_input import CASES, PAGE, READ, Good, detector_folders, good_input, outcome, page, table

FOLDERS = detector_folders()
SLOW = {"brain-volumetry", "lvo", "perfusion"}
"""A series that they read takes a second of computing each time: with ``make test-slow``."""
DOCS = Path(__file__).parents[2] / "docs"
REASONS = {word for file in sorted(DOCS.glob("*.md")) for word in re.findall(r"`(\w+)`", file.read_text("utf-8"))}
REFUSED = {"not_applicable", "not_processable"}
ALWAYS = {
    "other_modality": "modality",
    "no_position": "no_geometry",
    "truncated_pixels": "decode_error",
}
REWRITE = "PYTHONPATH=services python -m wetread.testing.bad_input"


@lru_cache(maxsize=1)
def good(folder: Path) -> Good:
    return good_input(folder)


def demanded(folder: Path, case: str) -> str | None:
    """The reason that the manifest itself demands of a case; None: any typed answer will do."""
    needs = read_folder(folder).info.manifest.input
    limited = needs.series.max_step_mm is not None or needs.series.max_step_ratio is not None
    if case == "too_few_slices" and needs.cine:
        return "too_few_frames"
    if case == "no_position" and needs.cine:
        return None
    if case == "too_few_slices":
        return "too_few_time_points" if needs.time else "missing_slices"
    return {
        **ALWAYS,
        "wrong_contrast": "contrast" if needs.contrast != "any" else None,
        "wrong_body_part": "body_part" if needs.body_part else None,
        "gap": "missing_slices" if limited else None,
        "missing_rescale": "rescale_missing" if needs.modality[0] == "CT" else None,
    }.get(case)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, marks=[pytest.mark.slow] if f.name in SLOW else []) for f in FOLDERS],
    ids=lambda path: path.name,
)
def test_bad_input_has_a_typed_reason(folder, case):
    answer = outcome(folder, case, good(folder))
    assert answer.state in {*REFUSED, READ}
    assert answer.state == READ or answer.reason in REASONS, "the documentation names every reason"
    wanted = demanded(folder, case)
    assert wanted is None or answer.reason == wanted
    if case == "as_it_is" and good(folder).organ:
        assert answer.state == READ, "what is broken has to be good first"
    if case == "no_organ":
        assert answer.state in REFUSED, "noise is no organ"
    written = table((DOCS / PAGE).read_text("utf-8"))
    assert folder.name in written, f"a new detector: {REWRITE}"
    assert written[folder.name][case] == str(answer), f"the table is another one: {REWRITE}"


def test_the_page_is_written_by_the_same_code():
    answers = {folder.name: dict.fromkeys(CASES, READ) for folder in FOLDERS}
    text = page(answers, ["b", "a"])
    assert table(text) == answers
    assert "For `a`, `b` the series is a ball" in text
    written = (DOCS / PAGE).read_text("utf-8")
    assert set(table(written)) == set(answers), f"{REWRITE}"
    assert all(case.says in written for case in CASES.values())


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_file_of_the_variety_gets_a_typed_outcome(folder, shared):
    """Run with -s for the list: study, state, reason, seconds."""
    answers = detect(
        folder.name,
        shared / "dicom-variety",
        decoder=PydicomFrameDecoder(),
        inference=lambda networks: OnnxRuntimeClient(networks, threads=2),
        bundled=folder.parent,
    )
    for answer in answers:
        tail = answer["study_uid"][-12:]
        print(f"{folder.name} {tail} {answer['state']} {answer['reason']} {answer['seconds']:.2f} s")
        assert answer["state"] in {*REFUSED, "positive", "negative", "indeterminate", "measured"}
        assert answer["reason"] in REASONS or answer["state"] not in REFUSED
    assert len(answers) > 50
