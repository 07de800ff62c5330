"""Cuts the heart out of the scan and brings it to cubic voxels."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from .image import CtImage, FloatArray, Image

STEP_MM: Final = 0.4
BOX_MM: Final = (130.0, 140.0, 140.0)
"""Largest extent along plane, row and column: bounds memory and time."""
COARSE_MM: Final = 2.0
POOL_HU: Final = 180.0
POOL_ML: Final = 15.0


def coarse(image: CtImage, step_mm: float) -> tuple[Image, FloatArray]:
    """Thin the image out to about *step_mm* and smooth it; returns it and its step."""
    stride = np.maximum(1, np.rint(step_mm / image.step_mm)).astype(int)
    thin = image.hu[stride[0] // 2 :: stride[0], stride[1] // 2 :: stride[1], stride[2] // 2 :: stride[2]]
    return ndimage.uniform_filter(thin.astype(np.float32), 3), image.step_mm * stride


def blood_pool(image: CtImage) -> FloatArray | None:
    """Centre (fractional plane, row, column) of the largest contrast-filled body; None when there is none of 15 mL."""
    thin, step = coarse(image, COARSE_MM)
    core = ndimage.binary_erosion(thin > POOL_HU, iterations=2)
    labels, count = ndimage.label(core)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    best = int(sizes.argmax())
    if sizes[best] * float(np.prod(step)) / 1000.0 < POOL_ML:
        return None
    centre = np.array(ndimage.center_of_mass(labels == best))
    return np.asarray((centre + 0.5) * step / image.step_mm, dtype=np.float64)


def cubic(image: CtImage, centre: FloatArray) -> CtImage:
    """Linear resampling to 0.4 mm voxels of the box around *centre* (fractional index of *image*)."""
    low, counts = [], []
    for axis in range(3):
        extent = (image.hu.shape[axis] - 1) * image.step_mm[axis]
        middle = centre[axis] * image.step_mm[axis]
        start = float(np.clip(middle - 0.5 * BOX_MM[axis], 0.0, max(0.0, extent - BOX_MM[axis])))
        low.append(start)
        counts.append(int(min(BOX_MM[axis], extent - start) / STEP_MM) + 1)
    out = image.hu
    for axis in range(3):
        at = (low[axis] + np.arange(counts[axis]) * STEP_MM) / image.step_mm[axis]
        out = _interpolated(out, at, axis)
    return CtImage(
        hu=out,
        origin_mm=image.points_of(np.array(low) / image.step_mm),
        axes=image.axes,
        step_mm=np.full(3, STEP_MM),
    )


def _interpolated(values: Image, at: FloatArray, axis: int) -> Image:
    floor = np.clip(np.floor(at).astype(np.int64), 0, values.shape[axis] - 2)
    share = (at - floor).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    below = np.take(values, floor, axis=axis).astype(np.float32, copy=False)
    above = np.take(values, floor + 1, axis=axis).astype(np.float32, copy=False)
    above -= below
    above *= share
    above += below
    return above
