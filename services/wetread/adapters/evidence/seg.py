"""The regions of a result as a BINARY Segmentation (PS3.3 A.51): one segment per finding, non-empty frames only.

Findings that name the same mask label share its segment, which the first of them describes.
"""

from __future__ import annotations

from dataclasses import dataclass

import highdicom as hd
import numpy as np
from pydicom import Dataset

from wetread.adapters.evidence.coding import concept_code, to_concept
from wetread.adapters.evidence.reference_header import UTF8, ReferenceView
from wetread.adapters.evidence.stamp import MANUFACTURER, NONE, SERIES_NUMBERS, instance_uid, lo, series_uid, stamp
from wetread.core.codes import concept_of
from wetread.core.detector import LabelArray
from wetread.core.errors import InvalidInput
from wetread.core.findings import Finding, ResultSet, Run
from wetread.core.ruo import RUO_SHORT, RUO_STATEMENT

_RED_RGB = (230, 40, 40)


@dataclass(frozen=True, slots=True)
class Segmented:
    """A segmentation with the segment number of each finding that has one."""

    dataset: Dataset
    segments: dict[str, int]
    """Finding id -> segment number."""


def segmentation(result: ResultSet, view: ReferenceView, mask: LabelArray) -> Segmented | None:
    """Encode *mask* [plane, row, column]; None when no finding has a voxel in it or the planes cannot be placed.

    An all-empty mask must never reach highdicom, which then writes every frame.

    Raises InvalidInput when the mask does not lie on the planes of the view.
    """
    first = view.images[0]
    if not view.has_geometry or "NumberOfFrames" in first:
        return None
    if mask.shape != (len(view.images), first.get("Rows"), first.get("Columns")):
        msg = f"mask of shape {mask.shape} does not lie on {len(view.images)} planes of the source"
        raise InvalidInput(msg)
    described: dict[int, Finding] = {}
    lies_on: dict[int, set[int]] = {}
    for finding in result.findings:
        label = finding.label
        if label and label not in described and (on := _planes_with(label, mask)):
            described[label], lies_on[label] = finding, on
    if not described:
        return None
    numbers = {label: number for number, label in enumerate(described, 1)}
    planes = sorted(set().union(*lies_on.values()))
    pixels = np.zeros((len(planes), *mask.shape[1:]), dtype=np.uint8)
    for frame, plane in enumerate(planes):
        for label in [label for label in described if plane in lies_on[label]]:
            pixels[frame] += (mask[plane] == label) * np.uint8(numbers[label])
    run = result.run
    dataset = hd.seg.Segmentation(
        source_images=[view.images[plane] for plane in planes],
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(finding, number, result) for number, finding in enumerate(described.values(), 1)
        ],
        series_instance_uid=series_uid(run, "seg"),
        series_number=SERIES_NUMBERS["seg"],
        sop_instance_uid=instance_uid(run, "seg", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=lo(run.detector),
        software_versions=lo(run.software),
        device_serial_number=lo(run.model_digest) or NONE,
        content_label="FINDINGS",
        content_description=RUO_SHORT,
        content_creator_name=f"{MANUFACTURER}^AI",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        # Frames may have holes between them, so no one spacing is claimed: positions say where each frame lies.
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=list(first.PixelSpacing), slice_thickness=first.SliceThickness
        ),
        omit_empty_frames=True,
        specific_character_set=UTF8,
    )
    dataset.ImageComments = RUO_STATEMENT
    stamp(dataset, run, view)
    segments = {f.finding_id: numbers[f.label] for f in result.findings if f.label in numbers}
    return Segmented(dataset, segments)


def _planes_with(label: int, mask: LabelArray) -> set[int]:
    """Plane by plane: a thin-slice CT has 85 million voxels, and anything as large beside them is felt."""
    return {number for number, plane in enumerate(mask) if (plane == label).any()}


def algorithm(run: Run) -> hd.AlgorithmIdentificationSequence:
    """Return who made a segment: detector, version, and model and input by their hashes."""
    return hd.AlgorithmIdentificationSequence(
        name=lo(run.detector),
        family=concept_code("artificial_intelligence"),
        version=lo(run.version),
        source=MANUFACTURER,
        parameters={"model_sha256": run.model_digest or NONE, "input_sha256": run.input_digest or NONE},
    )


def _description(finding: Finding, number: int, result: ResultSet) -> hd.seg.SegmentDescription:
    known = concept_of(finding.code)
    run = result.run
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=lo(finding.code.meaning),
        segmented_property_category=concept_code(known.category),
        segmented_property_type=(
            concept_code(known.property_type) if known.property_type else to_concept(finding.code)
        ),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(run),
        tracking_uid=finding.tracking_uid,
        tracking_id=f"{run.detector} finding {number}"[:64],
        display_color=hd.color.CIELabColor.from_rgb(*_RED_RGB),
    )
