"""What one side's vessels lack: volume by territory, the largest missing stretch, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.lvo.vessels import Vessels

FEATURES: Final = ("proximal_deficit", "distal_deficit", "missing_proximal", "missing_distal")
REACH_MM: Final = 7
"""A vessel counts as present when the other side's mirror image runs within this distance."""
LEAST_MISSING: Final = 10
"""Voxels of a missing stretch."""
SITE_LIMITS_MM: Final = (15.0, 35.0)
"""Distance from the midline at which M1 begins and ends."""

Side = Literal["left", "right"]
Site = Literal["ICA", "M1", "M2"]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SideReading:
    """One side against the other. ``features`` in the order of FEATURES; ``missing`` [z, y, x] on this side."""

    side: Side
    features: Floats
    missing: Mask
    begins: tuple[int, int, int] | None
    """Grid index at which the missing stretch begins."""
    site: Site | None


def read_sides(vessels: Vessels) -> tuple[SideReading, SideReading]:
    """Compare both sides about the middle of the grid's last axis; left first."""
    centre = _circle_of_willis(vessels)
    proximal, distal = _territories(vessels.mask.shape, centre)
    return (
        _reading(vessels, "left", proximal, distal, centre),
        _reading(vessels, "right", proximal, distal, centre),
    )


def _circle_of_willis(vessels: Vessels) -> tuple[int, int]:
    """Return plane and row of the circle of Willis: the level with most vessel near the midline."""
    middle = (vessels.mask.shape[2] - 1) // 2
    near = vessels.weight[:, :, middle - 42 : middle + 43]
    rows = np.flatnonzero(np.any(vessels.inside, axis=(0, 2)))
    low, high = int(rows[0]), int(rows[-1])
    third = (high - low) // 5
    per_plane = ndimage.gaussian_filter1d(near[:, low + third : high - third].sum(axis=(1, 2)), 4.0)
    top = int(np.flatnonzero(np.any(vessels.inside, axis=(1, 2)))[-1])
    per_plane[max(0, top - 45) :] = 0.0  # the vertex is far above it
    plane = int(per_plane.argmax())
    slab = near[max(0, plane - 8) : plane + 9, low + third : high - third].sum(axis=(0, 2))
    row = low + third + round(float((slab * np.arange(len(slab))).sum() / max(float(slab.sum()), 1e-9)))
    return plane, row


def _territories(shape: tuple[int, ...], centre: tuple[int, int]) -> tuple[Mask, Mask]:
    """Return the left half's territories of carotid end with M1, and of the branches beyond."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    up, back, out = z - centre[0], y - centre[1], x - (shape[2] - 1) / 2
    proximal = (out > 6) & (out <= 36) & (abs(back + 4) < 20) & (up > -10) & (up < 14)
    distal = (out > 30) & (out < 75) & (back > -45) & (back < 45) & (up > -8) & (up < 55) & ~proximal
    return proximal, distal


def _reading(vessels: Vessels, side: Side, proximal: Mask, distal: Mask, centre: tuple[int, int]) -> SideReading:
    flip = slice(None, None, 1 if side == "left" else -1)
    mine, other = vessels.weight[:, :, flip], vessels.weight[:, :, flip][:, :, ::-1]
    near = ndimage.distance_transform_edt(mine == 0.0) <= REACH_MM
    gone = (other > 0.0) & ~near
    features, parts = [], []
    for territory in (proximal, distal):
        here, there = float(mine[territory].sum()), float(other[territory].sum())
        features.append((there - here) / (there + here + 60.0))
    for territory in (proximal, distal):
        part = _largest(gone & territory)
        parts.append(part)
        features.append(float(np.sqrt(other[part].sum() / 50.0)))
    both = gone & (proximal | distal)
    missing = _large_parts(both)
    begins, site = _begin(missing, centre)
    if side == "right":
        missing = missing[:, :, ::-1]
        begins = None if begins is None else (begins[0], begins[1], missing.shape[2] - 1 - begins[2])
    return SideReading(side, np.asarray(features), missing, begins, site)


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return mask
    return np.asarray(labels == 1 + int(np.bincount(labels.ravel())[1:].argmax()))


def _large_parts(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= LEAST_MISSING)[labels], dtype=np.bool_)


def _begin(missing: Mask, centre: tuple[int, int]) -> tuple[tuple[int, int, int] | None, Site | None]:
    """Return the missing voxel nearest to the carotid's end, and the segment that its distance to the midline names."""
    places = np.argwhere(missing)
    if len(places) == 0:
        return None, None
    middle = (missing.shape[2] - 1) / 2
    start = np.array([centre[0], centre[1] - 6, middle + 10])
    first = places[np.linalg.norm(places - start, axis=1).argmin()]
    out = float(first[2]) - middle
    site: Site = "ICA" if out < SITE_LIMITS_MM[0] else "M1" if out < SITE_LIMITS_MM[1] else "M2"
    return (int(first[0]), int(first[1]), int(first[2])), site
