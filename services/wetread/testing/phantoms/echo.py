"""Echocardiographic clips with known ejection fraction: apical views, other views, and no heart at all.

NumPy, SciPy and Pillow only; a clip takes about a second. Set s5's apical clips come from another generator
(``echo_second``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.core.detector import Cine, CineCalibration
from wetread.core.dicom.cine import cine_of, split_colour, without_colour
from wetread.testing.phantoms.echo_anatomy import Chance, scene
from wetread.testing.phantoms.echo_heart import Beat, Floats, beats_of, emptied, full_beats, shape_at
from wetread.testing.phantoms.echo_overlay import decorate
from wetread.testing.phantoms.echo_parameters import EchoSpec, draw_echo
from wetread.testing.phantoms.echo_scan import (
    Bytes,
    Screen,
    beam_grid,
    clutter_db,
    compress,
    path_gain,
    screen,
    texture,
)
from wetread.testing.phantoms.echo_second import bullet_at, render_second

FRAMES_AT_ONCE: Final = 16
OUTSIDE_FACTOR: Final = 2
"""A calibration "outside the image" was written for a picture twice as large."""


@dataclass(frozen=True, slots=True)
class EchoTruth:
    """What is known of a clip. Means over the beats that it shows in full; None without one or without a ventricle."""

    ef: float | None
    """Per cent."""
    edv_ml: float | None
    esv_ml: float | None
    beats: int


@dataclass(frozen=True, slots=True)
class EchoPhantom:
    """A finished clip: pictures [frame, row, column, 3], the cavity in each, and the truth."""

    spec: EchoSpec
    frames: Bytes
    cavity: NDArray[np.bool_]
    """[frame, row, column]; empty where no left ventricle is seen from its apex."""
    times_s: Floats
    truth: EchoTruth
    mm_per_pixel: float
    box: tuple[int, int, int, int]
    """First row, first column, last row, last column of the fan."""

    @property
    def written_box(self) -> tuple[int, int, int, int]:
        """The region that the header names: the fan's box, or one of a larger picture."""
        factor = OUTSIDE_FACTOR if self.spec.calibration == "outside" else 1
        top, left, bottom, right = (edge * factor for edge in self.box)
        return top, left, bottom, right

    def to_cine(self) -> Cine:
        """Return the clip as a detector gets it, without a detour over DICOM."""
        parts = [split_colour(frame, ybr=False) for frame in self.frames]
        brightness, coloured = np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])
        marked, tinted = without_colour(brightness, coloured)
        calibration, flags = None, ["tinted"] if tinted else []
        if self.spec.calibration == "right":
            calibration = CineCalibration((self.mm_per_pixel, self.mm_per_pixel), self.box)
        else:
            where = "missing" if self.spec.calibration == "missing" else "outside_image"
            flags.append(f"calibration_{where}")
        return cine_of(
            brightness,
            marked,
            self.times_s,
            uid=f"2.25.{self.spec.seed + 1}77",
            calibration=calibration,
            flags=tuple(flags),
        )


def echo_phantom(seed: int, *, split: str = "s0", frames: Sequence[int] | None = None, **overrides: Any) -> EchoPhantom:
    """Make one clip of a split, or only some *frames* of it. Raises PhantomSpecError and PhantomSeedError."""
    return render_echo(draw_echo(seed, split=split, **overrides), frames)


def frame_count(spec: EchoSpec) -> int:
    """Return how many frames the clip of *spec* has."""
    return max(1, round(spec.duration_s * spec.frame_rate))


def truth_of(spec: EchoSpec) -> EchoTruth:
    """Return the truth of a clip without rendering it."""
    beats = beats_of(spec, np.random.default_rng([spec.seed, 78]))
    full = full_beats(beats, (frame_count(spec) - 1) / spec.frame_rate)
    if not spec.apical or not full:
        return EchoTruth(None, None, None, 0)
    ejected = float(np.mean([beat.ejection for beat in full]))
    if spec.split == "s5":
        whole = float(bullet_at(spec, np.zeros(1)).volume_ml(spec.third_axis)[0])
    else:
        whole = float(shape_at(spec, np.zeros(1)).volume_ml[0])
    return EchoTruth(100 * ejected, whole, whole * (1 - ejected), len(full))


def render_echo(spec: EchoSpec, frames: Sequence[int] | None = None) -> EchoPhantom:
    """Render *spec*: the same spec gives the same clip."""
    beats = beats_of(spec, np.random.default_rng([spec.seed, 78]))
    rng = np.random.default_rng([spec.seed, 79])
    chance = Chance(rng.random(64))
    chosen = np.arange(frame_count(spec)) if frames is None else np.asarray(frames)
    times = chosen / spec.frame_rate
    out, sway = emptied(beats, times), _sway(spec, beats, times, chance)
    layout = screen(spec)
    if spec.split == "s5" and spec.apical:
        grey, cavity = render_second(spec, layout, out, sway, chance, rng)
    else:
        grey, cavity = _pictures(spec, layout, out, sway, chance, rng)
    if spec.mirrored:
        grey, cavity = grey[:, :, ::-1], cavity[:, :, ::-1]
    pictures = decorate(spec, layout, grey, times, chance)
    return EchoPhantom(spec, pictures, cavity, times - times[0], truth_of(spec), layout.mm_per_pixel, layout.box)


def _pictures(
    spec: EchoSpec, layout: Screen, out: Floats, sway: Floats, chance: Chance, rng: np.random.Generator
) -> tuple[Bytes, NDArray[np.bool_]]:
    grid = beam_grid(spec)
    speckle = texture(spec, rng, len(out))
    still = texture(spec, rng, 1)[0]
    patches = ndimage.gaussian_filter(rng.standard_normal(grid.x.shape, dtype=np.float32), (14, 9))
    patches *= np.float32(spec.patchiness_db) / patches.std()
    gain = path_gain(spec, grid, chance) + patches
    haze = clutter_db(spec, grid, chance)
    contact = -np.abs(rng.normal(0, 1, len(out)).astype(np.float32)) * np.float32(spec.skip_db / 2)
    cover = np.zeros((len(out), layout.rows, layout.columns), dtype=bool)
    samples = np.empty((len(out), *grid.x.shape), np.uint8)
    for first in range(0, len(out), FRAMES_AT_ONCE):
        part = slice(first, first + FRAMES_AT_ONCE)
        shown = scene(spec, grid, out[part], sway[part], chance)
        strength = shown.strength_db + gain[None]
        mixed = speckle[part] * np.exp(strength * np.float32(np.log(10) / 20))
        mixed += still[None] * np.exp(haze[None] * np.float32(np.log(10) / 20))
        samples[part] = compress(spec, mixed, contact[part, None, None])
        if shown.cavity is not None:
            cover[part] = layout.convert((shown.cavity * np.uint8(255)).astype(np.uint8)) >= 128
    return layout.convert(samples), cover


def _sway(spec: EchoSpec, beats: Sequence[Beat], times: Floats, chance: Chance) -> Floats:
    """Return how far breathing and beating have moved the heart, [time, (x, depth)] mm."""
    breath = 2 * np.pi * (times / chance.between(45, 3, 6) + chance.between(46, 0, 1))
    beat = 2 * np.pi * (times / np.mean([b.length_s for b in beats]) + chance.between(47, 0, 1))
    across = spec.sway_mm * (np.sin(breath) + 0.3 * np.sin(beat))
    down = spec.sway_mm * (0.7 * np.cos(breath) + 0.3 * np.cos(beat))
    return np.stack([across, down], axis=1)
