"""The reading order as a pure function: properties of the guard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wetread.core.priority import Priority
from wetread.core.reading_order import Band, Guard, Place, band_of, sequence

HOUR = 3600.0


def places(*arrivals: float, start: int = 0) -> list[Place]:
    return [Place(f"u{start + n}", arrival, arrival + 300) for n, arrival in enumerate(arrivals)]


def order(bands: dict[Band, list[Place]], **options: object) -> list[str]:
    return [place.study_uid for _band, place, _taken in sequence(bands, **options)]  # type: ignore[arg-type]


arrivals = st.lists(st.floats(0, 1e6), max_size=12)


@st.composite
def any_bands(draw: st.DrawFn) -> dict[Band, list[Place]]:
    bands, count = {}, 0
    for band in Band:
        found = places(*sorted(draw(arrivals)), start=count)
        bands[band], count = found, count + len(found)
    return bands


@given(any_bands(), st.integers(0, 4), st.integers(1, 4))
def test_every_study_is_listed_once(bands: dict[Band, list[Place]], taken: int, share: int) -> None:
    listed = order(bands, guard=Guard(share=share), taken=taken)
    assert sorted(listed) == sorted(place.study_uid for found in bands.values() for place in found)


@given(any_bands(), st.integers(1, 4))
def test_the_kth_overdue_study_is_taken_within_k_times_r_plus_1(bands: dict[Band, list[Place]], share: int) -> None:
    listed = order(bands, guard=Guard(share=share))
    for k, place in enumerate(bands[Band.OVERDUE], start=1):
        assert listed.index(place.study_uid) + 1 <= k * (share + 1)


@given(any_bands())
def test_each_band_keeps_its_own_order(bands: dict[Band, list[Place]]) -> None:
    listed = order(bands)
    for found in bands.values():
        positions = [listed.index(place.study_uid) for place in found]
        assert positions == sorted(positions)


@given(arrivals)
def test_nothing_flagged_nothing_overdue_is_first_in_first_out(times: list[float]) -> None:
    found = places(*sorted(times))
    assert order({Band.NORMAL: found}) == [place.study_uid for place in found]


@given(st.lists(st.tuples(st.floats(0, 10 * HOUR), st.booleans()), max_size=20))
def test_a_flag_alone_never_passes_a_study_beyond_the_bound(studies: list[tuple[float, bool]]) -> None:
    guard = Guard()
    found = [Place(f"u{n}", arrival, arrival + 300) for n, (arrival, _flag) in enumerate(studies)]
    flagged = sorted((p for p, (_a, flag) in zip(found, studies, strict=True) if flag), key=lambda p: p.due_at)
    others = sorted((p for p, (_a, flag) in zip(found, studies, strict=True) if not flag), key=lambda p: p.arrival)
    now = 11 * HOUR  # everything unflagged is overdue
    listed = order({Band.FLAGGED: flagged, Band.OVERDUE: others}, guard=guard)
    assert all(now - p.arrival >= guard.overdue_seconds for p in others)
    for flag in flagged:
        for other in others:
            if other.arrival < flag.arrival - guard.bound_seconds:
                assert listed.index(other.study_uid) < listed.index(flag.study_uid)


def test_an_ordered_stat_is_not_held_back_by_the_bound_on_flags() -> None:
    old = places(0.0)
    flagged = [Place("flagged", 6 * HOUR, 6 * HOUR + 300)]
    firm = [Place("firm", 6 * HOUR + 60, 6 * HOUR + 360)]
    assert order({Band.OVERDUE: old, Band.FLAGGED: flagged, Band.FIRM: firm}) == ["firm", "u0", "flagged"]


def test_the_counter_continues_over_pages() -> None:
    bands = {Band.FIRM: places(1, 2, 3, 4), Band.OVERDUE: places(0, 0.5, start=10)}
    whole = list(sequence(bands))
    _band, _place, taken = whole[0]
    rest = {Band.FIRM: bands[Band.FIRM][1:], Band.OVERDUE: bands[Band.OVERDUE]}
    assert [place for _b, place, _t in sequence(rest, taken=taken)] == [place for _b, place, _t in whole[1:]]


def test_what_is_overdue() -> None:
    routine, urgent = Priority.ROUTINE, Priority.URGENT
    assert band_of(Priority.STAT, Priority.STAT, 9 * HOUR) is Band.FIRM
    assert band_of(Priority.STAT, routine, 0) is Band.FLAGGED
    assert band_of(urgent, urgent, 31 * 60) is Band.OVERDUE
    assert band_of(routine, routine, 59 * 60) is Band.NORMAL
    assert band_of(routine, routine, 60 * 60) is Band.OVERDUE
