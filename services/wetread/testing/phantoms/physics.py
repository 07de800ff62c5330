"""Physics tier: project a slice with a poly-energetic beam, add photon noise, reconstruct it.

Parallel beam (what fan-beam data become after rebinning). Each pixel is water, bone or air by HU;
line integrals of both materials are taken ray by ray (Joseph's method), combined over a small
spectrum, noised, linearised for water and back-projected with a kernel's window. Cupping and the
dark bars between the petrous bones come out by themselves.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, ndimage, sparse

from wetread.testing.phantoms.acquisition import KERNELS
from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.spec import FloatArray
from wetread.testing.phantoms.stack import Stack

VIEWS = 300
# keV; linear attenuation (1/mm) of water and of cortical bone (1.92 g/cm3), rounded from the
# public NIST tables of mass attenuation coefficients
ENERGIES = np.array([40.0, 50.0, 60.0, 70.0, 80.0, 100.0, 120.0])
WATER = np.array([0.02683, 0.02269, 0.02059, 0.01935, 0.01837, 0.01707, 0.01614])
BONE = np.array([0.12777, 0.08141, 0.06044, 0.04980, 0.04280, 0.03563, 0.03190])
_BONE_HU_FULL = 1900.0


def spectrum(kvp: float) -> FloatArray:
    """Relative photon numbers at ENERGIES of a filtered tungsten beam (Kramers, smooth filter)."""
    if not 70 <= kvp <= 150:
        raise PhantomSpecError(f"tube voltage {kvp} kV is outside 70..150")
    kramers = np.clip(kvp - ENERGIES, 0, None) / ENERGIES
    filtered = kramers * np.exp(-5.5 * 0.27 * (30.0 / ENERGIES) ** 3 * 3.0)
    if not filtered.any():
        raise PhantomSpecError(f"tube voltage {kvp} kV leaves no photons")
    out: FloatArray = (filtered / filtered.sum()).astype(np.float32)
    return out


@lru_cache(maxsize=2)
def projector(size: int, views: int = VIEWS) -> sparse.csr_array:
    """Joseph line-integral matrix [views * size, size * size], unit pixel, ray spacing one pixel."""
    half = (size - 1) / 2
    line = np.arange(size) - half
    offsets = np.arange(size) - half
    rows, columns, values = [], [], []
    for view in range(views):
        angle = np.pi * view / views
        cos, sin = np.cos(angle), np.sin(angle)
        # ray: x cos + y sin = s; step along the axis that the ray follows more closely
        if abs(sin) >= abs(cos):
            cross = (offsets[:, None] - line[None, :] * cos) / sin + half
            length, stride, along = 1 / abs(sin), size, 1
        else:
            cross = (offsets[:, None] - line[None, :] * sin) / cos + half
            length, stride, along = 1 / abs(cos), 1, size
        low = np.floor(cross).astype(np.int64)
        share = cross - low
        steps = np.broadcast_to(np.arange(size)[None, :], cross.shape)
        row = np.broadcast_to(np.arange(size)[:, None] + view * size, cross.shape)
        circle = offsets[:, None] ** 2 + 0 * line[None, :] < half**2
        for shift, weight in ((0, 1 - share), (1, share)):
            index = low + shift
            fine = (index >= 0) & (index < size) & (weight > 1e-6) & circle
            rows.append(row[fine].astype(np.int32))
            columns.append((index[fine] * stride + steps[fine] * along).astype(np.int32))
            values.append((weight[fine] * length).astype(np.float32))
    return sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(views * size, size * size),
    )


def project(images: FloatArray, pixel_mm: float, views: int = VIEWS) -> FloatArray:
    """Line integrals (value x mm) of [n, size, size] images: [n, views, size]."""
    count, size, _ = images.shape
    flat = np.ascontiguousarray(images.reshape(count, -1).T)
    lines = projector(size, views) @ flat
    out: FloatArray = (lines.T.reshape(count, views, size) * np.float32(pixel_mm)).astype(np.float32)
    return out


def reconstruct(sinogram: FloatArray, pixel_mm: float, cutoff: float, boost: float) -> FloatArray:
    """Filtered back-projection of [n, views, size]; `cutoff` (1/mm) and `boost` shape the kernel."""
    count, views, size = sinogram.shape
    padded = 2 * size
    # the spatial-domain ramp keeps the zero frequency right (Kak and Slaney, ch. 3)
    ramp = np.zeros(padded)
    odd = np.arange(1, size, 2)
    ramp[0] = 0.25
    ramp[odd] = ramp[-odd] = -1.0 / (np.pi * odd) ** 2
    response = np.real(fft.rfft(ramp)) * 2
    frequency = fft.rfftfreq(padded, pixel_mm)
    window = np.exp(-((frequency / cutoff) ** 2)) * (1 + boost * (frequency / cutoff) ** 2)
    transfer = (response * window).astype(np.float32)
    filtered = fft.irfft(fft.rfft(sinogram, padded, axis=2) * transfer, padded, axis=2)
    filtered = filtered[:, :, :size].astype(np.float32)
    lines = np.ascontiguousarray(filtered.transpose(1, 2, 0))
    half = (size - 1) / 2
    axis = np.arange(size) - half
    out = np.zeros((size * size, count), dtype=np.float32)
    for view in range(views):
        angle = np.pi * view / views
        where = (axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle) + half).ravel()
        low = np.clip(np.floor(where).astype(np.int64), 0, size - 2)
        share = np.clip(where - low, 0, 1).astype(np.float32)[:, None]
        line = lines[view]
        out += line[low] + share * (line[low + 1] - line[low])
    image = out.T.reshape(count, size, size)
    result: FloatArray = (image * np.float32(np.pi / (2 * views) / pixel_mm)).astype(np.float32)
    return result


def scan(draw: Draw, stack: Stack, slices: FloatArray, kernel: str, kvp: int) -> tuple[FloatArray, float]:
    """Scan and reconstruct HU slices; returns new slices and the measured noise sigma, HU."""
    rng = draw.rng
    dose = float(np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
    photons = 2.0e6 * dose * min(stack.thickness_mm, 10.0) / 5.0
    weights = spectrum(kvp)
    density = np.clip(slices / 1000.0 + 1.0, 0.0, None)
    bone_share = np.clip((slices - 150.0) / (_BONE_HU_FULL - 150.0), 0.0, 1.2).astype(np.float32)
    effective_water = float(weights @ WATER)
    # bone carries its excess; the soft part keeps the pixel's mean attenuation at mid energy
    excess = float(weights @ (BONE - WATER)) / effective_water
    scale = (_BONE_HU_FULL / 1000.0) / excess
    bone = bone_share * np.float32(scale)
    water = np.clip(density - bone * np.float32(excess), 0, None).astype(np.float32)
    lines = project(np.concatenate([water, bone]), stack.render_mm)
    water_mm, bone_mm = lines[: len(slices)], lines[len(slices) :]
    signal = np.zeros_like(water_mm)
    for share, mu_water, mu_bone in zip(weights, WATER, BONE, strict=True):
        signal += share * np.exp(-(water_mm * np.float32(mu_water) + bone_mm * np.float32(mu_bone - mu_water)))
    counted = rng.poisson(np.clip(signal * photons, 0, 1e9)).astype(np.float32)
    counted += rng.normal(0, 6.0, counted.shape).astype(np.float32)
    measured = -np.log(np.clip(counted, 1.0, None) / np.float32(photons))
    # water correction: invert the poly-energetic curve of pure water
    depth = np.linspace(0, 600, 1201)
    curve = -np.log((weights[:, None] * np.exp(-WATER[:, None] * depth[None, :])).sum(axis=0))
    corrected = np.interp(measured, curve, depth).astype(np.float32)
    cutoff, _, boost = KERNELS[kernel]
    image = reconstruct(corrected, stack.render_mm, cutoff * 1.4, boost)
    hu = ((image - 1.0) * 1000.0).astype(np.float32)
    inside = np.abs(slices - 30) < 25
    rough = hu - ndimage.uniform_filter(hu, (0, 5, 5))
    noise = float(rough[inside].std()) if inside.any() else 0.0
    return hu, noise


def pyramid_noise(draw: Draw, stack: Stack, slices: FloatArray) -> float:
    """Second simulator: noise as a sum of interpolated octaves, stronger along dense rays.

    Shares no code with `acquisition.add_noise`; returns the mean sigma, HU.
    """
    rng = draw.rng
    count, size, _ = slices.shape
    level = draw.num("noise.at_5mm_hu") * float(np.clip((5 / stack.thickness_mm) ** 0.5, 0.6, 2.6))
    mix = np.array([0.25, 0.5, 1.0, 0.8]) * rng.uniform(0.5, 1.5, 4)
    for index in range(count):
        total = np.zeros((size, size), dtype=np.float32)
        for octave, weight in zip((16, 8, 4, 2), mix, strict=True):
            small = rng.standard_normal((size // octave + 2,) * 2, dtype=np.float32)
            total += np.float32(weight) * ndimage.zoom(small, size / (small.shape[0] - 2), order=1)[:size, :size]
        total -= ndimage.uniform_filter(total, 15)
        dense = np.clip(slices[index], -1000, 1500) / 1000 + 1
        load = dense.sum(axis=0)[None, :] + dense.sum(axis=1)[:, None]
        amplitude = level * np.sqrt(np.exp((load - load.mean()) / (2 * load.std() + 1e-3) * 0.35))
        slices[index] += amplitude.astype(np.float32) * total / total.std()
    return level
