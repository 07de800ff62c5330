"""Segmentation by an imported network: the steps of a bundle as ours, before and after its network.

A bundle's configuration is read as data by the import door; what comes here are numbers and words of a closed list.
Grids follow the field's usual definitions: axes along R, A, S as named, sampling trilinear from the first voxel on,
windows of a fixed size with overlap, averaged. Everything is found again in the planes of the source.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage, special

from wetread.core.detector import (
    Applicability,
    BaseDetector,
    Context,
    FloatArray,
    InputSet,
    LabelArray,
    Measure,
    Observation,
    Request,
    Result,
    Tensors,
    Volume,
)
from wetread.core.dicom import selection
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.facts import StudyFacts
from wetread.detection.recipes.index_space import Image, of_volume, oriented, sampled

MAX_VOXELS = 1 << 27
"""Of the grid that the network sees: 512 MB of float32."""
_SIGNS: Mapping[str, int] = {"R": 1, "L": -1, "A": 1, "P": -1, "S": 1, "I": -1}


@dataclass(frozen=True, slots=True)
class Orient:
    """Axes along R or L, A or P, S or I, in this order, such as ``RAS``."""

    axes: str


@dataclass(frozen=True, slots=True)
class Spacing:
    """Sample to voxels of this size along each axis, mm."""

    size_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Map ``low``..``high`` (else the image's own range) to ``to_low``..``to_high``, linearly."""

    low: float | None
    high: float | None
    to_low: float
    to_high: float
    clip: bool = False


@dataclass(frozen=True, slots=True)
class Normalise:
    """Subtract the mean and divide by the standard deviation; ``nonzero``: of the voxels that are not 0."""

    nonzero: bool


Step = Orient | Spacing | Scale | Normalise


@dataclass(frozen=True, slots=True)
class Steps:
    """What a bundle does around its network."""

    before: tuple[Step, ...]
    window: tuple[int, int, int]
    overlap: float
    activation: Literal["softmax", "sigmoid", "none"]
    threshold: float | None
    """None: the strongest channel wins; else every channel over it (of several, the strongest)."""
    channels: tuple[str, ...]
    """Names of the output channels; ``background`` is none of the findings."""


class Segmentation(BaseDetector):
    """Base of an imported detector: ``detector.py`` gives ``STEPS``."""

    STEPS: ClassVar[Steps]

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want a series of the bundle's modality; headers only."""
        return selection.applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the series by the manifest's rule."""
        answer = self.applicable(study)
        if not answer.applicable:
            raise NotApplicable(answer.reason or "no_suitable_series", answer.detail)
        return selection.select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:  # noqa: ARG002 - the contract names it
        """Prepare, ask the network window by window, and bring the labels back to the planes of the source."""
        if self.manifest.tensors is None:
            raise ConfigurationError(f"{self.manifest.name} names no tensors")
        enters, leaves = self.manifest.tensors.inputs[0].name, self.manifest.tensors.outputs[0].name
        source = of_volume(volume)
        image = prepared(source, self.STEPS.before)
        padded, offset = _padded(image.values, self.STEPS.window)
        total = np.zeros((len(self.STEPS.channels), *padded.shape), dtype=np.float32)
        times = np.zeros(padded.shape, dtype=np.float32)
        for place in windows(padded.shape, self.STEPS.window, self.STEPS.overlap):
            answer = yield Request(self.manifest.name, {enters: np.ascontiguousarray(padded[place])[None, None]})
            if answer[leaves].shape[1:] != (len(self.STEPS.channels), *self.STEPS.window):
                raise ConfigurationError(
                    f"the network of {self.manifest.name} answers in another shape than its window"
                )
            total[(slice(None), *place)] += answer[leaves][0]
            times[place] += 1
        total /= times
        inner = tuple(slice(start, start + size) for start, size in zip(offset, image.values.shape, strict=True))
        labels = labelled(total[(slice(None), *inner)], self.STEPS)
        mask = _on_source(labels, image, source)
        return Result("measured", self._observations(mask, volume), mask=mask)

    def _observations(self, mask: LabelArray, volume: Volume) -> tuple[Observation, ...]:
        seen = []
        for label, name in enumerate(_found(self.STEPS), start=1):
            millilitres = float((mask == label).sum(axis=(1, 2)) @ volume.voxel_volumes_ml)
            measure = Measure("volume", round(millilitres, 3), "mL", "voxel count")
            marked = label if millilitres > 0 else None
            seen.append(Observation("imported_region", "measured", measures=(measure,), label=marked, site=name))
        return tuple(seen)


def prepared(image: Image, steps: tuple[Step, ...]) -> Image:
    """Carry the steps out in their order. Raises NotProcessable (too_large, no_tissue)."""
    for step in steps:
        match step:
            case Orient(axes):
                right, front, up = (_SIGNS[letter] for letter in axes)
                image = oriented(image, (right, front, up))[0]
            case Spacing(size_mm):
                image = _resampled(image, size_mm)
            case Scale():
                image = Image(_scaled(image.values, step), image.affine)
            case Normalise(nonzero):
                image = Image(_normalised(image.values, nonzero=nonzero), image.affine)
    return image


def windows(
    shape: tuple[int, ...], window: tuple[int, int, int], overlap: float
) -> Iterator[tuple[slice, slice, slice]]:
    """Return windows that cover an array no smaller than a window; the last of a row moves back inside."""
    starts = []
    for size, wide in zip(shape, window, strict=True):
        step = wide if size == wide else max(1, int(wide * (1 - overlap)))
        count = math.ceil((size - wide) / step) + 1
        starts.append([min(k * step, size - wide) for k in range(count)])
    for i, j, k in product(*starts):
        yield slice(i, i + window[0]), slice(j, j + window[1]), slice(k, k + window[2])


def labelled(values: FloatArray, steps: Steps) -> LabelArray:
    """Turn network output [channel, x, y, z] into labels; background is 0, the others count from 1."""
    if steps.activation == "softmax":
        values = special.softmax(values, axis=0)
    elif steps.activation == "sigmoid":
        values = special.expit(values)
    best = values.argmax(axis=0)
    found = _found(steps)
    codes = np.array([found.index(name) + 1 if name in found else 0 for name in steps.channels], dtype=np.uint8)
    labels = codes[best]
    if steps.threshold is not None:
        labels[values.max(axis=0) <= steps.threshold] = 0
    return np.asarray(labels, dtype=np.uint8)


def _found(steps: Steps) -> list[str]:
    return [name for name in steps.channels if name != "background"]


def _resampled(image: Image, size_mm: tuple[float, float, float]) -> Image:
    now = np.linalg.norm(image.affine[:3, :3], axis=0)
    ratio = np.asarray(size_mm) / now
    shape = tuple(int(n) for n in np.maximum(1, np.round((np.array(image.values.shape) - 1) / ratio)).astype(int) + 1)
    if math.prod(shape) > MAX_VOXELS:
        raise NotProcessable("too_large", "more voxels than the network's grid may have")
    matrix = np.diag([*ratio, 1.0])
    return Image(_inside(image.values, matrix, shape), image.affine @ matrix)


def _inside(values: FloatArray, matrix: np.ndarray, shape: tuple[int, ...]) -> FloatArray:
    out: FloatArray = ndimage.affine_transform(
        values, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1, mode="nearest"
    )
    return out


def _scaled(values: FloatArray, step: Scale) -> FloatArray:
    low = float(values.min()) if step.low is None else step.low
    high = float(values.max()) if step.high is None else step.high
    if high <= low:
        raise NotProcessable("no_tissue", "the image is empty")
    out = (values - np.float32(low)) * np.float32((step.to_high - step.to_low) / (high - low)) + np.float32(step.to_low)
    return np.clip(out, step.to_low, step.to_high) if step.clip else out


def _normalised(values: FloatArray, *, nonzero: bool) -> FloatArray:
    counted = values != 0 if nonzero else np.ones(values.shape, dtype=bool)
    if not counted.any() or float(values[counted].std()) == 0:
        raise NotProcessable("no_tissue", "the image is empty")
    mean, spread = float(values[counted].mean(dtype=np.float64)), float(values[counted].std(dtype=np.float64))
    return np.where(counted, (values - mean) / spread, values).astype(np.float32)


def _padded(values: FloatArray, window: tuple[int, int, int]) -> tuple[FloatArray, tuple[int, ...]]:
    """Make an array at least as large as a window, zeros around; and where the image begins in it."""
    lacking = [max(0, wide - size) for size, wide in zip(values.shape, window, strict=True)]
    around = [(gap // 2, gap - gap // 2) for gap in lacking]
    return np.pad(values, around).astype(np.float32, copy=False), tuple(before for before, _ in around)


def _on_source(labels: LabelArray, image: Image, source: Image) -> LabelArray:
    """Read labels at the voxels of the source, nearest neighbour, as [plane, row, column]."""
    to_labels = np.linalg.inv(image.affine) @ source.affine
    out = np.zeros(source.values.shape, dtype=np.uint8)
    best = np.full(source.values.shape, 0.5, dtype=np.float32)
    for label in range(1, int(labels.max(initial=0)) + 1):
        share = sampled((labels == label).astype(np.float32), to_labels, source.values.shape)
        out[share >= best] = label
        best = np.maximum(best, share)
    return np.ascontiguousarray(out.transpose(2, 1, 0))
