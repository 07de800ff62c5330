"""Everything of the head outside the braincase: bone, scalp, air spaces, orbits, face, neck."""

from __future__ import annotations

import numpy as np

from wetread.testing.phantoms.fields import NoiseField, ellipsoid, paint, soft, tube
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.shape import HeadShape, Point, Surfaces
from wetread.testing.phantoms.spec import FloatArray

AIR_HU = -1000.0


def render_outside(draw: Draw, shape: HeadShape, point: Point, at: Surfaces) -> FloatArray:
    """HU of points outside the braincase (inside it the value is a bone continuation)."""
    rng = draw.rng
    x, y, z = point
    sx, _, sz = shape.scale
    table = draw.num("bone.table_hu")
    diploe = draw.num("bone.diploe_ratio")
    grain = NoiseField(rng, 2.6)(x, y, z)
    coarse = NoiseField(rng, 9.0)(x, y, z)
    muscle = float(rng.normal(55, 6))
    fat = float(rng.normal(-95, 12))

    hu = np.where(coarse + 0.3 * grain > rng.uniform(-0.5, 0.5), muscle, fat).astype(np.float32)
    # scalp over the vault: fat under skin, the temporal muscle low at the sides
    beyond_bone = at.vault - at.bone_mm
    temporal = soft(8.0 - z, 6.0) * soft(np.abs(x) - 38 * sx, 6.0) * soft(45 - np.abs(y - 5), 8.0)
    over_vault = soft(z + 20, 10.0)
    paint(hu, fat + (muscle - fat) * temporal + 8 * grain, soft(beyond_bone + 1, 1.5) * over_vault)
    paint(hu, float(rng.normal(40, 15)), soft(at.outer + float(rng.uniform(1.2, 3.0)), 1.4))

    _face(draw, shape, point, hu, grain, coarse, at)

    # skull base: spongy bone below the floor, thick and dense at the petrous pyramids
    below = -at.above_floor
    base_mm = rng.uniform(2.0, 6.0) + 2.5 * np.clip(coarse, -0.5, 2.0)
    in_head = soft(2.0 - at.vault, 2.0)
    base_hu = table * (0.75 + 0.25 * grain)
    paint(hu, base_hu, soft(below + 0.5) * soft(base_mm - below) * in_head)
    # vault: two tables and diploe; it fades out where the face begins
    depth = np.clip(at.vault / at.bone_mm, 0.0, 1.0)
    marrow = np.clip(1.6 * np.sin(np.pi * depth) - 0.6, 0, 1) * soft(at.bone_mm - 2.5, 2.0)
    vault_hu = table * (1 - (1 - diploe) * marrow) + 60 * grain
    keep = np.maximum(soft(at.above_floor + 6, 4.0), soft(y - 5, 10.0) * soft(z + 68 * sz, 5.0))
    shell = soft(at.vault) * soft(at.bone_mm - at.vault) * keep
    paint(hu, vault_hu, shell)
    _petrous(draw, shape, point, hu, grain, table)
    paint(hu, AIR_HU, soft(at.outer, 1.2))
    return hu


def _petrous(draw: Draw, shape: HeadShape, point: Point, hu: FloatArray, grain: FloatArray, table: float) -> None:
    rng = draw.rng
    sx, sy, sz = shape.scale
    opacified = draw.coin("mastoid.opacified")
    cells = float(rng.uniform(-0.7, 0.8))
    for side in (-1, 1):
        dense = ellipsoid(point, (side * 36 * sx, 14 * sy, -34 * sz), (26 * sx, 9 * sy, 9 * sz), side * 30.0)
        near = dense > -4
        if near.any():
            local = hu[near]
            paint(local, table * 1.15 + 120 * grain[near], soft(dense[near]))
            inner = soft(grain[near] - 1.6, 0.3) * soft(dense[near] - 2)
            paint(local, 20.0 if opacified else -600.0, inner)
            hu[near] = local
        mastoid = ellipsoid(point, (side * 56 * sx, 26 * sy, -42 * sz), (11 * sx, 15 * sy, 19 * sz))
        near = mastoid > -4
        if near.any():
            local = hu[near]
            paint(local, table * 0.8, soft(mastoid[near]))
            paint(local, 30.0 if opacified else -850.0, soft(grain[near] - cells, 0.3) * soft(mastoid[near] - 1.5))
            hu[near] = local
        canal = tube(
            point,
            [(side * 34 * sx, 10 * sy, -44 * sz), (side * 82 * sx, 6 * sy, -46 * sz)],
            [2.5, 3.5],
        )
        near = canal > -2
        if near.any():
            local = hu[near]
            paint(local, AIR_HU, soft(canal[near]))
            hu[near] = local


def _face(
    draw: Draw,
    shape: HeadShape,
    point: Point,
    hu: FloatArray,
    grain: FloatArray,
    coarse: FloatArray,
    at: Surfaces,
) -> None:
    """Facial bones as random plates, orbits with globes, air sinuses, upper spine, jaw."""
    rng = draw.rng
    x, y, z = point
    sx, sy, sz = shape.scale
    front = soft(-20 - y) * soft(-at.above_floor - 1)
    plate = soft(0.22 - np.abs(coarse + 0.25), 0.12) * front * soft(-at.outer - 8, 3.0)
    paint(hu, float(rng.uniform(300, 900)), plate * float(rng.uniform(0.4, 1.0)))
    boxes: list[tuple[tuple[float, float, float], tuple[float, float, float]]] = [
        ((0, -60, -40), (11, 20, 12)),
        ((0, -30, -42), (14, 11, 9)),
        ((27, -55, -66), (14, 15, 15)),
        ((-27, -55, -66), (14, 15, 15)),
        ((0, -62, -66), (9, 26, 14)),
    ]
    frontal = float(rng.uniform(0, 1.6))
    if frontal > 0.4:
        boxes.append(((float(rng.uniform(-8, 8)), -84, -14), (22 * frontal, 6, 12 * frontal)))
    for centre, axes in boxes:
        size = float(rng.uniform(0.7, 1.15))
        cavity = ellipsoid(
            point,
            (centre[0] * sx, centre[1] * sy, centre[2] * sz),
            (axes[0] * sx * size, axes[1] * sy * size, axes[2] * sz * size),
        )
        near = cavity > -6
        if not near.any():
            continue
        local, inside = hu[near], cavity[near] + 1.5 * coarse[near]
        paint(local, 700.0 + 100 * grain[near], soft(inside + 1.5) * soft(3 - inside))
        fill = float(rng.uniform(10, 60)) if draw.coin("sinus.opacified") else AIR_HU
        paint(local, fill, soft(inside))
        if abs(centre[2] + 40) < 5 and fill == AIR_HU:
            paint(local, 500.0, soft(0.3 - np.abs(coarse[near] - 0.3), 0.2) * soft(inside))
        hu[near] = local
    globe_hu, lens_hu = float(rng.normal(12, 5)), float(rng.normal(75, 15))
    for side in (-1, 1):
        cx, cy, cz = side * 32 * sx, -62 * sy, -39 * sz
        orbit = tube(point, [(cx * 0.55, -32 * sy, cz), (cx, cy - 12, cz)], [5.0, 19.0])
        near = orbit > -5
        if not near.any():
            continue
        local = hu[near]
        sub = (x[near], y[near], z[near])
        paint(local, 650.0, soft(orbit[near] + 2.0) * soft(at.vault[near] * -1 + 6, 3.0))
        paint(local, -90.0, soft(orbit[near]))
        for angle in np.linspace(0, 2 * np.pi, 4, endpoint=False):
            ox, oz = 9 * np.cos(angle), 9 * np.sin(angle)
            muscle = tube(sub, [(cx * 0.6, -34 * sy, cz), (cx + ox, cy, cz + oz)], [1.5, 2.4])
            paint(local, 50.0, soft(muscle))
        paint(local, 38.0, soft(tube(sub, [(cx * 0.5, -30 * sy, cz), (cx, cy, cz)], [2, 2.2])))
        globe = ellipsoid(sub, (cx, cy - 8, cz), (12, 12, 12))
        paint(local, 45.0, soft(globe + 1.0))
        paint(local, globe_hu, soft(globe))
        paint(local, lens_hu, soft(ellipsoid(sub, (cx, cy - 17.5, cz), (4.2, 2.2, 4.2))))
        hu[near] = local
    fx, fy, fr = shape.foramen
    ring = np.sqrt((x - fx) ** 2 + (y - fy) ** 2)
    vertebra = soft(ring - fr) * soft(fr + 7 + 3 * coarse - ring, 2.0) * soft(-68 * sz - z, 2.0)
    paint(hu, 550 + 150 * grain, vertebra)
    dens = tube(point, [(fx, fy - fr - 4, -66 * sz), (fx, fy - fr - 4, -110)], [5, 6])
    paint(hu, 700 + 120 * grain, soft(dens))
    arch = np.sqrt((x / (44 * sx)) ** 2 + ((y + 28) / (50 * sy)) ** 2)
    jaw = soft(5 - 44 * np.abs(arch - 1.0), 2.0) * soft(-70 * sz - z, 2.0) * soft(-5 - y, 3.0)
    paint(hu, 900 + 200 * grain, jaw)
