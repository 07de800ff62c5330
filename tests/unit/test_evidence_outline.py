from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wetread.adapters.evidence.outline import edges, largest_outline

REGIONS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def largest_part(region: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(region)
    return labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())


def test_one_pixel_is_a_square_around_its_centre() -> None:
    region = np.zeros((6, 9), bool)
    region[2, 5] = True  # row 2, column 5
    outline = largest_outline(region, (0.5, 0.25))
    assert outline is not None
    assert outline.points.tolist() == [[5, 2], [6, 2], [6, 3], [5, 3], [5, 2]]
    assert outline.points[:-1].mean(axis=0).tolist() == [5.5, 2.5]
    assert outline.area_mm2 == pytest.approx(0.125)
    assert outline.diameter_mm == pytest.approx(np.hypot(0.5, 0.25))


def test_rectangle_has_four_corners_and_its_diagonal() -> None:
    region = np.zeros((10, 10), bool)
    region[2:5, 1:9] = True
    outline = largest_outline(region, (1.0, 1.0))
    assert outline is not None
    assert len(outline.points) == 5
    assert outline.diameter_mm == pytest.approx(np.hypot(3, 8))


def test_diameter_is_measured_in_millimetres_not_pixels() -> None:
    region = np.zeros((12, 12), bool)
    region[1:4, 1:9] = True  # 8 columns of 0.1 mm, 3 rows of 2 mm
    outline = largest_outline(region, (2.0, 0.1))
    assert outline is not None
    assert outline.diameter_mm == pytest.approx(np.hypot(6.0, 0.8))


def test_empty_region_has_no_outline() -> None:
    assert largest_outline(np.zeros((4, 4), bool), (1, 1)) is None


@given(REGIONS)
def test_polygon_encloses_exactly_the_filled_part(region: np.ndarray) -> None:
    outline = largest_outline(region, (0.7, 1.3))
    if not region.any():
        assert outline is None
        return
    assert outline is not None
    filled = ndimage.binary_fill_holes(largest_part(region), structure=np.ones((3, 3)))
    assert outline.area_mm2 == pytest.approx(int(filled.sum()) * 0.7 * 1.3)
    assert (outline.points[0] == outline.points[-1]).all()
    assert (np.abs(np.diff(outline.points, axis=0)).astype(bool).sum(axis=1) == 1).all()  # along pixel edges only


@given(REGIONS.filter(np.any))
def test_diameter_is_the_longest_chord(region: np.ndarray) -> None:
    outline = largest_outline(region, (1.0, 2.0))
    assert outline is not None
    scaled = outline.points * (2.0, 1.0)
    longest = max(float(np.linalg.norm(a - b)) for a in scaled for b in scaled)
    assert outline.diameter_mm == pytest.approx(longest)
    assert np.linalg.norm((outline.diameter[0] - outline.diameter[1]) * (2.0, 1.0)) == pytest.approx(longest)


@given(REGIONS.filter(np.any))
def test_left_stays_left(region: np.ndarray) -> None:
    """Mirroring the columns mirrors the outline: area, length and column range follow."""
    part = largest_part(region)
    a, b = largest_outline(part, (1, 1)), largest_outline(part[:, ::-1], (1, 1))
    assert a is not None
    assert b is not None
    width = part.shape[1]
    assert a.area_mm2 == b.area_mm2
    assert a.diameter_mm == pytest.approx(b.diameter_mm)
    assert a.points[:, 0].min() == width - b.points[:, 0].max()
    assert {tuple(p) for p in a.points} == {(width - x, y) for x, y in b.points}


@given(REGIONS)
def test_edges_lie_inside_and_leave_the_interior(region: np.ndarray) -> None:
    line = edges(region)
    assert not (line & ~region).any()
    padded = np.pad(region, 1)
    interior = region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    assert (line == (region & ~interior)).all()
