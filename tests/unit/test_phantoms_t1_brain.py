"""T1 brain phantoms: truth that adds up, physics in closed form, one head per seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom.volume import assemble
from wetread.testing.phantoms import PhantomSeedError, PhantomSpecError
from wetread.testing.phantoms.series import series_of
from wetread.testing.phantoms.t1_brain import DISTRIBUTIONS, BrainSpec, _averaged, make_brain

QUICK = BrainSpec(fine_mm=3.0, pixel_mm=3.0, thickness_mm=3.0, noise=0.03, bias=0.0)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def head():
    return make_brain(2_000_010, QUICK)


def test_truth_adds_up(head):
    assert head.fractions.shape[1:] == head.volume.voxels.shape
    assert head.fractions.min() >= 0
    assert head.fractions.sum(axis=0).max() <= 1 + 1e-5
    voxel_ml = 27 / 1000
    assert list(head.volumes_ml.values()) == pytest.approx(
        [float(part.sum()) * voxel_ml for part in head.fractions], rel=1e-4
    )
    assert 700 < sum(head.volumes_ml.values()) < 2300


def test_tissues_have_the_order_and_the_noise_of_a_t1_image(head):
    image = head.volume.voxels
    gray, white, fluid = (float(np.median(image[part > 0.99])) for part in head.fractions)
    assert fluid < gray < white
    air = image[:2, :4, :4].ravel()
    sigma = 0.03 * 0.90 * 600
    assert np.sqrt((image[:, :3, :3] ** 2).mean() / 2) == pytest.approx(sigma, rel=0.1), "Rician: air is Rayleigh"
    assert air.min() >= 0


def test_the_same_seed_is_the_same_head_and_another_is_not(head):
    again, other = make_brain(2_000_010, QUICK), make_brain(2_000_011, QUICK)
    assert np.array_equal(again.volume.voxels, head.volume.voxels)
    assert other.volumes_ml != head.volumes_ml


def test_motion_leaves_ghosts_in_the_air(head):
    moved = make_brain(
        2_000_010, BrainSpec(fine_mm=3.0, pixel_mm=3.0, thickness_mm=3.0, noise=0.03, bias=0.0, motion=3.0)
    )
    band = (slice(None), slice(0, 4))
    assert moved.volume.voxels[band].mean() > 1.3 * head.volume.voxels[band].mean()
    assert moved.volumes_ml == head.volumes_ml


def test_averaging_keeps_the_volume_and_shares_border_cells():
    mask = np.zeros((6, 1, 1), bool)
    mask[2:4] = True
    out = _averaged(mask, (1.5, 1.0, 1.0), (4, 1, 1))
    assert out[:, 0, 0] == pytest.approx([0, 2 / 3, 2 / 3, 0])
    assert out.sum() * 1.5 == pytest.approx(2)


def test_seeds_and_specs_are_checked():
    with pytest.raises(PhantomSeedError):
        make_brain(5, BrainSpec(split="s0"))
    for bad in ({"weighting": "PD"}, {"fine_mm": 0.1}):
        with pytest.raises(PhantomSpecError):
            make_brain(2_000_000, BrainSpec(**bad))


def test_a_series_of_it_is_the_same_volume_again(head):
    objects = series_of(head.volume, seed=7, modality="MR", body_part="BRAIN")
    volume = assemble(objects[::-1], PydicomFrameDecoder())
    assert np.array_equal(volume.voxels, head.volume.voxels)
    assert volume.origins == pytest.approx(head.volume.origins, abs=1e-6)
    with pytest.raises(PhantomSpecError):
        series_of(head.volume, seed=7, modality="US")


def test_the_parameter_file_is_the_generators_table():
    stored = YAML(typ="safe").load(ROOT / "models" / "brain-volumetry" / "phantom.yaml")
    assert stored == DISTRIBUTIONS
