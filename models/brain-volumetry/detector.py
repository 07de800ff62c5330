"""Tissue volumes of the brain on T1 MR without contrast agent: no network, bias-corrected mixture with a Markov field.

Intracranial mask by depth and signal, coil bias by smoothing the residual of a three-tissue mixture, then five ordered
classes (fluid, fluid/grey, grey, grey/white, white) whose mixed ones share a voxel by its signal (partial volume;
after Van Leemput et al., IEEE TMI 1999 and 2003). Research use only; measured on phantoms (see model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import (
    Applicability,
    BaseDetector,
    Context,
    FloatArray,
    InputSet,
    Measure,
    Observation,
    Request,
    Result,
    Tensors,
    Volume,
)
from wetread.core.dicom.sequences import t1_applicable, t1_select
from wetread.core.errors import NotProcessable
from wetread.core.facts import StudyFacts
from wetread.detection.recipes.index_space import evenly, of_volume

GRAY, WHITE, FLUID = 1, 2, 3
NAMES = {GRAY: "gray_matter", WHITE: "white_matter", FLUID: "cerebrospinal_fluid"}
MASK_MM, BIAS_MM, LEAST_MM = 2.0, 3.0, 1.0
"""Grids of the mask and of the bias; no finer grid than the last is computed on."""
BIAS_SMOOTH_MM = 30.0
FIELD = 0.10
"""Weight of the neighbours in the Markov field, per squared step of the class order."""
ROUNDS = 10
PLAUSIBLE_ML = (700.0, 2300.0)
GHOSTS = 3.6
"""99th percentile over median of the air around the head; 2.58 for noise alone (Rayleigh)."""
INNER_OVER_RIM = 1.04
"""T1: deep white matter is brighter than the cortex. Least ratio."""
SKULL_LEVEL = 0.155
"""Between skull and fluid, as a share of the white-matter signal."""
WHITE_SHARE = (0.2, 0.8)
"""White matter of grey and white together: 0.4 to 0.5 in adults. Outside, the two were not told apart."""
BoolArray = npt.NDArray[np.bool_]
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Tissues:
    """Shares of grey matter, white matter and fluid in each voxel of the working grid, and the intracranial mask."""

    gray: FloatArray
    white: FloatArray
    fluid: FloatArray
    inside: BoolArray


class Detector(BaseDetector):
    """Grey matter, white matter, fluid and intracranial volume."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want a T1 series of the head without contrast agent; headers only."""
        return t1_applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the thinnest regular stack among them."""
        return t1_select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:  # noqa: ARG002 - the contract names it
        """Compute in one go: there is no network to ask."""
        yield from ()
        image = of_volume(volume)
        native = np.linalg.norm(image.affine[:3, :3], axis=0)
        values, steps = regridded(image.values, native, LEAST_MM)
        tissues = segment(values, steps)
        white, gray = (float(share.sum(dtype=np.float64)) for share in (tissues.white, tissues.gray))
        if not WHITE_SHARE[0] * (white + gray) <= white <= WHITE_SHARE[1] * (white + gray):
            raise NotProcessable("wrong_weighting", "grey and white matter cannot be told apart")
        voxel_ml = image.voxel_mm3 * float(np.prod(image.values.shape)) / values.size / 1000.0
        shares = {GRAY: tissues.gray, WHITE: tissues.white, FLUID: tissues.fluid}
        seen = []
        for label, share in shares.items():
            millilitres = round(float(share.sum(dtype=np.float64)) * voxel_ml, 2)
            measure = Measure("volume", millilitres, "mL", "partial volume mixture")
            seen.append(Observation(NAMES[label], "measured", measures=(measure,), label=label))
        total = round(float(tissues.inside.sum()) * voxel_ml, 2)
        seen.append(Observation("intracranial_structure", "measured", measures=(Measure("volume", total, "mL"),)))
        best = np.stack([0.5 * ~tissues.inside, *shares.values()]).argmax(axis=0).astype(np.uint8)
        mask = nearest(best, _shape(image.values)).transpose(2, 1, 0)
        return Result("measured", tuple(seen), mask=np.ascontiguousarray(mask))


def segment(values: FloatArray, steps_mm: npt.NDArray[np.float64]) -> Tissues:
    """Segment a T1 head [x, y, z]; *steps_mm* between voxels.

    Raises NotProcessable: no_tissue, motion, brain_not_found, wrong_weighting.
    """
    small, small_mm = regridded(values, steps_mm, MASK_MM)
    inner, level = intracranial(small, small_mm)
    inside = evenly(inner.astype(np.float32), _shape(values)) > 0.5
    bias = bias_field(values, inside, steps_mm, level)
    corrected = np.where(inside, values / bias, 0).astype(np.float32)
    return mixture(corrected, inside, level)


def regridded(
    values: FloatArray, steps_mm: npt.NDArray[np.float64], least_mm: float
) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Averages of neighbours where the grid is finer than *least_mm*; the extent stays."""
    extent = (np.array(values.shape) - 1) * steps_mm
    count = np.where(steps_mm < 0.75 * least_mm, np.round(extent / least_mm).astype(int) + 1, values.shape)
    if tuple(count) == values.shape:
        return values, steps_mm
    smooth = ndimage.gaussian_filter(values, np.where(steps_mm < 0.75 * least_mm, 0.4 * least_mm / steps_mm, 0))
    out = evenly(smooth, (int(count[0]), int(count[1]), int(count[2])))
    return out, extent / np.maximum(count - 1, 1)


def intracranial(small: FloatArray, steps_mm: npt.NDArray[np.float64]) -> tuple[BoolArray, float]:
    """Mask inside the skull on a coarse grid, and the signal of white matter. Raises NotProcessable."""
    top = float(np.percentile(small, 99.5))
    if top <= float(np.percentile(small, 1)):
        raise NotProcessable("no_tissue", "the image is empty")
    bright = ndimage.binary_opening(ndimage.gaussian_filter(small, 0.7) > 0.15 * top)
    head = ndimage.binary_fill_holes(_closed(bright, max(2, round(10.0 / float(steps_mm.mean())))))
    head = _largest(head)
    _check_motion(small, head)
    depth = ndimage.distance_transform_edt(head, sampling=steps_mm)
    deep = depth > 0.5 * depth.max()
    if not deep.any():
        raise NotProcessable("brain_not_found", "no head in the image")
    level = float(np.percentile(small[deep], 70))
    tissue = (small > 0.45 * level) & (small < 1.6 * level) & (depth > 5.0)
    opened = ndimage.binary_erosion(tissue, iterations=2)
    core = _largest(opened & (depth > 12.0))
    brain = ndimage.binary_dilation(core, iterations=3, mask=tissue)
    reach = max(1, round(10.0 / float(steps_mm.mean())))
    closed = ndimage.binary_fill_holes(_closed(brain, reach))
    grown = ndimage.binary_dilation(closed, iterations=3, mask=small > SKULL_LEVEL * level)
    inside = ndimage.binary_fill_holes(_largest(grown | closed))
    millilitres = float(inside.sum() * np.prod(steps_mm)) / 1000.0
    if not PLAUSIBLE_ML[0] <= millilitres <= PLAUSIBLE_ML[1]:
        raise NotProcessable("brain_not_found", f"{millilitres:.0f} mL inside the skull: no whole head, or no T1 image")
    rim = ndimage.distance_transform_edt(inside, sampling=steps_mm)
    outer, centre = small[(rim > 2.5) & (rim < 8)], small[rim > 16]
    if not centre.size or float(np.median(centre)) < INNER_OVER_RIM * float(np.median(outer)):
        raise NotProcessable("wrong_weighting", "white matter is not brighter than the cortex: no T1 image")
    return inside, level


def _check_motion(small: FloatArray, head: BoolArray) -> None:
    """Raise for ghosts: air with far outliers. Air that was set to one value says nothing."""
    air = small[~ndimage.binary_dilation(head, iterations=4)]
    if air.size < 1000:
        return
    middle = float(np.median(air))
    if middle > 0 and float(np.percentile(air, 99)) > GHOSTS * middle:
        raise NotProcessable("motion", "ghosts in the air around the head")


def bias_field(values: FloatArray, inside: BoolArray, steps_mm: npt.NDArray[np.float64], level: float) -> FloatArray:
    """Coil bias, about 1, by smoothing the log residual of a three-tissue mixture on a coarse grid."""
    coarse, coarse_mm = regridded(values, steps_mm, BIAS_MM)
    within = evenly(inside.astype(np.float32), _shape(coarse)) > 0.9
    signal = np.log(np.maximum(coarse, 0.02 * level) / level)
    means, spread = np.log(np.array([0.25, 0.70, 1.0])), np.array([0.35, 0.12, 0.08])
    weights = np.array([0.15, 0.45, 0.40])
    sigma = BIAS_SMOOTH_MM / coarse_mm
    bias = np.zeros_like(signal)
    for _ in range(12):
        y = (signal - bias)[within]
        density = weights / spread * np.exp(-0.5 * ((y[:, None] - means) / spread) ** 2) + 1e-12
        share = density / density.sum(axis=1, keepdims=True)
        total = share.sum(axis=0) + 1e-9
        means = (share * y[:, None]).sum(axis=0) / total
        spread = np.sqrt((share * (y[:, None] - means) ** 2).sum(axis=0) / total + 1e-3)
        weights = total / total.sum()
        precision = (share / spread**2).sum(axis=1)
        residual, trust = np.zeros_like(signal), np.zeros_like(signal)
        residual[within] = ((signal[within][:, None] - means) * share / spread**2).sum(axis=1)
        trust[within] = precision
        bias = ndimage.gaussian_filter(residual, sigma) / (ndimage.gaussian_filter(trust, sigma) + 1e-6)
        bias -= bias[within].mean()
    out: FloatArray = np.exp(evenly(bias.astype(np.float32), _shape(values)))
    return out


def mixture(corrected: FloatArray, inside: BoolArray, level: float) -> Tissues:
    """Five ordered classes with a Markov field; the mixed ones give a voxel to both tissues by its signal."""
    y = corrected[inside]
    pure = level * np.array([0.25, 0.70, 1.0])
    noise = np.full(3, 0.08 * level)
    weights = np.array([0.10, 0.15, 0.30, 0.15, 0.30])
    neighbours = np.full(y.size, 2.0, dtype=np.float32)
    order = np.arange(5, dtype=np.float32)
    shape = corrected.shape
    share = np.empty((5, y.size), dtype=np.float32)
    for step in range(ROUNDS):
        means = np.array([pure[0], (pure[0] + pure[1]) / 2, pure[1], (pure[1] + pure[2]) / 2, pure[2]])
        gaps = np.array([0.0, pure[1] - pure[0], 0.0, pure[2] - pure[1], 0.0])
        own = np.array([noise[0], (noise[0] + noise[1]) / 2, noise[1], (noise[1] + noise[2]) / 2, noise[2]])
        variance = own**2 + gaps**2 / 12
        for k in range(5):
            share[k] = (y - np.float32(means[k])) ** 2 * np.float32(0.5 / variance[k])
            share[k] += np.float32(0.5 * np.log(variance[k]) - np.log(weights[k]))
            if step:
                share[k] += np.float32(FIELD * 6) * (order[k] - neighbours) ** 2
        share -= share.min(axis=0)
        np.exp(-share, out=share)
        share /= share.sum(axis=0)
        expected = np.full(shape, 2.0, dtype=np.float32)
        expected[inside] = order @ share
        neighbours = _around(expected)[inside]
        for k, column in enumerate((0, 2, 4)):
            part = share[column] ** 2  # sure voxels decide the pure classes
            if part.sum() > 50:
                pure[k] = float((part * y).sum(dtype=np.float64) / part.sum(dtype=np.float64))
                noise[k] = max(float(np.sqrt(_mean_square(y - np.float32(pure[k]), part))), 0.01 * level)
        weights = np.maximum(share.mean(axis=1, dtype=np.float64), 0.01)
    if not pure[0] < pure[1] < pure[2]:
        raise NotProcessable("wrong_weighting", "tissues do not follow in the order of a T1 image")
    fluid_gray = np.clip((y - pure[0]) / (pure[1] - pure[0]), 0, 1)
    gray_white = np.clip((y - pure[1]) / (pure[2] - pure[1]), 0, 1)
    fluid = share[0] + share[1] * (1 - fluid_gray)
    white = share[4] + share[3] * gray_white
    parts = []
    for values in (1 - fluid - white, white, fluid):
        full = np.zeros(shape, dtype=np.float32)
        full[inside] = np.clip(values, 0, 1)
        parts.append(full)
    return Tissues(parts[0], parts[1], parts[2], inside)


def _mean_square(values: FloatArray, weights: FloatArray) -> float:
    return float((weights * values**2).sum(dtype=np.float64) / weights.sum(dtype=np.float64))


def _around(values: FloatArray) -> FloatArray:
    """Mean of the six neighbours, the border repeated."""
    padded = np.pad(values, 1, mode="edge")
    total = np.zeros_like(values)
    for axis in range(3):
        for start in (0, 2):
            part = [slice(1, -1)] * 3
            part[axis] = slice(start, start + values.shape[axis])
            total += padded[tuple(part)]
    return total / np.float32(6)


def _largest(mask: BoolArray) -> BoolArray:
    """The largest connected part. Raises NotProcessable for an empty mask."""
    found, count = ndimage.label(mask)
    if not count:
        raise NotProcessable("brain_not_found", "no connected tissue")
    return np.asarray(found == 1 + int(np.argmax(np.bincount(found.ravel())[1:])), dtype=np.bool_)


def _closed(mask: BoolArray, voxels: int) -> BoolArray:
    """Closing by a ball, through distance maps: as fast for a large ball as for a small one."""
    padded = np.pad(mask, voxels + 1)
    wide = ndimage.distance_transform_edt(~padded) <= voxels
    back = ndimage.distance_transform_edt(wide) > voxels
    inner = slice(voxels + 1, -voxels - 1)
    return np.asarray(back[inner, inner, inner], dtype=np.bool_) | mask


def nearest(labels: npt.NDArray[np.uint8], shape: Shape) -> npt.NDArray[np.uint8]:
    """Labels of another grid over the same extent."""
    for axis, count in enumerate(shape):
        where = np.rint(np.linspace(0, labels.shape[axis] - 1, count)).astype(int)
        labels = labels.take(where, axis)
    return labels


def _shape(values: npt.NDArray[np.generic]) -> Shape:
    return values.shape[0], values.shape[1], values.shape[2]
