"""Shape of one head: braincase, skull base, calvarial thickness, outer surface.

Head frame, mm: x to the patient's left, y to the back, z up (LPS); origin near the centre of the
braincase. Distances are positive outside and approximate (a scaled radial distance), good to a
millimetre near the surface, which is where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from wetread.testing.phantoms.fields import NoiseField
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.spec import FloatArray

Point = tuple[FloatArray, FloatArray, FloatArray]
_FLOOR_STEP = 2.0
_FLOOR_HALF = 120.0


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Per point: distance outside the braincase, to the vault alone, bone and scalp thickness."""

    cavity: FloatArray
    vault: FloatArray
    above_floor: FloatArray
    bone_mm: FloatArray
    outer: FloatArray


class HeadShape:
    """Draw a head and measure points against it."""

    def __init__(self, draw: Draw) -> None:
        rng = draw.rng
        self.a = draw.num("shape.half_width_mm")
        self.b = draw.num("shape.half_length_mm")
        self.c = draw.num("shape.half_height_mm")
        self.scale = (self.a / 67.0, self.b / 85.0, self.c / 74.0)
        deform = draw.num("shape.deform")
        # polynomials in the direction up to degree 3 stand in for low spherical harmonics
        self.powers = [(i, j, k) for i in range(4) for j in range(4) for k in range(4) if 1 <= i + j + k <= 3]
        self.coefficients = rng.normal(0.0, deform, len(self.powers)) * np.array(
            [0.6 if i % 2 else 1.0 for i, _, _ in self.powers]
        )
        self.bone = draw.num("bone.thickness_mm")
        self.bone_field = NoiseField(rng, 22.0)
        self.hyperostosis = draw.coin("bone.hyperostosis")
        self.scalp = draw.num("scalp.thickness_mm")
        self.swelling = (
            rng.normal(0, 1, 3) if draw.coin("scalp.swelling") else None,
            float(rng.uniform(3, 12)),
        )
        self.foramen = (float(rng.normal(0, 1.5)), 36.0 * self.scale[1], float(rng.uniform(13, 18)))
        self.floor = self._draw_floor(rng, draw.num("shape.floor_shift_mm"))
        self.face = (float(rng.uniform(60, 76)), float(rng.uniform(84, 98)))

    def _draw_floor(self, rng: np.random.Generator, shift: float) -> FloatArray:
        """Height map (mm) of the inner skull base: fossae, ridges, sella, clivus."""
        axis = np.arange(-_FLOOR_HALF, _FLOOR_HALF + 1, _FLOOR_STEP)
        x, y = np.meshgrid(axis / self.scale[0], axis / self.scale[1], indexing="ij")
        side = np.abs(x)
        ridge_y = 0.55 * (side - 12.0) + float(rng.uniform(0, 6))
        wing_y = -30.0 + float(rng.normal(0, 2)) + 0.06 * side
        height = np.full(x.shape, float(rng.uniform(-70, -60)))
        middle = (y < ridge_y) & (y > wing_y) & (side > 13)
        height[middle] = rng.uniform(-50, -40)
        sella = (side <= 13) & (y > wing_y) & (y < 2)
        height[sella] = -30.0
        clivus = (side <= 16) & (y >= 2) & (y < 30)
        height[clivus] = (-26.0 - 38.0 * (y - 2) / 28.0)[clivus]
        front = y <= wing_y
        roof = rng.uniform(4, 14) * np.exp(-(((side - 30) / 13) ** 2) - ((y + 56) / 18) ** 2)
        height[front] = (-27.0 + roof - 7.0 * np.exp(-((side / 6) ** 2)))[front]
        height = ndimage.gaussian_filter(height, 1.0)
        crest = rng.uniform(-29, -20)
        petrous = np.exp(-(((y - ridge_y) / 5.0) ** 2)) * (side > 11) * (side < 66)
        wing = np.exp(-(((y - wing_y) / 4.0) ** 2)) * (side > 14) * (side < 60)
        height = np.maximum(height, -68 + (crest + 68) * petrous)
        height = np.maximum(height, -68 + (crest + 70) * wing)
        dorsum = np.exp(-(((y - 1) / 2.5) ** 2) - (side / 8) ** 4)
        height = np.maximum(height, -68 + 50 * dorsum)
        height = ndimage.gaussian_filter(height, float(rng.uniform(0.6, 1.2)))
        height += ndimage.gaussian_filter(rng.standard_normal(x.shape), 3.0) * 9.0
        out: FloatArray = (height * self.scale[2] + shift).astype(np.float32)
        return out

    def _read_floor(self, x: FloatArray, y: FloatArray) -> FloatArray:
        where = (np.stack([x, y]) + np.float32(_FLOOR_HALF)) * np.float32(1 / _FLOOR_STEP)
        out: FloatArray = ndimage.map_coordinates(self.floor, where, order=1, mode="nearest", output=np.float32)
        return out

    def vault(self, point: Point) -> tuple[FloatArray, Point]:
        """Distance outside the vault's inner table, and the unit direction of each point."""
        x, y, z = point
        radius = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
        inverse = np.float32(1.0) / radius
        u, v, w = x * inverse, y * inverse, z * inverse
        # the forehead is narrower than the occiput
        narrow = np.float32(1.0) - np.float32(0.07) * np.clip(-v, 0, 1)
        stretch = np.sqrt((u / (self.a * narrow)) ** 2 + (v / self.b) ** 2 + (w / self.c) ** 2)
        bump = np.ones_like(x)
        ladder: list[list[FloatArray]] = []
        for base in (u, v, w):
            powers = [np.ones_like(base), base]
            for _ in range(2):
                powers.append(powers[-1] * base)
            ladder.append(powers)
        for (i, j, k), weight in zip(self.powers, self.coefficients, strict=True):
            bump += np.float32(weight) * ladder[0][i] * ladder[1][j] * ladder[2][k]
        return (radius - bump / stretch).astype(np.float32), (u, v, w)

    def measure(self, point: Point) -> Surfaces:
        """Measure all surfaces at flat points."""
        x, y, z = point
        vault, (u, v, w) = self.vault(point)
        height = self._read_floor(x, y)
        above = (z - height) * np.float32(0.8)
        cavity = np.maximum(vault, -above)
        fx, fy, fr = self.foramen
        canal = np.sqrt((x - fx) ** 2 + (y - fy) ** 2) - np.float32(fr)
        cavity = np.minimum(cavity, np.maximum(canal, z + np.float32(48 * self.scale[2])))
        reach = np.float32(70.0)
        bone = self.bone * (1 + 0.3 * self.bone_field(u * reach, v * reach, w * reach))
        if self.hyperostosis:
            bone += np.float32(6) * np.exp(-(((v + 0.75) / 0.3) ** 2))
        bone = np.clip(bone, 1.5, 18.0).astype(np.float32)
        scalp = np.full_like(x, self.scalp)
        direction, height_mm = self.swelling
        if direction is not None:
            direction = direction / np.linalg.norm(direction)
            cosine = u * direction[0] + v * direction[1] + np.abs(w) * abs(direction[2])
            scalp += np.float32(height_mm) * np.clip((cosine - 0.8) * 5, 0, 1)
        head = vault - bone - scalp
        ax, ay = self.face
        taper = np.clip(1.0 + (z + 60) * 0.004, 0.6, 1.0)
        face = (np.sqrt((x / (ax * taper)) ** 2 + ((y + 6) / (ay * taper)) ** 2) - 1.0) * np.float32(ax)
        outer = np.minimum(head, np.maximum(face, z + np.float32(12)))
        return Surfaces(cavity, vault, above, bone, outer.astype(np.float32))
