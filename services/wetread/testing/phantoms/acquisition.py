"""Turn rendered planes into slices as a scanner would: blur, beam hardening, noise, artefacts."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.spec import FloatArray, MaskArray
from wetread.testing.phantoms.stack import Stack

# cut-off of the noise power (1/mm), blur (mm, sigma) and edge boost of each kernel
KERNELS: dict[str, tuple[float, float, float]] = {
    "smooth": (0.28, 0.95, 0.0),
    "soft": (0.36, 0.70, 0.0),
    "standard": (0.45, 0.55, 0.1),
    "sharp": (0.65, 0.40, 0.6),
}


def resample_planes(stack: Stack, planes: FloatArray) -> FloatArray:
    """Average [planes, n, n] into [slices, n, n] by slab."""
    flat = planes.reshape(planes.shape[0], -1)
    out: FloatArray = (stack.weights() @ flat).reshape(-1, *planes.shape[1:])
    return out


def enlarge(slices: FloatArray, size: int) -> FloatArray:
    """Interpolate square slices to `size` pixels, field of view unchanged."""
    count = slices.shape[-1]
    if count == size:
        return slices
    where = (np.arange(size, dtype=np.float32) + 0.5) * count / size - 0.5
    low = np.clip(np.floor(where).astype(int), 0, count - 2)
    share = np.clip(where - low, 0, 1).astype(np.float32)
    rows = slices[:, low] * (1 - share)[None, :, None] + slices[:, low + 1] * share[None, :, None]
    out: FloatArray = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    return out


def noise_transfer(size: int, pixel_mm: float, cutoff: float) -> FloatArray:
    """Amplitude filter whose square is the noise power spectrum of filtered back-projection.

    Ramp at low frequency, Gaussian roll-off at the kernel's cut-off (1/mm); unit variance.
    """
    fy = fft.fftfreq(size, pixel_mm)
    fx = fft.rfftfreq(size, pixel_mm)
    radial = np.hypot(fy[:, None], fx[None, :])
    power = (radial + 0.015) * np.exp(-2 * (radial / cutoff) ** 2)
    full = np.concatenate([power, power[:, 1:-1]], axis=1)
    out: FloatArray = np.sqrt(power / full.mean()).astype(np.float32)
    return out


def coloured_noise(rng: np.random.Generator, shape: tuple[int, int, int], pixel_mm: float, cutoff: float) -> FloatArray:
    """Unit-variance noise slices with the spectrum of `noise_transfer`."""
    transfer = noise_transfer(shape[1], pixel_mm, cutoff)
    out = np.empty(shape, dtype=np.float32)
    for index in range(shape[0]):
        white = rng.standard_normal(shape[1:], dtype=np.float32)
        out[index] = fft.irfft2(fft.rfft2(white) * transfer, s=shape[1:])
    return out


def shade(draw: Draw, stack: Stack, slices: FloatArray) -> None:
    """Residual beam hardening inside the head, in place: cupping, petrous bars, calibration."""
    rng = draw.rng
    size = slices.shape[-1]
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * stack.pixel_mm
    x = axis[None, :] - np.float32(stack.centre[0])
    y = axis[:, None] - np.float32(stack.centre[1])
    radial = (x / 68) ** 2 + (y / 85) ** 2
    cupping = draw.num("hardening.cupping_hu")
    petrous = draw.num("hardening.petrous_hu")
    gain, offset = draw.num("calibration.gain"), draw.num("calibration.offset_hu")
    level = float(rng.uniform(-45, -25))
    for index, height in enumerate(stack.heights):
        near = float(np.exp(-(((height - level) / 13) ** 2)))
        field = np.float32(cupping) * (radial - 0.5)
        if near > 0.02:
            bars = np.zeros((size, size), dtype=np.float32)
            for _ in range(4):
                row = float(rng.normal(14, 12))
                width = float(rng.uniform(2, 7))
                slope = float(rng.normal(0, 0.12))
                band = np.exp(-(((y - row - slope * x) / width) ** 2)) * np.exp(-((x / 42) ** 4))
                bars += np.float32(rng.choice([-1.0, -1.0, 0.7])) * band
            field = field + np.float32(petrous * near) * bars
        soft_tissue = (slices[index] > -200) & (slices[index] < 300)
        slices[index] += np.where(soft_tissue, field, 0)
    slices[:] = np.where(slices > -500, slices * np.float32(gain) + np.float32(offset), slices)


def blur(stack: Stack, slices: FloatArray, kernel: str) -> FloatArray:
    """Point spread of focal spot, detector and kernel; sharp kernels overshoot at edges."""
    _, sigma_mm, boost = KERNELS[kernel]
    sigma = sigma_mm / stack.pixel_mm
    # bilinear reading of the render grid has blurred already
    if sigma < 0.35:
        return slices
    out: FloatArray = ndimage.gaussian_filter(slices, (0, sigma, sigma))
    if boost:
        wide = ndimage.gaussian_filter(slices, (0, 2.2 * sigma, 2.2 * sigma))
        out = out + np.float32(boost) * (out - wide)
    return out


def add_noise(draw: Draw, stack: Stack, slices: FloatArray, kernel: str, beyond: float) -> float:
    """Add quantum noise and skull-base streaks in place; returns the mean noise sigma, HU."""
    rng = draw.rng
    level = draw.num("noise.at_5mm_hu") * beyond
    sigma = level * float(np.clip((5.0 / stack.thickness_mm) ** 0.5, 0.6, 2.6))
    cutoff = KERNELS[kernel][0] * float(rng.uniform(0.8, 1.2))
    share = draw.num("noise.streak_share")
    size = slices.shape[-1]
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * stack.pixel_mm
    radial = axis[None, :] ** 2 + axis[:, None] ** 2
    profile = (0.7 + 0.5 * np.exp(-radial / 60.0**2)).astype(np.float32)
    noise = coloured_noise(rng, slices.shape, stack.pixel_mm, cutoff)
    for index, height in enumerate(stack.heights):
        base = float(np.exp(-(((height + 40) / 22) ** 2)))
        slices[index] += np.float32(sigma * (1 + 0.5 * base)) * profile * noise[index]
        if base * share > 0.05:
            streak = rng.standard_normal((size, size), dtype=np.float32)
            streak = ndimage.gaussian_filter1d(streak, 22 / stack.pixel_mm, axis=1)
            streak = ndimage.gaussian_filter1d(streak, 0.8 / stack.pixel_mm, axis=0)
            slices[index] += np.float32(sigma * share * base * 1.5) * streak / streak.std()
    return sigma


def spoil(draw: Draw, stack: Stack, slices: FloatArray, masks: MaskArray) -> None:
    """Artefacts, in place: patient motion between slices, detector rings, metal, truncation."""
    rng = draw.rng
    count, size = slices.shape[0], slices.shape[-1]
    if draw.coin("motion"):
        start = int(rng.integers(1, max(2, count - 2)))
        stop = min(count, start + int(rng.integers(1, max(2, count // 2))))
        reach = draw.num("motion.shift_mm") / stack.pixel_mm
        move = rng.uniform(-1, 1, 2) * reach
        for index in range(start, stop):
            slices[index] = ndimage.shift(slices[index], move, order=1, mode="nearest")
            masks[index] = ndimage.shift(masks[index], np.round(move), order=0)
            if rng.random() < 0.3:  # motion within the rotation: a ghost
                ghost = ndimage.shift(slices[index], move, order=1, mode="nearest")
                slices[index] = 0.6 * slices[index] + 0.4 * ghost
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * stack.pixel_mm
    radius = np.hypot(axis[None, :], axis[:, None])
    if draw.coin("ring"):
        for _ in range(int(rng.integers(1, 4))):
            at, height = float(rng.uniform(5, 80)), float(rng.normal(0, 10))
            ring = np.exp(-(((radius - at) / 1.2) ** 2)).astype(np.float32)
            slices += np.float32(height) * ring * (slices > -500)
    if draw.coin("metal"):
        middle = int(rng.integers(0, max(1, count // 2)))
        spots = [(float(rng.uniform(-40, 40)), float(rng.uniform(-70, 10))) for _ in range(2)]
        for index in range(max(0, middle - 2), min(count, middle + 3)):
            for mx, my in spots:
                dx, dy = axis[None, :] - mx, axis[:, None] - my
                away = np.hypot(dx, dy) + 3
                angle = np.arctan2(dy, dx)
                rays = np.cos(angle * int(rng.integers(7, 22)) + float(rng.uniform(0, 6)))
                slices[index] += (float(rng.uniform(300, 2500)) * rays / away).astype(np.float32)
                slices[index][away < 5] = 3000.0
    if draw.coin("truncated"):
        outside = radius > size * stack.pixel_mm / 2 * 0.9
        slices[:, outside] = -1024.0
