"""Echo phantoms: closed forms of the ventricle, the physics of the picture, and that seeds and splits are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from wetread.echo.discs import cut, long_axis
from wetread.testing.phantoms.echo import echo_phantom, frame_count, render_echo, truth_of
from wetread.testing.phantoms.echo_heart import Beat, beats_of, emptied, full_beats, shape_at
from wetread.testing.phantoms.echo_parameters import DISTRIBUTIONS, EchoSpec, draw_echo
from wetread.testing.phantoms.echo_scan import BEAMS, DEPTHS, beam_grid, compress, path_gain, screen, texture
from wetread.testing.phantoms.echo_second import bullet_at
from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"columns": 200.0, "frame_rate": 25.0, "duration_s": 1.8, "heart_rate": 75.0, "view": "a4c"}


def test_the_table_of_the_folder_is_that_of_the_generator():
    assert YAML(typ="safe").load(ROOT / "models" / "echo-ef" / "phantom.yaml") == DISTRIBUTIONS


def test_the_ellipsoids_volume_is_the_closed_form_and_falls_by_what_is_out():
    spec = EchoSpec(seed=1, long_axis_mm=90.0, slenderness=0.3, truncation=0.4, third_axis=0.95)
    out = np.array([0.0, 0.25, 0.6])
    shape = shape_at(spec, out)
    heights = np.linspace(-1, 0.4, 20001)
    discs = np.pi * 0.95 * (shape.across[:, None] ** 2) * (1 - heights[None] ** 2)
    summed = np.trapezoid(discs, heights, axis=1) * shape.long / 1000
    assert shape.volume_ml == pytest.approx(summed, rel=1e-6)
    assert shape.volume_ml / shape.volume_ml[0] == pytest.approx(1 - out)
    assert shape.axis_mm[0] == pytest.approx(90.0)
    whole = replace(spec, truncation=1.0, third_axis=1.0, slenderness=0.5)
    assert shape_at(whole, np.zeros(1)).volume_ml[0] == pytest.approx(np.pi / 6 * 90**3 / 1000), "a ball"


def test_the_second_generators_ventricle_empties_by_what_is_out():
    spec = EchoSpec(seed=1)
    out = np.array([0.0, 0.3, 0.55])
    volumes = bullet_at(spec, out).volume_ml(1.0)
    assert volumes / volumes[0] == pytest.approx(1 - out)
    cone = bullet_at(spec, np.zeros(1)).half_width(np.array([0.0, 1.0]))[0]
    assert cone[0] == 0 < cone[1]


def test_a_beat_empties_to_its_ejection_fraction_and_fills_again():
    beat = Beat(0.0, 0.9, 0.6)
    times = np.linspace(0, 0.899, 400)
    out = emptied((beat,), times)
    assert out[0] == 0
    assert out.max() == pytest.approx(0.6, abs=1e-3)
    assert times[out.argmax()] == pytest.approx(beat.systole_s, abs=0.01)
    assert out[-1] < 0.02
    after = out[out.argmax() :]
    assert (np.diff(after) <= 1e-9).all(), "filling never turns back"


def test_only_beats_that_are_seen_from_their_beginning_count():
    beats = tuple(Beat(-0.4 + 0.8 * k, 0.8, 0.5) for k in range(4))
    assert [round(b.start_s, 1) for b in full_beats(beats, 2.0)] == [0.4, 1.2]
    assert full_beats(beats, 0.7) == ()
    still = replace(draw_echo(5, split="train", **SMALL), duration_s=0.4)
    assert truth_of(still).ef is None


def test_arrhythmia_spreads_the_cycles_and_what_they_eject():
    spec = replace(EchoSpec(seed=3, duration_s=30.0), rr_spread=0.18, ef=50.0)
    beats = beats_of(spec, np.random.default_rng(3))
    lengths, ejected = np.array([b.length_s for b in beats]), np.array([b.ejection for b in beats])
    assert lengths.std() / lengths.mean() > 0.1
    assert np.corrcoef(lengths[:-1], ejected[1:])[0, 1] > 0.9, "after a long cycle more is thrown out"


@pytest.mark.parametrize(("split", "seed"), [("s0", 2_900_010), ("s5", 3_490_010)])
def test_discs_of_the_drawn_cavity_give_the_true_ejection_fraction(split, seed):
    changes = {"ef": 58.0, "start": 0.9, "foreshortening": 0.0, "rr_spread": 0.0, "arrhythmia": False, "bend_mm": 0.0}
    still = {"sway_mm": 0.0, "tilt_deg": 3.0, "shift_mm": 0.0}
    made = echo_phantom(seed, split=split, frames=range(0, 45, 2), **SMALL, **changes, **still)
    region = made.cavity.astype(np.float32)
    discs = cut(region, long_axis(region))
    volume = discs.volume
    assert 100 * (1 - volume.min() / volume.max()) == pytest.approx(made.truth.ef, abs=2.5)
    assert made.truth.ef == pytest.approx(58.0, abs=3.0)
    round_ml = made.truth.edv_ml / made.spec.third_axis
    assert volume.max() * made.mm_per_pixel**3 / 1000 == pytest.approx(round_ml, rel=0.06), "discs are taken as round"


def test_the_same_seed_gives_the_same_clip_and_other_views_no_cavity():
    one, other = (echo_phantom(7, split="train", frames=[0, 5], **SMALL) for _ in range(2))
    assert np.array_equal(one.frames, other.frames)
    assert one.cavity.any()
    assert one.frames.dtype == np.uint8
    assert one.frames.shape == (2, 150, 200, 3)
    for view in ("plax", "psax", "subcostal", "liver", "carotid", "lung", "cyst", "noise"):
        made = echo_phantom(7, split="train", frames=[0, 3], **(SMALL | {"view": view}))
        assert not made.cavity.any()
        assert made.truth.ef is None
        assert np.ptp(made.frames) > 60, "something is seen"


def test_a_subset_of_frames_shows_the_ventricle_of_those_frames():
    spec = draw_echo(11, split="train", **(SMALL | {"duration_s": 0.9}))
    whole, some = render_echo(spec), render_echo(spec, [4, 9])
    assert len(whole.frames) == frame_count(spec)
    assert np.array_equal(whole.cavity[[4, 9]], some.cavity)


def test_speckle_is_wider_in_mm_the_deeper_it_lies_and_fades_with_time():
    spec = replace(EchoSpec(seed=1), speckle_memory=0.8, frame_rate=40.0)
    field = texture(spec, np.random.default_rng(1), 12)
    assert field.shape == (12, DEPTHS, BEAMS)
    assert np.mean(np.abs(field) ** 2) == pytest.approx(1.0, rel=1e-3)
    envelope = np.abs(field)
    assert envelope.std() / envelope.mean() == pytest.approx(0.523, abs=0.03), "Rayleigh: sqrt(4/pi - 1)"
    one, two = field[3].ravel(), field[4].ravel()
    memory = abs(np.vdot(one, two)) / (np.linalg.norm(one) * np.linalg.norm(two))
    assert memory == pytest.approx(0.8, abs=0.08)
    grid = beam_grid(spec)
    beam_mm = np.hypot(np.diff(grid.x, axis=1), np.diff(grid.z, axis=1)).mean(axis=1)
    assert beam_mm[200] / beam_mm[50] == pytest.approx(4.0, rel=0.02)


def test_attenuation_and_ribs_darken_what_lies_behind():
    spec = replace(EchoSpec(seed=1), attenuation_db_cm=0.5, rib_db=0.0)
    chance = type("Middle", (), {"between": lambda self, index, low, high: (low + high) / 2})()
    gain = path_gain(spec, beam_grid(spec), chance)
    lost = gain[0, 50] - gain[-1, 50]
    assert lost == pytest.approx(0.5 * spec.depth_mm / 10, rel=0.01), "dB per cm"
    shaded = path_gain(replace(spec, rib_db=20.0), beam_grid(spec), chance) - gain
    assert shaded[150, BEAMS // 2] == pytest.approx(-20, abs=0.5)
    assert shaded[150, 2] == pytest.approx(0, abs=0.1)


def test_compression_is_a_logarithm():
    spec = replace(EchoSpec(seed=1), dynamic_range_db=60.0, gain_db=0.0, gamma=1.0)
    echoes = np.array([[[1.0, 0.1, 0.01, 0.0]]], dtype=np.complex64)
    level = compress(spec, echoes, np.zeros((1, 1, 1), np.float32))[0, 0].astype(float)
    assert level[0] - level[1] == pytest.approx(20 / 60 * 255, abs=2)
    assert level[1] - level[2] == pytest.approx(20 / 60 * 255, abs=5), "noise lifts it a little"
    assert level[3] < 12


def test_the_screen_is_a_fan_of_the_asked_angle_and_depth():
    spec = replace(EchoSpec(seed=1), sector_deg=80.0, depth_mm=160.0, columns=320.0)
    layout = screen(spec)
    top, left, bottom, right = layout.box
    assert (bottom - top) * layout.mm_per_pixel == pytest.approx(160, rel=0.03)
    assert (right - left) * layout.mm_per_pixel == pytest.approx(2 * 160 * np.sin(np.deg2rad(40)), rel=0.03)
    even = layout.convert(np.full((1, DEPTHS, BEAMS), 200, np.uint8))[0]
    assert set(np.unique(even)) <= {0, 199, 200}
    assert not even[0].any()


def test_seeds_of_a_split_are_kept_apart_and_nonsense_is_refused():
    for seed, split in ((1_000_000, "train"), (5, "s0"), (3_400_000, "s4")):
        with pytest.raises(PhantomSeedError):
            draw_echo(seed, split=split)
    with pytest.raises(PhantomSpecError):
        draw_echo(5, split="train", depth=3)
    with pytest.raises(PhantomSpecError):
        draw_echo(5, split="train", ef=95.0)
    assert draw_echo(5, split="train", ef=31.0).heart_rate == draw_echo(5, split="train").heart_rate
