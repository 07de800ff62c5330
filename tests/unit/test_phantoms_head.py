"""The head generator: repeatable, split by seed, truthful about what it rendered."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from wetread.testing.phantoms import (
    SPLITS,
    BleedType,
    HeadSpec,
    PhantomSeedError,
    PhantomSpecError,
    evidence_id,
    make,
    require_split,
    split_of,
)
from wetread.testing.phantoms.parameters import BASE, SETS, as_mapping, sample

SMALL = HeadSpec(thickness_mm=5.0, step_mm=5.0, coverage_mm=70.0, regular=True, bleeds=())
BLEED = HeadSpec(thickness_mm=5.0, step_mm=5.0, regular=True, tilt_deg=18.0, bleeds=(BleedType.IPH,), volume_ml=30.0)


@pytest.fixture(scope="module")
def bleeding():
    return make(12, BLEED)


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_head():
    first, again, other = make(5, SMALL), make(5, SMALL), make(6, SMALL)
    assert first.volume.tobytes() == again.volume.tobytes()
    assert first.tags == again.tags
    assert first.volume.shape != other.volume.shape or not np.array_equal(first.volume, other.volume)


@pytest.mark.parametrize(("split", "seed"), [("train", 1_000_000), ("train", 2_000_000), ("tune", 999_999), ("s1", 0)])
def test_a_split_refuses_seeds_of_another(split, seed):
    with pytest.raises(PhantomSeedError):
        make(seed, HeadSpec(split=split))


def test_every_seed_belongs_to_one_split():
    for name, seeds in SPLITS.items():
        assert split_of(seeds.start) == split_of(seeds.stop - 1) == name
        require_split(seeds.start, name)
    starts = sorted((s.start, s.stop) for s in SPLITS.values())
    assert all(stop == start for (_, stop), (start, _) in pairwise(starts))
    for seed in (-1, 3_500_000):
        with pytest.raises(PhantomSeedError):
            split_of(seed)
    with pytest.raises(PhantomSeedError):
        require_split(1, "holiday")


@pytest.mark.parametrize(
    "spec", [HeadSpec(matrix=300), HeadSpec(tilt_deg=60.0), HeadSpec(thickness_mm=5.0, step_mm=40.0)]
)
def test_impossible_requests_are_refused(spec):
    with pytest.raises(PhantomSpecError):
        make(1, spec)


def test_truth_volume_agrees_with_the_mask(bleeding):
    voxel_ml = abs(np.linalg.det(bleeding.affine[:3, :3])) / 1000.0
    masked = (bleeding.mask > 0).sum() * voxel_ml
    assert bleeding.positive
    assert {b.type for b in bleeding.bleeds} == {BleedType.IPH}
    assert masked == pytest.approx(bleeding.volume_ml, rel=0.1)
    assert bleeding.volume_ml == pytest.approx(30.0, rel=0.5)


def test_blood_is_denser_than_the_brain_around_it(bleeding):
    blood = bleeding.mask > 0
    assert 35 < np.median(bleeding.volume[blood]) < 95
    brain = (bleeding.volume > 0) & (bleeding.volume < 60) & ~blood
    assert np.median(bleeding.volume[blood]) > np.median(bleeding.volume[brain]) + 8


def test_truth_centre_lies_in_the_mask_on_the_named_side(bleeding):
    truth = bleeding.bleeds[0]
    index = np.argwhere(bleeding.mask > 0)
    planes = bleeding.positions_lps_mm[index[:, 0]]
    points = planes + index[:, 2:3] * bleeding.affine[:3, 0] + index[:, 1:2] * bleeding.affine[:3, 1]
    assert np.linalg.norm(points.mean(axis=0) - truth.centre_lps_mm) < 4.0


def test_a_tilted_gantry_shears_the_stack(bleeding):
    column, along = bleeding.affine[:3, 1], bleeding.affine[:3, 2]
    cosine = column @ along / np.linalg.norm(column) / np.linalg.norm(along)
    assert cosine == pytest.approx(np.sin(np.radians(18.0)), abs=1e-6)
    steps = np.diff(bleeding.positions_lps_mm, axis=0)
    assert np.allclose(steps, [0, 0, 5.0], atol=1e-6)


def test_tissue_has_the_hounsfield_numbers_of_a_head():
    head = make(8, SMALL)
    middle = head.volume[2:8]
    assert not head.positive
    assert not head.mask.any()
    assert (middle < -900).mean() > 0.2
    assert (middle > 700).sum() > 1000
    brain = middle[(middle > 5) & (middle < 70)]
    assert 20 < np.median(brain) < 45


def test_a_smaller_plan_gives_a_smaller_bleed(bleeding):
    small = make(12, replace(BLEED, volume_ml=3.0, coverage_mm=90.0))
    assert 0.3 < small.volume_ml < bleeding.volume_ml / 4


def test_shift_sets_override_only_known_parameters():
    for name, overrides in SETS.items():
        assert set(overrides) <= set(BASE), name
    assert set(SETS) == set(SPLITS)


def test_every_parameter_entry_can_be_drawn():
    rng = np.random.default_rng(1)
    for name, entry in {**BASE, **SETS["s1"], **SETS["s2"]}.items():
        assert sample(rng, entry) is not None, name
    assert all(2 <= sample(rng, {"log": [2, 8]}) <= 8 for _ in range(50))
    assert {sample(rng, {"p": 0.5}) for _ in range(50)} == {True, False}
    assert sample(rng, {"normal": [0, 100, -1, 1]}) in (-1.0, 1.0)
    assert {sample(rng, {"choice": {"a": 1, "b": 1, "c": 0}}) for _ in range(50)} == {"a", "b"}


def test_the_evidence_id_names_the_table():
    table = as_mapping()
    assert evidence_id() == evidence_id(table)
    changed = table | {"base": table["base"] | {"ring": {"p": 0.07}}}
    assert evidence_id(changed) != evidence_id()
