"""What looks like blood or hides it: calcium, infarcts, tumours, surgery."""

from __future__ import annotations

import numpy as np

from wetread.testing.phantoms.brain import Brain, scaled
from wetread.testing.phantoms.fields import NoiseField, ellipsoid, paint, soft, tube
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.shape import HeadShape, Point
from wetread.testing.phantoms.spec import FloatArray


def paint_lesions(draw: Draw, shape: HeadShape, point: Point, depth: FloatArray, brain: Brain) -> None:
    """Old and new infarcts and tumours; changes tissue, not CSF."""
    rng = draw.rng
    x, y, z = point
    hu = brain.hu
    tissue = (1 - brain.csf) * (1 - brain.dura)
    if draw.coin("infarct"):
        side = int(rng.choice([-1, 1]))
        territory = str(rng.choice(["middle", "posterior", "cerebellar", "lacune"]))
        centre, axes = {
            "middle": ((48, -8, 15), (28, 36, 30)),
            "posterior": ((18, 62, 2), (16, 26, 18)),
            "cerebellar": ((26, 48, -36), (17, 17, 11)),
            "lacune": ((22, -4, 6), (5, 6, 6)),
        }[territory]
        size = float(rng.uniform(0.5, 1.15))
        moved = scaled(shape, [(float(centre[0]), float(centre[1]), float(centre[2]))], side)[0]
        region = ellipsoid(point, moved, (axes[0] * size, axes[1] * size, axes[2] * size))
        alpha = soft(region + 4 * NoiseField(rng, 10.0)(x, y, z), 6.0) * tissue
        drop = draw.num("infarct.drop_hu")
        draw.drawn["infarct.side"] = "left" if side > 0 else "right"
        # cytotoxic oedema brings grey and white to one low value
        paint(hu, hu * 0.35 + 0.65 * float(np.median(hu)) - drop, alpha)
    if draw.coin("tumour"):
        place = rng.normal(0, 1, 3)
        place = place / np.linalg.norm(place) * np.array([shape.a, shape.b, shape.c])
        place *= float(rng.choice([0.55, 0.9]))
        size = float(rng.uniform(5, 18))
        mass = ellipsoid(point, (place[0], place[1], abs(place[2]) * 0.7), (size, size, size * 0.9))
        mass = mass + 1.5 * NoiseField(rng, 8.0)(x, y, z)
        hu -= np.float32(rng.uniform(0, 12)) * np.exp(-((np.clip(-mass, 0, None) / 8) ** 2)) * tissue
        texture = draw.num("tumour.hu") + 3 * NoiseField(rng, 4.0)(x, y, z)
        if rng.random() < 0.4:
            texture = texture - 18 * soft(mass - size * 0.4, 3.0)
        paint(hu, texture, soft(mass, 2.0) * soft(depth))


def paint_calcium(draw: Draw, shape: HeadShape, point: Point, brain: Brain) -> None:
    """Physiological and dystrophic calcium, clips and tubes of operations."""
    rng = draw.rng
    hu = brain.hu
    sx, sy, sz = shape.scale

    def spot(
        centre: tuple[float, float, float],
        axes: tuple[float, float, float],
        value: float,
        share: float = 1.0,
    ) -> None:
        distance = ellipsoid(point, centre, axes)
        near = distance > -3
        if near.any():
            local = hu[near]
            grain = rng.uniform(0.7, 1.0, local.size).astype(np.float32)
            paint(local, value, soft(distance[near], 1.2) * grain * share)
            hu[near] = local

    if draw.coin("calcified.choroid"):
        for side in (-1, 1):
            if rng.random() < 0.85:
                size = float(rng.uniform(1.5, 4.5))
                base = scaled(shape, [(21.0, 36.0, 8.0)], side)[0]
                place = (
                    base[0] + float(rng.normal(0, 2)),
                    base[1] + float(rng.normal(0, 2)),
                    base[2] + float(rng.normal(0, 2)),
                )
                spot(place, (size, size * 1.5, size), float(np.exp(rng.uniform(4.2, 6.3))))
    if draw.coin("calcified.pineal"):
        size = float(rng.uniform(1.5, 4.0))
        spot((float(rng.normal(0, 1)), 20 * sy, 3 * sz), (size, size, size), float(np.exp(rng.uniform(4.3, 6.3))))
    if draw.coin("calcified.basal_ganglia"):
        value = float(np.exp(rng.uniform(4.0, 5.5)))
        for side in (-1, 1):
            size = float(rng.uniform(2, 6))
            spot(
                scaled(shape, [(19.0, -4.0, 2.0)], side)[0],
                (size * 0.7, size, size * 0.8),
                value,
                float(rng.uniform(0.3, 1.0)),
            )
    if draw.coin("calcified.falx"):
        for _ in range(int(rng.integers(1, 4))):
            angle = float(rng.uniform(-0.3, 2.2))
            spot(
                (float(rng.normal(0, 1)), -66 * sy * np.cos(angle), 66 * sz * np.sin(angle)),
                (float(rng.uniform(1, 3)), float(rng.uniform(2, 9)), float(rng.uniform(2, 8))),
                float(np.exp(rng.uniform(4.5, 6.8))),
            )
    if draw.coin("calcified.speck"):
        for _ in range(int(rng.integers(1, 5))):
            at = rng.normal(0, 0.35, 3) * (shape.a, shape.b, shape.c)
            size = float(rng.uniform(1, 2.5))
            spot((float(at[0]), float(at[1]), float(at[2])), (size, size, size), float(np.exp(rng.uniform(4.5, 6.5))))
    if draw.coin("shunt"):
        side = int(rng.choice([-1, 1]))
        entry = (side * 30.0 * sx, float(rng.choice([-50.0, 60.0])) * sy, 62.0 * sz)
        tip = (side * 6.0 * sx, -15.0 * sy, 12.0 * sz)
        wall = tube(point, [entry, tip], [1.5, 1.5])
        paint(hu, float(rng.uniform(150, 500)), soft(wall, 1.2))
        paint(hu, 5.0, soft(wall - 0.8, 1.0))


def open_skull(
    draw: Draw, shape: HeadShape, point: Point, hu: FloatArray, vault: FloatArray, bone_mm: FloatArray
) -> None:
    """A bone flap with burr holes, or a missing flap covered by soft tissue."""
    if not draw.coin("craniotomy"):
        return
    rng = draw.rng
    side = int(rng.choice([-1, 1]))
    centre = (side * shape.a * 0.8, float(rng.uniform(-45, 30)), float(rng.uniform(5, 45)))
    radius = float(rng.uniform(18, 42))
    distance = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(point, centre, strict=True)))
    in_bone = soft(vault + 0.5) * soft(bone_mm + 0.5 - vault)
    if rng.random() < 0.3:
        gap = soft(radius - distance, 2.0)
    else:
        gap = soft(float(rng.uniform(0.5, 1.8)) - np.abs(distance - radius), 1.2)
        angle = float(rng.uniform(0, 6))
        for turn in range(3):
            burr = (
                centre[0],
                centre[1] + radius * np.cos(angle + 2.1 * turn),
                centre[2] + radius * np.sin(angle + 2.1 * turn),
            )
            off = np.sqrt((point[1] - burr[1]) ** 2 + (point[2] - burr[2]) ** 2)
            gap = np.maximum(gap, soft(6 - off, 1.5) * soft(side * point[0] - 10, 2.0))
    paint(hu, float(rng.uniform(0, 50)), in_bone * gap)
