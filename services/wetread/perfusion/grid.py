"""The grid that perfusion is computed on: coarse in plane (noise), regular in time (deconvolution)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import DynamicVolume, FloatArray

PIXEL_MM: Final = 1.9
"""Pixels are averaged in blocks up to this size: perfusion has no finer detail than its noise allows."""
LARGEST_STEP_S: Final = 1.0
"""Samples are brought to a regular step of at most this, a whole fraction of the scanner's own step."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """Images [time, plane, row, column] on the working grid, at regular times for every plane."""

    images: FloatArray
    step_s: float
    start_s: float
    pixel_mm: tuple[float, float]
    block: int
    """Source pixels per working pixel, along rows and columns."""
    plane_mm: Floats
    """[plane] depth that each plane stands for."""
    modality: str

    @property
    def voxel_ml(self) -> Floats:
        """[plane] volume of one voxel."""
        return np.asarray(self.plane_mm * self.pixel_mm[0] * self.pixel_mm[1] / 1000.0, dtype=np.float64)


def reduce(volume: DynamicVolume) -> Series:
    """Average in blocks and bring every plane to the same regular times (linear between its own images)."""
    block = max(1, int(PIXEL_MM / max(volume.pixel_spacing)))
    images = _blocks(volume.dynamic, block)
    own = float(np.median(np.diff(volume.times_s, axis=0)))
    step = own / np.ceil(own / LARGEST_STEP_S - 1e-6)
    start = float(volume.times_s[0].max())
    times = np.arange(start, float(volume.times_s[-1].min()) + 1e-6, step)
    regular = np.empty((len(times), *images.shape[1:]), dtype=np.float32)
    for plane in range(images.shape[1]):
        regular[:, plane] = _at_times(images[:, plane], volume.times_s[:, plane], times)
    return Series(
        images=regular,
        step_s=float(step),
        start_s=start,
        pixel_mm=(volume.pixel_spacing[0] * block, volume.pixel_spacing[1] * block),
        block=block,
        plane_mm=volume.weights_mm,
        modality=volume.modality,
    )


def expand(values: npt.NDArray[Any], block: int, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Bring [plane, row, column] back to *shape* rows and columns of the source: every block repeats its value."""
    return values.repeat(block, axis=1).repeat(block, axis=2)[:, : shape[0], : shape[1]]


def _blocks(images: FloatArray, block: int) -> FloatArray:
    if block == 1:
        return images
    times, planes, rows, columns = images.shape
    tall, wide = -(-rows // block), -(-columns // block)
    out = np.empty((times, planes, tall, wide), dtype=np.float32)
    for index, stack in enumerate(images):
        padded = np.pad(stack, ((0, 0), (0, tall * block - rows), (0, wide * block - columns)), mode="edge")
        out[index] = padded.reshape(planes, tall, block, wide, block).mean(axis=(2, 4))
    return out


def _at_times(images: FloatArray, known_s: Floats, wanted_s: Floats) -> FloatArray:
    after = np.clip(np.searchsorted(known_s, wanted_s, side="right"), 1, len(known_s) - 1)
    share = (wanted_s - known_s[after - 1]) / (known_s[after] - known_s[after - 1])
    later = np.clip(share, 0.0, 1.0).astype(np.float32)[:, None, None]
    return np.asarray(images[after - 1] * (1 - later) + images[after] * later, dtype=np.float32)
