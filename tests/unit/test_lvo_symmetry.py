"""The head's plane of symmetry on heads turned, rolled and shifted by known amounts, and on what has none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from wetread.core.detector import Volume
from wetread.core.errors import NotProcessable
from wetread.lvo.scan import Places, reduced, upper, upright
from wetread.lvo.symmetry import Plane, from_rows, refined, symmetry_plane
from wetread.testing.phantoms.cta_head import cta_phantom, head_to_lps

POSE = {"turn_deg": 0.0, "roll_deg": 0.0, "nod_deg": 0.0, "shift_mm": 0.0}
COARSE = {"step_mm": 4.0, "pixel_mm": 2.5, "noise_hu": 12.0, "calcium": False, "occlusion": "M1"}
FINE = COARSE | {"step_mm": 1.5, "pixel_mm": 1.2}


def turned(**changes) -> tuple[Volume, np.ndarray]:
    """A head and the true normal of its plane of symmetry."""
    phantom = cta_phantom(1_000_600, split="tune", **{**POSE, **COARSE, **changes})
    axes = head_to_lps(phantom.spec, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    return phantom.to_volume(), axes[0] - axes[1]


@cache
def straight() -> Volume:
    return turned()[0]


def degrees(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))


def off_mm(plane: Plane, volume: Volume, place: tuple[float, float, float]) -> float:
    return abs(float((np.asarray(place) - plane.point) @ plane.normal))


def test_a_turned_and_rolled_head_is_straightened_where_its_rows_are_not_enough() -> None:
    volume, true = turned(turn_deg=14.0, roll_deg=-11.0, nod_deg=9.0, shift_mm=7.0)
    first = from_rows(volume)
    found = refined(volume, first)
    assert degrees(first.normal, true) > 6.0
    assert degrees(found.normal, true) < 0.6
    assert off_mm(found, volume, (7.0, 0.0, 0.0)) < 0.5
    assert found.rotation @ found.rotation.T == pytest.approx(np.eye(3), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("turn", "roll", "occlusion"),
    [(-15, 0, None), (15, 15, "ICA"), (0, -15, "M1"), (-10, 5, None), (5, 10, "ICA"), (-15, -15, None), (2, -3, "M1")],
)
def test_within_fifteen_degrees_the_error_is_under_half_a_degree(turn, roll, occlusion) -> None:
    volume, true = turned(**FINE | {"turn_deg": turn, "roll_deg": roll, "nod_deg": -12.0, "occlusion": occlusion})
    small = upper(reduced(upright(volume), 1.0))
    first = from_rows(small)
    found = refined(small, first)
    assert degrees(found.normal, true) < min(0.5, degrees(first.normal, true))
    assert off_mm(found, small, (0.0, 0.0, 0.0)) < 0.5


def test_a_straight_head_stays_where_it_is() -> None:
    volume, true = straight(), np.array([1.0, 0.0, 0.0])
    first = from_rows(volume)
    found = refined(volume, first)
    assert degrees(first.normal, true) < 0.5
    assert degrees(found.normal, first.normal) < 0.5
    assert off_mm(found, volume, tuple(first.point)) < 0.5


def test_an_oval_without_two_like_halves_has_no_plane_of_symmetry() -> None:
    volume = straight()
    clouds = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal(volume.voxels.shape), 2.0)
    voxels = np.where(volume.voxels > -500.0, 300.0 + 250.0 * clouds / clouds.std(), -1000.0).astype(np.float32)
    with pytest.raises(NotProcessable) as caught:
        symmetry_plane(replace(volume, voxels=voxels))
    assert caught.value.reason == "no_symmetry"


@pytest.mark.slow
def test_a_head_that_looks_over_its_shoulder_is_refused() -> None:
    volume, _ = turned(turn_deg=33.0)
    with pytest.raises(NotProcessable) as caught:
        symmetry_plane(volume)
    assert caught.value.reason == "mixed_orientation"


@pytest.mark.slow
def test_planes_that_lie_unevenly_and_lean_keep_their_places() -> None:
    volume, true = turned(**FINE | {"turn_deg": 10.0, "tilt_deg": 15.0})
    kept = np.delete(np.arange(len(volume.voxels)), [5, 6, 11])
    uneven = replace(
        volume,
        voxels=volume.voxels[kept],
        origins=volume.origins[kept],
        weights_mm=volume.weights_mm[kept],
        frames=tuple(volume.frames[k] for k in kept),
    )
    places = Places.of(uneven)
    at = uneven.origins[7] + 12 * uneven.pixel_spacing[0] * uneven.column_direction + 30.0 * uneven.row_direction
    assert [float(v) for v in places.indices(places.axes @ at)] == pytest.approx([7.0, 12.0, 25.0], abs=0.02)
    assert float(places.indices(places.axes @ (at + 500.0 * uneven.normal))[0]) == -1.0
    assert degrees(symmetry_plane(uneven).normal, true) < 1.0


def test_a_plane_moves_by_degrees_and_millimetres() -> None:
    plane = Plane(1.0, (0.0, 0.0), (5.0, 6.0))
    assert plane.rotation == pytest.approx(np.eye(3))
    moved = plane.moved((10.0, 0.0, 3.0)).moved((-4.0, 7.0, 0.0))
    assert moved.point == pytest.approx([4.0, 5.0, 6.0])
    assert moved.slopes == pytest.approx((np.tan(np.deg2rad(6.0)), np.tan(np.deg2rad(7.0))))
    assert degrees(moved.normal, plane.normal) == pytest.approx(9.2, abs=0.1)
