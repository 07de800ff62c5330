"""Hippocampal volumes from T1 MR by the networks of hippodeep (Thyreau et al. 2018, doi 10.1016/j.media.2017.11.004).

The networks and their weights are the authors' (MIT) and come through the import door; pre- and post-processing here
are our own, written from the shapes of the networks, and checked against the output of the authors' program.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import numpy as np

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
from wetread.detection.recipes.index_space import Affine, Image, box_of, evenly, of_volume, oriented, sampled

GRID: Final = (64, 64, 64)
TEMPLATE: Final = np.array([[-2.85714293, 0, 0, 90], [0, 3.42857146, 0, -126], [0, 0, 2.85714293, -72], [0, 0, 0, 1.0]])
"""Template index -> template mm."""
CROP: Final = np.array([[-1.0, 0, 0, 54], [0, 1, 0, -59], [0, 0, 1, -45], [0, 0, 0, 1]])
CROP_SIZE: Final = (107, 72, 68)
RIGHT: Final = (slice(6, 54), slice(None), slice(2, -2))
LEFT: Final = (slice(-7, -55, -1), slice(None), slice(2, -2))
BORDER: Final = (slice(2, -2),) * 3
"""The network's answer is two voxels smaller on every side than what it sees."""
LEAST: Final = 32.0 / 255.0
PLAUSIBLE_ML: Final = (700.0, 2300.0)
"""Intracranial volumes outside are no adult head: not T1, cut off, or not a head."""


class Detector(BaseDetector):
    """Left and right hippocampus and the intracranial volume."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want a T1 series of the head without contrast agent; headers only."""
        return t1_applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the thinnest regular stack among them."""
        return t1_select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:  # noqa: ARG002 - the contract names it
        """Head masks, affine to the template, then both hippocampi in one batch."""
        name = self.manifest.name
        source = of_volume(volume)
        spread = float(source.values.std())
        if spread <= 0:
            raise NotProcessable("no_tissue", "the image is empty")
        scored = ((source.values - np.float64(source.values.mean())) / spread).astype(np.float32)
        image, turn = oriented(Image(scored, source.affine), (-1, 1, 1))
        head = (yield Request(f"{name}__head", {"x": evenly(image.values, GRID)[None, None]}))["y"][0]
        total_ml = _intracranial_ml(head[0], image)
        pair = np.stack([head[1] * head[0], head[3] * head[0]])
        affine = (yield Request(f"{name}__affine", {"x": pair[None]}))["y"][0]
        to_image = _crop_to_image(affine, image)
        crop = sampled(image.values, to_image, CROP_SIZE)
        crop = (crop - crop.mean()) / max(float(crop.std()), 1e-6)
        sides = np.ascontiguousarray(np.stack([crop[RIGHT], crop[LEFT]])[:, None], dtype=np.float32)
        soft = (yield Request(name, {"x": sides}))["y"][:, 0]
        maps = {side: _native(soft[k], side, to_image, image) for k, side in enumerate(("right", "left"))}
        mask = np.zeros(image.values.shape, dtype=np.uint8)
        seen = []
        for label, side in ((1, "left"), (2, "right")):
            box, share = maps[side]
            mask[box][share >= 0.5] = label
            mm3 = float(share.sum(dtype=np.float64)) * image.voxel_mm3
            seen.append(_observation(side, mm3, label if (share >= 0.5).any() else None))
        seen.append(Observation("intracranial_structure", "measured", measures=(Measure("volume", total_ml, "mL"),)))
        planes = np.ascontiguousarray(turn.undo(mask).transpose(2, 1, 0)).astype(np.uint8)
        return Result("measured", tuple(seen), mask=planes)


def _observation(side: str, mm3: float, label: int | None) -> Observation:
    measure = Measure("volume", round(mm3, 2), "mm3", "sum of soft segmentation")
    where = "left" if side == "left" else "right"
    return Observation("hippocampus", "measured", measures=(measure,), label=label, laterality=where)  # type: ignore[arg-type]


def _intracranial_ml(brain: FloatArray, image: Image) -> float:
    """Volume where the brain channel, sampled back to the image, is over one half. Raises NotProcessable."""
    shape = (image.values.shape[0], image.values.shape[1], image.values.shape[2])
    total = float((evenly(brain, shape) > 0.5).sum()) * image.voxel_mm3 / 1000.0
    if not PLAUSIBLE_ML[0] <= total <= PLAUSIBLE_ML[1]:
        raise NotProcessable("brain_not_found", f"{total:.0f} mL look like brain: no T1 image of a whole head")
    return round(total, 3)


def _normalised(affine: Affine, shape: tuple[int, ...]) -> Affine:
    """[-1, 1] along every axis of an array -> mm."""
    half = (np.array(shape) - 1) / 2
    scale = np.eye(4)
    scale[:3, :3], scale[:3, 3] = np.diag(half), half
    return np.asarray(affine @ scale, dtype=np.float64)


def _crop_to_image(answer: FloatArray, image: Image) -> Affine:
    """Index of the crop box -> index of the image, by the network's template-to-image affine."""
    template_to_image = np.eye(4)
    template_to_image[:3] += answer.reshape(3, 4)
    image_mm = _normalised(image.affine, image.values.shape) @ template_to_image
    template_mm = _normalised(TEMPLATE, GRID)
    try:
        return np.asarray(np.linalg.inv(image.affine) @ image_mm @ np.linalg.inv(template_mm) @ CROP, dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise NotProcessable("brain_not_found", "the head could not be placed") from error


def _native(soft: FloatArray, side: str, to_image: Affine, image: Image) -> tuple[tuple[slice, ...], FloatArray]:
    """One side's answer in the image: the box it lies in, and its share of every voxel, 0..1."""
    sharp = np.where(soft > 0.5, np.clip(2 * (soft - 0.5) + 0.5, 0, 1), 0)
    seen, whole = np.zeros((48, 72, 64), dtype=np.float32), np.zeros(CROP_SIZE, dtype=np.float32)
    seen[BORDER] = sharp
    whole[RIGHT if side == "right" else LEFT] = seen
    to_crop: Affine = np.asarray(np.linalg.inv(to_image), dtype=np.float64)
    box = box_of(to_crop, CROP_SIZE, image.values.shape)
    shift = np.eye(4)
    shift[:3, 3] = [part.start for part in box]
    share = sampled(whole, to_crop @ shift, tuple(part.stop - part.start for part in box))
    share[share < LEAST] = 0
    return box, share
