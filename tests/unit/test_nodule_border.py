"""Volume and shape of nodules on grids whose answer is known in closed form: edges, ground glass, vessels, pleura."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from wetread.nodule.answer import types_of
from wetread.nodule.border import compactness
from wetread.nodule.frame import Grid
from wetread.nodule.measure import measure
from wetread.nodule.pleura import continued
from wetread.nodule.reading import shaped

LUNG, TISSUE, HAZE = -850.0, 40.0, -560.0
SIZE = 41
MIDDLE = np.full(3, 20.0)


def distance(centre=MIDDLE, size=SIZE):
    axes = np.meshgrid(*[np.arange(size, dtype=np.float64)] * 3, indexing="ij")
    return np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))


def share(signed_mm):
    """Share of a voxel of 1 mm that lies inside a surface at *signed_mm*, positive inside."""
    return np.clip(signed_mm + 0.5, 0, 1)


def painted(*layers, blur_mm=0.7, noise_hu=15.0):
    """A grid of lung with *layers* (share, HU) on it, blurred, with noise of a fixed seed."""
    hu = np.full(layers[0][0].shape, LUNG)
    for part, value in layers:
        hu += part * (value - hu)
    hu = ndimage.gaussian_filter(hu, blur_mm)
    hu += np.random.default_rng(5).normal(0, noise_hu, hu.shape)
    return Grid(hu.astype(np.float32), np.zeros(3), 1.0)


def measured(grid, radius, closed=None, at=MIDDLE):
    inside = np.ones(grid.values.shape, dtype=bool) if closed is None else closed
    return measure(grid, inside, np.asarray(at), radius, LUNG)


def ball_mm3(radius):
    return 4 / 3 * math.pi * radius**3


@pytest.mark.parametrize("blur_mm", [0.5, 0.9, 1.3])
def test_a_solid_ball_keeps_its_volume_however_soft_its_edge_is(blur_mm):
    """The soft edge is no ground glass: nothing is added, and the class stays."""
    nodule = measured(painted((share(6.0 - distance()), TISSUE), blur_mm=blur_mm), 5.0)
    assert nodule.solidity == "solid"
    assert nodule.volume_mm3 == pytest.approx(ball_mm3(6.0), rel=0.1)
    assert nodule.diameter_mm == pytest.approx(12.0, abs=1.0)


@pytest.mark.parametrize("shift", [0.0, 1.2], ids=["in the middle", "off the middle"])
def test_ground_glass_around_a_core_belongs_to_the_nodule(shift):
    core = distance(np.add(MIDDLE, (0, shift, 0)))
    nodule = measured(painted((share(7.5 - distance()), HAZE), (share(4.0 - core), TISSUE)), 4.6)
    assert nodule.solidity == "part_solid"
    assert nodule.volume_mm3 == pytest.approx(ball_mm3(7.5), rel=0.1)
    assert nodule.solid_diameter_mm == pytest.approx(8.0, abs=1.5)


def test_a_vessel_in_ground_glass_is_not_the_nodule():
    """What a candidate meets first is the vessel that shows through; the veil around it is measured."""
    vessel = np.hypot(*(axis - 20.0 for axis in np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij")[1:]))
    nodule = measured(painted((share(7.0 - distance()), HAZE), (share(1.2 - vessel), TISSUE)), 2.5)
    assert nodule.volume_mm3 == pytest.approx(ball_mm3(7.0), rel=0.2)
    assert nodule.solidity != "solid"


def test_a_small_solid_ball_is_measured_by_what_it_absorbs():
    """Blur takes its density away, but not the sum of it."""
    nodule = measured(painted((share(2.0 - distance()), TISSUE), blur_mm=1.0, noise_hu=5.0), 2.5)
    assert nodule.solidity == "solid"
    assert nodule.volume_mm3 == pytest.approx(ball_mm3(2.0), rel=0.25)


def test_a_vessel_is_cut_off():
    line = np.hypot(*(axis - 20.0 for axis in np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij")[:2]))
    nodule = measured(painted((share(6.0 - distance()), TISSUE), (share(1.6 - line), TISSUE)), 5.0)
    assert nodule.volume_mm3 == pytest.approx(ball_mm3(6.0), rel=0.12)


def test_the_pleura_is_continued_under_a_nodule_on_it():
    """The closing's ball cuts the nodule short of a curved wall; the quadric through the wall gives it back."""
    wall = 90.0 - distance([20.0, 20.0, 100.0])  # positive inside a chest of 90 mm radius
    on_wall = np.array([20.0, 20.0, 13.0])
    nodule = share(np.minimum(6.0 - distance(on_wall), wall))
    chord = (wall > 0) & ~((np.arange(SIZE)[None, None, :] < 12.0) & (distance(on_wall) < 7.0))
    grid = painted((1 - share(wall), TISSUE), (nodule, TISSUE))
    truth = float(nodule.sum())
    got = measured(grid, 5.0, chord, on_wall + np.array([0, 0, 2.0]))
    assert float((nodule * chord).sum()) < 0.85 * truth
    assert got.volume_mm3 == pytest.approx(truth, rel=0.1)


def test_nothing_is_continued_where_the_wall_is_no_smooth_surface():
    ball = distance() < 5
    free = np.ones_like(ball)
    assert continued(free, ball, 1.0) is free, "no wall at all"
    rough = np.arange(SIZE)[None, None, :] > 18 + 6 * (np.indices((SIZE, SIZE)).sum(axis=0) // 3 % 2)[..., None]
    assert continued(rough, ball & rough, 1.0) is rough


@pytest.mark.parametrize(
    ("diameter", "solidity", "size"),
    [
        (29.9, "solid", "nodule_category_4b"),
        (30.1, "solid", "nodule_mass"),
        (34.0, "part_solid", "nodule_mass"),
        (34.0, "ground_glass", "nodule_category_3"),
    ],
)
def test_beyond_30_mm_it_is_a_mass_without_a_size_category(diameter, solidity, size):
    """But for ground glass, for which the table has a row."""
    nodule = measured(painted((share(6.0 - distance()), TISSUE)), 5.0)
    large = replace(nodule, long_axis_mm=diameter, short_axis_mm=diameter, solidity=solidity, solid_diameter_mm=9.0)
    assert types_of(large) == (f"nodule_{solidity}", size)


@pytest.mark.slow
def test_a_large_ball_is_marked_and_a_slab_is_not():
    """A slab of wall or heart that the closing let in is neither nodule nor mass."""
    ball = measured(painted((share(18.0 - distance([40.0] * 3, 81)), TISSUE)), 13.0, at=[40.0] * 3)
    assert ball.is_mass
    assert ball.volume_mm3 == pytest.approx(ball_mm3(18.0), rel=0.05)
    z, y, x = np.meshgrid(*[np.arange(91.0) - 45] * 3, indexing="ij")
    slab = np.minimum(np.minimum(9 - np.abs(z), 40 - np.abs(y)), 25 - np.abs(x))
    assert measured(painted((share(slab), TISSUE)), 13.0, at=[45.0] * 3) is None


def test_compactness_is_that_of_a_ball_and_of_a_rod():
    assert compactness(distance() < 12) > 0.85
    rod = np.zeros((SIZE,) * 3, dtype=bool)
    rod[19:22, 19:22, 3:38] = True
    assert compactness(rod) < 0.05


def test_shape_takes_from_the_odds_of_a_mark():
    assert shaped(0.8, 0.5) == pytest.approx(2 / 3), "odds of 4 become 2"
    assert shaped(0.8, 1.0) == pytest.approx(0.8)
    assert (shaped(0.0, 0.3), shaped(1.0, 0.3)) == (0.0, 1.0)
