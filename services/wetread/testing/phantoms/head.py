"""Make one head-CT phantom from a seed: anatomy, bleeds, scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wetread.testing.phantoms import acquisition, physics
from wetread.testing.phantoms.bleeds import (
    Plan,
    displacement,
    occupancy,
    paint_bleed,
    plan_bleeds,
)
from wetread.testing.phantoms.brain import render_brain
from wetread.testing.phantoms.confounders import open_skull, paint_calcium, paint_lesions
from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.fields import paint, soft
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.seeds import require_split
from wetread.testing.phantoms.shape import HeadShape, Point
from wetread.testing.phantoms.skull import AIR_HU, render_outside
from wetread.testing.phantoms.spec import (
    BleedTruth,
    BleedType,
    FloatArray,
    HeadSpec,
    MaskArray,
    Phantom,
)
from wetread.testing.phantoms.stack import Stack, draw_stack
from wetread.testing.phantoms.variant import render_variant

_GENERATOR_STREAM = 20_611


@dataclass(slots=True)
class Anatomy:
    """A rendered head before the scan: HU and per-type bleed occupancy on the render planes."""

    hu: FloatArray
    bleeds: dict[int, FloatArray]
    plans: list[Plan]
    midline_shift_mm: float


def make(seed: int, spec: HeadSpec) -> Phantom:
    """Render the head CT of `seed`; the same seed and spec give the same bytes.

    Raises PhantomSeedError when the seed is not of `spec.split`, PhantomSpecError for requests
    that contradict themselves.
    """
    require_split(seed, spec.split)
    if spec.matrix not in (256, 512):
        raise PhantomSpecError(f"matrix {spec.matrix}: 256 or 512")
    draw = Draw(np.random.default_rng([_GENERATOR_STREAM, seed]), spec.split)
    stack = draw_stack(draw, spec)
    points = _points(stack)
    anatomy = render_variant(draw, spec, points) if spec.split == "s5" else _render_head(draw, spec, stack, points)
    truths = _truth(stack, anatomy)
    slices = acquisition.resample_planes(stack, anatomy.hu)
    mask = _mask(stack, anatomy, spec.matrix)
    beyond = float(draw.rng.uniform(1.2, 2.2)) if draw.coin("beyond") else 1.0
    kernel = str(draw("scan.kernel"))
    kvp = int(draw("scan.kvp"))
    if spec.tier == "physics":
        slices, noise = physics.scan(draw, stack, slices, kernel, kvp)
        slices = acquisition.enlarge(slices, spec.matrix)
    else:
        slices = acquisition.enlarge(slices, spec.matrix)
        acquisition.shade(draw, stack, slices)
        slices = acquisition.blur(stack, slices, kernel)
        if spec.split == "s5":
            noise = physics.pyramid_noise(draw, stack, slices)
        else:
            noise = acquisition.add_noise(draw, stack, slices, kernel, beyond)
    acquisition.spoil(draw, stack, slices, mask)
    np.clip(slices, -1024, 3071, out=slices)
    positions = np.stack([stack.corner(h, stack.pixel_mm, spec.matrix) for h in stack.heights])
    positions += [0.0, 0.0, 300.0]
    affine = np.eye(4)
    affine[:3, 0] = [stack.pixel_mm, 0, 0]
    affine[:3, 1] = stack.column * stack.pixel_mm
    affine[:3, 2] = [0, 0, float(np.median(np.diff(stack.heights)))]
    affine[:3, 3] = positions[0]
    tags: dict[str, str | float | int | bool] = {
        "split": spec.split,
        "tier": spec.tier,
        "kernel": kernel,
        "kvp": kvp,
        "thickness_mm": stack.thickness_mm,
        "tilt_deg": stack.tilt_deg,
        "pixel_mm": stack.pixel_mm,
        "noise_hu": noise,
        "irregular": stack.irregular,
        "beyond": beyond > 1.0,
    }
    tags |= {name: value for name, value in draw.drawn.items() if isinstance(value, str | bool | float)}
    return Phantom(
        seed=seed,
        spec=spec,
        volume=slices.astype(np.float32, copy=False),
        affine=affine,
        positions_lps_mm=positions,
        mask=mask,
        bleeds=truths,
        midline_shift_mm=anatomy.midline_shift_mm,
        tags=tags,
    )


def _points(stack: Stack) -> Point:
    """Head-frame coordinates (mm) of every rendered voxel, three [planes, n, n] arrays."""
    size = stack.render_size
    index = np.arange(size, dtype=np.float32)
    corner = stack.corner(0.0, stack.render_mm, size) - stack.centre
    turn = stack.pose.T.astype(np.float32)
    base = turn @ corner.astype(np.float32)
    along_x = turn @ np.array([stack.render_mm, 0, 0], dtype=np.float32)
    along_y = turn @ (stack.column * stack.render_mm).astype(np.float32)
    along_z = turn[:, 2]
    heights = stack.planes.astype(np.float32)
    out = []
    for axis in range(3):
        line = base[axis] + along_x[axis] * index[None, None, :]
        line = line + along_y[axis] * index[None, :, None]
        out.append((line + along_z[axis] * heights[:, None, None]).astype(np.float32))
    return out[0], out[1], out[2]


def _render_head(draw: Draw, spec: HeadSpec, stack: Stack, point: Point) -> Anatomy:
    shape = HeadShape(draw)
    plans = plan_bleeds(draw, shape, spec.bleeds, spec.volume_ml)
    x, y, z = point
    hu = np.full(x.shape, AIR_HU, dtype=np.float32)
    # points that cannot be in the head (generous ellipsoid and neck) are air
    near = ((x / (shape.a + 28)) ** 2 + (y / (shape.b + 28)) ** 2 + (z / (shape.c + 32)) ** 2) < 1.0
    near |= (np.abs(x) < 80) & (np.abs(y + 6) < 106) & (z < -10)
    flat: Point = (x[near], y[near], z[near])
    at = shape.measure(flat)
    body = at.outer < 2.0
    whole = np.full(flat[0].shape, AIR_HU, dtype=np.float32)
    inside = at.cavity < 0.8
    outside = body & (at.cavity > -0.8)
    part: Point = (flat[0][outside], flat[1][outside], flat[2][outside])
    cut = type(at)(*(getattr(at, name)[outside] for name in at.__dataclass_fields__))
    bone = render_outside(draw, shape, part, cut)
    open_skull(draw, shape, part, bone, cut.vault, cut.bone_mm)
    whole[outside] = bone

    deep: Point = (flat[0][inside], flat[1][inside], flat[2][inside])
    depth = -at.cavity[inside]
    pushed = displacement(plans, deep)
    moved: Point = (deep[0] - pushed[0], deep[1] - pushed[1], deep[2] - pushed[2])
    brain = render_brain(draw, shape, deep, moved, depth)
    paint_lesions(draw, shape, moved, depth, brain)
    csf_hu = float(draw.drawn["tissue.csf_hu"])
    filled: dict[int, FloatArray] = {}
    for plan in plans:
        alpha = occupancy(draw, plan, deep, depth, brain)
        alpha *= soft(depth)
        paint_bleed(draw, plan, deep, alpha, brain.hu, csf_hu)
        for kind in filled:
            filled[kind] *= 1 - alpha
        filled[plan.type] = np.maximum(filled.get(plan.type, np.zeros_like(alpha)), alpha)
    paint_calcium(draw, shape, moved, brain)
    rim = draw.num("hardening.rim_hu") * np.exp(-depth / np.float32(draw.num("hardening.rim_mm")))
    brain.hu += rim.astype(np.float32)
    mixed = whole[inside]
    paint(mixed, brain.hu, soft(depth, 1.2))
    whole[inside] = mixed
    hu[near] = whole
    if draw.coin("holder"):
        _holder(draw, stack, hu)

    grids: dict[int, FloatArray] = {}
    where = np.flatnonzero(near.ravel())[inside]
    for kind, alpha in filled.items():
        grid = np.zeros(hu.size, dtype=np.float32)
        grid[where] = alpha
        grids[kind] = grid.reshape(hu.shape)
    septum = (np.abs(deep[0]) < 4) & (np.abs(deep[1] + 15) < 15) & (np.abs(deep[2] - 12) < 8)
    shift = float(np.abs(pushed[0][septum]).mean()) if septum.any() else 0.0
    return Anatomy(hu, grids, plans, shift)


def _holder(draw: Draw, stack: Stack, hu: FloatArray) -> None:
    """The head holder: a shell of plastic behind the head, filled with foam; fixed to the table."""
    rng = draw.rng
    size = stack.render_size
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * stack.render_mm
    gx, gy = axis[None, :], axis[:, None] - np.float32(rng.uniform(-10, 15))
    radius = np.sqrt((gx / 1.0) ** 2 + (gy / 1.15) ** 2)
    shell = np.abs(radius - float(rng.uniform(98, 108)))
    behind = gy > float(rng.uniform(-10, 40))
    ring = soft(2.0 - shell) * behind
    top = float(rng.uniform(20, 90))
    for index, height in enumerate(stack.planes):
        if height < top:
            air = hu[index] < -700
            hu[index] += np.where(air, ring * float(rng.uniform(850, 900)), 0)


def _mask(stack: Stack, anatomy: Anatomy, size: int) -> MaskArray:
    """Type codes on the slices: blood fills at least half of a voxel (a third for thin films)."""
    shape = (len(stack.heights), size, size)
    best = np.zeros(shape, dtype=np.float32)
    mask = np.zeros(shape, dtype=np.uint8)
    for kind, grid in sorted(anatomy.bleeds.items()):
        share = acquisition.enlarge(acquisition.resample_planes(stack, grid), size)
        limit = 0.35 if kind == BleedType.SAH else 0.5
        chosen = (share >= limit) & (share > best)
        mask[chosen] = kind
        best = np.maximum(best, share)
    return mask


def _truth(stack: Stack, anatomy: Anatomy) -> tuple[BleedTruth, ...]:
    """Volumes by type from the rendered occupancy within the range that slices cover."""
    spacing = float(stack.planes[1] - stack.planes[0])
    low, high = stack.heights[0], stack.heights[-1]
    margin = stack.thickness_mm / 2
    covered = (stack.planes >= low - margin) & (stack.planes <= high + margin)
    voxel_ml = stack.render_mm**2 * np.cos(np.radians(stack.tilt_deg)) * spacing / 1000.0
    out = []
    for kind, grid in sorted(anatomy.bleeds.items()):
        part = grid[covered]
        volume = float(part.sum(dtype=np.float64) * voxel_ml)
        if volume < 0.02:
            continue
        core = part > 0.5
        weights = part if not core.any() else core.astype(np.float32)
        k, j, i = np.nonzero(weights > 0)
        w = weights[k, j, i].astype(np.float64)
        heights = stack.planes[covered]
        centre = np.average(
            stack.corner(0.0, stack.render_mm, stack.render_size)[None]
            + i[:, None] * np.array([stack.render_mm, 0, 0])
            + j[:, None] * stack.column * stack.render_mm
            + heights[k][:, None] * np.array([0.0, 0.0, 1.0]),
            axis=0,
            weights=w,
        ) + np.array([0.0, 0.0, 300.0])
        hu = float(np.average(anatomy.hu[covered][k, j, i], weights=w))
        offset = float(centre[0] - stack.centre[0])
        side = "midline" if abs(offset) < 4 else ("left" if offset > 0 else "right")
        out.append(
            BleedTruth(
                BleedType(kind),
                volume,
                hu,
                side,  # type: ignore[arg-type]
                (float(centre[0]), float(centre[1]), float(centre[2])),
            )
        )
    return tuple(out)
