"""The beating ventricle: cycle lengths, filling, a truncated ellipsoid of known volume, and its plane on the screen.

The ellipsoid has half axes A (long), B (in the plane) and C (across it); its tip is the apex and it is cut a share t of
A past its middle. Its volume is pi A B C (2/3 + t - t^3/3); a bend of its axis in the plane changes no volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from wetread.testing.phantoms.echo_parameters import EchoSpec

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
LENGTHENING: Final = 0.35
"""Share of a fall in volume that goes into the long axis."""
EJECTION_S: Final = 0.34
"""Length of systole at 60 beats a minute; it falls with the root of the cycle length."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One cycle: its beginning (end of diastole), length and ejection fraction 0..1."""

    start_s: float
    length_s: float
    ejection: float

    @property
    def systole_s(self) -> float:
        """Seconds from end of diastole to end of systole."""
        return min(EJECTION_S * float(np.sqrt(self.length_s)), 0.5 * self.length_s)


@dataclass(frozen=True, slots=True)
class Shape:
    """The ellipsoid at one time or more: half axes in mm."""

    long: Floats
    across: Floats
    third: Floats
    truncation: float

    @property
    def axis_mm(self) -> Floats:
        """Apex to mitral plane."""
        return np.asarray(self.long * (1 + self.truncation))

    @property
    def volume_ml(self) -> Floats:
        """Volume by the closed form."""
        t = self.truncation
        return np.asarray(pi * self.long * self.across * self.third * (2 / 3 + t - t**3 / 3) / 1000.0)


def beats_of(spec: EchoSpec, rng: np.random.Generator) -> tuple[Beat, ...]:
    """Return the cycles that cover the clip, the first of which began before it.

    After a long cycle the ventricle has filled more and throws out more.
    """
    mean = 60.0 / spec.heart_rate
    beats, before = [], mean
    at = -spec.start * mean
    while at < spec.duration_s + mean:
        length = mean * float(np.clip(rng.normal(1.0, spec.rr_spread), 0.55, 1.7))
        strength = float(np.clip(1 + 0.7 * (before / mean - 1), 0.6, 1.25))
        beats.append(Beat(at, length, min(spec.ef / 100.0 * strength, 0.85)))
        at, before = at + length, length
    return tuple(beats)


def emptied(beats: tuple[Beat, ...], times: Floats) -> Floats:
    """Return which share of the volume at the end of diastole is out, at every time."""
    out = np.zeros(len(times))
    for beat in beats:
        inside = (times >= beat.start_s) & (times < beat.start_s + beat.length_s)
        if inside.any():
            end = beat.systole_s / beat.length_s
            rest = 1 - end
            knots = [0.0, 0.5 * end, end, end + 0.22 * rest, end + 0.42 * rest, end + 0.72 * rest, 1.0]
            curve = PchipInterpolator(knots, [0.0, 0.55, 1.0, 0.38, 0.22, 0.18, 0.0])
            out[inside] = beat.ejection * curve((times[inside] - beat.start_s) / beat.length_s)
    return out


def full_beats(beats: tuple[Beat, ...], last_s: float) -> tuple[Beat, ...]:
    """Return the cycles whose ejection and early filling the clip shows from 0 to *last_s*."""
    return tuple(b for b in beats if b.start_s >= 0 and b.start_s + 0.6 * b.systole_s + 0.4 * b.length_s <= last_s)


def shape_at(spec: EchoSpec, out: Floats) -> Shape:
    """Return the ellipsoid when the share *out* of its volume is out."""
    long = spec.long_axis_mm / (1 + spec.truncation)
    across = spec.slenderness * spec.long_axis_mm
    length = 1 - LENGTHENING * out
    width = np.sqrt((1 - out) / length)
    return Shape(long * length, across * width, across * spec.third_axis * width, spec.truncation)


@dataclass(frozen=True, slots=True)
class Plane:
    """The ventricle on the screen: where points lie along its axis (u, from the apex) and beside it (v), in mm.

    Arrays are [time, ...] beside grids [depth, beam].
    """

    u: Singles
    v: Singles
    long: Singles
    across: Singles
    length: Singles
    axis: tuple[float, float]
    """Unit vector from apex to base: x, depth."""

    def around(self, margin: Singles | float) -> Singles:
        """Square of the elliptic distance from the middle, of the ellipse grown by *margin* mm; 1 on its line."""
        along = (self.u - self.long) / (self.long + margin)
        return np.asarray(along**2 + (self.v / (self.across + margin)) ** 2)

    @property
    def cavity(self) -> NDArray[np.bool_]:
        """What lies inside the ventricle."""
        return np.asarray((self.around(0.0) < 1) & (self.u < self.length))

    def facing(self, beam_x: Singles, beam_z: Singles) -> Singles:
        """Cosine between the beam and the normal of the wall, 0..1."""
        along = (self.u - self.long) / self.long**2
        beside = self.v / self.across**2
        dx, dz = self.axis
        normal_x, normal_z = along * dx + beside * dz, along * dz - beside * dx
        size = np.sqrt(normal_x**2 + normal_z**2) + np.float32(1e-6)
        return np.asarray(np.abs(normal_x * beam_x + normal_z * beam_z) / size)


def plane_of(
    spec: EchoSpec, out: Floats, x: Singles, z: Singles, sway: Floats, *, tilt_deg: float, apex: tuple[float, float]
) -> Plane:
    """Put the ventricle with its *apex* (x, depth in mm) on the screen; a foreshortened plane misses a piece of it."""
    shape = shape_at(spec, out)
    missed = spec.foreshortening * spec.long_axis_mm
    length = shape.axis_mm - missed
    turn = np.deg2rad(tilt_deg)
    dx, dz = float(np.sin(turn)), float(np.cos(turn))
    moved = (slice(None), *(None,) * x.ndim)
    px = x[None] - (apex[0] + sway[:, 0])[moved].astype(np.float32)
    pz = z[None] - (apex[1] + sway[:, 1])[moved].astype(np.float32)
    u = px * np.float32(dx) + pz * np.float32(dz)
    reach = np.clip(u / np.float32(spec.long_axis_mm), 0, 1)
    bend = np.float32(4 * spec.bend_mm) * reach * (1 - reach)
    v = (px * np.float32(dz) - pz * np.float32(dx) - bend).astype(np.float32)
    return Plane(
        u=u,
        v=v,
        long=(length / (1 + shape.truncation))[moved].astype(np.float32),
        across=shape.across[moved].astype(np.float32),
        length=length[moved].astype(np.float32),
        axis=(dx, dz),
    )
