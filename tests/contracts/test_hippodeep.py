"""hippodeep through the import door: the known volumes, directly and by way of DICOM (must show 2 of the issue).

Slow: the conversion loads torch and compares three networks. The weights come from the shared data and stay outside
the repository.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.conformance.test_evidence_dciodvfy import IODS, dciodvfy
from tests.evidence_cases import detected
from tests.nifti import as_volume, read_nifti
from tests.real_volumes import LEFT, RIGHT, TOTAL, import_hippodeep, known_volumes

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.dicom.volume import assemble
from wetread.core.errors import NotProcessable
from wetread.detection.evaluation.measure import drive, measured_values
from wetread.detection.registry import load
from wetread.testing.phantoms.series import series_of

pytestmark = [pytest.mark.slow, pytest.mark.server("torch")]


@pytest.fixture(scope="module")
def home(shared):
    return shared / "brain-mri" / "hippodeep"


@pytest.fixture(scope="module")
def known(shared):
    return known_volumes(shared)


@pytest.fixture(scope="module")
def imported(home, tmp_path_factory):
    return import_hippodeep(home, tmp_path_factory.mktemp("hippodeep"))


@pytest.fixture(scope="module")
def engine(imported):
    return OnnxRuntimeClient(imported.networks, threads=2)


@pytest.fixture(scope="module")
def example(home):
    return read_nifti(home / "example_brain_t1.nii.gz")


@pytest.fixture(scope="module")
def reading(imported, engine, example):
    return drive(load(imported), engine, as_volume(*example))


def test_the_card_says_where_it_comes_from_and_keeps_it_in_shadow(imported):
    card = json.loads((imported.folder / "model-card.json").read_text())
    assert card["shadow"] is True
    assert card["origin"]["kind"] == "imported"
    assert card["origin"]["licence_accepted"] == "MIT"
    assert card["origin"]["equivalence"]["max_relative_difference"] < 1e-4
    assert {network.name for network in imported.networks} == {"hippodeep", "hippodeep__head", "hippodeep__affine"}


def test_volumes_are_those_of_the_authors_program(reading, known):
    values = measured_values(reading)
    assert values[LEFT] == pytest.approx(known[LEFT], abs=1.0)
    assert values[RIGHT] == pytest.approx(known[RIGHT], abs=1.0)
    assert values[TOTAL] * 1000 == pytest.approx(known[TOTAL], rel=5e-4)


def test_masks_are_those_of_the_authors_program(reading, example, home):
    _, affine = example
    for label, side in ((1, "L"), (2, "R")):
        stored, _ = read_nifti(home / "expected" / f"example_brain_t1_mask_{side}.nii.gz")
        truth = as_volume(stored, affine).voxels > 127.5
        found = reading.mask == label
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.998


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0)], ids=["axial", "sagittal"])
def test_the_dicom_path_gives_the_same_volumes(imported, engine, example, known, axes):
    values, affine = example
    turned = affine.copy()
    turned[:, :3] = affine[:, axes]
    objects = series_of(as_volume(values.transpose(axes), turned), seed=2_950_001, modality="MR", body_part="BRAIN")
    order = np.random.default_rng(3).permutation(len(objects))
    needs = imported.info.manifest.input.series
    volume = assemble([objects[k] for k in order], PydicomFrameDecoder(), needs=needs)
    found = measured_values(drive(load(imported), engine, volume))
    assert {name: found[name] for name in (LEFT, RIGHT)} == pytest.approx(
        {n: known[n] for n in (LEFT, RIGHT)}, rel=5e-3
    )


@pytest.mark.server("dicom3tools")
def test_what_is_written_of_it_is_valid(imported, engine, example, tmp_path):
    sources = series_of(as_volume(*example), seed=2_950_003, modality="MR", body_part="BRAIN")
    volume = assemble(sources, PydicomFrameDecoder(), needs=imported.info.manifest.input.series)
    result = drive(load(imported), engine, volume)
    objects = Encoder().encode(detected(imported.info.manifest.title, sources, volume, result))
    assert {"sr", "seg"} <= {item.role for item in objects}
    for item in objects:
        lines = dciodvfy(item.data, tmp_path / f"{item.sop_instance_uid}.dcm")
        assert IODS[item.role] in lines
        assert [line for line in lines if line.startswith("Error")] == [], item.role


def test_pixels_flipped_without_the_affine_swap_the_sides(imported, engine, example, reading):
    values, affine = example
    swapped = measured_values(drive(load(imported), engine, as_volume(values[::-1], affine)))
    straight = measured_values(reading)
    assert swapped[LEFT] == pytest.approx(straight[RIGHT], rel=0.05)
    assert swapped[RIGHT] == pytest.approx(straight[LEFT], rel=0.05)
    assert straight[RIGHT] > 1.04 * straight[LEFT]


def test_a_quarter_of_the_slices_missing_is_refused(imported, example):
    objects = series_of(as_volume(*example), seed=2_950_002, modality="MR", body_part="BRAIN")
    needs = imported.info.manifest.input.series
    for kept in (objects[: len(objects) * 3 // 4], objects[:20] + objects[43:]):
        with pytest.raises(NotProcessable) as refused:
            assemble(kept, PydicomFrameDecoder(), needs=needs)
        assert refused.value.reason in {"incomplete_coverage", "missing_slices"}


def test_what_is_no_head_is_refused(imported, engine, example):
    values, affine = example
    noise = np.random.default_rng(1).integers(0, 255, values.shape).astype(np.uint8)
    for wrong, reason in ((noise, "brain_not_found"), (np.zeros_like(values), "no_tissue")):
        with pytest.raises(NotProcessable) as refused:
            drive(load(imported), engine, as_volume(wrong, affine))
        assert refused.value.reason == reason
