"""Cross-sections of an artery, sampled on rays from its centreline, and what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from .curves import frames
from .image import CtImage, FloatArray, Mask

RAYS: Final = 24
RING_MM: Final = 0.15
LARGEST_MM: Final = 4.5
WIDEST_MM: Final = 3.2
SPILL_MM: Final = 0.95
"""The disc reaches this far over the half-maximum edge: three standard deviations of the blur."""
LEAST_DISC_MM: Final = 1.3
BACKGROUND_MM: Final = 0.45
CALCIUM_HU: Final = 150.0


@dataclass(frozen=True, slots=True)
class Sections:
    """HU on rays: ``hu`` (n, rays, rings), ring radii ``rho`` (rings,) mm, and the plane of each section."""

    hu: FloatArray
    rho: FloatArray
    first: FloatArray
    second: FloatArray


@dataclass(frozen=True, slots=True)
class Measured:
    """Per section (n,): area (mm2), half-maximum radius, centre HU, background HU, calcium, aspect ratio, disc radius.

    ``shift`` (n, 3) leads to the lumen's middle.
    """

    area: FloatArray
    half_radius: FloatArray
    centre_hu: FloatArray
    background: FloatArray
    calcium: Mask
    aspect: FloatArray
    disc: FloatArray
    shift: FloatArray


def sample(image: CtImage, points: FloatArray, largest: float = LARGEST_MM) -> Sections:
    """Sample the planes across the curve *points* (n, 3, LPS mm), linearly."""
    _, first, second = frames(points)
    rho = np.arange(0.5 * RING_MM, largest, RING_MM)
    angle = 2.0 * np.pi * np.arange(RAYS) / RAYS
    ray = np.cos(angle)[None, :, None] * first[:, None, :] + np.sin(angle)[None, :, None] * second[:, None, :]
    at = points[:, None, None, :] + ray[:, :, None, :] * rho[None, None, :, None]
    index = image.index_of(at.reshape(-1, 3))
    hu = ndimage.map_coordinates(image.hu, index.T, order=1, mode="nearest", output=np.float32)
    return Sections(hu.reshape(len(points), RAYS, len(rho)).astype(np.float64), rho, first, second)


def measure(sections: Sections, lumen_hu: FloatArray) -> Measured:
    """Measure every section, with the contrast *lumen_hu* (n,) that a full lumen would have there.

    Area is the flux integral of HU over the background, ray by ray: what blur spreads out is counted where it went,
    and fat on one side and muscle on the other are each taken off on their own side.
    """
    hu, rho = sections.hu, sections.rho
    count = len(hu)
    centre = hu[:, :, rho < 0.45].mean(axis=(1, 2))
    profile = hu.mean(axis=1)
    trough = np.minimum.accumulate(profile, axis=1)[:, rho < 3.5].min(axis=1)
    level = 0.5 * (np.minimum(centre, lumen_hu) + trough)
    calcium = hu > lumen_hu[:, None, None] + CALCIUM_HU
    calcium &= (rho < WIDEST_MM)[None, None, :]
    edge = _edges(hu, rho, level, calcium)
    half = np.sqrt(np.mean(edge**2, axis=1))
    disc = np.maximum(0.5 * (edge + half[:, None]) + SPILL_MM, LEAST_DISC_MM)
    background = _background(hu, rho, disc)
    middle = np.median(background, axis=1)
    contrast = np.maximum(lumen_hu[:, None] - background, 0.3 * (lumen_hu - middle)[:, None])
    inside = np.clip((disc[:, :, None] - rho[None, None, :]) / RING_MM + 0.5, 0.0, 1.0)
    excess = (hu - background[:, :, None]) / contrast[:, :, None]
    hard = np.asarray(calcium.any(axis=2))
    first_hard = np.where(hard, np.argmax(calcium, axis=2), len(rho))
    behind = np.arange(len(rho))[None, None, :] >= first_hard[:, :, None]
    excess = np.where(behind, 0.0, np.where(hard[:, :, None], np.minimum(excess, 1.0), excess))
    weight = inside * rho[None, None, :] * RING_MM * (2.0 * np.pi / RAYS)
    area = np.sum(excess * weight, axis=(1, 2))
    angle = 2.0 * np.pi * np.arange(RAYS) / RAYS
    cubes = edge**3 * 2.0 / 3.0
    total = np.maximum(np.sum(edge**2, axis=1), 1e-9)
    x, y = np.sum(cubes * np.cos(angle), axis=1) / total, np.sum(cubes * np.sin(angle), axis=1) / total
    marked = calcium & (rho[None, None, :] < (half + 1.5)[:, None, None])
    return Measured(
        area=np.maximum(area, 0.0),
        half_radius=half,
        centre_hu=centre,
        background=middle,
        calcium=marked.sum(axis=(1, 2)) >= 3,
        aspect=_aspect(edge, angle, x, y) if count else np.ones(0),
        disc=disc.mean(axis=1),
        shift=x[:, None] * sections.first + y[:, None] * sections.second,
    )


def _edges(hu: FloatArray, rho: FloatArray, level: FloatArray, calcium: Mask) -> FloatArray:
    """Half-maximum edge (n, rays): where a ray first falls below the level, interpolated; no wider than its peers."""
    below = (hu < level[:, None, None]) | calcium
    stop = np.where(below.any(axis=2), np.argmax(below, axis=2), len(rho) - 1)
    previous = np.maximum(stop - 1, 0)
    rows, rays = np.ogrid[: hu.shape[0], : hu.shape[1]]
    high, low = hu[rows, rays, previous], hu[rows, rays, stop]
    share = np.clip((high - level[:, None]) / np.where(high - low > 1.0, high - low, 1.0), 0.0, 1.0)
    edge = np.where(stop == 0, 0.0, rho[previous] + share * RING_MM)
    edge = np.minimum(edge, WIDEST_MM)
    edge = ndimage.median_filter(edge, size=(1, 5), mode="wrap")
    return np.minimum(edge, 1.5 * np.median(edge, axis=1)[:, None] + 0.1)


def _background(hu: FloatArray, rho: FloatArray, disc: FloatArray) -> FloatArray:
    """HU (n, rays) just outside the disc, smoothed over rays; another bright vessel there is left out."""
    outside = (rho[None, None, :] >= disc[:, :, None]) & (rho[None, None, :] < disc[:, :, None] + BACKGROUND_MM)
    share = np.maximum(outside.sum(axis=2), 1)
    ring = np.where(outside, hu, 0.0).sum(axis=2) / share
    middle = np.median(ring, axis=1)[:, None]
    ring = np.where(ring > middle + 150.0, middle, ring)
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
