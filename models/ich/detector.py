"""Suspected intracranial haemorrhage on non-contrast head CT: 5 mm slabs -> 2-D network -> bleeds.

Slabs lie parallel to the acquired planes, every 5 mm along their normal; a gantry tilt is undone by
shifting planes within themselves. The network sees each slab with its neighbours in three windows
and answers with a type per pixel, a logit per slab and the activation map that this logit came from.
Research use only; trained on phantoms (see model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import (
    Applicability,
    Context,
    Explanation,
    FloatArray,
    InputSet,
    LabelArray,
    Measure,
    Observation,
    Request,
    Result,
    SingleNetworkDetector,
    Tensors,
    Volume,
)
from wetread.core.dicom import selection
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.facts import StudyFacts

TYPES = ("EDH", "SDH", "IPH", "IVH", "SAH")
SLAB_MM = 5.0
GRID = 256
WINDOWS_HU = ((0.0, 80.0), (-40.0, 180.0), (-300.0, 1200.0))
SMOOTH_WINDOW_HU = (15.0, 75.0)
BRAIN_HU = 32.0
"""Every head's brain is moved to this value first: scanners and patients differ by as much as thin blood does."""
DEEPEST_MM = 40.0
CHANNELS = 15
REACH_MM = (80.0, 110.0, 150.0)
"""Half width, half length and height of a head, in which places are told."""
MIN_BLEED_ML = 0.2
MIN_AGE_YEARS = 2.0
LEAST_ACTIVATION = 0.05


@dataclass(frozen=True, slots=True)
class Slabs:
    """HU on the network's grid, [slab, row, column], 5 x 1 x 1 mm, and the way back to the planes.

    Rows run to the patient's back, columns to the left, slabs upwards. For source plane k, grid
    row r reads source row (in the turned plane) `row0[k] + r * row_step`; columns alike.
    """

    hu: FloatArray
    heights_mm: npt.NDArray[np.float64]
    plane_heights_mm: npt.NDArray[np.float64]
    row0: npt.NDArray[np.float64]
    column0: npt.NDArray[np.float64]
    row_step: float
    column_step: float
    transpose: bool
    flip_rows: bool
    flip_columns: bool
    flip_planes: bool
    origin_mm: npt.NDArray[np.float64]
    """Patient position of grid pixel (0, 0, 0), LPS mm; `across` and `down` are the directions of columns and rows."""
    across: npt.NDArray[np.float64]
    down: npt.NDArray[np.float64]


class Detector(SingleNetworkDetector):
    """Suspected intracranial haemorrhage (SCT 1386000)."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want head CT without contrast of patients of 2 years and older; headers only."""
        if study.patient_age_years is not None and study.patient_age_years < MIN_AGE_YEARS:
            return Applicability(applicable=False, reason="patient_age", detail="not for patients under 2 years")
        return selection.applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the thinnest soft-kernel axial head series (the manifest's rule)."""
        answer = self.applicable(study)
        if not answer.applicable:
            raise NotApplicable(answer.reason or "no_suitable_series", answer.detail)
        return selection.select(self.manifest.input, study)

    def preprocess(self, volume: Volume) -> Tensors:
        """Give `slabs`, float32 [n, 15, 256, 256], -1..1: see `network_input`."""
        return {"slabs": network_input(self._slabs(volume).hu)}

    def postprocess(self, outputs: Tensors, context: Context) -> Result:
        """Turn type probabilities and slab logits into one observation on the source planes."""
        return self._read(outputs, context.volume, self._slabs(context.volume))

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:  # noqa: ARG002 - the contract names it
        """Same as the default, with the slabs made once."""
        slabs = self._slabs(volume)
        outputs = yield Request(self.manifest.name, {"slabs": network_input(slabs.hu)})
        return self._read(outputs, volume, slabs)

    def _slabs(self, volume: Volume) -> Slabs:
        if len(volume.voxels) < 2 or abs(float(volume.normal[2])) < 0.75:
            raise NotProcessable("mixed_orientation", "the planes are not an axial stack")
        slabs = make_slabs(volume)
        if not looks_like_head(slabs.hu):
            raise NotApplicable("body_part", "no skull-like ring around brain-like tissue")
        return slabs

    def _read(self, outputs: Tensors, volume: Volume, slabs: Slabs) -> Result:
        settings: Mapping[str, Any] = (self.card.model_extra or {}).get("case_model", {})
        point = self.card.operating_point()
        if not settings or point is None:
            msg = "the card of ich has no case model or no operating point"
            raise ConfigurationError(msg)
        labels, kept = find_bleeds(outputs["prob"], slabs.hu, settings)
        score = case_score(outputs, labels, settings)
        positive = score >= point.threshold
        mask = to_planes(labels, slabs, volume)
        if not positive:
            labels = np.zeros_like(labels)
            mask = np.zeros_like(mask)
        per_plane = (mask > 0).sum(axis=(1, 2)).astype(np.float64)
        millilitres = float(per_plane @ volume.voxel_volumes_ml)
        if positive and per_plane.any():
            key = int(np.argmax(per_plane * volume.voxel_volumes_ml))
        elif positive:
            best = slabs.heights_mm[int(np.argmax(outputs["case_logit"][:, 0]))]
            key = int(np.argmin(np.abs(slabs.plane_heights_mm - best)))
        else:
            key = None
        measures = [Measure("volume", round(millilitres, 3), "mL", "segmentation")]
        types: tuple[str, ...] = ()
        side: Literal["", "left", "right", "bilateral"] = ""
        if positive:
            counts = np.bincount(labels.ravel(), minlength=6)[1:]
            floor = max(1.0, 0.05 * counts.sum())
            types = tuple(TYPES[i] for i in np.argsort(-counts, kind="stable") if counts[i] >= floor)
            side = _laterality(labels)
            if kept:
                measures.append(Measure("max_attenuation", float(round(kept, 1)), "[hnsf'U]", "slab, p99"))
            shift = midline_shift(slabs.hu)
            if shift is not None:
                measures.append(
                    Measure("midline_shift", round(shift[0], 1), "mm", "mirror registration", round(shift[1], 1))
                )
        observation = Observation(
            code="intracranial_hemorrhage",
            state="positive" if positive else "negative",
            score=score,
            types=types,
            measures=tuple(measures) if positive else (),
            label=1 if positive and per_plane.any() else None,
            key_plane=key,
            laterality=side,
        )
        return Result(
            state="positive" if positive else "negative",
            observations=(observation,),
            score=score,
            threshold=point.threshold,
            mask=(mask > 0).astype(np.uint8),
            explanation=explain(outputs["cam"], slabs) if positive else None,
            flags=volume.flags,
        )


def make_slabs(volume: Volume) -> Slabs:
    """Average planes into 5 mm slabs at true positions, 1 mm grid centred on the skull."""
    voxels = volume.voxels
    row_mm, column_mm = volume.pixel_spacing
    transpose = abs(volume.row_direction[0]) < abs(volume.column_direction[0])
    across, down = (
        (volume.column_direction, volume.row_direction)
        if transpose
        else (volume.row_direction, volume.column_direction)
    )
    across_mm, down_mm = (row_mm, column_mm) if transpose else (column_mm, row_mm)
    flip_columns, flip_rows = bool(across[0] < 0), bool(down[1] < 0)
    shape = voxels.shape[1:][::-1] if transpose else voxels.shape[1:]
    origins = volume.origins.copy()
    if flip_columns:
        origins = origins + across * across_mm * (shape[1] - 1)
        across = -across
    if flip_rows:
        origins = origins + down * down_mm * (shape[0] - 1)
        down = -down
    normal = np.cross(across, down)
    heights = origins @ normal
    flip_planes = bool(heights[0] > heights[-1])
    # where each plane's first pixel lies within its plane, mm, in turned axes
    left, top = origins @ across, origins @ down

    order = np.argsort(heights, kind="stable")
    centres = np.arange(heights.min(), heights.max() + SLAB_MM * 0.4, SLAB_MM)
    half = np.maximum(volume.weights_mm, 0.05) / 2
    low = np.maximum(heights[None, :] - half, centres[:, None] - SLAB_MM / 2)
    high = np.minimum(heights[None, :] + half, centres[:, None] + SLAB_MM / 2)
    weight = np.clip(high - low, 0.0, None)
    empty = weight.sum(axis=1) <= 0
    nearest = np.abs(heights[None, :] - centres[:, None]).argmin(axis=1)
    weight[empty, nearest[empty]] = 1.0
    weight /= weight.sum(axis=1, keepdims=True)
    slab_left = weight @ left
    slab_top = weight @ top

    stack = np.empty((len(centres), *shape), dtype=np.float32)
    for index in range(len(centres)):
        total = np.zeros(shape, dtype=np.float32)
        for plane in order[weight[index, order] > 1e-6]:
            image = voxels[plane].T if transpose else voxels[plane]
            image = image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
            total += np.float32(weight[index, plane]) * _shifted(
                image,
                round((top[plane] - slab_top[index]) / down_mm),
                round((left[plane] - slab_left[index]) / across_mm),
            )
        stack[index] = total
    np.clip(stack, -1024.0, 3071.0, out=stack)
    centre_left, centre_top = _skull_centre(stack, slab_left, slab_top, across_mm, down_mm)
    grid_left, grid_top = centre_left - (GRID - 1) / 2, centre_top - (GRID - 1) / 2
    hu = np.empty((len(centres), GRID, GRID), dtype=np.float32)
    for index in range(len(centres)):
        rows = _interpolation((grid_top - slab_top[index]) / down_mm, 1 / down_mm, shape[0])
        columns = _interpolation((grid_left - slab_left[index]) / across_mm, 1 / across_mm, shape[1])
        hu[index] = (rows @ (stack[index] + 1000.0)) @ columns.T - 1000.0
    return Slabs(
        hu=hu,
        heights_mm=centres,
        plane_heights_mm=heights,
        row0=(grid_top - top) / down_mm,
        column0=(grid_left - left) / across_mm,
        row_step=1 / down_mm,
        column_step=1 / across_mm,
        transpose=transpose,
        flip_rows=flip_rows,
        flip_columns=flip_columns,
        flip_planes=flip_planes,
        origin_mm=grid_left * across + grid_top * down + centres[0] * normal,
        across=across,
        down=down,
    )


def _shifted(image: FloatArray, down: int, right: int) -> FloatArray:
    """Move an image by whole pixels, air enters at the border."""
    if down == 0 and right == 0:
        return image
    out = np.full_like(image, -1000.0)
    rows, columns = image.shape
    if abs(down) >= rows or abs(right) >= columns:
        return out
    target = (slice(max(down, 0), rows + min(down, 0)), slice(max(right, 0), columns + min(right, 0)))
    source = (slice(max(-down, 0), rows - max(down, 0)), slice(max(-right, 0), columns - max(right, 0)))
    out[target] = image[source]
    return out


def _interpolation(start: float, step: float, count: int) -> FloatArray:
    """[256, count] weights that read position start + i * step; a tent wide enough not to alias."""
    where = start + step * np.arange(GRID)[:, None]
    width = max(1.0, step)
    weight = np.clip(1.0 - np.abs(np.arange(count)[None, :] - where) / width, 0.0, None)
    total = weight.sum(axis=1, keepdims=True)
    # outside the image all weights vanish: that reads air (the caller works in HU + 1000)
    return (weight / np.where(total > 1e-6, np.maximum(total, 0.5), 1.0)).astype(np.float32)


def _skull_centre(
    stack: FloatArray,
    left: npt.NDArray[np.float64],
    top: npt.NDArray[np.float64],
    across_mm: float,
    down_mm: float,
) -> tuple[float, float]:
    """Middle of the bone of the upper two thirds, in-plane mm."""
    upper = slice(len(stack) // 3, max(len(stack) // 3 + 1, len(stack) - 1))
    bone = (stack[upper, ::2, ::2] > 250) & (stack[upper, ::2, ::2] < 2800)
    if bone.sum() < 200:
        bone = stack[upper, ::2, ::2] > -300
    if not bone.any():
        raise NotApplicable("body_part", "no tissue in the upper slices")
    plane, row, column = np.nonzero(bone)
    x = column * 2 * across_mm + left[upper][plane]
    y = row * 2 * down_mm + top[upper][plane]
    return (
        float(np.percentile(x, [1, 99]).mean()),
        float(np.percentile(y, [1, 99]).mean()),
    )


def looks_like_head(hu: FloatArray) -> bool:
    """Image check of the body part: several slabs whose bone encloses 20 cm2 or more of brain HU."""
    enclosed = 0
    for slab in hu[:, ::2, ::2]:
        bone = ndimage.binary_closing(slab > 200, iterations=2)
        inside = ndimage.binary_fill_holes(bone) & ~bone
        brain = inside & (slab > -5) & (slab < 90)
        area_cm2 = float(brain.sum()) * 0.04
        if area_cm2 > 20 and area_cm2 > 0.6 * float(inside.sum()) * 0.04:
            enclosed += 1
    return enclosed >= 5


def brain_depth(hu: FloatArray) -> FloatArray:
    """Distance of the brain from the inner table, mm, slab by slab, worked out at 2 mm; 0 outside, at most 127.

    A slab whose bone does not enclose anything (below the skull's base, beside a craniotomy) has no depth at all.
    """
    out = np.zeros(hu.shape, dtype=np.float32)
    for index, slab in enumerate(hu[:, ::2, ::2]):
        bone = ndimage.binary_closing(slab > 220)
        smooth = ndimage.uniform_filter(slab, 3)
        brain = ndimage.binary_fill_holes(bone) & ~bone & (smooth > -40) & (smooth < 160)
        parts, count = ndimage.label(ndimage.binary_opening(brain))
        large = np.flatnonzero(np.bincount(parts.ravel(), minlength=count + 1) > 350)
        inside = ndimage.binary_fill_holes(np.isin(parts, large[large > 0]))
        if inside.any():
            mm = np.minimum(2 * ndimage.distance_transform_edt(inside) - 1, 127).clip(0)
            out[index] = np.floor(mm).repeat(2, axis=0).repeat(2, axis=1)
    return out


def brain_level(hu: FloatArray, depth: FloatArray) -> float:
    """What this head's brain measures, HU: the median of what lies 5 mm and more inside; 32 when there is none."""
    inside = (depth >= 5) & (hu > 0) & (hu < 60)
    return float(np.median(hu[inside])) if np.count_nonzero(inside) > 1000 else BRAIN_HU


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a head lies on the grid: its midline in slab k is column `start + lean * row + drift * k`."""

    start: float
    lean: float
    drift: float
    middle_row: float
    top_slab: int


def head_frame(depth: FloatArray) -> Frame:
    """Find the midline by the middles of the rows of brain, the middle row, the highest slab with 20 cm2 of brain."""
    inside = depth > 0
    area = inside.sum(axis=(1, 2))
    large = np.flatnonzero(area > 6000)
    if large.size < 3:
        return Frame((GRID - 1) / 2, 0.0, 0.0, (GRID - 1) / 2, len(depth) - 1)
    rows_of = inside[large].any(axis=2)
    row = np.flatnonzero(rows_of.any(axis=0))
    slab, at = np.nonzero(rows_of)
    first = inside[large].argmax(axis=2)[slab, at]
    last = GRID - 1 - inside[large][:, :, ::-1].argmax(axis=2)[slab, at]
    wide = last - first > 60
    design = np.column_stack([np.ones(wide.sum()), at[wide], large[slab[wide]]])
    middles = (first + last)[wide] / 2
    kept = np.ones(len(middles), dtype=bool)
    for _ in range(3):  # what leans out, beside a gap or a sinus, is left aside
        found = np.linalg.lstsq(design[kept], middles[kept], rcond=None)[0]
        off = np.abs(middles - design @ found)
        kept = off <= np.percentile(off, 80)
    top = int(np.flatnonzero(area > 2000)[-1])
    return Frame(float(found[0]), float(found[1]), float(found[2]), float((row[0] + row[-1]) / 2), top)


def mirrored(image: FloatArray, frame: Frame) -> FloatArray:
    """[slab, row, column] seen in the mirror of the head's midline, worked out at 2 mm."""
    coarse = image[:, ::2, ::2]
    out = np.empty_like(image)
    along = np.array([1.0, frame.lean]) / np.hypot(1.0, frame.lean)
    turn = 2 * np.outer(along, along) - np.eye(2)
    for slab in range(len(image)):
        middle = np.array([0.0, (frame.start + frame.drift * slab) / 2])
        seen = ndimage.affine_transform(coarse[slab], turn, middle - turn @ middle, order=1, mode="nearest")
        out[slab] = seen.repeat(2, axis=0).repeat(2, axis=1)
    return out


def places(frame: Frame, slab: int, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> FloatArray:
    """[3, row, column], -1..1: distance from the midline, how far back, how far below the brain's top."""
    aside = np.abs(columns[None, :] - (frame.start + frame.lean * rows[:, None] + frame.drift * slab))
    out = np.empty((3, len(rows), len(columns)), dtype=np.float32)
    out[0] = 2 * aside / np.hypot(1.0, frame.lean) / REACH_MM[0] - 1
    out[1] = (rows[:, None] - frame.middle_row) / REACH_MM[1]
    out[2] = 2 * SLAB_MM * (frame.top_slab - slab) / REACH_MM[2] - 1
    return np.clip(out, -1.0, 1.0, out=out)


def smoothed(hu: FloatArray) -> FloatArray:
    """Three slabs and 5 x 5 mm together, -1..1."""
    soft = ndimage.convolve1d(np.clip(hu, 0.0, 90.0), [0.25, 0.5, 0.25], axis=0, mode="nearest")
    low, high = SMOOTH_WINDOW_HU
    smooth = ndimage.uniform_filter(soft, (0, 5, 5), mode="nearest")
    out: FloatArray = np.clip((smooth - low) * np.float32(2.0 / (high - low)) - 1.0, -1.0, 1.0)
    return out


def network_input(hu: FloatArray) -> FloatArray:
    """[n, 15, 256, 256], -1..1, of a head whose brain is moved to 32 HU.

    The slab below, the slab itself and the slab above, each in three windows; the three of them together, smoothed; the
    distance from the inner table; the smoothed image in the head's mirror; the place in the head.
    """
    depth = brain_depth(hu)
    frame = head_frame(depth)
    hu = hu + np.float32(BRAIN_HU - brain_level(hu, depth))
    count = len(hu)
    out = np.empty((count, CHANNELS, GRID, GRID), dtype=np.float32)
    for channel, (low, high) in enumerate(WINDOWS_HU):
        window = np.clip((hu - low) * np.float32(2.0 / (high - low)) - 1.0, -1.0, 1.0)
        out[:, 3 + channel] = window
        out[1:, channel] = window[:-1]
        out[0, channel] = window[0]
        out[:-1, 6 + channel] = window[1:]
        out[-1, 6 + channel] = window[-1]
    out[:, 9] = smoothed(hu)
    out[:, 10] = depth_channel(depth)
    out[:, 11] = mirrored(out[:, 9], frame)
    for slab in range(count):
        out[slab, 12:] = places(frame, slab, np.arange(GRID), np.arange(GRID))
    return out


def depth_channel(depth: FloatArray) -> FloatArray:
    """Depth as the network sees it, -1..1."""
    out: FloatArray = np.minimum(depth, DEEPEST_MM) * np.float32(2.0 / DEEPEST_MM) - 1.0
    return out


def find_bleeds(prob: FloatArray, hu: FloatArray, settings: Mapping[str, Any]) -> tuple[LabelArray, float]:
    """Label connected blood of at least 0.2 mL; drops calcium. Returns type codes and a high HU."""
    blood = 1.0 - prob[:, 0]
    mask = blood >= float(settings["pixel_threshold"])
    components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    labels = np.zeros(mask.shape, dtype=np.uint8)
    if count == 0:
        return labels, 0.0
    index = np.arange(1, count + 1)
    volume = ndimage.sum_labels(mask, components, index) * SLAB_MM / 1000.0
    mean_hu = ndimage.mean(hu, components, index)
    calcium = ndimage.mean(hu > 100, components, index)
    peak = ndimage.maximum(blood, components, index)
    keep = (volume >= MIN_BLEED_ML) & (peak >= float(settings["peak_threshold"])) & (calcium < 0.5) & (mean_hu < 130.0)
    chosen = np.concatenate([[False], keep])[components]
    kind = (1 + prob[:, 1:].argmax(axis=1)).astype(np.uint8)
    labels[chosen] = kind[chosen]
    highest = float(np.percentile(hu[chosen], 99)) if chosen.any() else 0.0
    return labels, highest


def case_score(outputs: Tensors, labels: LabelArray, settings: Mapping[str, Any]) -> float:
    """Probability-like score: logistic in the strongest slabs and in the volume found."""
    logits = np.sort(outputs["case_logit"][:, 0].astype(np.float64))[::-1]
    strongest = float(logits[:3].mean())
    found = float(np.log1p((labels > 0).sum() * SLAB_MM / 1000.0))
    value = (
        float(settings["offset"])
        + float(settings["logit_weight"]) * strongest
        + float(settings["volume_weight"]) * found
    )
    return float(1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0))))


def to_planes(labels: LabelArray, slabs: Slabs, volume: Volume) -> LabelArray:
    """Carry slab labels to the source planes, nearest neighbour in plane and along the normal."""
    planes, height, width = volume.voxels.shape
    out = np.zeros((planes, height, width), dtype=np.uint8)
    nearest = np.abs(slabs.plane_heights_mm[:, None] - slabs.heights_mm[None, :]).argmin(axis=1)
    shape = (width, height) if slabs.transpose else (height, width)
    for plane, slab in enumerate(nearest):
        source = labels[slab]
        if not source.any():
            continue
        rows = np.rint((np.arange(shape[0]) - slabs.row0[plane]) / slabs.row_step).astype(int)
        columns = np.rint((np.arange(shape[1]) - slabs.column0[plane]) / slabs.column_step).astype(int)
        image = source[np.clip(rows, 0, GRID - 1)][:, np.clip(columns, 0, GRID - 1)].copy()
        image[(rows < 0) | (rows >= GRID)] = 0
        image[:, (columns < 0) | (columns >= GRID)] = 0
        image = image[:: -1 if slabs.flip_rows else 1, :: -1 if slabs.flip_columns else 1]
        out[plane] = image.T if slabs.transpose else image
    return out


def explain(cam: FloatArray, slabs: Slabs) -> Explanation:
    """Where the slab logits came from: each is pooled from its own activation map, whose cells are 8 mm wide.

    A cell's value is the logistic of its activation; under 0.05 it gave the logit nothing that counts.
    """
    level = 1.0 / (1.0 + np.exp(-np.clip(cam.astype(np.float32), -30, 30)))
    cell = GRID / cam.shape[1]
    middle = (cell - 1) / 2
    return Explanation(
        method="cam",
        values=np.where(level < LEAST_ACTIVATION, np.float32(0), level).astype(np.float32),
        origin_mm=slabs.origin_mm + middle * (slabs.across + slabs.down),
        row_direction=slabs.across,
        column_direction=slabs.down,
        spacing_mm=(SLAB_MM, cell, cell),
        note="The score takes the three slabs with the strongest activation, and the volume inside the outline.",
    )


def _laterality(labels: LabelArray) -> Literal["", "left", "right", "bilateral"]:
    """Side of the blood relative to the grid's middle; empty when it lies on both."""
    columns = np.nonzero(labels)[2]
    if columns.size == 0:
        return ""
    left = float((columns > (GRID - 1) / 2).mean())
    if left > 0.75:
        return "left"
    return "right" if left < 0.25 else "bilateral"


def midline_shift(hu: FloatArray) -> tuple[float, float] | None:
    """Displacement of the inner brain against the skull's mirror plane, mm, with its spread.

    Per slab of the vault, the mirrored fluid map is registered to the original by a shift along x;
    half of that shift is the displacement. None when too few slabs register.
    """
    shifts = []
    for slab in hu[len(hu) // 3 : len(hu) * 5 // 6]:
        bone = slab > 250
        inside = ndimage.binary_fill_holes(ndimage.binary_closing(bone, iterations=2)) & ~bone
        if inside.sum() < 6000:
            continue
        columns = np.flatnonzero(inside.any(axis=0))
        rows = np.flatnonzero(inside.any(axis=1))
        # skull midline, row by row, as a straight line
        at = rows[len(rows) // 5 : -len(rows) // 5 or None]
        middle = np.array([np.flatnonzero(inside[r])[[0, -1]].mean() for r in at])
        slope, intercept = np.polyfit(at, middle, 1)
        if abs(slope) > 0.35 or columns.size < 80:
            continue
        smooth = ndimage.gaussian_filter(slab, 1.5)
        fluid = np.clip((26.0 - smooth) / 14.0, 0.0, 1.0) * ndimage.binary_erosion(inside, iterations=12)
        offsets = np.arange(-40, 41)
        row, offset = np.meshgrid(at, offsets, indexing="ij")
        straight = ndimage.map_coordinates(fluid, [row, slope * row + intercept + offset], order=1)
        if straight.sum() < 40:
            continue
        mirrored = straight[:, ::-1]
        scores = [float((straight * ndimage.shift(mirrored, (0, s), order=1)).sum()) for s in range(-24, 25)]
        best = int(np.argmax(scores))
        norm = float((straight * straight).sum())
        if scores[best] > 0.5 * norm:
            shifts.append((best - 24) / 2.0)
    if len(shifts) < 3:
        return None
    return abs(float(np.median(shifts))), float(np.std(shifts))
