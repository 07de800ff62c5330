"""Beats from a volume curve: full ones only, with or without rhythm, and none where nothing beats."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.echo.beats import ejections, smoothed
from wetread.testing.phantoms.echo_heart import Beat, emptied


def curve(beats, seconds, rate=40.0, noise=0.0):
    times = np.arange(round(seconds * rate)) / rate
    volume = 120.0 * (1 - emptied(tuple(beats), times))
    volume = volume * (1 + noise * np.random.default_rng(1).standard_normal(len(times)))
    return smoothed(volume, times), times


def regular(start=0.0, length=0.8, fraction=0.6, count=6):
    return [Beat(start + k * length, length, fraction) for k in range(count)]


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_every_full_beat_is_found_with_its_fraction(noise):
    volume, times = curve(regular(), 2.3, noise=noise)
    found = ejections(volume, times)
    assert len(found) == 3
    for number, beat in enumerate(found):
        assert times[beat.diastole] == pytest.approx(0.8 * number, abs=0.11)
        assert times[beat.systole] == pytest.approx(0.8 * number + 0.3, abs=0.06)
        assert 100 * beat.fraction == pytest.approx(60, abs=2.5)


def test_a_beat_whose_beginning_is_not_shown_is_left_out():
    volume, times = curve(regular(start=-0.2), 1.3)
    found = ejections(volume, times)
    assert len(found) == 1
    assert times[found[0].diastole] == pytest.approx(0.6, abs=0.08)


def test_a_clip_that_ends_in_systole_has_no_full_beat():
    volume, times = curve(regular(), 0.28)
    assert ejections(volume, times) == ()


def test_nothing_beats_where_the_volume_hardly_changes():
    rng = np.random.default_rng(3)
    times = np.arange(90) / 40
    still = smoothed(100 + rng.standard_normal(90), times)
    assert ejections(still, times) == ()
    assert ejections(np.zeros(90), times) == ()


def test_beats_of_different_strength_keep_their_own_fractions():
    beats = [Beat(0.0, 0.9, 0.6), Beat(0.9, 0.55, 0.62), Beat(1.45, 1.0, 0.42), Beat(2.45, 0.8, 0.6)]
    volume, times = curve(beats, 2.45)
    fractions = [100 * beat.fraction for beat in ejections(volume, times)]
    assert fractions == pytest.approx([60, 62, 42], abs=3)


def test_the_dip_in_the_middle_of_filling_is_no_beat():
    times = np.arange(80) / 40
    volume = 100 - 50 * np.exp(-(((times - 0.4) / 0.12) ** 2)) - 12 * np.exp(-(((times - 1.1) / 0.1) ** 2))
    found = ejections(smoothed(volume, times), times)
    assert [round(float(times[beat.systole]), 1) for beat in found] == [0.4]


def test_a_weak_heart_still_beats():
    volume, times = curve(regular(fraction=0.15), 2.3, noise=0.008)
    found = ejections(volume, times)
    assert len(found) >= 2
    assert np.mean([100 * beat.fraction for beat in found]) == pytest.approx(15, abs=3)
