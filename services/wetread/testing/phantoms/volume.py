"""A phantom as the detector contract's `Volume`, without a detour over DICOM."""

from __future__ import annotations

import numpy as np

from wetread.core.detector import FrameRef, Volume
from wetread.testing.phantoms.spec import MaskArray, Phantom


def slab_weights(heights: np.ndarray) -> np.ndarray:
    """Half the distance to both neighbours; the outermost planes take their one gap."""
    gaps = np.diff(heights)
    before = np.concatenate([gaps[:1], gaps])
    after = np.concatenate([gaps, gaps[-1:]])
    out: np.ndarray = (before + after) / 2
    return out


def to_volume(phantom: Phantom) -> tuple[Volume, MaskArray]:
    """Give the volume and its truth mask; of planes at one position the first is kept."""
    normal = np.cross(phantom.affine[:3, 0], phantom.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    heights = phantom.positions_lps_mm @ normal
    _, keep = np.unique(np.round(heights, 3), return_index=True)
    row = phantom.affine[:3, 0] / np.linalg.norm(phantom.affine[:3, 0])
    column = phantom.affine[:3, 1] / np.linalg.norm(phantom.affine[:3, 1])
    pixel = float(np.linalg.norm(phantom.affine[:3, 0]))
    volume = Volume(
        voxels=phantom.volume[keep],
        origins=phantom.positions_lps_mm[keep],
        row_direction=row,
        column_direction=column,
        pixel_spacing=(pixel, pixel),
        weights_mm=slab_weights(heights[keep]),
        frames=tuple(FrameRef(f"2.25.{phantom.seed + 1}{index + 1:05d}") for index in keep),
        tilt_deg=float(phantom.tags.get("tilt_deg", 0.0)),
        flags=("duplicate_positions",) if len(keep) < len(heights) else (),
    )
    return volume, phantom.mask[keep]
