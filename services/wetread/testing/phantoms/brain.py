"""Tissue inside the braincase: folded cortex, white matter, CSF spaces, hindbrain, dura, vessels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wetread.testing.phantoms.fields import NoiseField, ellipsoid, paint, soft, tube
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.shape import HeadShape, Point
from wetread.testing.phantoms.spec import FloatArray


@dataclass(slots=True)
class Brain:
    """A rendered braincase: HU and the occupancies that lesions need to know about."""

    hu: FloatArray
    csf: FloatArray
    ventricle: FloatArray
    infratentorial: FloatArray
    tentorium_gap: FloatArray
    falx_gap: FloatArray
    dura: FloatArray


def scaled(
    shape: HeadShape, nodes: list[tuple[float, float, float]], side: int = 1
) -> list[tuple[float, float, float]]:
    """Move template coordinates to this head's size, mirrored for side -1."""
    sx, sy, sz = shape.scale
    return [(side * x * sx, y * sy, z * sz) for x, y, z in nodes]


def lateral_ventricle(shape: HeadShape, point: Point, side: int, size: float, wobble: FloatArray) -> FloatArray:
    """Signed distance (mm, positive inside) of one lateral ventricle."""
    spread = 0.75 + 0.25 * size
    main = scaled(
        shape,
        [
            (7 * spread, -34, 6),
            (9 * spread, -22, 13),
            (11 * spread, 2, 21),
            (15 * spread, 22, 18),
            (23, 36, 9),
            (23, 60, 4),
        ],
        side,
    )
    horn = scaled(shape, [(23, 36, 9), (31, 14, -12), (29, -6, -22)], side)
    body = tube(point, main, [2.6 * size, 3.6 * size, 4.0 * size, 4.6 * size, 5.6 * size, 1.6 * size], margin_mm=24.0)
    temporal = tube(point, horn, [5.0 * size, 1.7 * size, 0.9 * size])
    out: FloatArray = np.maximum(body, temporal) + 0.8 * wobble
    return out


def render_brain(draw: Draw, shape: HeadShape, point: Point, moved: Point, depth: FloatArray) -> Brain:
    """Render tissue at points `depth` mm inside the braincase.

    `moved` are the coordinates of the same tissue before mass effect displaced it.
    """
    rng = draw.rng
    x, y, z = moved
    sx, sy, sz = shape.scale
    white = draw.num("tissue.white_hu")
    grey = white + draw.num("tissue.grey_minus_white_hu")
    csf = draw.num("tissue.csf_hu")
    atrophy = draw.num("atrophy")
    wavelength = draw.num("cortex.wavelength_mm")

    radius = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    # sulci run inwards: read the folding field on a shell, with only a weak change along depth
    shell = np.power(radius / np.float32(70), np.float32(-0.65))
    fold = NoiseField(rng, wavelength)(x * shell, y * shell, z * shell)
    fold += 0.35 * NoiseField(rng, wavelength * 0.5)(x * shell, y * shell, z * shell)
    sheet_mm = np.abs(fold) * np.float32(wavelength * 0.8)
    slow = NoiseField(rng, 35.0)(x, y, z)
    texture = NoiseField(rng, 3.0)(x, y, z)

    rim = np.clip(0.5 + 0.9 * atrophy * (1 + 0.5 * slow), 0.2, 7.0)
    pial = depth - rim
    reach = draw.num("cortex.depth_mm")
    thickness = draw.num("cortex.thickness_mm")
    within = np.clip((reach - pial) / reach, 0.0, 1.0)
    gyral = soft(reach - pial, 4.0)
    ribbon = np.maximum(soft(thickness - pial, 2.0), soft(thickness * 0.9 - sheet_mm, 2.0) * gyral)
    hu = (white + (grey - white) * ribbon).astype(np.float32)

    for name, axes, centre, yaw in (
        ("thalamus", (8, 14, 9), (11, 8, 4), -15.0),
        ("lentiform", (7, 15, 9), (24, -6, 2), -18.0),
        ("caudate", (4.5, 8, 8), (13, -22, 10), -10.0),
    ):
        gain = 0.75 if name == "thalamus" else 1.05
        for side in (-1, 1):
            nucleus = ellipsoid(
                moved,
                (side * centre[0] * sx, centre[1] * sy, centre[2] * sz),
                (axes[0] * sx, axes[1] * sy, axes[2] * sz),
                side * yaw,
            )
            paint(hu, white + gain * (grey - white), soft(nucleus + 0.8 * slow, 2.5))

    fluid: FloatArray = soft(0.35 + 0.8 * atrophy * within - sheet_mm, 1.2) * gyral
    # Sylvian fissures: sheets from the temporal surface inwards to the insula
    for side in (-1, 1):
        lateral = side * x / sx
        rise = float(rng.uniform(0.55, 0.95))
        sheet = np.abs(z / sz + 4 - rise * (y / sy + 8) + 3.5 * slow + 1.5 * fold) - 0.2
        width = 0.5 + 1.0 * atrophy * float(rng.uniform(0.7, 1.4))
        span = soft(lateral - 34, 3.0) * soft(24 - np.abs(y / sy + 6), 8.0)
        fluid = np.maximum(fluid, soft(width - sheet, 1.5) * span)
        insula = soft(width * 0.7 - np.abs(lateral - 36 + 2.5 * slow + 1.2 * fold), 1.5)
        fluid = np.maximum(fluid, insula * soft(11 - np.abs(z / sz), 3.0) * soft(20 - np.abs(y / sy + 8), 4.0))

    midline = x - np.float32(rng.normal(0, 1.0)) - 0.8 * slow
    callosum = np.sqrt(((y + 2 * sy) / (46 * sy)) ** 2 + ((z - 6 * sz) / (30 * sz)) ** 2)
    fissure = soft(0.4 + 0.7 * atrophy - np.abs(midline), 1.2) * soft((callosum - 1) * 30, 3.0)
    fluid = np.maximum(fluid, fissure * soft(z + 18 * sz, 4.0))

    gap, infra = _hindbrain(draw, shape, moved, hu, grey, white, slow)
    fluid = fluid * (1 - infra * np.float32(rng.uniform(0.5, 1.0)))
    fluid = np.maximum(fluid, soft(rim * (1 - 0.4 * infra) - depth, 1.2))
    fluid = np.maximum(fluid, _cisterns(draw, shape, moved, atrophy))

    ventricle = _ventricles(draw, shape, moved, hu, slow)
    fluid = np.maximum(fluid, ventricle)
    mottle = NoiseField(rng, 6.5)(x, y, z)
    hu += draw.num("tissue.texture_hu") * texture + draw.num("tissue.mottle_hu") * mottle
    hu += draw.num("tissue.shading_hu") * slow
    paint(hu, csf + 0.5 * texture, fluid)
    falx_gap, dura = _dura(draw, shape, point, depth, hu, gap, slow)
    _vessels(draw, shape, moved, hu)
    return Brain(hu, fluid, ventricle, infra, gap, falx_gap, dura)


def _hindbrain(
    draw: Draw,
    shape: HeadShape,
    point: Point,
    hu: FloatArray,
    grey: float,
    white: float,
    slow: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Cerebellum and brainstem; returns mm above the tentorium and infratentorial occupancy."""
    rng = draw.rng
    x, y, z = point
    sx, sy, sz = shape.scale
    roof = (-3 + rng.normal(0, 2)) * sz - 0.26 * np.abs(x) / sx - 0.24 * np.clip(y - 20, 0, None)
    gap = z - roof + 1.2 * slow
    behind = y - (0.55 * (np.abs(x) / sx - 12) + 2) * sy
    infra = soft(-gap, 2.0) * soft(behind, 3.0)
    folia = np.sin((z * 1.3 + 0.35 * y + 4 * slow) * np.float32(rng.uniform(0.9, 1.5)))
    core = soft(16 - np.sqrt((np.abs(x) - 20 * sx) ** 2 + (y - 42 * sy) ** 2 + (z + 34) ** 2), 8.0)
    tissue = grey - 2.0 + 2.0 * folia
    paint(hu, tissue + (white - tissue) * 0.7 * core, infra)
    stem = tube(
        point,
        scaled(shape, [(0, 3, -4), (0, 4, -28), (0, 20, -54), (0, 34, -80), (0, 36, -120)]),
        [13.0, 14.0, 8.0, 6.0, 5.5],
    )
    paint(hu, white + draw.num("tissue.brainstem_minus_white_hu"), soft(stem, 2.0))
    return gap, np.maximum(infra, soft(stem, 2.0) * soft(-6 - z, 4.0))


def _cisterns(draw: Draw, shape: HeadShape, point: Point, atrophy: float) -> FloatArray:
    rng = draw.rng
    wide = 0.7 + 0.4 * min(atrophy, 1.8)
    stem = tube(
        point,
        scaled(shape, [(0, 3, -4), (0, 4, -28), (0, 20, -54), (0, 34, -80), (0, 36, -120)]),
        [13.0, 14.0, 8.0, 6.0, 5.5],
    )
    z = point[2]
    around = soft(4.0 * wide + stem, 1.5) * soft(-stem, 1.5)
    around *= np.maximum(soft(-point[1] + 6, 4.0), soft(7 - np.abs(z + 3), 5.0))
    around = np.maximum(around, soft(7 + stem, 3.0) * soft(-stem, 1.5) * soft(-58 - z, 3.0))
    sx, sy, sz = shape.scale
    for centre, axes in (
        ((0.0, -13.0, -18.0), (13.0, 10.0, 7.0)),
        ((0.0, 21.0, -2.0), (9.0, 5.0, 6.0)),
        ((0.0, 58.0, -58.0), (14.0, 8.0, 9.0)),
    ):
        size = wide * float(rng.uniform(0.6, 1.2))
        pool = ellipsoid(
            point,
            (centre[0], centre[1] * sy, centre[2] * sz),
            (axes[0] * sx * size, axes[1] * sy * size, axes[2] * sz * size),
        )
        around = np.maximum(around, soft(pool, 1.5))
    return around


def _ventricles(draw: Draw, shape: HeadShape, point: Point, hu: FloatArray, slow: FloatArray) -> FloatArray:
    rng = draw.rng
    size = draw.num("ventricle.scale")
    skew = draw.num("ventricle.asymmetry")
    disease = draw.coin("white_matter_disease")
    drop, halo = float(rng.uniform(3, 11)), float(rng.uniform(3, 12))
    patches = NoiseField(rng, 7.0)(*point)
    inside = np.zeros_like(hu)
    for side in (-1, 1):
        distance = lateral_ventricle(shape, point, side, size * (1 + side * skew), slow)
        if disease:
            weak = np.exp(-((np.clip(-distance, 0, None) / np.float32(halo)) ** 2))
            hu -= np.float32(drop) * weak * np.clip(0.6 + 0.5 * patches, 0, 1)
        inside = np.maximum(inside, soft(distance, 1.4))
    _, sy, sz = shape.scale
    third = np.minimum(0.6 + 1.3 * size - np.abs(point[0]), 16 * sy - np.abs(point[1] + 2))
    inside = np.maximum(inside, soft(np.minimum(third, 9 - np.abs(point[2] + 1)), 1.4))
    fourth = ellipsoid(point, (0, 25 * sy, -31 * sz), (6.5 * size**0.5, 4.5 * size**0.5, 9.0))
    inside = np.maximum(inside, soft(fourth, 1.4))
    if draw.coin("cavum"):
        cavum = ellipsoid(point, (0, -14 * sy, 12 * sz), (2.5, 16.0 * sy, 6.0))
        inside = np.maximum(inside, soft(cavum, 1.4))
    return inside


def _dura(
    draw: Draw,
    shape: HeadShape,
    point: Point,
    depth: FloatArray,
    hu: FloatArray,
    gap: FloatArray,
    slow: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Falx, tentorium and venous sinuses: the dense normal structures. Returns falx mm, occupancy."""
    rng = draw.rng
    x, y, z = point
    sx, sy, sz = shape.scale
    dense = draw.num("tissue.dura_hu")
    vein = draw.num("tissue.vein_hu")
    falx_gap = x - 1.2 * slow * np.float32(rng.uniform(0, 1.5))
    edge = np.sqrt(((y - 4 * sy) / (62 * sy)) ** 2 + ((z - 8 * sz) / (45 * sz)) ** 2)
    inner = 0.78 - 0.22 * np.clip(y / (80 * sy), -1, 1)
    falx = soft(draw.num("falx.thickness_mm") / 2 - np.abs(falx_gap), 1.2)
    falx *= soft((edge - inner) * 45, 2.0) * soft(z + 12 * sz, 3.0)
    falx *= np.maximum(soft(gap, 2.0), soft(-y, 3.0))
    behind = y - (0.55 * (np.abs(x) / sx - 12) + 2) * sy
    notch = np.sqrt((x / (19 * sx)) ** 2 + ((y - 4 * sy) / (27 * sy)) ** 2)
    tent = soft(draw.num("tentorium.thickness_mm") / 2 - np.abs(gap) * 0.9, 1.2)
    tent *= soft((notch - 1) * 18, 2.0) * soft(behind + 2, 3.0)
    dura = np.maximum(falx, tent)
    paint(hu, dense, dura)

    width = draw.num("sinus.radius_mm")
    back = np.clip((y + 50) / 120, 0.25, 1.0)
    sagittal = width * (0.7 + 0.5 * back) - np.sqrt((x * 0.9 - rng.normal(0, 1)) ** 2 + (depth - 1.5) ** 2)
    blood = soft(sagittal, 1.4) * soft(z + 8 * sz, 4.0)
    skew = float(rng.uniform(-0.7, 0.7))
    lateral = width * (1.0 + skew * np.sign(x)) - np.sqrt((depth - 1.5) ** 2 + gap**2)
    blood = np.maximum(blood, soft(lateral, 1.4) * soft(behind, 3.0) * soft(y - 8 * sy, 5.0))
    straight = tube(
        point,
        [(0, 24 * sy, 1 * sz), (0, 50 * sy, -6 * sz), (0, 78 * sy, -17 * sz)],
        [width * 0.45, width * 0.55, width * 0.8],
    )
    blood = np.maximum(blood, soft(straight, 1.4))
    galen = ellipsoid(point, (0, 24 * sy, 4 * sz), (3.0, 5.0, 3.0))
    blood = np.maximum(blood, soft(galen, 1.4) * np.float32(rng.uniform(0.3, 1.0)))
    for _ in range(int(rng.integers(2, 8))):  # cortical veins on the surface
        centre = rng.normal(0, 1, 3)
        centre *= 70 / np.linalg.norm(centre)
        ribbon = np.abs((x - centre[0]) * centre[1] - (y - centre[1]) * centre[0]) / 70
        vessel = 1.6 - np.sqrt(ribbon**2 + (depth - 2) ** 2)
        reach = 25 - np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        blood = np.maximum(blood, soft(vessel, 1.4) * soft(reach, 4.0) * soft(z - 5, 5.0))
    paint(hu, vein, blood)
    return falx_gap, np.maximum(dura, blood)


def _vessels(draw: Draw, shape: HeadShape, point: Point, hu: FloatArray) -> None:
    """Circle of Willis and its large branches, calcified walls in some."""
    rng = draw.rng
    value = draw.num("tissue.vessel_hu")
    basilar = tube(point, scaled(shape, [(0, -11, -42), (0, -13, -30), (0, -11, -16)]), [1.6, 1.9, 1.6])
    lumen = soft(basilar, 1.2)
    calcified = draw.coin("tissue.vessel_calcified")
    for side in (-1, 1):
        carotid = scaled(shape, [(10, -14, -30), (11, -18, -22), (10, -15, -16)], side)
        middle = scaled(shape, [(10, -15, -16), (24, -15, -13), (34, -12, -8), (38, 0, 2)], side)
        back = scaled(shape, [(0, -11, -16), (15, 0, -10), (20, 20, -4)], side)
        for nodes, radii in ((carotid, [2.4, 2.3, 2.0]), (middle, [1.7, 1.6, 1.4, 1.0]), (back, [1.3, 1.2, 0.9])):
            lumen = np.maximum(lumen, soft(tube(point, nodes, radii), 1.2))
        if calcified:
            spot = ellipsoid(point, carotid[int(rng.integers(0, 3))], (2.6, 2.6, 2.6))
            paint(hu, float(rng.uniform(120, 600)), soft(spot, 1.2))
    paint(hu, value, lumen)
