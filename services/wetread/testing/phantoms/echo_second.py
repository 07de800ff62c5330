"""Set s5: another generator of apical clips. Another ventricle, another motion, speckle made on the screen itself.

The cavity is a bullet: its half width rises from the apex as a power of a sine and is nearly straight from the middle
to the base. Walls move along lines through the cavity's centre, tissue carries its speckle along, and the picture is
blurred more with depth. No beams, no point spread function, no log compression: brightness is drawn directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.testing.phantoms.echo_anatomy import Chance
from wetread.testing.phantoms.echo_heart import Floats, Singles
from wetread.testing.phantoms.echo_parameters import EchoSpec
from wetread.testing.phantoms.echo_scan import Bytes, Screen

BLUNTNESS: Final = 0.62
"""Power of the sine: 0.5 is close to an ellipse, 1 is a cone with a round base."""
BASE_SHARE: Final = 0.8
"""Where along the whole bullet the mitral plane cuts it."""


@dataclass(frozen=True, slots=True)
class Bullet:
    """The cavity at some times: length and largest half width, mm."""

    length: Floats
    width: Floats

    def half_width(self, share: Floats) -> Floats:
        """Return the half width at *share* 0..1 of the length from the apex, [time, share]."""
        rise = np.sin(pi / 2 * np.clip(share, 0, 1) / BASE_SHARE * 0.9) ** BLUNTNESS
        return np.asarray(self.width[:, None] * rise[None])

    def volume_ml(self, third: float) -> Floats:
        """Return the volume by summing thin discs whose third axis is *third* times the half width."""
        share = (np.arange(400) + 0.5) / 400
        discs = pi * third * self.half_width(share) ** 2
        return np.asarray(discs.mean(axis=1) * self.length / 1000.0)


def bullet_at(spec: EchoSpec, out: Floats) -> Bullet:
    """Return the cavity when the share *out* of its volume is out: the base moves little, the walls a lot."""
    length = 1 - 0.22 * out
    width = np.sqrt((1 - out) / length)
    return Bullet(spec.long_axis_mm * length, 1.05 * spec.slenderness * spec.long_axis_mm * width)


def render_second(
    spec: EchoSpec, screen: Screen, out: Floats, sway: Floats, chance: Chance, rng: np.random.Generator
) -> tuple[Bytes, NDArray[np.bool_]]:
    """Return pictures [time, row, column] and the cavity in them."""
    x, z = screen.places()
    bullet = bullet_at(spec, out)
    turn = np.deg2rad(spec.tilt_deg)
    sheet = ndimage.gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), 0.9)
    sheet /= sheet.std()
    coarse = ndimage.gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), (1.2, 5.0))
    coarse /= coarse.std()
    deep = np.clip(z / spec.depth_mm, 0, 1)
    rest = bullet_at(spec, np.zeros(1))
    frames, masks = [], []
    for k in range(len(out)):
        px, pz = x - np.float32(spec.shift_mm + sway[k, 0]), z - np.float32(spec.apex_mm + sway[k, 1])
        u = px * np.float32(np.sin(turn)) + pz * np.float32(np.cos(turn))
        v = px * np.float32(np.cos(turn)) - pz * np.float32(np.sin(turn))
        one = Bullet(bullet.length[k : k + 1], bullet.width[k : k + 1])
        level, cavity = _brightness(spec, u, v, one, float(out[k]), chance)
        speckle = _carried(sheet, coarse, screen, u, v, one, rest, deep, rng)
        picture = level * (1 + np.float32(0.42) * speckle) + np.float32(5) * rng.standard_normal(
            x.shape, dtype=np.float32
        )
        picture *= 1 - np.float32(0.35 * chance.between(50, 0, 1)) * deep
        shown = np.clip(picture * np.float32(10 ** (spec.gain_db / 40)), 0, 255)
        near, far = ndimage.gaussian_filter(shown, (0.6, 0.8)), ndimage.gaussian_filter(shown, (0.9, 2.6))
        blurred = near * (1 - deep) + far * deep
        frames.append((blurred * screen.inside).astype(np.uint8))
        masks.append(cavity & screen.inside)
    return np.stack(frames), np.stack(masks)


def _carried(
    sheet: Singles,
    coarse: Singles,
    screen: Screen,
    u: Singles,
    v: Singles,
    now: Bullet,
    rest: Bullet,
    deep: Singles,
    rng: np.random.Generator,
) -> Singles:
    """Return speckle that moves with the tissue: looked up where the point was at the end of diastole."""
    scale_u, scale_v = rest.length[0] / now.length[0], rest.width[0] / now.width[0]
    mm = screen.mm_per_pixel
    rows = np.clip((u * scale_u) / mm % (screen.rows - 1), 0, screen.rows - 1).astype(np.intp)
    columns = np.clip((v * scale_v) / mm % (screen.columns - 1), 0, screen.columns - 1).astype(np.intp)
    fine, wide = sheet[rows, columns], coarse[rows, columns]
    fresh = ndimage.gaussian_filter(rng.standard_normal(u.shape, dtype=np.float32), (0.7, 1.5)) * 2
    return np.asarray(fine * (1 - deep) + wide * deep + 0.35 * fresh, dtype=np.float32)


def _brightness(
    spec: EchoSpec, u: Singles, v: Singles, bullet: Bullet, out: float, chance: Chance
) -> tuple[Singles, NDArray[np.bool_]]:
    """Return grey levels without speckle, and the cavity."""
    length, wall = float(bullet.length[0]), spec.wall_mm * (1 + 0.5 * out)
    share = np.clip(u / np.float32(length), 0, 1)
    rise = np.sin(np.float32(pi / 2 / BASE_SHARE * 0.9) * share) ** np.float32(BLUNTNESS)
    half = np.float32(bullet.width[0]) * rise
    away = np.abs(v)
    cavity = (u > 0) & (u < length) & (away < half)
    muscle = (u > -wall) & (u < length + 2) & (away < half + np.float32(wall)) & ~cavity
    dark = np.float32(chance.between(51, 6, 26))
    level = np.full(u.shape, chance.between(52, 26, 60), np.float32)
    tissue = np.float32(chance.between(53, 95, 165))
    fade = 1 - np.float32(0.03 * spec.drop_out_db) * np.clip(share, 0, 1)
    level = np.where(muscle, tissue * fade, level)
    atrium = ((u - length - 22) / 21) ** 2 + (v / (0.85 * float(bullet.width[0]))) ** 2
    level = np.where((atrium < 1.35) & (u > length), tissue * np.float32(0.8), level)
    level = np.where((atrium < 1) & (u > length + 1), dark, level)
    if spec.view == "a4c":
        gap = float(bullet.width[0]) + wall + 14
        right = ((u - 0.62 * length) / (0.42 * length)) ** 2 + ((v + gap) / 14) ** 2
        level = np.where((right < 1.5) & ~muscle & ~cavity, tissue * np.float32(0.7), level)
        level = np.where((right < 1) & ~muscle & ~cavity, dark, level)
        other = ((u - length - 20) / 18) ** 2 + ((v + gap) / 18) ** 2
        level = np.where((other < 1) & (u > length), dark, level)
    valve = np.abs(u - length + 9 * (1 - min(out * 4, 1)) * (1 - (v / (half + 1)) ** 2)) < 1.3
    level = np.where(valve & (away < half), tissue * np.float32(1.2), np.where(cavity, dark, level))
    for side in (-1, 1):
        near = ((u - 0.55 * length) / 9) ** 2 + ((v - side * (half - 2.5)) / 4) ** 2
        level = np.where((near < 1) & cavity, tissue * np.float32(0.8), level)
    edge = np.exp(-((away - half) ** 2) / 1.5) * (u > 0) * (u < length)
    return np.asarray(level + np.float32(30) * edge, dtype=np.float32), cavity
