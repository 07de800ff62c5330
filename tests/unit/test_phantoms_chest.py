"""The chest phantom against its own truth, and its series through volume assembly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom.volume import assemble
from wetread.testing.phantoms.chest import ChestSpec, chest_series, make_chest
from wetread.testing.phantoms.chest_anatomy import doubled, smooth_noise
from wetread.testing.phantoms.chest_parameters import as_yaml
from wetread.testing.phantoms.chest_scan import cells
from wetread.testing.phantoms.chest_trees import draw_tubes, grow
from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError

QUIET = {
    "scan.noise_at_2mm_hu": 1.0,
    "scan.thickness_mm": 1.0,
    "scan.overlap": False,
    "scan.pixel_mm": 1.0,
    "scan.kernel": "soft",
    "scan.streak_share": 0.0,
    "scan.offset_hu": 0.0,
    "scan.gain": 1.0,
    "motion": False,
    "lung.contrast": False,
}
ONE = {
    "nodule": True,
    "nodule.count": 1,
    "nodule.diameter_mm": 14.0,
    "nodule.place": "free",
    "nodule.spiculated": False,
}


def small(seed=2_000_003, split="s0", **given):
    return make_chest(seed, ChestSpec(split=split, shrink=0.42, given=QUIET | ONE | given))


def tiny(seed):
    return make_chest(seed, ChestSpec(shrink=0.35, coverage_mm=32.0, given=QUIET))


@pytest.mark.parametrize(
    ("solidity", "split"),
    [
        ("solid", "s0"),
        pytest.param("ground_glass", "s0", marks=pytest.mark.slow),
        pytest.param("solid", "s5", marks=pytest.mark.slow),
    ],
)
def test_a_nodule_has_the_size_and_the_density_that_the_truth_says(solidity, split):
    phantom = small(3_400_001 if split == "s5" else 2_000_003, split, **{"nodule.solidity": solidity})
    [nodule] = phantom.nodules
    marked = phantom.mask == 1
    spacing = phantom.volume.pixel_spacing[0]
    voxel = spacing**2 * phantom.volume.weights_mm[0]
    assert marked.sum() * voxel == pytest.approx(nodule.truth.volume_mm3, rel=0.1)
    # lobulation and, in s5, heaps of balls change the volume that a ball of this diameter has
    assert nodule.truth.diameter_mm == pytest.approx(14.0, rel=0.25)
    plane, row, column = np.argwhere(marked).mean(axis=0)
    x, y, z = nodule.centre_lps_mm
    corner = phantom.volume.origins[0]
    assert [column * spacing + corner[0], row * spacing + corner[1]] == pytest.approx([x, y], abs=0.01)
    assert phantom.volume.origins[round(plane), 2] == pytest.approx(z, abs=1.0)
    middle = float(np.median(phantom.volume.voxels[marked]))
    assert (-60 < middle < 110) if solidity == "solid" else (-700 < middle < -380)


@pytest.mark.slow
def test_a_part_solid_nodule_holds_a_core():
    phantom = small(**{"nodule.solidity": "part_solid"})
    [nodule] = phantom.nodules
    assert 0.01 * nodule.truth.volume_mm3 < nodule.truth.core_mm3 < 0.6 * nodule.truth.volume_mm3
    inside = phantom.volume.voxels[phantom.mask == 1]
    assert (inside > -200).sum() == pytest.approx(nodule.truth.core_mm3, rel=0.6)
    assert np.median(inside) < -300


def test_the_same_seed_gives_the_same_chest_and_another_one_another():
    one, again, other = (tiny(seed) for seed in (2_000_003, 2_000_003, 2_000_004))
    assert np.array_equal(one.volume.voxels, again.volume.voxels)
    assert one.nodules == again.nodules
    assert one.volume.voxels.shape != other.volume.voxels.shape or (one.volume.voxels != other.volume.voxels).any()


def test_a_seed_of_another_split_and_unknown_parameters_are_refused():
    with pytest.raises(PhantomSeedError):
        make_chest(2_000_000, ChestSpec(split="train"))
    with pytest.raises(PhantomSpecError, match=r"nodule\.colour"):
        make_chest(2_000_000, ChestSpec(given={"nodule.colour": 1}))
    with pytest.raises(PhantomSpecError):
        make_chest(2_000_000, ChestSpec(shrink=0.1))


def test_its_series_assembles_to_the_same_volume():
    phantom = tiny(2_000_003)
    volume = assemble(chest_series(phantom), PydicomFrameDecoder())
    assert np.array_equal(volume.voxels, phantom.volume.voxels)
    assert volume.origins == pytest.approx(phantom.volume.origins)
    assert volume.weights_mm == pytest.approx(phantom.volume.weights_mm)


def test_a_tube_has_the_volume_of_a_cylinder_and_a_hair_its_share():
    for radius in (0.4, 2.0, 5.0):
        first, last = np.array([[10.0, 20.0, 20.0]]), np.array([[50.0, 20.0, 20.0]])
        share = draw_tubes((60, 41, 41), first, last, *np.full((2, 1), radius), 1.0)
        assert float(share[15:45].sum()) / 30 == pytest.approx(np.pi * radius**2, rel=0.3 if radius < 1 else 0.12)


def test_a_tree_reaches_its_targets_and_thins_by_murrays_law():
    rng = np.random.default_rng(1)
    targets = rng.uniform(0, 60, (200, 3))
    tree = grow(rng, np.array([30.0, 30.0, -10.0]), targets, leaf_mm=0.4, exponent=3.0, wander=0.1)
    nearest = np.linalg.norm(targets[:, None] - tree.nodes[None], axis=-1).min(axis=1)
    assert (nearest < 7).mean() > 0.95
    children = [np.flatnonzero((tree.parents == k) & (np.arange(len(tree.nodes)) != k)) for k in range(len(tree.nodes))]
    for node, own in enumerate(children):
        if len(own):
            assert tree.radii[node] ** 3 == pytest.approx((tree.radii[own] ** 3).sum(), rel=1e-6)


def test_slabs_average_and_thin_slices_interpolate():
    ramp = np.arange(40, dtype=np.float32)
    for start, step, width in ((2.0, 5.0, 5.0), (1.3, 0.6, 0.6), (3.25, 1.25, 2.5)):
        count = int((36 - start) / step)
        assert cells(start, step, count, width, 40) @ ramp == pytest.approx(start + step * np.arange(count), abs=0.06)


def test_doubling_keeps_the_samples_and_noise_has_unit_spread():
    values = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    assert np.array_equal(doubled(values)[::2, ::2, ::2], values)
    assert doubled(values)[1, 0, 0] == pytest.approx((values[0, 0, 0] + values[1, 0, 0]) / 2)
    assert float(smooth_noise(np.random.default_rng(0), (64, 64, 64), 3).std()) == pytest.approx(1.0, abs=0.25)


def test_the_parameter_file_is_the_generators_table():
    path = Path(__file__).resolve().parents[2] / "models" / "lung-nodule" / "phantom.yaml"
    assert path.read_text("utf-8") == as_yaml()
