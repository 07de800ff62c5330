"""Contrast-filled vessels inside the skull, on the head grid; bone and what touches it are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.lvo.scan import AIR_HU

BONE_HU: Final = 300.0
LEAST_ENHANCEMENT_HU: Final = 60.0
"""The brightest vessels stand at least this much above brain, or there is no contrast to speak of."""
LONG_MM: Final = 30.0
"""Vessels at that height go on over at least this distance. Islands of bone, calcium and metal are bright and short."""
SHARE: Final = 0.28
"""A vessel voxel stands this share of the brightest vessels' height above brain."""
FAINT_SHARE: Final = 0.12
"""What stands at least this high shows that a vessel is there, though too thin or too pale to be followed."""
FAINT_NOISE: Final = 3.5
"""And this many times the noise of the smoothed image."""
LUMEN_RANKS: Final = slice(150, 450)
"""The lumen's value is the mean of these ranks of the brightest voxels: the few before are calcium and metal."""
LEAST_VOXELS: Final = 12
LEAST_INSIDE: Final = 2e5
LEAST_SKULL: Final = 2e4
"""Voxels (mm3) inside the skull, and of it."""
BONE_MARGIN: Final = 2
"""Voxels around bone whose values are bone's partial volume."""

Mask = npt.NDArray[np.bool_]
_CUBE: Final = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, slots=True)
class Vessels:
    """``mask`` and ``weight`` (0..1, height above brain) [z, y, x]; ``lumen_hu`` of the brightest, ``brain_hu``.

    ``faint``: the same height for all that stands out of the noise, the vessels of the mask and paler ones.
    """

    mask: Mask
    weight: FloatArray
    faint: FloatArray
    inside: Mask
    lumen_hu: float
    brain_hu: float


def find_vessels(hu: FloatArray) -> Vessels:
    """Find the vessels. Raises NotApplicable (body_part, contrast), NotProcessable("noise")."""
    inside = _inside(hu)
    if float(inside.sum()) < LEAST_INSIDE:
        raise NotApplicable("body_part", "no brain inside the skull")
    brain = float(np.median(hu[inside]))
    spread = float(np.percentile(hu[inside], 50) - np.percentile(hu[inside], 16))
    smooth = ndimage.gaussian_filter(hu, 0.6, truncate=2.0)
    values = smooth[_long(inside & (smooth > brain + LEAST_ENHANCEMENT_HU))]
    if len(values) < LUMEN_RANKS.stop:
        raise NotApplicable("contrast", "no vessel inside the skull is filled with contrast")
    brightest = np.partition(values, -LUMEN_RANKS.stop)[-LUMEN_RANKS.stop :]
    lumen = float(np.sort(brightest)[::-1][LUMEN_RANKS].mean())
    if lumen - brain < 4.0 * spread:
        raise NotProcessable("noise", "vessels do not stand out of the noise")
    noise = 0.6 * spread
    height = lumen - brain
    rise = np.where(inside, smooth - brain, 0.0)
    mask = _parts(rise > max(SHARE * height, 2.5 * noise))
    weight = np.clip(rise / height, 0.0, 1.0).astype(np.float32)
    faint = _parts(rise > max(FAINT_SHARE * height, FAINT_NOISE * noise)) | mask
    return Vessels(mask, weight * mask, weight * faint, inside, lumen, brain)


def _parts(mask: Mask) -> Mask:
    """Leave out crumbs."""
    labels, count = ndimage.label(mask, _CUBE)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= LEAST_VOXELS)[labels], dtype=np.bool_)


def _long(mask: Mask) -> Mask:
    """Keep the parts whose bounding box is at least ``LONG_MM`` across."""
    labels, count = ndimage.label(mask, _CUBE)
    kept = np.zeros(count + 1, dtype=bool)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        kept[label] = float(np.linalg.norm([part.stop - part.start for part in box])) >= LONG_MM
    return np.asarray(kept[labels], dtype=np.bool_)


def _inside(hu: FloatArray) -> Mask:
    """Return the space inside the skull, vessels included, without the border of the bone."""
    bright = hu > BONE_HU
    bone = _large(bright, 5000) if float(bright.sum()) > LEAST_SKULL else bright
    if float(bone.sum()) < LEAST_SKULL:
        raise NotApplicable("body_part", "there is no skull on the images")
    near_bone = ndimage.binary_dilation(bone, iterations=BONE_MARGIN)
    soft = (hu > AIR_HU) & ~near_bone
    # Which of the soft parts is the brain is a question for every second voxel.
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = True
    coarse = soft[::2, ::2, ::2]
    labels, count = ndimage.label(ndimage.binary_erosion(coarse, flat, iterations=2))
    if count == 0:
        raise NotApplicable("body_part", "there is no brain on the images")
    largest = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    grown = ndimage.binary_dilation(largest, flat, iterations=3)
    for axis, size in enumerate(hu.shape):
        grown = np.repeat(grown, 2, axis=axis).take(range(size), axis=axis)
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in grown & soft])
    return np.asarray(filled & ~near_bone, dtype=np.bool_)


def _large(mask: Mask, least: int) -> Mask:
    """Keep parts of at least *least* voxels: bone, not vessels (which are thin and end)."""
    eroded = ndimage.binary_erosion(mask, border_value=1)  # bone goes on where the scan ends
    labels, count = ndimage.label(eroded)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    seeds = (sizes >= least)[labels]
    return np.asarray(ndimage.binary_dilation(seeds, iterations=2) & mask, dtype=np.bool_)
