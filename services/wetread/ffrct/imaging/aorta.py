"""Finds the ascending aorta: a round bright body tracked from slice to slice above the ventricles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from .image import Blood, CtImage, FloatArray, Image, Mask

LOWEST_HU: Final = 180.0
AREA_MM2: Final = (300.0, 1800.0)
ROUNDNESS: Final = 0.8
SLICE_MM: Final = 2.0
SHORTEST_MM: Final = 14.0
EDGE_SHIFT_MM: Final = 3.0
RADIUS_CHANGE: Final = 0.12
REACH_MM: Final = 8.0
ROOT_MM: Final = 14.0
VALVE_MM: Final = 1.0
HIGH_MM: Final = 25.0
BRIGHT_SHARE: Final = 0.85
VESSEL_MM: Final = 3.0
"""Opening that takes arteries off the aortic wall before a slice is judged."""


@dataclass(frozen=True, slots=True)
class Aorta:
    """The ascending aorta on the working grid; its contrast; where it starts (plane of the lowest round section)."""

    mask: Mask
    distance_mm: Image
    """Distance to the mask, above its bottom by 3 mm or more; 99 elsewhere and beyond 8 mm."""
    blood: Blood
    bottom: int
    centre: FloatArray
    """(row, column) of its middle at the bottom."""


@dataclass(frozen=True, slots=True)
class _Disc:
    plane: int
    row: float
    column: float
    radius: float
    label: int


def find_aorta(image: CtImage) -> Aorta | None:
    """Track round bright sections through every 2 mm; the front-most of the high, bright tracks is the ascending aorta.

    The descending aorta lies behind it. None when no track of 14 mm is found.
    """
    step = float(image.step_mm[0])
    stride = max(1, round(SLICE_MM / step))
    threshold = _threshold(image.hu)
    planes = list(range(0, image.hu.shape[0], stride))
    labelled = {plane: _bodies(image.hu[plane], threshold, step) for plane in planes}
    tracks = _tracks(planes, labelled, step)
    long = [t for t in tracks if (len(t) - 1) * stride * step >= SHORTEST_MM]
    if not long:
        return None
    return _filled(image, _ascending(image, long, step), threshold)


def _ascending(image: CtImage, tracks: list[list[_Disc]], step: float) -> list[_Disc]:
    """Of the tracks that reach as high as any and are as bright as any, the one that lies furthest to the front.

    The descending aorta lies behind; ventricles end lower; the pulmonary trunk has less contrast in a coronary scan.
    """
    up = 1.0 if float(image.axes[0][2]) > 0.0 else -1.0
    backwards = 1.0 if float(image.axes[1][1]) > 0.0 else -1.0

    def top(track: list[_Disc]) -> float:
        return max(up * d.plane for d in track) * step

    def bright(track: list[_Disc]) -> float:
        return float(np.median([image.hu[d.plane, round(d.row), round(d.column)] for d in track]))

    highest = max(top(t) for t in tracks)
    high = [t for t in tracks if top(t) >= highest - HIGH_MM]
    brightest = max(bright(t) for t in high)
    return min(
        (t for t in high if bright(t) >= BRIGHT_SHARE * brightest),
        key=lambda t: float(np.mean([d.row for d in t])) * backwards,
    )


def _threshold(hu: Image) -> float:
    """Between soft tissue and contrast: Otsu on what is brighter than fat, at least 180 HU."""
    sample = hu[::3, ::3, ::3]
    sample = sample[(sample > 0.0) & (sample < 700.0)]
    if sample.size < 100:
        return LOWEST_HU
    counts, edges = np.histogram(sample, bins=140, range=(0.0, 700.0))
    middle = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    mean_below = np.cumsum(counts * middle) / np.maximum(below, 1.0)
    mean_above = (np.sum(counts * middle) - np.cumsum(counts * middle)) / np.maximum(above, 1.0)
    between = below * above * (mean_below - mean_above) ** 2
    return max(LOWEST_HU, float(middle[int(between.argmax())]))


def _bodies(plane: Image, threshold: float, step: float) -> list[_Disc]:
    """Round bodies of a slice."""
    bright = ndimage.gaussian_filter(plane, 0.8 / step) > threshold
    inside = ndimage.distance_transform_edt(bright) * step
    core = inside > VESSEL_MM
    # The distance from the core's complement gives the opened body back.
    opened = ndimage.distance_transform_edt(~core) * step <= VESSEL_MM
    labels, count = ndimage.label(opened)
    discs = []
    boxes = ndimage.find_objects(labels)
    for number in range(1, count + 1):
        box = boxes[number - 1]
        body = labels[box] == number
        area = float(body.sum()) * step**2
        if not AREA_MM2[0] <= area <= AREA_MM2[1]:
            continue
        rows, columns = np.nonzero(body)
        radius = np.sqrt(area / np.pi)
        # A disc has a second moment of r^2/2; anything else has more.
        spread = (rows.var() + columns.var()) * step**2
        if 0.5 * radius**2 / max(spread, 1e-6) < ROUNDNESS**0.5:
            continue
        discs.append(
            _Disc(0, float(rows.mean() + box[0].start), float(columns.mean() + box[1].start), float(radius), number)
        )
    return discs


def _tracks(planes: list[int], labelled: dict[int, list[_Disc]], step: float) -> list[list[_Disc]]:
    done: list[list[_Disc]] = []
    growing: list[list[_Disc]] = []
    for plane in planes:
        discs = [_Disc(plane, d.row, d.column, d.radius, d.label) for d in labelled[plane]]
        following: list[list[_Disc]] = []
        for track in growing:
            last = track[-1]
            fits = [
                d
                for d in discs
                if np.hypot(d.row - last.row, d.column - last.column) * step <= EDGE_SHIFT_MM
                and abs(d.radius / last.radius - 1.0) <= RADIUS_CHANGE
            ]
            if fits:
                best = min(fits, key=lambda d: np.hypot(d.row - last.row, d.column - last.column))
                discs.remove(best)
                following.append([*track, best])
            else:
                done.append(track)
        following += [[d] for d in discs]
        growing = following
    return done + growing


def _filled(image: CtImage, track: list[_Disc], threshold: float) -> Aorta:
    """Aortic mask: per plane the bright voxels within the tracked circle (interpolated, 6 % wider).

    The root below the lowest round section, where the ventricle joins in, is taken as 14 mm more of the same circle.
    """
    step = float(image.step_mm[0])
    planes = np.array([d.plane for d in track])
    up = float(image.axes[0][2]) > 0.0
    root = round(ROOT_MM / step)
    first, last = int(planes[0]), int(planes[-1])
    bottom = first if up else last
    first, last = (max(0, first - root), last) if up else (first, min(image.hu.shape[0] - 1, last + root))
    mask = np.zeros(image.hu.shape, dtype=np.bool_)
    core = []
    at = np.arange(first, last + 1)
    rows = np.interp(at, planes, [d.row for d in track])
    columns = np.interp(at, planes, [d.column for d in track])
    radii = np.interp(at, planes, [d.radius for d in track]) / step
    i, j = np.ogrid[: image.hu.shape[1], : image.hu.shape[2]]
    for plane, row, column, radius in zip(at, rows, columns, radii, strict=True):
        distance = np.hypot(i - row, j - column)
        mask[plane] = (distance <= 1.06 * radius) & (image.hu[plane] > 0.6 * threshold)
        if (plane >= bottom) == up:
            core.append(image.hu[plane][distance <= 0.75 * radius])
    values = np.concatenate(core)
    lowest = 0 if up else len(at) - 1
    return Aorta(
        mask,
        _distance(mask, at if up else at[::-1], step),
        Blood(float(np.median(values)), float(values.std())),
        int(at[lowest]),
        np.array([rows[lowest], columns[lowest]]),
    )


def _distance(mask: Mask, planes: FloatArray, step: float) -> Image:
    """Distance to the mask near it, upwards from 3 mm over its lowest plane (*planes* run upwards)."""
    out = np.full(mask.shape, np.float32(99.0))
    margin = round(REACH_MM / step)
    bounds = ndimage.find_objects(mask.view(np.uint8))[0]
    box = tuple(slice(max(0, b.start - margin), b.stop + margin) for b in bounds)
    near = (ndimage.distance_transform_edt(~mask[box]) * step).astype(np.float32)
    near[near > REACH_MM] = 99.0
    out[box] = near
    spare = round(VALVE_MM / step)
    lowest, upwards = int(planes[0]), planes[-1] >= planes[0]
    if upwards:
        out[: lowest + spare] = 99.0
    else:
        out[max(0, lowest - spare + 1) :] = 99.0
    return out
