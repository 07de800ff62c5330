"""The head's plane of symmetry: first from the middles of its rows, then where the head is most like its mirror image.

The middles of a turned oval's rows follow it by about a third. The mirror image has no such bias: of all planes near
the first one, that about which bone and brain correlate best with themselves is the plane of symmetry (a search over
a grid of directions and offsets, then the simplex method of Nelder and Mead).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from wetread.core.detector import FloatArray, Volume
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.lvo.scan import AIR_HU, Places, reduced, thickness_mm

LARGEST_TURN_DEG: Final = 25.0
SECTION_CM2: Final = (90.0, 400.0)
JERK_MM: Final = 2.6
"""The head's middle moves no further than this from one looked-at plane to the next, or the patient moved."""
LOOK_MM: Final = 3.0
COARSE_MM: Final = 4.0
"""Voxels of the grid on which the head is compared with its mirror image."""
REACH_MM: Final = (84.0, 110.0, 170.0)
"""Half width, half length and height of what is compared."""
SEARCH_DEG: Final = (np.arange(-20.0, 21.0, 5.0), np.arange(-15.0, 16.0, 5.0))
"""Turns and rolls about the first estimate that are tried, and offsets in mm."""
SEARCH_MM: Final = (-4.0, 0.0, 4.0)
LEAST_LIKENESS: Final = 0.7
"""Correlation of a head with its mirror image, at least, or it has no plane of symmetry to speak of."""
LEAST_PAIRS: Final = 500
SOFT_HU: Final = 80.0
BONE_HU: Final = 700.0
SOFT_SHARE: Final = 0.3
"""Brain counts, up to 80 HU, with this share of the signal; what is denser, up to bone, with the rest."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane x = offset + slope_y (y - y0) + slope_z (z - z0) in LPS mm about the centre (y0, z0)."""

    offset: float
    slopes: tuple[float, float]
    centre: tuple[float, float]

    @property
    def normal(self) -> Floats:
        """The unit normal, towards the patient's left."""
        across = np.array([1.0, -self.slopes[0], -self.slopes[1]])
        return np.asarray(across / np.linalg.norm(across), dtype=np.float64)

    @property
    def point(self) -> Floats:
        """A point of the plane, in the middle of the head."""
        return np.array([self.offset, *self.centre])

    @property
    def rotation(self) -> Floats:
        """The matrix from LPS to head axes: left, back, up."""
        back = np.cross(np.array([0.0, 0.0, 1.0]), self.normal)
        back /= np.linalg.norm(back)
        return np.stack([self.normal, back, np.cross(self.normal, back)])

    def moved(self, change: npt.ArrayLike) -> Plane:
        """Return the plane turned and rolled by two angles in degrees and shifted by mm along x."""
        turn, roll, shift = (float(v) for v in np.asarray(change))
        turned, rolled = (
            float(np.tan(np.arctan(slope) + np.deg2rad(angle)))
            for slope, angle in zip(self.slopes, (turn, roll), strict=True)
        )
        return Plane(self.offset + shift, (turned, rolled), self.centre)


def symmetry_plane(volume: Volume) -> Plane:
    """Return the plane of symmetry of an upright *volume* of a head.

    Raises NotApplicable("body_part"); NotProcessable: motion; no_symmetry (nowhere is the head like its mirror image);
    mixed_orientation (turned too far).
    """
    plane = refined(volume, from_rows(volume))
    if np.degrees(np.arccos(plane.normal[0])) > LARGEST_TURN_DEG:
        raise NotProcessable("mixed_orientation", "the head is turned too far to compare its sides")
    return plane


def from_rows(volume: Volume) -> Plane:
    """Fit a plane to the middles between the head's left and right border in every row of every plane.

    Raises NotApplicable("body_part") and NotProcessable("motion").
    """
    step = max(1, int(2.0 / volume.pixel_spacing[0])), max(1, int(1.0 / volume.pixel_spacing[1]))
    points, areas, of_plane = [], [], []
    for plane in range(0, len(volume.voxels), max(1, round(LOOK_MM / thickness_mm(volume)))):
        head = _section(volume.voxels[plane, :: step[0], :: step[1]])
        areas.append(float(head.sum()) * step[0] * step[1] * float(np.prod(volume.pixel_spacing)) / 100.0)
        for row in np.flatnonzero(head.sum(axis=1) * step[1] * volume.pixel_spacing[1] > 60.0):
            columns = np.flatnonzero(head[row])
            middle = (columns[0] + columns[-1]) / 2 * step[1]
            points.append(
                volume.origins[plane]
                + row * step[0] * volume.pixel_spacing[0] * volume.column_direction
                + middle * volume.pixel_spacing[1] * volume.row_direction
            )
            of_plane.append(plane)
    area = float(np.median(areas))
    if len(points) < 50 or not SECTION_CM2[0] <= area <= SECTION_CM2[1]:
        raise NotApplicable("body_part", f"a section of {area:.0f} cm2 is no head")
    at = np.asarray(points)
    design = np.stack([np.ones(len(at)), at[:, 1], at[:, 2]], axis=1)
    weight = np.ones(len(at))
    for _ in range(3):  # nose, ears and head rest pull single rows aside
        fit = np.linalg.lstsq(design * weight[:, None], at[:, 0] * weight, rcond=None)[0]
        weight = 1.0 / (1.0 + (np.abs(at[:, 0] - design @ fit) / 2.0) ** 2)
    _refuse_jerks(at[:, 0] - design @ fit, np.asarray(of_plane))
    _, y, z = (float(v) for v in at.mean(axis=0))
    return Plane(float(fit @ np.array([1.0, y, z])), (float(fit[1]), float(fit[2])), (y, z))


def refined(volume: Volume, first: Plane) -> Plane:
    """Return the plane near *first* about which the head is most like its mirror image.

    Raises NotProcessable("no_symmetry").
    """
    mirror = _Mirror.of(volume, first)
    wide = mirror.thinned()
    trials = list(product(*SEARCH_DEG, SEARCH_MM))
    best = first.moved(trials[int(np.argmax([wide.likeness(first.moved(trial)) for trial in trials]))])
    narrow = mirror.about(best)
    simplex = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]])

    def unlikeness(change: Floats) -> float:
        return -narrow.likeness(best.moved(change))

    change = optimize.fmin(
        unlikeness,
        np.zeros(3),
        xtol=0.05,
        ftol=1e-5,
        maxfun=100,
        disp=False,
        initial_simplex=simplex,
    )
    found = best.moved(change)
    if narrow.likeness(found) < LEAST_LIKENESS:
        raise NotProcessable("no_symmetry", "the head is nowhere like its mirror image")
    return found


@dataclass(frozen=True, slots=True)
class _Mirror:
    """A coarse signal of bone and brain, and the points of the left half, in head axes, to compare with the right."""

    signal: FloatArray
    places: Places
    points: Floats

    @classmethod
    def of(cls, volume: Volume, plane: Plane) -> _Mirror:
        soft = np.clip(volume.voxels * np.float32(SOFT_SHARE / SOFT_HU), 0.0, SOFT_SHARE)
        slope = np.float32((1.0 - SOFT_SHARE) / (BONE_HU - SOFT_HU))
        soft += np.clip((volume.voxels - np.float32(SOFT_HU)) * slope, 0.0, 1.0 - SOFT_SHARE)
        coarse = reduced(replace(volume, voxels=soft), COARSE_MM)
        low, high = sorted(float((volume.origins[k] - plane.point) @ plane.rotation[2]) for k in (0, -1))
        half = REACH_MM[2] / 2
        x, y, z = (
            np.arange(start, end, COARSE_MM)
            for start, end in (
                (COARSE_MM / 2, REACH_MM[0]),
                (-REACH_MM[1], REACH_MM[1]),
                (max(low, -half), min(high, half)),
            )
        )
        grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
        return cls(coarse.voxels, Places.of(coarse), grid.reshape(-1, 3))

    def thinned(self) -> _Mirror:
        """Keep one point in eight: every second step along each axis."""
        return replace(self, points=self.points[(self._steps() % 2 == 0).all(axis=1)])

    def about(self, plane: Plane) -> _Mirror:
        """Keep one point in two, a chequerboard, within the head: what is compared does not change with the plane."""
        half = replace(self, points=self.points[self._steps().sum(axis=1) % 2 == 0])
        left, right = half.pairs(plane)
        return replace(half, points=half.points[np.maximum(left, right) > 0.0])

    def _steps(self) -> npt.NDArray[np.intp]:
        return np.asarray(np.rint((self.points - self.points.min(axis=0)) / COARSE_MM), dtype=np.intp)

    def pairs(self, plane: Plane) -> tuple[Floats, Floats]:
        """Return the signal at the points and at their mirror images; -1 beyond the scan."""
        axes = self.places.axes @ plane.rotation.T
        start = self.places.axes @ plane.point
        across = self.points[:, :1] * axes[:, 0]
        rest = self.points[:, 1:] @ axes[:, 1:].T + start
        left, right = (self._at(rest + sign * across) for sign in (1.0, -1.0))
        return left, right

    def _at(self, along: Floats) -> Floats:
        indices = self.places.indices(along)
        out = ndimage.map_coordinates(self.signal, indices, order=1, mode="constant", cval=-1.0)
        out[indices[0] < 0] = -1.0
        return np.asarray(out, dtype=np.float64)

    def likeness(self, plane: Plane) -> float:
        """Return the correlation of both halves about *plane*, over pairs inside the scan that are not both air."""
        left, right = self.pairs(plane)
        held = (np.minimum(left, right) >= 0.0) & (np.maximum(left, right) > 0.0)
        if int(held.sum()) < LEAST_PAIRS:
            return -1.0
        left, right = left[held], right[held]
        mean = (left.mean() + right.mean()) / 2
        left, right = left - mean, right - mean
        power = float((left**2).mean() + (right**2).mean()) / 2
        return float((left * right).mean()) / power if power > 0 else -1.0


def _refuse_jerks(error: Floats, of_plane: npt.NDArray[np.intp]) -> None:
    planes, inverse, counts = np.unique(of_plane, return_inverse=True, return_counts=True)
    middles = np.array([np.median(error[inverse == k]) for k in range(len(planes))])[counts >= 10]
    if len(middles) > 1 and float(np.abs(np.diff(middles)).max()) > JERK_MM:
        raise NotProcessable("motion", "the head jerks aside between two planes")


def _section(image: FloatArray) -> Mask:
    """Return the largest part that is no air: the head without its rest."""
    labels, count = ndimage.label(ndimage.binary_opening(image > AIR_HU, iterations=2))
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    return np.asarray(labels == 1 + int(np.bincount(labels.ravel())[1:].argmax()))
