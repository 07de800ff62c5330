"""What one side's vessels lack against the other's: length and volume by territory, the missing stretch, its beginning.

Everything is measured on the left half of the grid; the right side is read from the mirrored grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.lvo.landmarks import Landmarks, source, territories
from wetread.lvo.tree import Tree, vessel_tree
from wetread.lvo.vessels import Vessels

FEATURES: Final = (
    "proximal_length",
    "proximal_volume",
    "proximal_stretch",
    "proximal_loss",
    "distal_length",
    "distal_volume",
    "distal_stretch",
    "distal_loss",
    "abrupt_end",
    "carotid_loss",
    "distal_cut",
    "distal_short",
)
"""Deficits of length and volume (-1..1), longest missing stretch (cm), mean loss of brightness (0..1), calibre of an
abrupt end (0..1), and the loss of brightness of the carotid's end, which a stenosis in the neck explains. The last two
ask where blood comes from: the longest distal stretch (cm) opposite which nothing hangs together with the carotid's
end, and how little vessel of this side does (a logarithm), which needs no other side.
"""
REACH_MM: Final = (7, 11)
"""A vessel counts as present when the other side's mirror image runs within this distance: proximal, distal."""
GONE: Final = 0.45
"""Loss of brightness from which a vessel counts as missing: what collaterals bring is dimmer than the vessel was."""
CONDUCTS: Final = 0.14
"""Share of the lumen's height from which vessel hangs together; a clot stands lower."""
BRIGHT: Final = 0.5
"""Share of the lumen's height that a vessel keeps up to where it is shut."""
TIP_MM: Final = 9.0
"""An end belongs to a missing stretch that begins within this distance."""
CLOSE_MM: Final = 4
UPSTREAM_MM: Final = 16.0
GAP_MM: Final = 3.0
"""A stretch is known by what has nothing within reach; its beginning is sought this far upstream with a closer reach,
over gaps that a crossing vessel leaves."""
USUAL_MM: Final = 100.0
"""Length of a side's distal vessels that is neither little nor much."""
LEAST_STRETCH_MM: Final = 8.0
LONGEST_CM: Final = 6.0
FULL_STRETCH_MM: Final = 15.0
_CUBE: Final = np.ones((3, 3, 3), dtype=bool)
_FEW_MM = (15.0, 60.0)
_FEW_VOXELS = (60.0, 100.0)
_FEW_FED_MM = 20.0

Side = Literal["left", "right"]
Site = Literal["ICA", "M1", "M2"]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SideReading:
    """One side against the other. ``features`` in the order of FEATURES; ``missing`` [z, y, x] on this side.

    Length in mm of centreline and volume in mL of vessel: proximal and distal territory of this side.
    """

    side: Side
    features: Floats
    missing: Mask
    end: tuple[int, int, int] | None
    """Grid index of the end point: where vessel stops, or where the missing stretch begins."""
    site: Site | None
    length_mm: tuple[float, float]
    volume_ml: tuple[float, float]
    missing_mm: float


@dataclass(frozen=True, slots=True)
class _Half:
    """The left half of the (mirrored) grid: vessels, their tree and how thick they look."""

    weight: FloatArray
    fed: FloatArray
    """What hangs together with the carotid's end, over pale vessels too: blood that came the straight way."""
    tree: Tree
    bright: Tree
    """The tree of the well-filled vessels only: its tips are where filling ends."""
    calibre: FloatArray


def read_sides(vessels: Vessels, marks: Landmarks) -> tuple[SideReading, SideReading]:
    """Compare both sides about the middle of the grid's last axis; left first."""
    middle = (vessels.weight.shape[2] - 1) // 2
    halves = [
        _half(vessels.weight[:, :, ::way][:, :, middle:], vessels.faint[:, :, ::way][:, :, middle:], marks)
        for way in (1, -1)
    ]
    proximal, distal = territories(marks, halves[0].weight.shape)
    shape = vessels.weight.shape
    left = _reading("left", halves[0], halves[1], (proximal, distal), marks, shape)
    right = _reading("right", halves[1], halves[0], (proximal, distal), marks, shape)
    return left, right


def _half(weight: FloatArray, faint: FloatArray, marks: Landmarks) -> _Half:
    near = np.ascontiguousarray(weight)
    root = (float(marks.plane), float(marks.row), 12.0 * marks.scale)
    calibre = ndimage.gaussian_filter(near, 1.5, truncate=2.5)
    return _Half(
        near,
        _fed(faint, source(marks, near.shape)),
        vessel_tree(near > 0, root),
        vessel_tree(near > BRIGHT, root),
        np.asarray(calibre, dtype=np.float32),
    )


def _fed(faint: FloatArray, start: Mask) -> FloatArray:
    """Leave what vessel hangs together with *start*; a clot is darker than ``CONDUCTS``."""
    labels, count = ndimage.label(faint > CONDUCTS, _CUBE)
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.unique(labels[start])] = True
    kept[0] = False
    return np.asarray(faint * kept[labels], dtype=np.float32)


def _reading(
    side: Side, mine: _Half, other: _Half, parts: tuple[Mask, Mask], marks: Landmarks, shape: tuple[int, ...]
) -> SideReading:
    proximal, distal = (part[tuple(other.tree.points.T)] for part in parts)
    carotid = marks.at_carotid_end(other.tree.points)
    losses = [
        _loss(mine.weight, other, reach, chosen)
        for reach, chosen in zip(REACH_MM, (proximal | carotid, distal), strict=True)
    ]
    features: list[float] = []
    lengths, volumes = [], []
    gone = np.zeros(len(other.tree.points), dtype=bool)
    for index, (part, inside, loss) in enumerate(zip(parts, (proximal, distal), losses, strict=True)):
        mm, other_mm = _length(mine.tree, part), _length(other.tree, part)
        voxels, other_voxels = (float(half.weight[part].sum()) for half in (mine, other))
        missing = inside & (loss > GONE)
        features += [
            (other_mm - mm) / (other_mm + mm + _FEW_MM[index]),
            (other_voxels - voxels) / (other_voxels + voxels + _FEW_VOXELS[index]),
            _longest_cm(other.tree, missing),
            _mean(loss, other.tree.length, inside),
        ]
        lengths.append(mm)
        volumes.append(voxels / 1000.0)
        gone |= missing
    stretches = [s for s in _stretches(other.tree, gone) if s.length_mm >= LEAST_STRETCH_MM]
    end, abrupt = _end(mine, other, stretches)
    features += [
        abrupt,
        _mean(losses[0], other.tree.length, carotid),
        _longest_cm(other.tree, _loss(mine.fed, other, REACH_MM[0], distal) > GONE),
        float(np.log(USUAL_MM / (_length(mine.tree, parts[1] & (mine.fed > 0)) + _FEW_FED_MM))),
    ]
    return SideReading(
        side=side,
        features=np.asarray(features),
        missing=_painted(stretches, other, shape, side),
        end=None if end is None else _on_grid(end, shape, side),
        site=None if end is None else marks.segment(end),
        length_mm=(lengths[0], lengths[1]),
        volume_ml=(volumes[0], volumes[1]),
        missing_mm=sum(s.length_mm for s in stretches),
    )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Connected centreline of the other side that has nothing opposite; ``begin``: its point nearest to the root."""

    points: Indices
    length_mm: float
    begin: int


def _stretches(tree: Tree, gone: Mask) -> list[_Stretch]:
    places = np.flatnonzero(gone)
    points = tree.points[places]
    if len(points) == 0:
        return []
    low = points.min(axis=0)
    grid = np.zeros(points.max(axis=0) - low + 1, dtype=bool)
    grid[tuple((points - low).T)] = True
    # Two voxels of present vessel within a missing branch do not part it.
    labels = ndimage.label(ndimage.binary_dilation(grid, _CUBE))[0][tuple((points - low).T)]
    length, way = tree.length[gone], tree.way[gone]
    out = []
    for label in np.unique(labels):
        of = np.flatnonzero(labels == label)
        first = of[int(way[of].argmin())]
        out.append(_Stretch(points[of], float(length[of].sum()), int(places[first])))
    return out


def _longest_cm(tree: Tree, gone: Mask) -> float:
    return min(max((s.length_mm for s in _stretches(tree, gone)), default=0.0) / 10.0, LONGEST_CM)


def _end(mine: _Half, other: _Half, stretches: list[_Stretch]) -> tuple[Indices | None, float]:
    """Return the end point of this side's vessels and how abrupt it is.

    The longest missing stretch names the place, followed upstream along the other side's tree; a tip of this side's
    well-filled vessels near it is the end, and is abrupt when it is thick and much is missing behind it.
    """
    if not stretches:
        return None, 0.0
    first = max(stretches, key=lambda s: s.length_mm)
    points = other.tree.points
    near = np.linalg.norm(points - points[first.begin], axis=1) < UPSTREAM_MM + CLOSE_MM
    begin = points[_upstream(other.tree, first.begin, _loss(mine.weight, other, CLOSE_MM, near) > GONE)]
    tips = mine.bright.points[mine.bright.tips]
    if len(tips) == 0:
        return begin, 0.0
    distance = np.linalg.norm(tips - begin, axis=1)
    nearest = int(distance.argmin())
    if distance[nearest] > TIP_MM:
        return begin, 0.0
    thick = float(mine.calibre[_box(tips[nearest], 2)].max())
    full = float(np.percentile(mine.calibre[mine.weight > 0], 98))
    abrupt = min(thick / max(full, 1e-6), 1.0) * min(first.length_mm / FULL_STRETCH_MM, 1.0)
    return tips[nearest], abrupt


def _upstream(tree: Tree, start: int, gone: Mask) -> int:
    """Return the point farthest upstream of *start* up to which the tree is gone, small gaps aside."""
    last = node = start
    while tree.before[node] >= 0:
        node = int(tree.before[node])
        if gone[node]:
            last = node
        if tree.way[last] - tree.way[node] > GAP_MM or tree.way[start] - tree.way[node] > UPSTREAM_MM:
            break
    return last


def _painted(stretches: list[_Stretch], other: _Half, shape: tuple[int, ...], side: Side) -> Mask:
    """Return the voxels of the other side's missing vessels, mirrored onto this side."""
    half = np.zeros(other.weight.shape, dtype=bool)
    for stretch in stretches:
        half[tuple(stretch.points.T)] = True
    half = ndimage.binary_dilation(half, _CUBE) & (other.weight > 0) if stretches else half
    out = np.zeros(shape, dtype=bool)
    out[:, :, (shape[2] - 1) // 2 :] = half
    return out if side == "left" else out[:, :, ::-1]


def _on_grid(point: Indices, shape: tuple[int, ...], side: Side) -> tuple[int, int, int]:
    middle = (shape[2] - 1) // 2
    z, y, x = (int(v) for v in point)
    return z, y, middle + x if side == "left" else shape[2] - 1 - middle - x


def _loss(mine: FloatArray, other: _Half, reach: int, chosen: Mask) -> Floats:
    """Return how much darker than *chosen* centreline points of the other side the brightest vessel opposite is, 0..1.

    Points that are not chosen get 0.
    """
    out = np.zeros(len(chosen))
    points = other.tree.points[chosen]
    if len(points):
        low, high = np.maximum(points.min(axis=0) - reach, 0), points.max(axis=0) + reach + 1
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        brightest = ndimage.maximum_filter(mine[box], 2 * reach - 1)[tuple((points - low).T)]
        out[chosen] = np.clip(1.0 - brightest / np.maximum(other.weight[tuple(points.T)], 1e-3), 0.0, 1.0)
    return out


def _length(tree: Tree, part: Mask) -> float:
    return float(tree.length[part[tuple(tree.points.T)]].sum()) if len(tree.points) else 0.0


def _mean(values: Floats, weights: Floats, chosen: Mask) -> float:
    total = float(weights[chosen].sum())
    return float((values[chosen] * weights[chosen]).sum()) / total if total > 0 else 0.0


def _box(point: Indices, reach: int) -> tuple[slice, ...]:
    return tuple(slice(max(int(v) - reach, 0), int(v) + reach + 1) for v in point)
