"""Reasons why a CT angiogram cannot be used, found in the image: one stable code each, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from .aorta import Aorta
from .image import CtImage, FloatArray
from .lumen import Lumen
from .resample import coarse

LEAST_AORTA_HU: Final = 200.0
LUNG_HU: Final = -600.0
LUNG_SHARE: Final = 0.02
MOST_SHIFT_MM: Final = 1.5
WIDEST_EDGE_MM: Final = 3.0
MOST_CALCIUM: Final = 0.35
REPORTABLE_RADIUS_MM: Final = 0.75
OUTLINE_MM: Final = 2.5
EDGE_PER_SD: Final = 2.563
"""10-90 % width of a Gaussian edge in its sd."""
RAY_STEP: Final = 0.25
"""Of the rays through the aortic wall, in voxels; they are smoothed by one step."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stable code and advice. There is no number beside it."""

    code: str
    advice: str


def no_ostia() -> Refusal:
    """No artery was found at the aortic wall."""
    return Refusal("no_ostia", "no coronary artery could be followed from the ascending aorta")


def check_contents(image: CtImage) -> Refusal | None:
    """A heart lies between lungs: refuse when there is no lung air beside soft tissue."""
    thin, _ = coarse(image, 4.0)
    lung = float(np.mean((thin < LUNG_HU) & (thin > -990.0)))
    soft = float(np.mean((thin > -150.0) & (thin < 700.0)))
    if lung < LUNG_SHARE or soft < 0.1:
        return Refusal("not_cardiac", "no lung beside soft tissue in the field of view; send a CT of the heart")
    return None


def check_motion(image: CtImage, width_mm: float) -> Refusal | None:
    """Slabs that do not fit together, or an aortic wall blurred over more than 3 mm (10-90 %)."""
    shift = slab_shift(image)
    if shift > MOST_SHIFT_MM:
        return Refusal("motion", f"neighbouring slices are shifted by {shift:.1f} mm; choose another phase")
    if width_mm > WIDEST_EDGE_MM:
        return Refusal("motion", f"the aortic wall is blurred over {width_mm:.1f} mm; choose another phase")
    return None


def slab_shift(image: CtImage) -> float:
    """Largest in-plane shift in mm between neighbouring slices, beyond what the slices around them show.

    The translation that best explains the difference of two slices by their gradients, on outlines smoothed by
    2.5 mm and sampled at about 1 mm: noise and small structures have no say in it.
    """
    stride = max(1, round(1.0 / float(image.step_mm[1])))
    pixel = float(image.step_mm[1]) * stride
    planes = np.clip(image.hu[:, ::stride, ::stride], -900.0, 100.0)
    smooth = ndimage.gaussian_filter(planes, (0.0, OUTLINE_MM / pixel, OUTLINE_MM / pixel))
    pair = 0.5 * (smooth[1:] + smooth[:-1])
    change = smooth[1:] - smooth[:-1]
    down, right = np.gradient(pair, axis=(1, 2))
    dd, rr, dr = ((a * b).sum(axis=(1, 2)) for a, b in ((down, down), (right, right), (down, right)))
    dc, rc = (down * change).sum(axis=(1, 2)), (right * change).sum(axis=(1, 2))
    determinant = np.maximum(dd * rr - dr**2, 1e-6)
    shift = np.stack([rr * dc - dr * rc, dd * rc - dr * dc]) / determinant * pixel
    drift = ndimage.median_filter(shift, size=(1, 9), mode="nearest")
    return float(np.hypot(*(shift - drift)).max(initial=0.0))


def edge_width(working: CtImage, aorta: Aorta) -> float:
    """Median width 10-90 % in mm of the aortic wall on rays in several planes: blur by motion."""
    step = float(working.step_mm[0])
    planes = np.flatnonzero(aorta.mask.any(axis=(1, 2)))
    up = float(working.axes[0][2]) > 0.0
    upper = planes[planes >= aorta.bottom] if up else planes[planes <= aorta.bottom]
    widths: list[FloatArray] = []
    for plane in upper[:: max(1, len(upper) // 12)]:
        row, column = ndimage.center_of_mass(aorta.mask[plane])
        radius = np.sqrt(aorta.mask[plane].sum() / np.pi)
        reach = np.arange(0.5 * radius, radius + 5.0 / step, RAY_STEP)
        angle = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
        at = np.stack([row + np.outer(np.sin(angle), reach), column + np.outer(np.cos(angle), reach)])
        profile = ndimage.map_coordinates(working.hu[plane], at.reshape(2, -1), order=1, mode="nearest")
        profile = ndimage.gaussian_filter1d(profile.reshape(48, -1).astype(np.float64), 1.0, axis=1)
        # Of a Gaussian edge, the steepest slope gives sd and with it the 10-90 % width.
        steepest = np.max(-np.diff(profile, axis=1), axis=1) / (RAY_STEP * step)
        spread = np.ptp(profile, axis=1) / np.maximum(steepest, 1.0) / np.sqrt(2.0 * np.pi)
        # Rays into another bright body have no wall.
        clean = profile.min(axis=1) < 0.4 * aorta.blood.hu
        widths.append(EDGE_PER_SD * spread[clean])
    if not widths or not np.concatenate(widths).size:
        return 0.0
    return float(np.percentile(np.concatenate(widths), 75))


def scan_blur(width_mm: float, image: CtImage, working: CtImage) -> float:
    """Blur of the scan (sd, mm) behind an aortic edge *width_mm* wide on the working grid.

    Two linear interpolations, each of a sixth of the squared step, and the smoothing along the rays are taken off.
    """
    step = float(working.step_mm[0])
    added = (float(np.mean(image.step_mm[1:] ** 2)) + step**2) / 6.0 + (RAY_STEP * step) ** 2
    return float(np.sqrt(max((width_mm / EDGE_PER_SD) ** 2 - added, 0.0)))


def check_calcium(lumens: Sequence[Lumen]) -> Refusal | None:
    """Too much of the reportable length is masked by calcium."""
    wide = [lumen.radius_mm > REPORTABLE_RADIUS_MM for lumen in lumens]
    total = sum(int(w.sum()) for w in wide)
    hidden = sum(int((w & lumen.calcium).sum()) for w, lumen in zip(wide, lumens, strict=True))
    if total and hidden > MOST_CALCIUM * total:
        return Refusal("too_calcified", f"calcium hides {100.0 * hidden / total:.0f} % of the arteries' length")
    return None
