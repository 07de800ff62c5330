"""The method of discs on outlines of known volume, and the fan on the screen with its way to the network's grid."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.core.dicom.cine import cine_of
from wetread.core.errors import NotProcessable
from wetread.echo.discs import DISCS, cut, largest, long_axis
from wetread.echo.outline import line_of, on_screen
from wetread.echo.sector import SIDE, Square, find_sector, square_about, tensor_of, to_grid


def ellipse(rows, columns, tilt_deg=0.0, centre=(64.0, 64.0), soft=1.0):
    """Certainty of an ellipse with half axes *rows* and *columns*, turned by *tilt_deg*."""
    i, j = np.mgrid[:SIDE, :SIDE].astype(float)
    t = np.deg2rad(tilt_deg)
    u = (i - centre[0]) * np.cos(t) + (j - centre[1]) * np.sin(t)
    v = (j - centre[1]) * np.cos(t) - (i - centre[0]) * np.sin(t)
    away = np.sqrt((u / rows) ** 2 + (v / columns) ** 2)
    return (1 / (1 + np.exp((away - 1) * min(rows, columns) * 4 / soft))).astype(np.float32)


@pytest.mark.parametrize("tilt", [0.0, 14.0, -25.0])
def test_discs_of_an_ellipse_sum_to_its_spheroid(tilt):
    region = ellipse(40, 18, tilt)[None]
    axis = long_axis(region)
    found = cut(region, axis)
    assert found.widths.shape == (1, DISCS)
    assert found.volume[0] == pytest.approx(4 / 3 * np.pi * 40 * 18**2, rel=0.03)
    assert abs(np.degrees(np.arctan2(axis.direction[1], axis.direction[0])) - tilt) < 0.5
    assert found.length[0] == pytest.approx(80, rel=0.05)


def test_a_ratio_of_volumes_is_that_of_the_squares_of_widths():
    region = np.stack([ellipse(40, 20), ellipse(40, 14)])
    volume = cut(region, long_axis(region)).volume
    assert volume[1] / volume[0] == pytest.approx((14 / 20) ** 2, abs=0.01)


def test_nothing_has_no_axis_and_a_frame_without_region_no_volume():
    empty = np.zeros((2, SIDE, SIDE), np.float32)
    assert long_axis(empty) is None
    some = np.stack([ellipse(40, 20), empty[0]])
    assert cut(some, long_axis(some)).volume[1] == 0


def test_only_the_largest_region_of_a_frame_is_kept():
    one, other = ellipse(30, 15), ellipse(8, 6, centre=(110.0, 110.0))
    kept = largest(np.maximum(one, other)[None])[0]
    assert kept[64, 64] > 0.9
    assert kept[110, 110] == 0
    assert (largest(np.full((1, SIDE, SIDE), 0.2, np.float32)) == 0).all()


def test_the_grid_averages_areas_and_knows_its_way_back():
    rng = np.random.default_rng(1)
    frames = rng.uniform(0, 255, (2, 200, 300)).astype(np.float32)
    square = square_about((0, 0, 199, 299))
    grid = to_grid(frames, square)
    assert grid.shape == (2, SIDE, SIDE)
    assert grid.sum() * square.step**2 == pytest.approx(frames.sum(), rel=1e-5)
    assert square.to_screen(np.array([-0.5, -0.5])) == pytest.approx([square.top - 0.5, square.left - 0.5])
    same = Square(0.0, 0.0, 1.0)
    assert np.allclose(to_grid(frames[:, :SIDE, :SIDE], same), frames[:, :SIDE, :SIDE], atol=1e-3)


def test_the_tensor_is_stretched_once_for_the_whole_clip():
    grid = np.zeros((2, SIDE, SIDE), np.float32)
    grid[0, :64], grid[1, :64] = 50.0, 100.0
    tensor = tensor_of(grid)
    assert tensor.shape == (2, 1, SIDE, SIDE)
    assert tensor[1].max() == pytest.approx(1.0)
    assert tensor[0].max() == pytest.approx(0.5)
    assert tensor_of(np.zeros((1, SIDE, SIDE), np.float32)).max() == 0


def test_an_outline_goes_to_the_screen_and_is_drawn_about_its_middle():
    square = Square(20.0, 30.0, 1.5)
    region = on_screen(ellipse(40, 20), square, (260, 260))
    assert region.sum() * 1.0 == pytest.approx(np.pi * 40 * 20 * 1.5**2, rel=0.03)
    points = np.array(line_of(region))
    middle = square.to_screen(np.array([64.0, 64.0]))
    assert points.mean(axis=0) == pytest.approx([middle[1], middle[0]], abs=1.0)
    assert np.abs(points[:, 1] - middle[0]).max() == pytest.approx(40 * 1.5, abs=2)
    assert line_of(np.zeros((4, 4), bool)) == []


def screen(frames=12, shape=(120, 160)):
    """Black pictures with a fan that changes, and writing that does not."""
    rng = np.random.default_rng(2)
    i, j = np.mgrid[: shape[0], : shape[1]]
    fan = (np.hypot(i - 8, j - 80) < 100) & (np.abs(j - 80) < 0.7 * (i - 8))
    pictures = rng.uniform(10, 90, (frames, *shape)).astype(np.float32) * fan
    pictures[:, 4:12, 4:50] = 220.0
    return pictures, fan


def clip(pictures, coloured=None):
    coloured = np.zeros(pictures.shape[1:], bool) if coloured is None else coloured
    return cine_of(pictures, coloured, np.arange(len(pictures)) / 30, uid="1.2.3")


def test_the_fan_is_what_changes_and_writing_is_left_out():
    pictures, fan = screen()
    found = find_sector(clip(pictures))
    assert (found.inside & fan).sum() / (found.inside | fan).sum() > 0.95
    assert not found.inside[4:12, 4:40].any()
    assert found.square.step * SIDE == pytest.approx(max(found.box[2] - found.box[0], found.box[3] - found.box[1]) + 1)


def test_pictures_that_are_no_fan_are_refused():
    pictures, _ = screen()
    still = np.repeat(pictures[:1], 12, axis=0)
    small = pictures.copy()
    small[:, :, 20:] = 0
    noise = np.random.default_rng(3).uniform(0, 255, (12, 120, 160)).astype(np.float32)
    for broken, reason in ((still, "no_picture"), (small, "no_picture"), (noise, "no_fan")):
        with pytest.raises(NotProcessable) as caught:
            find_sector(clip(broken))
        assert caught.value.reason == reason
