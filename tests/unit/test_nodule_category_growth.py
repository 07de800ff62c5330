"""The size table row by row, and growth against earlier results in closed form."""

from __future__ import annotations

import math
from datetime import date

import pytest

from wetread.core.codes import concept
from wetread.core.errors import ComputationFailed
from wetread.core.findings import Measurement
from wetread.core.priors import PriorFinding, PriorResult
from wetread.nodule.category import category
from wetread.nodule.comparison import Comparison, Lungs, compare
from wetread.nodule.growth import Sized, doubling_time_days, error_of, follow


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


def size(place, volume, error=0.2):
    return Sized(place, volume, error)


def test_nodules_are_paired_over_a_common_shift_and_followed():
    then = [size((0, 0, 0), 100), size((50, 0, 0), 500), size((0, 60, 0), 900), size((0, 0, 90), 60)]
    moved = (18.0, -9.0, 14.0)  # another breath: further than nodules may lie apart
    now = [
        size(moved, 250),
        size((50 + moved[0], moved[1], moved[2]), 510),
        size((moved[0], 60 + moved[1], moved[2]), 300),
        size((200, 200, 200), 40),
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
    assert found[2, 2].doubling_days == pytest.approx(-180 * math.log(2) / math.log(3))
    assert (found[1, 1].doubling_days, found[3, None].doubling_days) == (None, None)


def test_scans_without_nodules():
    assert follow([], [], 30) == []
    assert [f.course for f in follow([size((0, 0, 0), 10)], [], 30)] == ["new"]


@pytest.mark.parametrize(("then_mm", "now_mm"), [(0.75, 0.75), (0.75, 1.3), (1.3, 0.75)])
@pytest.mark.parametrize("volume", [14.0, 100.0, 1000.0, 8000.0])
def test_no_change_within_the_error_of_both_volumes_is_growth(volume, then_mm, now_mm):
    """The card's error on both, one up and one down, and what the blur of each scan does to its border."""
    then = size((0, 0, 0), volume, error_of(volume, then_mm, 0.181))
    error = error_of(volume, now_mm, 0.181)
    limit = math.hypot(then.error, error)
    assert limit > math.log((1 + 0.181) / (1 - 0.181)), "beyond the card's mean error in both"
    for sign in (1, -1):
        for share, course in ((0.99, "stable"), (1.01, "grown" if sign > 0 else "shrunk")):
            [found] = follow([size((0, 0, 0), volume * math.exp(sign * share * limit), error)], [then], 90)
            assert (found.course, found.doubling_days is None) == (course, course == "stable")


def test_small_nodules_and_thick_slices_are_less_sure():
    assert error_of(14, 0.75, 0.181) > error_of(1000, 0.75, 0.181) > error_of(1e6, 0.75, 0.181)
    assert error_of(100, 1.3, 0.181) > error_of(100, 0.75, 0.181)
    assert error_of(1e9, 0.75, 0.181) == pytest.approx(1.96 * math.sqrt(math.pi / 2) * 0.181, rel=1e-3)
    sure = [size((0, 0, 0), v, 0.0) for v in (100, 124, 126)]
    courses = [follow([now], sure[:1], 90)[0].course for now in sure[1:]]
    assert courses == ["stable", "grown"], "no error is small enough to go below 25 %"


LUNGS = Lungs((-2.0, 30.0, -100.0), 240.0)


def prior(days, *nodules, height=240.0, key="k"):
    """An earlier result with nodules (place from the lungs' middle, volume)."""

    def finding(number, place, volume):
        values = [("lungs_height", height, "mm", None), ("volume", volume, "mm3", 0.45 * volume)]
        values += [(f"from_lungs_{axis}", v, "mm", None) for axis, v in zip("xyz", place, strict=True)]
        measurements = tuple(Measurement(code=concept(n).code, value=v, unit=u, uncertainty=e) for n, v, u, e in values)
        return PriorFinding(
            finding_id=f"{key}{number}", code=concept("nodule").code, state="positive", measurements=measurements
        )

    return PriorResult(
        study_uid="1.2",
        result_key=key,
        version="0.3.0",
        state="positive",
        study_date=date(2025, 1, 1),
        days=days,
        findings=tuple(finding(k, *nodule) for k, nodule in enumerate(nodules)),
    )


def test_each_nodule_is_compared_with_the_newest_result_that_shows_it():
    now = [size((30, 0, 10), 1000, 0.45), size((-40, 5, 0), 300, 0.45), size((0, 0, -80), 90, 0.5)]
    newest = prior(90, ((28, 1, 12), 400), ((60, 60, 60), 200), key="new")
    older = prior(300, ((29, 0, 12), 350), ((-42, 3, 2), 310), key="old")
    found = compare(now, LUNGS, (newest, older), 20)
    assert {k: (c.course, c.prior.result_key) for k, c in found.changes.items()} == {
        0: ("grown", "new"),
        1: ("stable", "old"),
        2: ("new", "new"),
    }
    assert found.changes[1].finding.finding_id == "old1"
    change, doubling = found.measures[0]
    assert (change.name, change.value, change.unit) == ("volume_change", 150.0, "%")
    assert "2025-01-01" in change.method
    assert "-47 % to +89 %" in change.method
    assert (doubling.name, doubling.unit) == ("doubling_time", "d")
    assert doubling.value == pytest.approx(90 * math.log(2) / math.log(2.5), abs=0.05)
    assert [m.name for m in found.measures[1]] == ["volume_change"], "no doubling time within the error"
    assert [(p.result_key, s.volume_mm3) for p, s in found.gone] == [("new", 200)]
    assert found.flags == ()


def test_what_shows_other_lungs_is_not_compared():
    now = [size((30, 0, 10), 1000)]
    short = prior(90, ((30, 0, 10), 400), height=150.0)
    silent = prior(90).model_copy(update={"findings": ()})
    found = compare(now, LUNGS, (short, silent), 20)
    assert (found.changes, found.compared, found.flags) == ({}, (), ("prior_not_comparable",))
    full = prior(90, *(((300 + k, 0, 0), 100) for k in range(20)))
    assert compare(now, LUNGS, (full,), 20).changes == {}, "a full list does not tell what is new"
    assert compare(now, LUNGS, (), 20) == Comparison()
