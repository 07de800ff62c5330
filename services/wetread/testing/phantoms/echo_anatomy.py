"""Echo strength of what a clip shows, in decibel against heart muscle: apical views, other views, and no heart at all.

Every function takes x and depth (mm) of the sample grid and gives [time, depth, beam].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wetread.testing.phantoms.echo_heart import Floats, Plane, Singles, plane_of
from wetread.testing.phantoms.echo_parameters import EchoSpec, View

VALVE_DB: Final = 5.0
PERICARDIUM_DB: Final = 6.0
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """The samples of all beams: position in mm and direction of the beam, [depth, beam]."""

    x: Singles
    z: Singles
    beam_x: Singles
    beam_z: Singles


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in front of the probe at some times."""

    strength_db: Singles
    cavity: Mask | None
    """Inside of the left ventricle, of apical views only."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Random numbers of a clip that do not depend on time: the same for every frame."""

    values: Floats

    def between(self, index: int, low: float, high: float) -> float:
        """Return draw *index* spread over an interval."""
        return float(low + self.values[index] * (high - low))


def scene(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Scene:
    """Return the scene of a view while the share *out* of the ventricle's volume is out."""
    if spec.apical:
        return _apical(spec, grid, out, sway, chance)
    return Scene(_OTHERS[spec.view](spec, grid, out, sway, chance), None)


def _apical(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Scene:
    plane = plane_of(spec, out, grid.x, grid.z, sway, tilt_deg=spec.tilt_deg, apex=(spec.shift_mm, spec.apex_mm))
    db, cavity = _ventricle(spec, grid, plane, out, chance, right_heart=spec.view == "a4c")
    return Scene(db, cavity)


def _ventricle(
    spec: EchoSpec, grid: Grid, plane: Plane, out: Floats, chance: Chance, *, right_heart: bool
) -> tuple[Singles, Mask]:
    moved = (slice(None), None, None)
    beat = out[moved].astype(np.float32)
    wall = np.float32(spec.wall_mm) * (1 + np.float32(0.6) * beat)
    inner, outer = plane.around(0.0), plane.around(wall)
    cavity = (inner < 1) & (plane.u < plane.length)
    blood = np.float32(spec.blood_db)
    db = np.full(plane.u.shape, spec.background_db, np.float32)
    atrium = chance.between(0, 36, 56) * (1 + np.float32(0.25) * beat)
    centre = plane.length + np.float32(0.46) * atrium + 3
    half = np.float32(chance.between(1, 0.75, 1.05)) * plane.across
    left_atrium = ((plane.u - centre) / (0.5 * atrium)) ** 2 + (plane.v / half) ** 2
    db = np.where(left_atrium < 1.35, np.float32(-4), db)
    chambers = (left_atrium < 1) & (plane.u > plane.length)
    if right_heart:
        reach = np.float32(chance.between(2, 11, 19)) * (1 - np.float32(0.3) * beat)
        beside = plane.v + plane.across + wall + 0.75 * reach
        from_middle = plane.u - np.float32(chance.between(3, 0.56, 0.66)) * plane.length
        right = (from_middle / (np.float32(0.44) * plane.length)) ** 2 + (beside / reach) ** 2
        db = np.where(right < 1.45, np.float32(-3), db)
        size = np.float32(chance.between(4, 17, 25))
        atrial = ((plane.u - centre) / (0.45 * atrium)) ** 2 + ((beside + 2) / size) ** 2
        db = np.where(atrial < 1.3, np.float32(-4), db)
        chambers |= (right < 1) | ((atrial < 1) & (plane.u > plane.length + 2))
    muscle = (outer < 1) & (plane.u < plane.length + 3) & ~cavity
    facing = plane.facing(grid.beam_x[None], grid.beam_z[None])
    side, place = np.sign(chance.between(20, -1, 1)), np.float32(chance.between(21, 0.1, 0.9)) * plane.length
    segment = np.exp(-(((plane.u - place) / np.float32(chance.between(22, 8, 18))) ** 2)) * (plane.v * side > 0)
    muscle_db = -np.float32(spec.drop_out_db) * np.maximum((1 - facing) ** 2, 1.3 * segment)
    rim = np.exp(-(((np.sqrt(inner) - 1) * plane.across / np.float32(1.2)) ** 2)) * (plane.u < plane.length)
    rim = rim * (1 - segment * min(1.0, spec.drop_out_db / 12))
    db = np.where(chambers, blood, db)
    db = np.where(muscle, muscle_db, db)
    shell = (outer >= 1) & (outer < 1.12) & (plane.u < plane.length) & ((plane.v > 0) | (not right_heart))
    db = np.where(shell, np.float32(PERICARDIUM_DB) * facing - 4 * (1 - facing), db)
    db = np.where(cavity, blood, db)
    db = np.maximum(db, (blood + (np.float32(10) - blood) * rim * facing**2))
    db = _papillary(spec, plane, cavity, db, chance)
    open_share = 1 - np.clip(beat / np.float32(max(0.25 * spec.ef / 100, 0.02)), 0, 1)
    return _leaflets(plane, open_share, db), cavity


def _papillary(spec: EchoSpec, plane: Plane, cavity: Mask, db: Singles, chance: Chance) -> Singles:
    """Two muscles inside the cavity, at the walls; they belong to the cavity."""
    for side, first in ((-1.0, 5), (1.0, 7)):
        if chance.between(first, 0, 1) < 0.3:
            continue
        along = np.float32(chance.between(first + 1, 0.45, 0.62)) * plane.length
        place = np.float32(side) * (plane.across * np.float32(0.94) - np.float32(0.6 * spec.papillary_mm))
        near = ((plane.u - along) / np.float32(1.9 * spec.papillary_mm)) ** 2
        near = near + ((plane.v - place) / np.float32(spec.papillary_mm)) ** 2
        db = np.where((near < 1) & cavity, np.float32(-5), db)
    return db


def _leaflets(plane: Plane, opened: Singles, db: Singles) -> Singles:
    """Mitral leaflets from the annulus to their tips: together in the middle, or apart and towards the apex."""
    t = plane.length / plane.long - 1
    annulus = plane.across * np.sqrt(np.clip(1 - t**2, 0.05, 1))
    tip_u = plane.length - 4 - 11 * opened
    for side in (-1.0, 1.0):
        root_v, tip_v = np.float32(side) * annulus, np.float32(side) * annulus * np.float32(0.5) * opened
        along_u, along_v = tip_u - plane.length, tip_v - root_v
        size = along_u**2 + along_v**2
        share = np.clip(((plane.u - plane.length) * along_u + (plane.v - root_v) * along_v) / size, 0, 1)
        away = (plane.u - plane.length - share * along_u) ** 2 + (plane.v - root_v - share * along_v) ** 2
        db = np.where(away < np.float32(1.7), np.float32(VALVE_DB), db)
    return db


def _ellipse(grid: Grid, sway: Floats, centre: tuple[float, float], half: tuple[float, float], turn: float) -> Singles:
    moved = (slice(None), None, None)
    px = grid.x[None] - (centre[0] + sway[:, 0])[moved].astype(np.float32)
    pz = grid.z[None] - (centre[1] + sway[:, 1])[moved].astype(np.float32)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return np.asarray(((px * c + pz * s) / half[0]) ** 2 + ((pz * c - px * s) / half[1]) ** 2, dtype=np.float32)


def _long_parasternal(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """The ventricle lies across the picture, its apex at one side; aorta and atrium at the other."""
    depth = chance.between(10, 55, 80)
    plane = plane_of(
        spec, out, grid.x, grid.z, sway, tilt_deg=chance.between(11, 70, 105), apex=(-chance.between(12, 50, 68), depth)
    )
    db, _ = _ventricle(spec, grid, plane, out, chance, right_heart=False)
    blood = np.float32(spec.blood_db)
    right = _ellipse(grid, sway, (-5, depth - 36), (45, 9), 0.1)
    db = np.where(right < 1, blood, np.where(right < 1.5, np.float32(-3), db))
    root = _ellipse(grid, sway, (spec.long_axis_mm - 45, depth - 14), (30, 13), -0.25)
    return np.where(root < 0.8, blood, np.where(root < 1.1, np.float32(4), db))


def _short_axis(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """A ring that narrows, with two papillary muscles, and the right ventricle as a crescent."""
    centre = (chance.between(10, -8, 14), chance.between(11, 62, 85))
    moved = (slice(None), None, None)
    radius = (spec.slenderness * spec.long_axis_mm * np.sqrt(1 - out))[moved].astype(np.float32)
    px = grid.x[None] - (centre[0] + sway[:, 0])[moved].astype(np.float32)
    pz = grid.z[None] - (centre[1] + sway[:, 1])[moved].astype(np.float32)
    away = np.sqrt(px**2 + pz**2)
    wall = np.float32(spec.wall_mm) * (1 + np.float32(0.7) * out[moved].astype(np.float32))
    blood = np.float32(spec.blood_db)
    facing = np.abs(px * grid.beam_x[None] + pz * grid.beam_z[None]) / (away + 1e-3)
    crescent = np.sqrt((px + 26) ** 2 + (pz + 16) ** 2)
    db = np.full(away.shape, spec.background_db, np.float32)
    db = np.where(crescent < 30, blood, np.where(crescent < 34, np.float32(-4), db))
    db = np.where(away < radius + wall, -np.float32(spec.drop_out_db) * (1 - facing) ** 2, db)
    db = np.where(away < radius, blood, db)
    for angle in (chance.between(12, 0.4, 1.0), chance.between(13, 2.1, 2.8)):
        place = np.float32(0.72) * radius
        near = (px - place * np.float32(np.cos(angle))) ** 2 + (pz - place * np.float32(np.sin(angle))) ** 2
        db = np.where(near < (1.2 * spec.papillary_mm) ** 2, np.float32(-4), db)
    return db


def _subcostal(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """The heart behind the liver, lying across the picture."""
    side = 1.0 if chance.between(10, 0, 1) < 0.5 else -1.0
    plane = plane_of(
        spec,
        out,
        grid.x,
        grid.z,
        sway,
        tilt_deg=-side * chance.between(11, 58, 80),
        apex=(side * chance.between(12, 46, 62), chance.between(13, 70, 95)),
    )
    db, _ = _ventricle(spec, grid, plane, out, chance, right_heart=True)
    edge = np.float32(chance.between(14, 42, 60)) + 0.1 * grid.x[None]
    return np.where(grid.z[None] < edge, np.float32(-5), db)


def _liver(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """Even tissue with vessels, and the diaphragm as a bright arc."""
    db = np.broadcast_to(np.float32(-4), (len(out), *grid.x.shape)).copy()
    for k in range(5):
        centre = (chance.between(10 + 3 * k, -50, 50), chance.between(11 + 3 * k, 40, 130))
        width = chance.between(12 + 3 * k, 2.5, 8)
        pulse = 1 + 0.1 * float(k == 0)
        vessel = _ellipse(grid, sway, centre, (chance.between(13 + 3 * k, 12, 45), width * pulse), 1.3 * k)
        db = np.where(vessel < 1, np.float32(spec.blood_db), np.where(vessel < 1.5, np.float32(2), db))
    arc = np.sqrt(grid.x**2 + (grid.z - 20) ** 2) - np.float32(chance.between(26, 100, 125))
    return np.where(np.abs(arc)[None] < 1.5, np.float32(10), np.where(arc[None] > 1.5, np.float32(-9), db))


def _carotid(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """A vessel along the picture whose walls are bright lines that move with the pulse."""
    depth, radius = chance.between(10, 45, 85), chance.between(11, 9, 17)
    moved = (slice(None), None, None)
    half = (radius * (1 + 0.12 * out / max(spec.ef / 100, 0.05)))[moved].astype(np.float32)
    away = grid.z[None] - (depth + sway[:, 1])[moved].astype(np.float32) - np.float32(0.12) * grid.x[None]
    db = np.where(grid.z[None] < depth - 20, np.float32(-3), np.float32(-8)) + 0 * away
    db = np.where(np.abs(away) < half, np.float32(spec.blood_db), db)
    return np.where(np.abs(np.abs(away) - half) < 1.4, np.float32(8), db)


def _lung(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """The pleural line, its repetitions and a haze that fades; ribs at both sides."""
    line = np.float32(chance.between(10, 18, 34))
    order = np.round(grid.z / line)
    echo = np.exp(-((grid.z - order * line) ** 2)) * (order >= 1)
    db = np.where(grid.z < line, np.float32(-4), np.float32(-16) - np.float32(0.08) * (grid.z - line))
    db = np.maximum(db, 12 * echo - 5 * order)
    rib = (np.abs(grid.x / (grid.z + 1e-3)) > chance.between(11, 0.35, 0.6)) & (grid.z > line - 6)
    db = np.where(rib, np.float32(-34), db)
    del spec
    moved = (slice(None), None, None)
    return np.asarray(db[None] + (0.6 * sway[:, 0])[moved].astype(np.float32) + 0 * out[moved].astype(np.float32))


def _cyst(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """A large dark space that does not beat, such as a bladder, brighter behind."""
    centre = (chance.between(10, -20, 20), chance.between(11, 55, 95))
    half = (chance.between(12, 18, 42), chance.between(13, 24, 42))
    inside = _ellipse(grid, sway, centre, half, chance.between(14, -0.6, 0.6))
    behind = (np.abs(grid.x - centre[0]) < half[0]) & (grid.z > centre[1])
    db = np.where(behind, np.float32(3), np.float32(-5))[None] + 0 * inside
    del out
    return np.where(inside < 1, np.float32(spec.blood_db), np.where(inside < 1.12, np.float32(3), db))


def _noise(spec: EchoSpec, grid: Grid, out: Floats, sway: Floats, chance: Chance) -> Singles:
    """A probe in the air: repetitions near it, then nothing."""
    db = np.where(grid.z < chance.between(10, 8, 30), np.float32(0), np.float32(spec.blood_db) - 4)
    moved = (slice(None), None, None)
    return np.asarray(db[None] + (0.3 * sway[:, 1])[moved].astype(np.float32) + 0 * out[moved].astype(np.float32))


_OTHERS: Final[dict[View, Callable[[EchoSpec, Grid, Floats, Floats, Chance], Singles]]] = {
    "plax": _long_parasternal,
    "psax": _short_axis,
    "subcostal": _subcostal,
    "liver": _liver,
    "carotid": _carotid,
    "lung": _lung,
    "cyst": _cyst,
    "noise": _noise,
}
