"""Volumes as regular 3-D arrays with an affine, and sampling between such arrays. NumPy and SciPy only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray, Volume

Affine = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Image:
    """A regular array [x, y, z index] with its affine: index -> mm, x to the right (RAS)."""

    values: FloatArray
    affine: Affine

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def of_volume(volume: Volume) -> Image:
    """Return a regular stack as an image; the step is the mean one. Axes: column, row, plane."""
    planes = len(volume.voxels)
    step = (volume.origins[-1] - volume.origins[0]) / max(1, planes - 1)
    affine = np.eye(4)
    affine[:3, 0] = volume.row_direction * volume.pixel_spacing[1]
    affine[:3, 1] = volume.column_direction * volume.pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = volume.origins[0]
    affine[:2] *= -1  # LPS -> RAS
    return Image(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)), affine)


@dataclass(frozen=True, slots=True)
class Turn:
    """How axes were permuted and flipped, to turn a result back."""

    order: tuple[int, ...]
    flipped: tuple[bool, ...]

    def undo(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return values in the order of the source."""
        back = values[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)]
        return back.transpose(np.argsort(self.order))


def oriented(image: Image, signs: tuple[int, int, int]) -> tuple[Image, Turn]:
    """Permute and flip axes so that they run along R, A, S with the given signs (-1, 1, 1 is LAS)."""
    directions = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    order = max(
        ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)),
        key=lambda p: sum(abs(directions[row, axis]) for row, axis in enumerate(p)),
    )
    values, affine = image.values.transpose(order), image.affine.copy()
    affine[:, :3] = image.affine[:, order]
    flipped = tuple(bool(np.sign(affine[k, k]) != signs[k]) for k in range(3))
    for axis, flip in enumerate(flipped):
        if flip:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:, axis] *= -1
    return Image(np.ascontiguousarray(values), affine), Turn(order, flipped)


def evenly(values: FloatArray, shape: tuple[int, int, int]) -> FloatArray:
    """Sample from the first to the last voxel of every axis, trilinear: separable, so three small products."""
    for axis, count in enumerate(shape):
        where = np.linspace(0, values.shape[axis] - 1, count)
        low = np.minimum(where.astype(int), max(0, values.shape[axis] - 2))
        weight = (where - low).reshape([-1 if k == axis else 1 for k in range(3)]).astype(np.float32)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values


def sampled(values: FloatArray, matrix: Affine, shape: tuple[int, ...]) -> FloatArray:
    """Read *values* where *matrix* (index of the output -> index of the input) points, trilinear, 0 outside."""
    out: FloatArray = ndimage.affine_transform(
        values, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1, mode="constant"
    )
    return out


def box_of(matrix: Affine, size: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the part of an array of *shape* that *matrix* maps into another of *size*, a voxel wider all round."""
    back = np.linalg.inv(matrix)
    corners = np.array([back[:3, :3] @ c + back[:3, 3] for c in product(*[(0, n - 1) for n in size])])
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, shape)
    return tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))
