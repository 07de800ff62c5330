"""Lungs, candidates and measures on volumes whose answer is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from wetread.core.detector import FrameRef, Volume
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.nodule.answer import result_of
from wetread.nodule.candidates import halved
from wetread.nodule.frame import Grid, frame_of, sample, to_planes
from wetread.nodule.lungs import find_lungs
from wetread.nodule.measure import axial_diameters, measure, recovery
from wetread.nodule.patches import SIZE, patches
from wetread.nodule.reading import marks_of, read
from wetread.testing.contracts.detector import mirrored

LUNG, TISSUE = -850.0, 40.0
CENTRE = np.array([62.0, 5.0, 45.0])
"""A nodule in the left lung, (z, y, x) mm."""


def chest(*, balls=(), step=2.0, pixel=1.5, trachea=True) -> Volume:
    """Two lungs of 0.3 L in a body; *balls*: (z, y, x), radius, HU. Soft edges stand for partial volume."""
    z = np.arange(0, 124, step)[:, None, None]
    y = ((np.arange(110) - 54.5) * pixel)[None, :, None]
    x = ((np.arange(150) - 74.5) * pixel)[None, None, :]

    def share(distance):
        return np.clip(distance / pixel + 0.5, 0, 1)

    hu = -1000 + (TISSUE + 1000) * share(75 * (1 - np.hypot(x / 105, y / 75))) * np.ones_like(z)
    for side in (-1, 1):
        lung = 30 * (1 - np.sqrt(((z - 62) / 55) ** 2 + (y / 48) ** 2 + ((x - 45 * side) / 32) ** 2))
        hu += share(lung) * (LUNG - hu)
    if trachea:
        hu += share(7 - np.hypot(x, y - 10)) * (-990 - hu)
    for centre, radius, value in balls:
        distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        hu += share(radius - distance) * (value - hu)
    count = len(z)
    origins = np.column_stack([np.full(count, -74.5 * pixel), np.full(count, -54.5 * pixel), z.ravel()])
    return Volume(
        hu.astype(np.float32),
        origins,
        np.array([1.0, 0, 0]),
        np.array([0, 1.0, 0]),
        (pixel, pixel),
        np.full(count, step),
        tuple(FrameRef(f"1.2.{k}") for k in range(count)),
    )


@pytest.fixture(scope="module")
def volume():
    return chest(balls=[(CENTRE, 6.0, 30.0), ((60.0, 0.0, -74.0), 9.0, 30.0)])


@pytest.fixture(scope="module")
def reading(volume):
    return read(volume)


def nearest(reading, lps):
    places = reading.frame.to_lps(reading.grid.place(reading.candidates.index))
    away = np.linalg.norm(places - np.asarray(lps), axis=1)
    return int(away.argmin()), float(away.min())


def test_the_grid_reads_the_patient_and_not_the_order_of_the_pixels(volume, reading):
    """A mirrored, a transposed and an upside-down grid of one patient give the same samples."""
    transposed = replace(
        volume,
        voxels=np.ascontiguousarray(volume.voxels.transpose(0, 2, 1)[::-1]),
        origins=volume.origins[::-1].copy(),
        frames=volume.frames[::-1],
        row_direction=volume.column_direction,
        column_direction=volume.row_direction,
    )
    for other in (mirrored(volume), transposed):
        found = sample(frame_of(other), 2.0)
        wanted = sample(reading.frame, 2.0)
        assert found.start == pytest.approx(wanted.start)
        assert np.allclose(found.values, wanted.values, atol=0.01)


@pytest.mark.slow
def test_a_tilted_stack_is_read_upright():
    volume = chest(balls=[(CENTRE, 6.0, 30.0)], trachea=False)
    shift = np.zeros_like(volume.origins)
    shift[:, 1] = 0.06 * volume.origins[:, 2]  # every plane starts further back, as under a tilted gantry
    rows = (shift[:, 1] / volume.pixel_spacing[0]).round().astype(int)
    voxels = np.stack([np.roll(plane, -r, axis=0) for plane, r in zip(volume.voxels, rows, strict=True)])
    shift[:, 1] = rows * volume.pixel_spacing[0]
    leaning = read(replace(volume, voxels=voxels, origins=volume.origins + shift))
    assert nearest(leaning, CENTRE[::-1])[1] < 2.0


def test_lungs_hold_what_sits_on_the_pleura_and_no_trachea(reading):
    coarse = sample(reading.frame, 2.0)
    lungs = find_lungs(coarse)
    litres = lungs.air.sum() * 8 / 1e6
    assert litres == pytest.approx(2 * 4 / 3 * math.pi * 55 * 48 * 32 / 1e6, rel=0.06)
    assert lungs.level_hu == pytest.approx(LUNG, abs=5)
    assert lungs.midline_mm == pytest.approx(0, abs=3)

    def at(z, y, x):
        return tuple(np.rint((np.array([z, y, x]) - coarse.start) / 2).astype(int))

    assert lungs.closed[at(60, 0, -70)]  # within the nodule at the pleura
    assert not lungs.closed[at(62, 10, 0)]  # the trachea
    assert not lungs.air[at(60, 0, -70)]


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.full((40, 60, 60), -1000.0), "body_part"), (np.full((40, 60, 60), 30.0), "body_part")],
    ids=["air", "tissue"],
)
def test_what_holds_no_lungs_is_another_body_part(values, reason):
    with pytest.raises(NotApplicable) as refused:
        find_lungs(Grid(values.astype(np.float32), np.zeros(3), 2.0))
    assert refused.value.reason == reason


def test_planes_across_the_body_axis_are_refused(volume):
    with pytest.raises(NotProcessable) as refused:
        read(replace(volume, column_direction=np.array([0, 0, -1.0])))
    assert refused.value.reason == "mixed_orientation"


def test_a_ball_is_the_first_candidate_and_measured_as_it_is(reading):
    number, away = nearest(reading, CENTRE[::-1])
    assert number <= 1
    assert away < 1.5
    assert reading.candidates.roundness[number].min() > 0.5
    scores = np.zeros(len(reading.candidates))
    scores[number] = 0.9
    [mark] = marks_of(reading, scores, 0.5, 10)
    nodule = mark.nodule
    assert mark.centre_lps_mm == pytest.approx(tuple(CENTRE[::-1]), abs=0.6)
    assert nodule.volume_mm3 == pytest.approx(4 / 3 * math.pi * 6**3, rel=0.1)
    assert nodule.long_axis_mm == pytest.approx(12, abs=1.2)
    assert nodule.short_axis_mm == pytest.approx(12, abs=1.2)
    assert nodule.solidity == "solid"


def test_a_nodule_on_the_pleura_ends_at_the_pleura(reading):
    number, away = nearest(reading, (-71.0, 0.0, 60.0))
    assert away < 5
    nodule = measure(reading.grid, reading.closed, reading.candidates.index[number], 7.0, reading.level_hu)
    # the part of a ball of 9 mm that lies within the ellipsoid, by counting points
    grid = np.stack(np.meshgrid(*[np.arange(-9, 9, 0.4) + 0.2] * 3, indexing="ij")).reshape(3, -1)
    ball = grid[:, (grid**2).sum(axis=0) < 81]
    z, y, x = ball + np.array([60.0, 0.0, -74.0])[:, None]
    within = ((z - 62) / 55) ** 2 + (y / 48) ** 2 + ((x + 45) / 32) ** 2 < 1
    assert nodule.volume_mm3 == pytest.approx(within.sum() * 0.4**3, rel=0.3)


@pytest.mark.slow
def test_density_classes_by_what_fills_the_nodule():
    part_solid = [((62.0, 0.0, 45.0), 8.0, -550.0), ((62.0, 0.0, 45.0), 4.0, 30.0)]
    found = {}
    for name, balls in (("ground_glass", part_solid[:1]), ("part_solid", part_solid)):
        reading = read(chest(balls=balls))
        number, away = nearest(reading, (45.0, 0.0, 62.0))
        assert away < 3
        found[name] = marks_of(reading, (np.arange(len(reading.candidates)) == number).astype(float), 0.5, 1)[0].nodule
        assert found[name].solidity == name
        assert found[name].diameter_mm == pytest.approx(16, abs=2.5)
    assert found["part_solid"].solid_diameter_mm == pytest.approx(8, abs=2)
    assert found["ground_glass"].solid_diameter_mm == 0


def test_the_result_marks_each_nodule_on_its_planes_and_says_its_side(reading):
    order = [nearest(reading, lps)[0] for lps in (CENTRE[::-1], (-71.0, 0.0, 60.0))]
    scores = np.zeros(len(reading.candidates))
    scores[order] = 0.9, 0.8
    cams = np.full((len(scores), 8, 8, 8), -10, dtype=np.float32)
    cams[order[0], 4, 4, 4] = 5.0
    result = result_of(reading, marks_of(reading, scores, 0.5, 10), 0.5, 0.9, cams, mean_error=0.181)
    assert result.state == "positive"
    assert [o.laterality for o in result.observations] == ["left", "right"]
    assert [o.label for o in result.observations] == [1, 2]
    assert result.observations[0].types == ("nodule_solid", "nodule_category_4a")
    index = np.argwhere(result.mask == 1)
    volume = reading.frame.volume
    centre = volume.origins[0] + index.mean(axis=0)[::-1] * np.array([1.5, 1.5, 2.0])
    assert centre == pytest.approx(CENTRE[::-1], abs=1.0)
    assert len(index) * 1.5 * 1.5 * 2.0 == pytest.approx(4 / 3 * math.pi * 6**3, rel=0.15)
    # the activation is where the nodule is, within a cell of 4 mm
    explained = result.explanation
    assert explained is not None
    highest = np.unravel_index(int(explained.values.argmax()), explained.values.shape)
    found = explained.cells(np.array(CENTRE[::-1]))
    assert found == pytest.approx(np.array(highest), abs=1.2)


def test_nothing_above_the_threshold_is_negative_and_below_it(reading):
    result = result_of(reading, (), 0.5, 0.7, None, mean_error=0.181)
    assert (result.state, result.observations[0].state) == ("negative", "negative")
    assert result.score < 0.5
    assert not result.mask.any()


def test_a_nodule_between_two_planes_is_drawn_on_the_nearer_one(volume):
    frame = frame_of(volume)
    out = np.zeros(volume.voxels.shape, dtype=np.uint8)
    to_planes(frame, np.ones((1, 3, 3), dtype=bool), np.array([41.4, 0.0, 0.0]), 0.5, 7, out)
    assert np.unique(np.argwhere(out == 7)[:, 0]).tolist() == [21]


def test_patches_centre_on_the_candidate_and_repeat_the_border():
    hu = np.full((40, 40, 40), -850.0, dtype=np.float32)
    hu[10, 20, 30] = 400
    cube = patches(hu, np.array([[10.0, 20.0, 30.0]]))[0]
    half = SIZE // 2
    assert cube[0, half, half, half] == pytest.approx(1.0)
    assert (cube[0] > 0).sum() == 1
    assert np.unravel_index(int(cube[1].argmax()), (SIZE,) * 3) == (half, half, half)
    assert cube.min() == pytest.approx((-850 + 300) / 700)
    assert halved(np.ones((3, 4, 5), dtype=np.float32)).shape == (2, 2, 3)


def test_diameters_of_a_turned_ellipse_and_recovery_of_a_blurred_ball():
    y, x = np.meshgrid(np.arange(60) - 30, np.arange(60) - 30, indexing="ij")
    along, across = (x + y) / math.sqrt(2), (x - y) / math.sqrt(2)
    mask = np.zeros((3, 60, 60), dtype=bool)
    mask[1] = (along / 20) ** 2 + (across / 10) ** 2 < 1
    assert axial_diameters(mask, 0.5) == pytest.approx((20, 10), abs=0.7)
    grid = np.stack(np.meshgrid(*[np.arange(-4, 4, 0.1)] * 3, indexing="ij"))
    square = (grid**2).sum(axis=0)
    weight = np.exp(-square / 2)
    assert recovery(1.5, 1.0) == pytest.approx(weight[square < 2.25].sum() / weight.sum(), abs=0.01)
