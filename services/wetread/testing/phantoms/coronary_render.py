"""Turns a coronary phantom into HU: organs as solids, arteries by supersampling, then blur, defects and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from wetread.testing.phantoms.coronary_parameters import CoronarySpec
from wetread.testing.phantoms.coronary_tree import (
    AORTA,
    AORTA_RADIUS,
    AXIS,
    SEMI_AXES,
    VALVE_PLANE,
    FloatArray,
    TrueTree,
    TrueVessel,
    frame,
)

Image = npt.NDArray[np.float32]
Distance = Callable[[Any, Any, Any], Any]
"""Signed distance in mm (negative inside) at coordinates that broadcast against one another."""

SUBSAMPLES: Final = 4
"""Per axis in voxels that a vessel wall cuts: 64 points."""
SLEEVE_MM: Final = 1.2
"""Fat around an artery, which keeps it off the chambers."""
_SLAB: Final = 8
_MIDDLE_MM: Final = {"tiny": 0.0, "short": 24.0}
MARGIN_MM: Final = 3.0
"""Added to a solid's box: half a voxel of partial volume, and the distance's error beside the surface."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Voxel centres in LPS mm: plane k at ``z[k]`` (upwards), row i at ``y[i]``, column j at ``x[j]``."""

    z: FloatArray
    y: FloatArray
    x: FloatArray

    @property
    def step(self) -> FloatArray:
        """Voxel size (z, y, x)."""
        return np.array([self.z[1] - self.z[0], self.y[1] - self.y[0], self.x[1] - self.x[0]])


def grid_of(spec: CoronarySpec) -> Grid:
    """The image grid: the heart in the middle; in a short scan the origins of its arteries."""
    planes, rows, columns = spec.shape
    middle = _MIDDLE_MM.get(spec.size, 4.0)

    def centred(count: int, step: float) -> FloatArray:
        return np.asarray((np.arange(count) - 0.5 * (count - 1)) * step, dtype=np.float64)

    return Grid(
        centred(planes, spec.spacing_mm) + middle, centred(rows, spec.pixel_mm), centred(columns, spec.pixel_mm)
    )


def render(spec: CoronarySpec, tree: TrueTree) -> Image:
    """HU [plane, row, column] of the phantom."""
    grid = grid_of(spec)
    image = np.full(spec.shape, np.float32(40.0))
    if spec.size == "tiny":
        image[:] = spec.fat_hu
    elif spec.pericardium:
        _paint_organs(image, grid, spec)
    if spec.coronaries and spec.pericardium:
        for vessel in tree.vessels:
            if spec.size != "tiny":
                _paint_sleeve(image, grid, vessel, spec)
        for vessel in tree.vessels:
            _paint_lumen(image, grid, vessel, _lumen_hu(spec, tree, vessel))
        for lesion in tree.lesions:
            if lesion.calcified:
                vessel = next(v for v in tree.vessels if v.id == lesion.vessel)
                rng = np.random.default_rng([spec.seed, 64])
                arc = _arc(rng)
                extent = float(rng.uniform(0.3, 0.8)) * lesion.length_mm
                _paint_calcium(image, grid, vessel, lesion.centre_mm, extent, arc)
        if spec.wall_calcium > 0.0:
            for number, vessel in enumerate(tree.vessels):
                extent = spec.wall_calcium * float(vessel.s[-1])
                arc = _arc(np.random.default_rng([spec.seed, 66, number]))
                _paint_calcium(image, grid, vessel, 0.5 * extent, extent, arc)
    return _acquire(image, grid, spec)


def _lumen_hu(spec: CoronarySpec, tree: TrueTree, vessel: TrueVessel) -> FloatArray:
    """Contrast along the vessel: falls by ``gradient`` per 100 mm from the ostium."""
    parents = {v.id: v for v in tree.vessels}
    distance, current = vessel.s, vessel
    while current.parent is not None:
        parent = parents[current.parent]
        nearest = int(np.argmin(np.linalg.norm(parent.points - current.points[0], axis=1)))
        distance = distance + parent.s[nearest]
        current = parent
    return np.asarray(spec.lumen_hu * (1.0 - spec.gradient * distance / 100.0), dtype=np.float64)


# --- organs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Solid:
    """A body by its distance, and the box (lowest and highest x, y, z, mm) outside of which there is nothing of it."""

    distance: Distance
    low: FloatArray
    high: FloatArray


_UNBOUNDED: Final = np.full(3, np.inf)


def _ellipsoid(centre: FloatArray, axes: FloatArray, semi: FloatArray) -> _Solid:
    """Approximate distance to an ellipsoid; rows of *axes* are its unit axes. Exact to first order at the surface."""

    def distance(z: Any, y: Any, x: Any) -> Any:
        q = [a[0] * (x - centre[0]) + a[1] * (y - centre[1]) + a[2] * (z - centre[2]) for a in axes]
        level = np.sqrt(sum((v / s) ** 2 for v, s in zip(q, semi, strict=True)))
        slope = np.sqrt(sum((v / s**2) ** 2 for v, s in zip(q, semi, strict=True))) / np.maximum(level, 1e-3)
        return (level - 1.0) / np.maximum(slope, 1e-3)

    reach = np.sqrt(np.sum((semi[:, None] * axes) ** 2, axis=0))
    return _Solid(distance, centre - reach, centre + reach)


def _above_valve(offset: float) -> _Solid:
    def distance(z: Any, y: Any, x: Any) -> Any:
        return offset - (AXIS[0] * x + AXIS[1] * y + AXIS[2] * z)

    return _Solid(distance, -_UNBOUNDED, _UNBOUNDED)


def _tube(centre: FloatArray, radius: float, bottom: float) -> _Solid:
    """A vertical cylinder from *bottom* upwards."""

    def distance(z: Any, y: Any, x: Any) -> Any:
        return np.maximum(np.hypot(x - centre[0], y - centre[1]) - radius, bottom - z)

    return _Solid(distance, np.append(centre - radius, bottom), np.append(centre + radius, np.inf))


def _both(*shapes: _Solid) -> _Solid:
    def distance(z: Any, y: Any, x: Any) -> Any:
        out = shapes[0].distance(z, y, x)
        for shape in shapes[1:]:
            out = np.maximum(out, shape.distance(z, y, x))
        return out

    return _Solid(
        distance,
        np.asarray(np.max([s.low for s in shapes], axis=0), dtype=np.float64),
        np.asarray(np.min([s.high for s in shapes], axis=0), dtype=np.float64),
    )


def _organs(spec: CoronarySpec) -> list[tuple[_Solid, float]]:
    """Solids and their HU, painted in order."""
    front, left = frame()
    axes = np.array([front, left, AXIS])
    across, along = SEMI_AXES
    identity = np.eye(3)
    heart = _ellipsoid(np.zeros(3), axes, np.array([across, across, along]))
    blood = spec.ventricle_hu
    return [
        (_ellipsoid(np.array([0.0, 0.0, 0.0]), identity, np.array([150.0, 105.0, 400.0])), 40.0),
        (_ellipsoid(np.array([-82.0, 5.0, 5.0]), identity, np.array([58.0, 85.0, 160.0])), -850.0),
        (_ellipsoid(np.array([86.0, 8.0, 5.0]), identity, np.array([54.0, 85.0, 160.0])), -850.0),
        (_ellipsoid(np.array([-55.0, 0.0, -110.0]), identity, np.array([110.0, 90.0, 62.0])), 60.0),
        (_ellipsoid(np.zeros(3), axes, np.array([across + 8.0, across + 8.0, along + 8.0])), spec.fat_hu),
        (_ellipsoid(np.array([-12.0, 5.0, 45.0]), identity, np.array([40.0, 42.0, 60.0])), spec.fat_hu),
        (_both(heart, _above_valve(VALVE_PLANE)), spec.myocardium_hu),
        (_both(_ellipsoid(9.0 * left - 2.0 * front, axes, np.array([19.0, 19.0, 38.0])), _above_valve(-22.0)), blood),
        (
            _both(_ellipsoid(-23.0 * left + 2.0 * front, axes, np.array([22.0, 11.0, 30.0])), _above_valve(-20.0)),
            0.6 * blood,
        ),
        (_ellipsoid(np.array([-17.0, 36.0, 26.0]), identity, np.array([20.0, 12.0, 15.0])), blood),
        (_ellipsoid(np.array([-48.0, 12.0, 28.0]), identity, np.array([10.0, 14.0, 16.0])), 0.5 * blood),
        (_tube(np.array([2.0, -26.0]), 11.0, 51.0), 0.7 * blood),
        (_tube(np.array([24.0, 62.0]), 11.0, -400.0), spec.lumen_hu),
        (_ellipsoid(np.array([0.0, 82.0, 0.0]), identity, np.array([17.0, 16.0, 400.0])), 250.0),
        (_ellipsoid(np.array([-4.0, -88.0, 40.0]), identity, np.array([18.0, 7.0, 90.0])), 300.0),
        (_tube(AORTA, AORTA_RADIUS, 18.0), spec.lumen_hu),
        (_ellipsoid(np.array([AORTA[0], AORTA[1], 20.0]), identity, np.array([15.0, 15.0, 12.0])), spec.lumen_hu),
    ]


def _paint_organs(image: Image, grid: Grid, spec: CoronarySpec) -> None:
    """Paint every solid, with the partial volume of half a voxel at its surface."""
    half = 0.5 * float(np.mean(grid.step))
    organs = _organs(spec)
    image[:] = -850.0
    for first in range(0, len(grid.z), _SLAB):
        for shape, hu in organs:
            planes, rows, columns = (
                _within(values, low - MARGIN_MM, high + MARGIN_MM)
                for values, low, high in zip(
                    (grid.z[first : first + _SLAB], grid.y, grid.x), shape.low[::-1], shape.high[::-1], strict=True
                )
            )
            z = grid.z[first : first + _SLAB][planes, None, None].astype(np.float32)
            y, x = grid.y[None, rows, None].astype(np.float32), grid.x[None, None, columns].astype(np.float32)
            if not z.size or not y.size or not x.size:
                continue
            cover = np.clip(0.5 - shape.distance(z, y, x) / (2.0 * half), 0.0, 1.0)
            if cover.any():
                part = image[first : first + _SLAB][planes, rows, columns]
                part += np.float32(1.0) * cover * (np.float32(hu) - part)


def _within(values: FloatArray, low: float, high: float) -> slice:
    """Which of rising *values* lie between *low* and *high*."""
    first, last = np.searchsorted(values, (low, high))
    return slice(int(first), int(last))


# --- arteries ------------------------------------------------------------------------------------------------------


def _near(grid: Grid, points: FloatArray, reach: float) -> npt.NDArray[np.int64]:
    """Voxel indices (n, 3) within about *reach* mm of the points."""
    shape = (len(grid.z), len(grid.y), len(grid.x))
    origin = np.array([grid.z[0], grid.y[0], grid.x[0]])
    step = grid.step
    thin = points[:: max(1, int(0.5 / 0.25)), ::-1]
    centre = np.rint((thin - origin) / step).astype(np.int64)
    ball = [np.arange(-int(np.ceil(reach / s)) - 1, int(np.ceil(reach / s)) + 2) for s in step]
    mesh = np.stack(np.meshgrid(*ball, indexing="ij"), axis=-1).reshape(-1, 3)
    mesh = mesh[np.linalg.norm(mesh * step, axis=1) <= reach + float(np.linalg.norm(step))]
    voxels = (centre[:, None, :] + mesh[None]).reshape(-1, 3)
    voxels = voxels[np.all((voxels >= 0) & (voxels < shape), axis=1)]
    flat = np.unique(np.ravel_multi_index(tuple(voxels.T), shape))
    return np.stack(np.unravel_index(flat, shape), axis=1)


def _coordinates(grid: Grid, voxels: npt.NDArray[np.int64]) -> FloatArray:
    """LPS mm (n, 3) as (x, y, z)."""
    return np.stack([grid.x[voxels[:, 2]], grid.y[voxels[:, 1]], grid.z[voxels[:, 0]]], axis=1)


@dataclass(frozen=True, slots=True)
class _Line:
    """A centreline at 0.05 mm with what varies along it."""

    tree: cKDTree
    points: FloatArray
    tangent: FloatArray
    s: FloatArray


def _line(vessel: TrueVessel) -> _Line:
    s = vessel.s
    fine = np.linspace(0.0, s[-1], int(s[-1] / 0.05) + 2)
    points = np.stack([np.interp(fine, s, vessel.points[:, axis]) for axis in range(3)], axis=1)
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1)[:, None]
    return _Line(cKDTree(points), points, tangent, fine)


def _project(line: _Line, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distance to the centreline and arc length of its foot, both (n,)."""
    _, index = line.tree.query(at, workers=1)
    away = at - line.points[index]
    along = np.einsum("ij,ij->i", away, line.tangent[index])
    along = np.clip(along, -0.03, 0.03)
    across = np.sqrt(np.maximum(np.einsum("ij,ij->i", away, away) - along**2, 0.0))
    return across, line.s[index] + along


def _paint_sleeve(image: Image, grid: Grid, vessel: TrueVessel, spec: CoronarySpec) -> None:
    """Fat around an artery; at a root the sleeve starts where the artery is clear of the aorta."""
    line = _line(vessel)
    voxels = _near(grid, vessel.points, float(vessel.healthy.max()) + SLEEVE_MM)
    at = _coordinates(grid, voxels)
    distance, s = _project(line, at)
    radius = np.interp(s, vessel.s, vessel.healthy) + SLEEVE_MM
    outside = np.hypot(at[:, 0] - AORTA[0], at[:, 1] - AORTA[1]) > AORTA_RADIUS
    cover = np.clip(0.5 - (distance - radius) / float(np.mean(grid.step)), 0.0, 1.0) * outside
    index = tuple(voxels.T)
    image[index] += (cover * (spec.fat_hu - image[index])).astype(np.float32)


def _paint_lumen(image: Image, grid: Grid, vessel: TrueVessel, hu: FloatArray) -> None:
    """Contrast in the lumen: voxels cut by the wall get the share of their subsamples inside."""
    line = _line(vessel)
    voxels = _near(grid, vessel.points, float(vessel.radius.max()))
    at = _coordinates(grid, voxels)
    distance, s = _project(line, at)
    depth = np.interp(s, vessel.s, vessel.radius) - distance
    reach = 0.5 * float(np.linalg.norm(grid.step))
    share = (depth > reach).astype(np.float64)
    cut = np.flatnonzero(np.abs(depth) <= reach)
    offsets = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    mesh = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 3)
    mesh = mesh * grid.step[::-1]
    for part in np.array_split(cut, max(1, len(cut) // 20_000)):
        fine = (at[part][:, None, :] + mesh[None]).reshape(-1, 3)
        away, foot = _project(line, fine)
        inside = away <= np.interp(foot, vessel.s, vessel.radius)
        share[part] = inside.reshape(len(part), -1).mean(axis=1)
    index = tuple(voxels.T)
    value = np.interp(s, vessel.s, hu)
    image[index] += (share * np.maximum(value - image[index], 0.0)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Arc:
    """Calcium in a wall: its HU, thickness in mm, and half of the angle that it covers, in degrees."""

    hu: float
    thickness: float
    half_angle: float


def _arc(rng: np.random.Generator) -> _Arc:
    return _Arc(float(rng.uniform(600.0, 1300.0)), float(rng.uniform(0.5, 1.2)), float(rng.uniform(40.0, 110.0)))


def _paint_calcium(image: Image, grid: Grid, vessel: TrueVessel, centre_mm: float, extent_mm: float, arc: _Arc) -> None:
    """One arc of calcium in the wall around a place, never inside the lumen."""
    line = _line(vessel)
    voxels = _near(grid, vessel.points, float(vessel.healthy.max()) + arc.thickness)
    fine_mesh = (np.arange(3) + 0.5) / 3.0 - 0.5
    mesh = np.stack(np.meshgrid(fine_mesh, fine_mesh, fine_mesh, indexing="ij"), axis=-1).reshape(-1, 3)
    fine = (_coordinates(grid, voxels)[:, None, :] + mesh * grid.step[::-1]).reshape(-1, 3)
    distance, s = _project(line, fine)
    radius = np.interp(s, vessel.s, vessel.radius)
    away = fine - np.stack([np.interp(s, line.s, line.points[:, axis]) for axis in range(3)], axis=1)
    cosine = -(away @ vessel.offset) / np.maximum(distance, 1e-6)
    shell = (distance > radius) & (distance < radius + arc.thickness)
    shell &= cosine > np.cos(np.radians(arc.half_angle))
    inside = shell & (np.abs(s - centre_mm) < 0.5 * extent_mm)
    share = inside.reshape(len(voxels), -1).mean(axis=1)
    index = tuple(voxels.T)
    image[index] += (share * (arc.hu - image[index])).astype(np.float32)


# --- acquisition ---------------------------------------------------------------------------------------------------


def _acquire(image: Image, grid: Grid, spec: CoronarySpec) -> Image:
    """Point spread, motion within the slice, steps between slabs, correlated noise."""
    rng = np.random.default_rng([spec.seed, 65])
    sigma = spec.psf_mm / 2.355 / grid.step
    through = 0.0 if spec.thickness_mm is None else spec.thickness_mm / grid.step[0]
    if through > 1.5:
        ndimage.uniform_filter1d(image, max(1, round(through)), axis=0, output=image)
    for axis in range(3):
        ndimage.gaussian_filter1d(image, sigma[axis], axis=axis, output=image, truncate=3.0)
    if spec.motion_mm > 0.0:
        ndimage.uniform_filter1d(image, max(1, round(2.0 * spec.motion_mm / grid.step[2])), axis=2, output=image)
    if spec.step_mm > 0.0:
        _step(image, grid, spec.step_mm)
    if spec.noise_hu > 0.0:
        blur = 0.45 / grid.step[1]
        for plane in range(len(image)):
            noise = rng.standard_normal(image.shape[1:], dtype=np.float32)
            noise = ndimage.gaussian_filter(noise, blur, mode="wrap", truncate=3.0)
            image[plane] += np.float32(spec.noise_hu / float(noise.std())) * noise
    return image


def _step(image: Image, grid: Grid, shift_mm: float) -> None:
    """Shift every other slab of 40 mm sideways, as a misregistered step-and-shoot scan does."""
    slab = np.floor((grid.z - grid.z[0]) / 40.0).astype(np.int64)
    for plane in np.flatnonzero(slab % 2 == 1):
        image[plane] = ndimage.shift(image[plane], (0.0, shift_mm / grid.step[2]), order=1, mode="nearest")
