"""Whether a map of a score's origin points at the lesion and depends on the network's weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from wetread.core.detector import Explanation, FrameRef, Result, Volume
from wetread.detection.evaluation.explanation import correlation, points_at, shuffled, strongest_cell
from wetread.detection.evaluation.report import readme
from wetread.detection.evaluation.summary import summarise
from wetread.detection.registry import bundled_folder


def volume(step_mm: float = 5.0, count: int = 6) -> Volume:
    """12 x 12 voxels of 2 mm from the origin."""
    return Volume(
        np.zeros((count, 12, 12), np.float32),
        np.column_stack([np.zeros((count, 2)), np.arange(count) * step_mm]),
        np.array([1.0, 0, 0]),
        np.array([0, 1.0, 0]),
        (2.0, 2.0),
        np.full(count, step_mm),
        tuple(FrameRef(f"1.2.{k}") for k in range(count)),
    )


def explanation(cell: tuple[int, int, int] = (2, 1, 1), *, turn_deg: float = 0.0) -> Explanation:
    """Cells of 5 x 8 x 8 mm, the first around (3, 3, 0) mm; one of them is strong."""
    values = np.full((6, 3, 3), 0.1, np.float32)
    values[cell] = 0.9
    angle = math.radians(turn_deg)
    across = np.array([math.cos(angle), math.sin(angle), 0.0])
    down = np.array([-math.sin(angle), math.cos(angle), 0.0])
    return Explanation("cam", values, np.array([3.0, 3.0, 0.0]), across, down, (5.0, 8.0, 8.0))


def lesion(plane: int, row: int, column: int, count: int = 6) -> np.ndarray:
    mask = np.zeros((count, 12, 12), np.uint8)
    mask[plane, row, column] = 1
    return mask


@pytest.mark.parametrize(
    ("plane", "row", "column", "inside"),
    [
        (2, 4, 4, True),  # (8, 8, 10) mm: the cell reaches from 7 to 15 mm
        (2, 7, 7, True),
        (2, 8, 7, False),
        (2, 4, 3, False),
        (1, 5, 5, False),
        (3, 5, 5, False),
    ],
)
def test_a_lesion_is_pointed_at_when_the_strongest_cell_holds_a_voxel_of_it(plane, row, column, inside) -> None:
    assert points_at(explanation(), volume(), lesion(plane, row, column)) is inside


def test_thick_planes_reach_into_the_cells_that_they_stand_for() -> None:
    thick = volume(step_mm=12.0, count=3)
    near = explanation((1, 1, 1))  # 5 mm high around 5 mm; plane 0 stands for -6..6, plane 1 for 6..18
    assert points_at(near, thick, lesion(0, 5, 5, 3))
    assert not points_at(near, thick, lesion(2, 5, 5, 3))


def test_the_grid_may_be_turned_in_the_patient() -> None:
    turned = explanation(turn_deg=90.0)  # rows run to the right: the cell is around (-5, 11, 10)
    moved = replace(volume(), origins=volume().origins - [12.0, 0, 0])
    assert points_at(turned, moved, lesion(2, 5, 3))
    assert not points_at(turned, volume(), lesion(2, 5, 5))


def test_an_empty_map_points_nowhere() -> None:
    empty = replace(explanation(), values=np.zeros((6, 3, 3), np.float32))
    assert strongest_cell(empty) is None
    assert not points_at(empty, volume(), lesion(2, 5, 5))
    assert not points_at(explanation(), volume(), np.zeros((6, 12, 12), np.uint8))
    assert strongest_cell(explanation()) == (2, 1, 1)


def test_correlation_of_maps() -> None:
    rising = np.arange(12.0)
    assert correlation(rising, 2 * rising + 1) == pytest.approx(1.0)
    assert correlation(rising, -rising) == pytest.approx(-1.0)
    assert correlation(rising, np.ones(12)) == 0.0
    assert correlation(rising, np.full(12, np.nan)) == 0.0


@pytest.mark.server("torch")
def test_shuffled_weights_are_the_same_numbers_in_another_network() -> None:
    import onnx
    from onnx import numpy_helper

    weights = (bundled_folder() / "ich" / "1" / "model.onnx").read_bytes()
    other = shuffled(weights, seed=1)
    assert other == shuffled(weights, seed=1)
    assert other != shuffled(weights, seed=2)
    one, two = (onnx.load_model_from_string(data).graph for data in (weights, other))
    assert list(one.node) == list(two.node)
    moved = 0
    for this, that in zip(one.initializer, two.initializer, strict=True):
        before, after = numpy_helper.to_array(this), numpy_helper.to_array(that)
        assert np.array_equal(np.sort(before.ravel()), np.sort(after.ravel()))
        moved += int((before != after).sum())
    assert moved > 100_000


def test_the_figures_of_a_set_say_how_often_the_map_points_at_the_lesion() -> None:
    leading = {"set": "s0", "truth": 1, "state": "positive", "reason": "", "score": 0.9, "seconds": 1.0}
    rows = [{**leading, "seed": 2_000_000 + k, "explained": pointed} for k, pointed in enumerate([1, 1, 0, ""])]
    figures = summarise(rows, None)
    assert figures["explanation"]["n"] == 3
    assert figures["explanation"]["maximum_in_lesion"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert "explanation" not in summarise([{**leading, "seed": 2_000_000}], None)
    card = {
        "title": "T", "ruo": "R", "intended_use": "I", "excluded_use": ["x"], "version": "1.0.0", "name": "n",
        "metrics": {"s0": figures},
    }  # fmt: skip
    assert "| s0 | where the score came from: maximum in the lesion | 0.667" in readme(card)


def test_a_result_without_a_map_is_a_result() -> None:
    assert Result("negative").explanation is None
