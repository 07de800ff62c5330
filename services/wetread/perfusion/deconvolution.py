"""Delay-insensitive deconvolution: block-circulant SVD with an oscillation limit (Wu et al., Magn Reson Med 50, 2003).

The block-circulant matrix of the arterial curve is diagonal in Fourier space, and its singular values are the
magnitudes of the curve's spectrum: truncating them is dropping frequencies. Every voxel keeps as many as its noise
allows, measured by the oscillation of its residue function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

OSCILLATION: Final = 0.02
"""Largest oscillation index of a residue function; chosen on phantoms of split tune (Wu et al. used 0.035)."""
LEVELS: Final = (0.03, 0.05, 0.07, 0.10, 0.14, 0.20, 0.28, 0.40, 0.55, 0.75)
"""Truncation: singular values below this share of the largest are dropped; tried from left to right."""
TAIL_S: Final = 20.0
"""Beyond the scan every curve is continued by a line to zero over this time."""
TRANSITS_S: Final = np.geomspace(1.0, 40.0, 40)
"""Transit times of ``truncated_table``."""
_FINE: Final = 8
_BATCH: Final = 8192


@dataclass(frozen=True, slots=True)
class Residues:
    """Flow-scaled residue functions [voxel, time] in 1/s, as long as twice the scan: the second half is before it.

    ``level``: index into LEVELS that each voxel ended with.
    """

    functions: npt.NDArray[np.float32]
    level: npt.NDArray[np.intp]


def deconvolve(curves: Floats, arterial: Floats, step_s: float) -> Residues:
    """Deconvolve *curves* [voxel, time] by *arterial* [time], both sampled every *step_s* seconds."""
    size = 2 * len(arterial)
    spectrum = arterial_spectrum(arterial, step_s)
    functions = np.zeros((len(curves), size), dtype=np.float32)
    level = np.zeros(len(curves), dtype=np.intp)
    for first in range(0, len(curves), _BATCH):
        part = slice(first, first + _BATCH)
        _deconvolve(curves[part], spectrum, step_s, functions[part], level[part])
    return Residues(functions, level)


def _deconvolve(
    curves: Floats,
    spectrum: npt.NDArray[np.complex128],
    step_s: float,
    functions: npt.NDArray[np.float32],
    level: npt.NDArray[np.intp],
) -> None:
    size = functions.shape[1]
    wanted = np.fft.rfft(continued(curves, step_s, size), axis=1)
    unsettled = np.arange(len(curves))
    for index, share in enumerate(LEVELS):
        residue = np.fft.irfft(wanted[unsettled] * truncated_inverse(spectrum, share), size, axis=1)
        settled = oscillation(residue) < OSCILLATION
        if index == len(LEVELS) - 1:
            settled[:] = True
        functions[unsettled[settled]] = residue[settled]
        level[unsettled[settled]] = index
        unsettled = unsettled[~settled]
        if len(unsettled) == 0:
            return


def oscillation(residue: Floats) -> Floats:
    """Return the oscillation index of residue functions [voxel, time]; infinite for one that is nowhere positive."""
    top = residue.max(axis=1)
    bend = np.abs(np.diff(residue, n=2, axis=1)).sum(axis=1)
    return np.where(top > 0, bend / (residue.shape[1] * np.maximum(top, 1e-12)), np.inf)


def continued(curves: Floats, step_s: float, size: int) -> Floats:
    """Return *curves* [voxel, time] continued to *size* samples: to zero over ``TAIL_S``, then zeros."""
    out = np.zeros((len(curves), size))
    out[:, : curves.shape[1]] = curves
    tail = min(round(TAIL_S / step_s), size - curves.shape[1])
    if tail > 0:
        last = curves[:, -3:].mean(axis=1)
        out[:, curves.shape[1] : curves.shape[1] + tail] = last[:, None] * (1 - (np.arange(tail) + 1) / (tail + 1))
    return out


def arterial_spectrum(arterial: Floats, step_s: float) -> npt.NDArray[np.complex128]:
    """Return the spectrum of the arterial curve, continued to twice its length, times the step."""
    return np.asarray(np.fft.rfft(continued(arterial[None], step_s, 2 * len(arterial))[0]) * step_s)


def truncated_inverse(spectrum: npt.NDArray[np.complex128], share: float) -> npt.NDArray[np.complex128]:
    """Return one over the spectrum where it is at least *share* of its largest, else zero."""
    kept = np.abs(spectrum) >= share * np.abs(spectrum).max()
    kept[0] = True
    return np.where(kept, 1.0 / np.where(kept, spectrum, 1.0), 0.0)


def peak_times(residue: npt.NDArray[np.floating], step_s: float) -> Floats:
    """Return the time of the maximum of [voxel, time], to a fraction of a sample; before the artery it is negative."""
    size = residue.shape[1]
    at = residue.argmax(axis=1)
    rows = np.arange(len(residue))
    before, here, after = residue[rows, at - 1], residue[rows, at], residue[rows, (at + 1) % size]
    bend = before - 2 * here + after
    fraction = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
    time = (at + np.clip(fraction, -0.5, 0.5)) * step_s
    return np.asarray(np.where(time > 0.75 * size * step_s, time - size * step_s, time), dtype=np.float64)


def truncated_table(arterial: Floats, step_s: float, share: float) -> tuple[Floats, Floats]:
    """Return what truncation at *share* makes of exponential residues of area 1 and delay 0, per transit time.

    Heights (1/s) and times of the maximum (s): the curves are made with the measured arterial curve, sampled finely.
    """
    size = len(arterial)
    fine = step_s / _FINE
    times = np.arange((size - 1) * _FINE + 1) * fine
    smooth = np.interp(times, np.arange(size) * step_s, arterial)
    responses = np.exp(-times[None] / TRANSITS_S[:, None]) / TRANSITS_S[:, None]
    responses[:, 0] *= 0.5
    length = 2 * len(times)
    product = np.fft.rfft(smooth, length)[None] * np.fft.rfft(responses, length, axis=1)
    curves = np.fft.irfft(product, length, axis=1)[:, : len(times) : _FINE] * fine
    wanted = np.fft.rfft(continued(curves, step_s, 2 * size), axis=1)
    residue = np.fft.irfft(wanted * truncated_inverse(arterial_spectrum(arterial, step_s), share), 2 * size, axis=1)
    return np.asarray(residue.max(axis=1), dtype=np.float64), peak_times(residue, step_s)
