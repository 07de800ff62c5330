"""Cross-sections of an artery, sampled on rays from its centreline, and what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import ndimage

from .curves import frames
from .image import CtImage, FloatArray, IntArray, Mask

RAYS: Final = 24
RING_MM: Final = 0.15
LARGEST_MM: Final = 4.5
WIDEST_MM: Final = 3.2
SPILL_MM: Final = 0.95
"""The disc reaches this far over the half-maximum edge: three standard deviations of the blur."""
LEAST_DISC_MM: Final = 1.3
BACKGROUND_MM: Final = 0.45
BACKGROUND_SAMPLES: Final = 4.0
"""Fat and muscle beside an artery change over millimetres: averaging along it takes their noise out of the area."""
CALCIUM_HU: Final = 150.0
LEAST_CONTRAST_HU: Final = 20.0
LEAST_FREE: Final = 10
"""Free rays from which a section beside another artery can be measured: 150 degrees of its wall."""


@dataclass(frozen=True, slots=True)
class Sections:
    """HU on rays: ``hu`` (n, rays, rings), ring radii ``rho`` (rings,) mm, and the plane of each section."""

    hu: FloatArray
    rho: FloatArray
    first: FloatArray
    second: FloatArray

    @property
    def directions(self) -> FloatArray:
        """Unit vectors (n, rays, 3) of the rays."""
        angle = 2.0 * np.pi * np.arange(RAYS) / RAYS
        return np.asarray(
            np.cos(angle)[None, :, None] * self.first[:, None, :]
            + np.sin(angle)[None, :, None] * self.second[:, None, :],
            dtype=np.float64,
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Per section (n,): area (mm2), half-maximum radius, centre HU, background HU, calcium, aspect ratio, disc radius.

    ``shift`` (n, 3) leads to the lumen's middle; ``free`` (n,) counts the rays that no other artery lies across.
    """

    area: FloatArray
    half_radius: FloatArray
    centre_hu: FloatArray
    background: FloatArray
    calcium: Mask
    aspect: FloatArray
    disc: FloatArray
    shift: FloatArray
    free: IntArray


def sample(image: CtImage, points: FloatArray, largest: float = LARGEST_MM) -> Sections:
    """Sample the planes across the curve *points* (n, 3, LPS mm), linearly."""
    _, first, second = frames(points)
    rho = np.arange(0.5 * RING_MM, largest, RING_MM)
    empty = Sections(np.empty((len(points), RAYS, len(rho))), rho, first, second)
    index = image.index_of(positions(points, empty).reshape(-1, 3))
    hu = ndimage.map_coordinates(image.hu, index.T, order=1, mode="nearest", output=np.float32)
    return replace(empty, hu=hu.reshape(empty.hu.shape).astype(np.float64))


def positions(points: FloatArray, sections: Sections) -> FloatArray:
    """Where the samples of *sections* across the curve *points* lie: (n, rays, rings, 3), LPS mm."""
    ray = sections.directions
    return np.asarray(
        points[:, None, None, :] + ray[:, :, None, :] * sections.rho[None, None, :, None], dtype=np.float64
    )


def measure(sections: Sections, lumen_hu: FloatArray, clear: FloatArray | None = None) -> Measured:
    """Measure the sections of one curve, with the contrast *lumen_hu* (n,) that a full lumen would have there.

    Area is the flux integral of HU over the background, ray by ray: what blur spreads out is counted where it went,
    and fat on one side and muscle on the other are each taken off on their own side. *clear* (n, rays): how far every
    ray goes, in mm, before it meets another artery. A ray that meets one within the disc is not used; the circle
    through the wall on the other rays stands in for it.
    """
    hu, rho = sections.hu, sections.rho
    count = len(hu)
    if clear is None:
        clear = np.full(hu.shape[:2], np.inf)
    centre = hu[:, :, rho < 0.45].mean(axis=(1, 2))
    profile = _mean_of(hu, np.isinf(clear))
    trough = np.minimum.accumulate(profile, axis=1)[:, rho < 3.5].min(axis=1)
    level = 0.5 * (np.minimum(centre, lumen_hu) + trough)
    calcium = hu > lumen_hu[:, None, None] + CALCIUM_HU
    calcium &= (rho < WIDEST_MM)[None, None, :]
    edge, free = _outline(_edges(hu, rho, level, calcium), clear)
    half = np.sqrt(np.mean(edge**2, axis=1))
    disc = np.maximum(0.5 * (edge + half[:, None]) + SPILL_MM, LEAST_DISC_MM)
    background = _background(hu, rho, disc, free)
    middle = np.median(background, axis=1)
    contrast = np.maximum(
        lumen_hu[:, None] - background, np.maximum(0.3 * (lumen_hu - middle), LEAST_CONTRAST_HU)[:, None]
    )
    inside = np.clip((disc[:, :, None] - rho[None, None, :]) / RING_MM + 0.5, 0.0, 1.0)
    excess = (hu - background[:, :, None]) / contrast[:, :, None]
    hard = np.asarray(calcium.any(axis=2))
    first_hard = np.where(hard, np.argmax(calcium, axis=2), len(rho))
    behind = np.arange(len(rho))[None, None, :] >= first_hard[:, :, None]
    excess = np.where(behind, 0.0, np.where(hard[:, :, None], np.minimum(excess, 1.0), excess))
    weight = inside * rho[None, None, :] * RING_MM * (2.0 * np.pi / RAYS)
    sector = np.sum(excess * weight, axis=2)
    own, squares = np.sum(sector * free, axis=1), np.sum(edge**2 * free, axis=1)
    area = own + np.sum(edge**2 * ~free, axis=1) * own / np.maximum(squares, 1e-9)
    # Where next to no wall is its own, or the surroundings are as bright as the lumen, the quotients say nothing: a
    # lumen does not exceed the disc that it was summed over.
    area = np.clip(area, 0.0, np.pi * np.mean(disc**2, axis=1))
    angle = 2.0 * np.pi * np.arange(RAYS) / RAYS
    cubes = edge**3 * 2.0 / 3.0
    total = np.maximum(np.sum(edge**2, axis=1), 1e-9)
    x, y = np.sum(cubes * np.cos(angle), axis=1) / total, np.sum(cubes * np.sin(angle), axis=1) / total
    marked = calcium & (rho[None, None, :] < (half + 1.5)[:, None, None])
    return Measured(
        area=area,
        half_radius=half,
        centre_hu=centre,
        background=middle,
        calcium=marked.sum(axis=(1, 2)) >= 3,
        aspect=_aspect(edge, angle, x, y) if count else np.ones(0),
        disc=disc.mean(axis=1),
        shift=x[:, None] * sections.first + y[:, None] * sections.second,
        free=free.sum(axis=1),
    )


def _mean_of(hu: FloatArray, rays: Mask) -> FloatArray:
    """Mean profile (n, rings) over the chosen rays; over all of them where few are chosen."""
    weight = np.where(rays.sum(axis=1)[:, None] >= LEAST_FREE, rays, True)
    return np.asarray(np.sum(hu * weight[:, :, None], axis=1) / weight.sum(axis=1)[:, None], dtype=np.float64)


def _edges(hu: FloatArray, rho: FloatArray, level: FloatArray, calcium: Mask) -> FloatArray:
    """Half-maximum edge (n, rays): where a ray first falls below the level, interpolated."""
    below = (hu < level[:, None, None]) | calcium
    stop = np.where(below.any(axis=2), np.argmax(below, axis=2), len(rho) - 1)
    previous = np.maximum(stop - 1, 0)
    rows, rays = np.ogrid[: hu.shape[0], : hu.shape[1]]
    high, low = hu[rows, rays, previous], hu[rows, rays, stop]
    share = np.clip((high - level[:, None]) / np.where(high - low > 1.0, high - low, 1.0), 0.0, 1.0)
    edge = np.where(stop == 0, 0.0, rho[previous] + share * RING_MM)
    return np.minimum(edge, WIDEST_MM)


def _outline(edge: FloatArray, clear: FloatArray) -> tuple[FloatArray, Mask]:
    """Edge on every ray, no wider than its peers, and which rays are free.

    On a ray across another artery the edge is that of the circle through the free ones.
    """
    apart = np.where(np.isinf(clear), edge, np.nan)
    some = np.isinf(clear).sum(axis=1) >= LEAST_FREE
    typical = np.where(some, _median(apart), np.percentile(edge, 25, axis=1))
    free = clear >= (typical + SPILL_MM + BACKGROUND_MM)[:, None]
    if not free.all():
        edge = np.where(free, edge, _circle(edge, free))
    edge = ndimage.median_filter(edge, size=(1, 5), mode="wrap")
    # A circle through a short arc may be of any size: no artery is wider than what a ray of its own may measure.
    return np.minimum(edge, np.minimum(1.5 * np.median(edge, axis=1)[:, None] + 0.1, WIDEST_MM)), free


def _median(values: FloatArray) -> FloatArray:
    """Median over the second axis of what is not NaN; zero where nothing is."""
    known = np.isfinite(values)
    filled = np.sort(np.where(known, values, np.inf), axis=1)
    middle = np.take_along_axis(filled, np.maximum(known.sum(axis=1) - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.where(known.any(axis=1), middle, 0.0)


def _circle(edge: FloatArray, free: Mask) -> FloatArray:
    """Edge (n, rays) of the circle through the free edges: least squares of ``e^2 = 2 c.u e + R^2 - c^2``."""
    angle = 2.0 * np.pi * np.arange(edge.shape[1]) / edge.shape[1]
    rows = np.stack([2.0 * edge * np.cos(angle), 2.0 * edge * np.sin(angle), np.ones_like(edge)], axis=-1)
    rows = rows * free[:, :, None]
    normal = np.einsum("nri,nrj->nij", rows, rows) + 1e-6 * np.eye(3)
    x, y, rest = np.linalg.solve(normal, np.einsum("nri,nr->ni", rows, edge**2 * free)[:, :, None])[:, :, 0].T
    radius = np.sqrt(np.maximum(rest + x**2 + y**2, 1e-6))
    # An arc says little about a middle far away from it.
    scale = np.minimum(1.0, 0.5 * radius / np.maximum(np.hypot(x, y), 1e-9))
    along = (scale * x)[:, None] * np.cos(angle) + (scale * y)[:, None] * np.sin(angle)
    aside = (scale**2 * (x**2 + y**2))[:, None] - along**2
    return np.asarray(along + np.sqrt(np.maximum(radius[:, None] ** 2 - aside, 0.0)), dtype=np.float64)


def _background(hu: FloatArray, rho: FloatArray, disc: FloatArray, free: Mask) -> FloatArray:
    """HU (n, rays) just outside the disc, smoothed over rays and along the artery; bright vessels are left out."""
    outside = (rho[None, None, :] >= disc[:, :, None]) & (rho[None, None, :] < disc[:, :, None] + BACKGROUND_MM)
    share = np.maximum(outside.sum(axis=2), 1)
    ring = np.where(outside, hu, 0.0).sum(axis=2) / share
    middle = _median(np.where(free, ring, np.nan))[:, None]
    ring = np.where(ring > middle + 150.0, middle, ring)
    # What lies across another artery has no say, here and in the sections beside it.
    weight = ndimage.gaussian_filter1d(free.astype(np.float64), BACKGROUND_SAMPLES, axis=0, mode="nearest")
    known = ndimage.gaussian_filter1d(np.where(free, ring, 0.0), BACKGROUND_SAMPLES, axis=0, mode="nearest")
    ring = np.where(weight > 1e-3, known / np.maximum(weight, 1e-3), middle)
    return np.asarray(ndimage.gaussian_filter1d(ring, 1.2, axis=1, mode="wrap"), dtype=np.float64)


def _aspect(edge: FloatArray, angle: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Long over short axis of the half-maximum outline, by second moments about its middle."""
    total = np.maximum(np.sum(edge**2, axis=1) / 2.0, 1e-9)
    fourth = edge**4 / 4.0
    xx = np.sum(fourth * np.cos(angle) ** 2, axis=1) / total - x**2
    yy = np.sum(fourth * np.sin(angle) ** 2, axis=1) / total - y**2
    xy = np.sum(fourth * np.cos(angle) * np.sin(angle), axis=1) / total - x * y
    mean, spread = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    return np.asarray(np.clip(np.sqrt((mean + spread) / np.maximum(mean - spread, 1e-6)), 1.0, 2.0), dtype=np.float64)
