"""How much a voxel looks like a piece of an artery: bright-tube measure on the few voxels that can be one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from .aorta import Aorta
from .image import CtImage, FloatArray, Image, IntArray, Mask

SCALES_MM: Final = (0.5, 0.8, 1.2, 1.8, 2.5)
COARSE_FROM_MM: Final = 1.6
"""Scales from here on are computed on every other voxel."""
CHAMBER_RADIUS_MM: Final = 4.0
OSTIUM_ZONE_MM: Final = 4.0
ROOT_RADIUS_MM: Final = 6.0
SOFT_HU: Final = 10.0
NOISE_MM: Final = 0.35
BESIDE_MM: Final = 1.6
"""What lies this far to both sides of a thread is no part of it."""
STANDING_OUT_SD: Final = 2.5
DARKEST_HU: Final = -100.0
BODY_MM: Final = 1.0
"""Smoothing before large bodies are told from small ones: noise must not riddle them."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Voxels that may be artery: indices (n, 3), smoothed HU (n,), tube measure (n,) with 1 at its 99th percentile."""

    index: IntArray
    hu: FloatArray
    tube: FloatArray
    chambers: Mask
    """Chambers, aorta and other large bright bodies."""


def find_candidates(image: CtImage, aorta: Aorta) -> Candidates:
    """Judge every voxel that is bright, or stands out of soft tissue, and is no part of a large body.

    Next to the aorta bodies are not told apart: an artery is as wide as a chamber's corner where it leaves.
    """
    blood = aorta.blood
    step = float(image.step_mm[0])
    smooth = ndimage.gaussian_filter(image.hu, NOISE_MM / step, truncate=3.0)
    half = ndimage.gaussian_filter(
        ndimage.uniform_filter(image.hu, 2)[::2, ::2, ::2], BODY_MM / (2.0 * step), truncate=3.0
    )
    chambers = _opened(half, max(150.0, 0.38 * blood.hu), step, image.hu.shape)
    soft = _opened(half, SOFT_HU, step, image.hu.shape)
    mask = (smooth > 0.4 * blood.hu) | ((smooth > SOFT_HU) & ~soft) | _threads(smooth, aorta, step)
    zone = aorta.distance_mm < OSTIUM_ZONE_MM
    chambers[zone] = _opened(half, 0.65 * blood.hu, step, image.hu.shape, ROOT_RADIUS_MM)[zone]
    mask &= ~chambers & ~aorta.mask
    mask[:2] = mask[-2:] = False
    mask[:, :2] = mask[:, -2:] = False
    mask[:, :, :2] = mask[:, :, -2:] = False
    index = np.stack(np.nonzero(mask), axis=1)
    clipped = np.clip(image.hu, blood.hu - 500.0, blood.hu + 100.0)
    best = np.zeros(len(index))
    for scale in SCALES_MM:
        if scale < COARSE_FROM_MM:
            response = _tube(clipped, index, scale / step)
        else:
            half = clipped[::2, ::2, ::2]
            inner = np.clip(index // 2, 1, np.array(half.shape) - 2)
            response = _tube(half, inner, scale / (2.0 * step))
        np.maximum(best, response, out=best)
    top = float(np.percentile(best, 99)) if len(best) else 1.0
    hu = smooth[tuple(index.T)].astype(np.float64)
    return Candidates(index, hu, best / max(top, 1e-6), chambers)


def _threads(smooth: Image, aorta: Aorta, step: float) -> Mask:
    """Voxels darker than soft tissue that stand out of what lies on both sides of them, along two axes at least.

    A lumen of less than a millimetre in fat reads below water. An edge stands out on one side only, a sheet along one
    axis only. Standing out is by more than ``STANDING_OUT_SD`` of the noise, as the aorta shows it.
    """
    inner = ndimage.binary_erosion(aorta.mask[::2, ::2, ::2], iterations=3)
    noise = float(smooth[::2, ::2, ::2][inner].std()) if inner.any() else aorta.blood.sd
    least = STANDING_OUT_SD * noise
    away = round(BESIDE_MM / step)
    out = np.zeros(smooth.shape, dtype=np.bool_)
    if min(smooth.shape) <= 2 * away:
        return out
    middle = (slice(away, -away),) * 3
    index = np.flatnonzero((smooth[middle] > DARKEST_HU) & (smooth[middle] <= SOFT_HU))
    at = np.ravel_multi_index(tuple(a + away for a in np.unravel_index(index, smooth[middle].shape)), smooth.shape)
    flat = smooth.ravel()
    level = flat[at] - least
    count = np.zeros(len(at), dtype=np.int8)
    for stride in (smooth.shape[1] * smooth.shape[2], smooth.shape[2], 1):
        count += (flat[at + away * stride] < level) & (flat[at - away * stride] < level)
    out.ravel()[at[count >= 2]] = True
    return out


def _opened(half: Image, level: float, step: float, shape: tuple[int, ...], radius: float = CHAMBER_RADIUS_MM) -> Mask:
    """Bodies above *level* that hold a ball of *radius* mm, on every other voxel, given back on all."""
    core = ndimage.distance_transform_edt(half > level) * (2.0 * step) > radius
    if not core.any():
        return np.zeros(shape, dtype=np.bool_)
    body = ndimage.distance_transform_edt(~core) * (2.0 * step) <= radius
    out = np.repeat(np.repeat(np.repeat(body, 2, 0), 2, 1), 2, 2)
    return np.ascontiguousarray(out[: shape[0], : shape[1], : shape[2]])


def _tube(hu: Image, index: IntArray, sigma: float) -> FloatArray:
    """Sato's line measure of bright tubes at *index* for Gaussian derivatives of *sigma* voxels, scale-normalised."""
    blurred = ndimage.gaussian_filter(hu, sigma, truncate=3.0)
    flat = blurred.ravel()
    strides = np.array([blurred.shape[1] * blurred.shape[2], blurred.shape[2], 1])
    base = index @ strides
    centre = flat[base].astype(np.float64)

    def at(*offsets: int) -> FloatArray:
        return np.asarray(flat[base + int(np.dot(offsets, strides))], dtype=np.float64)

    hessian = np.empty((len(index), 6))
    hessian[:, 0] = at(1, 0, 0) + at(-1, 0, 0) - 2.0 * centre
    hessian[:, 1] = at(0, 1, 0) + at(0, -1, 0) - 2.0 * centre
    hessian[:, 2] = at(0, 0, 1) + at(0, 0, -1) - 2.0 * centre
    hessian[:, 3] = 0.25 * (at(1, 1, 0) + at(-1, -1, 0) - at(1, -1, 0) - at(-1, 1, 0))
    hessian[:, 4] = 0.25 * (at(1, 0, 1) + at(-1, 0, -1) - at(1, 0, -1) - at(-1, 0, 1))
    hessian[:, 5] = 0.25 * (at(0, 1, 1) + at(0, -1, -1) - at(0, 1, -1) - at(0, -1, 1))
    low, middle, high = eigenvalues(hessian * sigma**2)
    # low <= middle <= high; a bright tube has two strongly negative ones and one near zero.
    sharp = np.where(middle < 0.0, np.sqrt(np.maximum(low * middle, 0.0)), 0.0)
    along = np.where(high > 0.0, np.exp(-((high / np.maximum(0.5 * -middle, 1e-6)) ** 2) / 8.0), 1.0)
    bent = np.where(high <= 0.0, np.clip(1.0 - high / np.minimum(middle, -1e-6), 0.0, 1.0) ** 0.5, 1.0)
    return np.asarray(
        sharp * along * bent * np.clip(middle / np.minimum(low, -1e-6), 0.0, 1.0) ** 0.5, dtype=np.float64
    )


def eigenvalues(hessian: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Eigenvalues, rising, of symmetric 3x3 matrices (n, 6) as (00, 11, 22, 01, 02, 12), in closed form."""
    a, b, c, d, e, f = hessian.T
    mean = (a + b + c) / 3.0
    da, db, dc = a - mean, b - mean, c - mean
    size = np.sqrt(np.maximum((da**2 + db**2 + dc**2 + 2.0 * (d**2 + e**2 + f**2)) / 6.0, 1e-30))
    determinant = da * (db * dc - f**2) - d * (d * dc - f * e) + e * (d * f - db * e)
    angle = np.arccos(np.clip(0.5 * determinant / size**3, -1.0, 1.0)) / 3.0
    high = mean + 2.0 * size * np.cos(angle)
    low = mean + 2.0 * size * np.cos(angle + 2.0 * np.pi / 3.0)
    return low, 3.0 * mean - high - low, high
