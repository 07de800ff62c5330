"""The size table row by row, and growth against a prior scan in closed form."""

from __future__ import annotations

import math

import pytest

from wetread.core.errors import ComputationFailed
from wetread.nodule.category import category
from wetread.nodule.growth import Sized, doubling_time_days, follow


@pytest.mark.parametrize(
    ("solidity", "diameter", "core", "new", "expected"),
    [
        ("solid", 5.9, 5.9, False, "2"),
        ("solid", 5.96, 5.96, False, "3"),  # read to a tenth of a millimetre: 6.0
        ("solid", 7.9, 7.9, False, "3"),
        ("solid", 8.0, 8.0, False, "4a"),
        ("solid", 14.9, 14.9, False, "4a"),
        ("solid", 15.0, 15.0, False, "4b"),
        ("solid", 3.9, 3.9, True, "2"),
        ("solid", 4.0, 4.0, True, "3"),
        ("solid", 6.0, 6.0, True, "4a"),
        ("solid", 8.0, 8.0, True, "4b"),
        ("part_solid", 5.9, 3.0, False, "2"),
        ("part_solid", 5.9, 3.0, True, "3"),
        ("part_solid", 12.0, 5.9, False, "3"),
        ("part_solid", 12.0, 6.0, False, "4a"),
        ("part_solid", 12.0, 8.0, False, "4b"),
        ("part_solid", 12.0, 3.9, True, "4a"),
        ("part_solid", 12.0, 4.0, True, "4b"),
        ("ground_glass", 29.9, 0.0, False, "2"),
        ("ground_glass", 30.0, 0.0, False, "3"),
    ],
)
def test_the_size_table(solidity, diameter, core, new, expected):
    assert category(solidity, diameter, core, new=new) == expected


def test_doubling_time_in_closed_form():
    assert doubling_time_days(100, 200, 90) == pytest.approx(90)
    assert doubling_time_days(100, 400, 90) == pytest.approx(45)
    assert doubling_time_days(200, 100, 90) == pytest.approx(-90)
    assert doubling_time_days(100, 100, 90) == math.inf
    with pytest.raises(ComputationFailed):
        doubling_time_days(0, 100, 90)
    with pytest.raises(ComputationFailed):
        doubling_time_days(100, 100, 0)


def test_nodules_are_paired_over_a_common_shift_and_followed():
    then = [
        Sized((0, 0, 0), 100, 5.8),
        Sized((50, 0, 0), 500, 9.8),
        Sized((0, 60, 0), 900, 12.0),
        Sized((0, 0, 90), 60, 4.9),
    ]
    moved = (18.0, -9.0, 14.0)  # another breath: further than nodules may lie apart
    now = [
        Sized(moved, 250, 7.8),
        Sized((50 + moved[0], moved[1], moved[2]), 510, 9.9),
        Sized((moved[0], 60 + moved[1], moved[2]), 300, 8.3),
        Sized((200, 200, 200), 40, 4.2),
    ]
    found = {(f.now, f.then): f for f in follow(now, then, 180)}
    assert {key: f.course for key, f in found.items()} == {
        (0, 0): "grown",
        (1, 1): "stable",
        (2, 2): "shrunk",
        (3, None): "new",
        (None, 3): "gone",
    }
    assert found[0, 0].doubling_days == pytest.approx(180 * math.log(2) / math.log(2.5))
    assert found[3, None].doubling_days is None


def test_scans_without_nodules():
    assert follow([], [], 30) == []
    assert [f.course for f in follow([Sized((0, 0, 0), 10, 3)], [], 30)] == ["new"]
