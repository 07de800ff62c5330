"""Must show 7: every detector folder answers every kind of bad input with a typed reason, and never crashes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.detector import FrameRef, Volume
from wetread.core.manifest import InputNeeds
from wetread.detection.commands import detect
from wetread.detection.registry import bundled_folder, read_folder
from wetread.testing.phantoms.perfusion import perfusion_phantom
from wetread.testing.phantoms.perfusion_dicom import perfusion_images
from wetread.testing.phantoms.series import series_of
from wetread.testing.sections import part10

FOLDERS = sorted(path.parent for path in bundled_folder().glob("*/detector.yaml"))
DOCS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
REASONS = {word for page in DOCS for word in re.findall(r"`(\w+)`", page.read_text("utf-8"))}
REFUSED = {"not_applicable", "not_processable"}
ELSEWHERE = {
    "BodyPartExamined": "FOOT",
    "ProtocolName": "FOOT",
    "StudyDescription": "FOOT",
    "SeriesDescription": "FOOT",
}
CASES = {
    "wrong_contrast": None,
    "wrong_body_part": ELSEWHERE,
    "too_few_slices": {},
    "motion": {},
    "non_square_pixels": {},
    "missing_rescale": {"RescaleSlope": None, "RescaleIntercept": None},
    "truncated_pixels": {"PixelData": b"\0\0"},
    "no_position": {"ImagePositionPatient": None},
    "other_modality": {"Modality": "US"},
}
EXACT = {
    "wrong_body_part": "body_part",
    "truncated_pixels": "decode_error",
    "no_position": "no_geometry",
    "other_modality": "modality",
}


def stack(needs: InputNeeds, count: int, *, pixel=(4.0, 4.0), noise=False) -> Volume:
    """A ball of soft tissue as the manifest wants its series; with *noise* nothing but noise."""
    limit = min(needs.series.max_step_mm or 5.0, 5.0)
    step = min(limit, max(1.0, 1.1 * (needs.series.coverage_mm or 100.0) / count))
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (count, 48, 48)], indexing="ij")
    low, high = (-1000, 40) if needs.modality[0] == "CT" else (10, 400)
    voxels = np.where(x**2 + y**2 + z**2 < 0.8, high, low).astype(np.float32)
    if noise:
        voxels = np.random.default_rng(1).uniform(low, high, voxels.shape).astype(np.float32)
    origins = np.column_stack([np.full((count, 2), -96.0), np.arange(count) * step])
    return Volume(
        voxels,
        origins,
        np.array([1.0, 0, 0]),
        np.array([0, 1.0, 0]),
        pixel,
        np.full(count, step),
        tuple(FrameRef(f"1.2.{k}") for k in range(count)),
    )


def dynamic(case: str, body_part: str, attributes: dict) -> list[bytes]:
    """A coarse contrast passage with the same faults; *motion*: the head nods all the time."""
    phantom = perfusion_phantom(
        2_900_002,
        matrix=32,
        planes=3 if case == "too_few_slices" else 6,
        step_mm=8.0,
        interval_s=2.0,
        duration_s=20.0 if case == "too_few_slices" else 50.0,
    )
    objects = []
    for image in perfusion_images(phantom):
        image.BodyPartExamined = body_part
        if case == "motion":
            image.PixelData = np.random.default_rng(image.InstanceNumber).bytes(len(image.PixelData))
        if case == "non_square_pixels":
            image.PixelSpacing = [image.PixelSpacing[0], image.PixelSpacing[1] * 0.6]
        for name, value in attributes.items():
            if value is None:
                image.pop(name, None)
            else:
                setattr(image, name, value)
        objects.append(part10(image))
    return objects


def outcome(folder: Path, case: str, scratch: Path) -> tuple[str, str | None]:
    needs = read_folder(folder).info.manifest.input
    agent = "Iohexol" if needs.contrast == "present" else None
    attributes = CASES[case]
    if attributes is None:
        attributes = {"ContrastBolusAgent": None if agent else "Iohexol"}
    elif agent:
        attributes = {"ContrastBolusAgent": agent, **attributes}
    count = 3 if case == "too_few_slices" else max(needs.series.min_slices + 4, 40)
    pixel = (4.0, 2.5) if case == "non_square_pixels" else (4.0, 4.0)
    volume = stack(needs, count, pixel=pixel, noise=case == "motion")
    part = needs.body_part.any[0] if needs.body_part else ""
    objects = (
        dynamic(case, part, attributes)
        if needs.time
        else series_of(
            volume, seed=1, modality=needs.modality[0], body_part=part, description=f"{part} T1", attributes=attributes
        )
    )
    for number, data in enumerate(objects):
        (scratch / f"{number:03d}.dcm").write_bytes(data)
    [answer] = detect(
        folder.name,
        scratch,
        decoder=PydicomFrameDecoder(),
        inference=lambda networks: OnnxRuntimeClient(networks, threads=1),
        threads=1,
        bundled=folder.parent,
    )
    print(f"{folder.name:18s} {case:18s} {answer['state']:16s} {answer['reason']} {answer['detail']}")
    return answer["state"], answer["reason"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_bad_input_has_a_typed_reason(folder, case, tmp_path):
    state, reason = outcome(folder, case, tmp_path)
    contrast = read_folder(folder).info.manifest.input.contrast
    modality = read_folder(folder).info.manifest.input.modality
    assert state in REFUSED, "a ball is no organ"
    assert reason in REASONS, "the documentation names every reason"
    if case == "wrong_contrast" and contrast != "any":
        assert reason == "contrast"
    if case == "missing_rescale" and "CT" in modality:
        assert reason == "rescale_missing"
    if case == "too_few_slices":
        assert reason == ("too_few_time_points" if read_folder(folder).info.manifest.input.time else "missing_slices")
    if case in EXACT:
        assert reason == EXACT[case]


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
