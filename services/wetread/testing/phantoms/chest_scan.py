"""From the 1 mm anatomy to the slices of a scanner: slab, pixels, kernel, breathing, noise, streaks, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage, sparse

from wetread.core.detector import FrameRef, Volume
from wetread.testing.phantoms.acquisition import KERNELS
from wetread.testing.phantoms.chest_anatomy import Floats, Shape
from wetread.testing.phantoms.chest_parameters import ChestDraw

_LOUDNESS: Final = {"smooth": 0.6, "soft": 0.75, "standard": 1.0, "sharp": 1.7}
"""Noise of a kernel relative to the standard one."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Where the slices of a scan lie on the anatomy grid (mm from its first voxel), and how they were made."""

    heights: npt.NDArray[np.float64]
    thickness_mm: float
    pixel_mm: float
    size: tuple[int, int]
    kernel: str
    step_mm: float

    def indices(self, shape: Shape) -> tuple[npt.NDArray[np.int64], ...]:
        """The nearest anatomy voxel of every slice, row and column."""
        places = (self.heights, *(np.arange(n) * self.pixel_mm for n in self.size))
        found = [np.clip(np.rint(p).astype(np.int64), 0, n - 1) for p, n in zip(places, shape, strict=True)]
        return tuple(found)


def draw_slices(draw: ChestDraw, shape: Shape) -> Slices:
    """Draw slab, step, pixel and kernel for an anatomy of *shape*."""
    thickness = float(draw("scan.thickness_mm"))
    step = thickness * (float(draw.rng.uniform(0.5, 0.8)) if draw.coin("scan.overlap") else 1.0)
    pixel = draw.num("scan.pixel_mm")
    heights = np.arange(thickness / 2, shape[0] - 0.5 - thickness / 2, step)
    size = (int((shape[1] - 1) / pixel) + 1, int((shape[2] - 1) / pixel) + 1)
    return Slices(heights, thickness, pixel, size, str(draw("scan.kernel")), step)


def cells(start: float, step: float, count: int, width: float, source: int) -> sparse.csr_matrix:
    """[count, source] weights: mean over *width* cells around start + i * step, interpolated linearly."""
    centre = start + step * np.arange(count)
    reach = int(np.ceil(width / 2 + 1))
    index = np.rint(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)[None]
    # a box of this width, or the tent of linear interpolation when it is narrower than a cell
    far = np.abs(index - centre[:, None])
    weight = np.clip((max(width, 1.0) / 2 + 0.5 - far), 0, 1) if width > 1 else np.clip(1 - far, 0, 1)
    index = np.clip(index, 0, source - 1)
    weight = weight / weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(count), index.shape[1])
    return sparse.csr_matrix((weight.ravel().astype(np.float32), (rows, index.ravel())), (count, source))


def acquire(draw: ChestDraw, hu: Floats, labels: npt.NDArray[np.uint8], slices: Slices, rough: bool) -> tuple[
    Floats, npt.NDArray[np.uint8], float
]:  # fmt: skip
    """Return HU [plane, row, column], labels on the same planes, and the standard deviation of the noise, HU.

    *rough*: noise of another simulator, smoothed white noise instead of the ramp-filtered spectrum.
    """
    count, rows, columns = len(slices.heights), *slices.size
    image = cells(slices.heights[0], slices.step_mm, count, slices.thickness_mm, hu.shape[0]) @ hu.reshape(len(hu), -1)
    image = image.reshape(count, *hu.shape[1:])
    if abs(slices.pixel_mm - 1) > 0.005 or slices.size != hu.shape[1:]:
        image = _in_plane(image, slices)
    index = slices.indices((hu.shape[0], hu.shape[1], hu.shape[2]))
    mask = labels[np.ix_(*index)]
    cutoff, sigma_mm, boost = KERNELS[slices.kernel]
    sigma = sigma_mm / slices.pixel_mm
    image = ndimage.gaussian_filter(image, (0, sigma, sigma), truncate=3.0)
    if boost:
        wide = ndimage.gaussian_filter(image, (0, 2 * sigma, 2 * sigma), truncate=2.5)
        image += np.float32(boost) * (image - wide)
    if draw.coin("motion"):
        _breathe(draw, image, mask, slices)
    level = draw.num("scan.noise_at_2mm_hu") * _LOUDNESS[slices.kernel]
    level *= float(np.clip((2.0 / slices.thickness_mm) ** 0.5, 0.6, 1.9))
    profile = _loudness_profile(rows, columns)
    draw_noise = _smoothed_white if rough else _ramp_filtered
    for plane, noise in enumerate(draw_noise(draw.rng, (count, rows, columns), slices.pixel_mm, cutoff)):
        image[plane] += np.float32(level) * profile * noise
    _streaks(draw, image, level, slices.pixel_mm)
    image = image * np.float32(draw.num("scan.gain")) + np.float32(draw.num("scan.offset_hu"))
    return np.clip(np.rint(image), -1024, 3071).astype(np.float32), mask, level


def _in_plane(image: Floats, slices: Slices) -> Floats:
    """Resample rows and columns to the scanner's pixels."""
    down = cells(0.0, slices.pixel_mm, slices.size[0], slices.pixel_mm, image.shape[1])
    across = cells(0.0, slices.pixel_mm, slices.size[1], slices.pixel_mm, image.shape[2])
    out = np.empty((len(image), *slices.size), dtype=np.float32)
    for plane, picture in enumerate(image):
        out[plane] = (across @ (down @ picture).T).T
    return out


def _loudness_profile(rows: int, columns: int) -> Floats:
    """Noise is strongest in the middle of the body."""
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None]
    return np.asarray(0.65 + 0.45 * np.exp(-(x**2 + y**2) / 0.4), dtype=np.float32)


def _ramp_filtered(rng: np.random.Generator, shape: Shape, pixel_mm: float, cutoff: float) -> Floats:
    """Unit-variance noise with the spectrum of filtered back-projection: a ramp that rolls off at *cutoff* per mm."""
    size = [fft.next_fast_len(n, real=True) for n in shape[1:]]
    radial = np.hypot(fft.fftfreq(size[0], pixel_mm)[:, None], fft.fftfreq(size[1], pixel_mm)[None])
    power = (radial + 0.015) * np.exp(-2 * (radial / cutoff) ** 2)
    transfer = np.sqrt(power / power.mean())[:, : size[1] // 2 + 1].astype(np.float32)
    out = np.empty(shape, dtype=np.float32)
    for plane in range(shape[0]):
        white = rng.standard_normal(size, dtype=np.float32)
        out[plane] = fft.irfft2(fft.rfft2(white) * transfer, s=size)[: shape[1], : shape[2]]
    return out


def _smoothed_white(rng: np.random.Generator, shape: Shape, pixel_mm: float, cutoff: float) -> Floats:
    """Unit-variance white noise, smoothed within and a little across planes: like iterative reconstruction."""
    sigma = 0.2 / (cutoff * pixel_mm)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.4, sigma, sigma), truncate=3.0)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _streaks(draw: ChestDraw, image: Floats, level: float, pixel_mm: float) -> None:
    """Photon starvation at the shoulders: streaks from side to side, in place."""
    share = draw.num("scan.streak_share")
    count, rows, columns = image.shape
    for plane in range(count):
        near = float(np.exp(-(((plane / count - 1.0) / 0.25) ** 2)))
        if near * share < 0.08:
            continue
        streak = draw.rng.standard_normal((rows, columns // 8 + 2), dtype=np.float32).repeat(8, axis=1)[:, :columns]
        streak = ndimage.uniform_filter1d(streak, max(3, int(30 / pixel_mm)), axis=1)
        image[plane] += np.float32(1.5 * level * share * near) * streak / np.float32(streak.std() + 1e-6)


def _breathe(draw: ChestDraw, image: Floats, mask: npt.NDArray[np.uint8], slices: Slices) -> None:
    """Stair steps and blur of breathing, strongest near the diaphragm; image and labels, in place."""
    reach = draw.num("motion.shift_mm") / slices.pixel_mm
    phase, period = float(draw.rng.uniform(0, 6.28)), float(draw.rng.uniform(12, 35))
    count = len(image)
    for plane in range(count):
        weight = float(np.clip(1.3 - 1.6 * plane / count, 0, 1))
        # the table moves in steps: all slices of a rotation share one position of the chest
        group = np.floor(slices.heights[plane] / 10.0) * 10.0
        move = reach * weight * float(np.sin(2 * np.pi * group / period + phase))
        if abs(move) < 0.25:
            continue
        image[plane] = ndimage.shift(image[plane], (move, 0.3 * move), order=1, mode="nearest")
        mask[plane] = ndimage.shift(mask[plane], (round(move), round(0.3 * move)), order=0)
        ghost = np.roll(image[plane], max(1, round(abs(move) / 2)), axis=0)
        image[plane] = 0.75 * image[plane] + 0.25 * ghost


def as_volume(seed: int, image: Floats, slices: Slices, shape: Shape) -> Volume:
    """The slices as the detector contract's volume; the middle of the anatomy lies at LPS x = y = 0."""
    count = len(image)
    corner = [-(shape[2] - 1) / 2, -(shape[1] - 1) / 2]
    return Volume(
        voxels=image,
        origins=np.column_stack([np.full((count, 2), corner), slices.heights]),
        row_direction=np.array([1.0, 0, 0]),
        column_direction=np.array([0, 1.0, 0]),
        pixel_spacing=(slices.pixel_mm, slices.pixel_mm),
        weights_mm=np.full(count, slices.step_mm),
        frames=tuple(FrameRef(f"2.25.{seed + 1}{k + 1:05d}") for k in range(count)),
    )
