"""Where head and brain are on the images before the bolus: the gate, and the voxels that are worth computing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.core.errors import NotApplicable

BRAIN_HU: Final = (0.0, 80.0)
TISSUE_HU: Final = (18.0, 60.0)
"""Below: fluid; above: blood, calcium, partial volume of bone. After smoothing."""
BONE_HU: Final = 200.0
SKULL_SHARE: Final = 0.03
"""Share of a head's section that is bone, at least."""
HEAD_ML: Final = (20.0, 90.0)
"""Area of a head's section in square centimetres below and above which it is none."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HeadMasks:
    """[plane, row, column]: the head, the space inside the skull (with vessels), and brain tissue."""

    head: Mask
    inside: Mask
    tissue: Mask


def head_masks(baseline: FloatArray, pixel_mm: tuple[float, float], modality: str) -> HeadMasks:
    """Find the head on *baseline* [plane, row, column]. Raises NotApplicable("body_part") when it is none."""
    smooth = np.asarray(ndimage.gaussian_filter(baseline, (0, 0.7, 0.7)), dtype=np.float32)
    head = _largest_per_plane(smooth > (-300.0 if modality == "CT" else 0.15 * float(np.percentile(smooth, 99))))
    pixel_cm2 = pixel_mm[0] * pixel_mm[1] / 100.0
    area = float(np.median(head.sum(axis=(1, 2)))) * pixel_cm2
    if not 60.0 <= area <= 400.0:
        raise NotApplicable("body_part", f"a section of {area:.0f} cm2 is no head")
    if modality == "CT":
        bone = head & (baseline > BONE_HU)
        if float(bone.sum()) < SKULL_SHARE * float(head.sum()):
            raise NotApplicable("body_part", "no skull around the section")
        inside = _inside_bone(head, bone)
        tissue = inside & (smooth > TISSUE_HU[0]) & (smooth < TISSUE_HU[1])
    else:
        inside = _eroded(head, 12.0, pixel_mm)
        tissue = inside & (smooth > 0.35 * float(np.median(smooth[inside])) if inside.any() else inside)
    if float(inside.sum()) < 0.25 * float(head.sum()):
        raise NotApplicable("body_part", "no brain inside the section")
    return HeadMasks(head, inside, np.asarray(tissue, dtype=np.bool_))


def _inside_bone(head: Mask, bone: Mask) -> Mask:
    """Return what bone and the border of the image enclose: the largest part once bone is taken away."""
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = True
    wall = ndimage.binary_dilation(bone, flat)
    open_space = _largest_per_plane(head & ~wall)
    return np.asarray(ndimage.binary_dilation(open_space, flat) & ~bone, dtype=np.bool_)


def _eroded(mask: Mask, depth_mm: float, pixel_mm: tuple[float, float]) -> Mask:
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = True
    return np.asarray(ndimage.binary_erosion(mask, flat, iterations=max(1, round(depth_mm / pixel_mm[0]))))


def _largest_per_plane(mask: Mask) -> Mask:
    """Keep the largest part of every plane, its holes filled."""
    out = np.zeros_like(mask)
    for plane, section in enumerate(mask):
        labels, count = ndimage.label(section)
        if count:
            sizes = np.bincount(labels.ravel())[1:]
            out[plane] = ndimage.binary_fill_holes(labels == 1 + int(sizes.argmax()))
    return out
