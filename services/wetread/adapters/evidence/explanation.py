"""Where a score came from, as a FRACTIONAL Segmentation of the key slices (PS3.3 A.51, C.8.20.2).

Of the two fractional types PROBABILITY fits: a map of activation says how strongly, never which share of a pixel. The
frames lie on the key slices of the source and cover them in coarser pixels: the map knows no more than its cells do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from scipy import ndimage

from wetread.adapters.evidence.coding import concept_code
from wetread.adapters.evidence.reference_header import UTF8, ReferenceView
from wetread.adapters.evidence.seg import algorithm
from wetread.adapters.evidence.stamp import (
    MANUFACTURER,
    NONE,
    SERIES_NUMBERS,
    instance_uid,
    lo,
    series_description,
    series_uid,
    stamp,
)
from wetread.core.codes import concept
from wetread.core.detector import Explanation, FloatArray
from wetread.core.findings import ResultSet
from wetread.core.ruo import RUO_SHORT, RUO_STATEMENT

METHODS: Final = {"cam": "class activation", "occlusion": "occlusion"}
STEPS: Final = 255
"""Maximum Fractional Value (0062,000E)."""


def says(method: str, note: str) -> str:
    """Return what the map says, and what it does not, in words for a reader."""
    text = f"Where the score came from ({METHODS[method]}); it does not say why something is disease."
    return f"{text} {note}".strip()


def can_be_placed(view: ReferenceView) -> bool:
    """Whether each plane of the source is an image with a place in the patient."""
    return view.has_geometry and "NumberOfFrames" not in view.images[0]


def reduction(explanation: Explanation, source: Dataset) -> int:
    """Return how many pixels of the source go into one of the map, along either side: half a cell of the map."""
    spacing = [float(v) for v in source.PixelSpacing]
    return max(1, int(min(explanation.spacing_mm[1:]) / 2 / max(spacing)))


def sampled(explanation: Explanation, source: Dataset) -> FloatArray:
    """Return the map on one plane of the source, in pixels of ``reduction`` source pixels; empty where it ends."""
    factor = reduction(explanation, source)
    rows, columns = -(-int(source.Rows) // factor), -(-int(source.Columns) // factor)
    down, right = _axes(source)
    i = (np.arange(rows) + 0.5) * factor - 0.5
    j = (np.arange(columns) + 0.5) * factor - 0.5
    points = _position(source) + i[:, None, None] * down + j[None, :, None] * right
    cells = np.moveaxis(explanation.cells(points), -1, 0)
    # Beyond the outermost cell centres half a cell still belongs to the map.
    limits = np.asarray(explanation.values.shape)[:, None, None] - 0.5
    inside = ((cells > -0.5) & (cells < limits)).all(axis=0)
    values = ndimage.map_coordinates(explanation.values, cells, order=1, mode="nearest")
    return np.where(inside, values, np.float32(0)).astype(np.float32)


def explanation_map(
    result: ResultSet, view: ReferenceView, explanation: Explanation, planes: Sequence[int]
) -> Dataset | None:
    """Encode the map on *planes*; None when it is empty there or the planes of the source cannot be placed."""
    if not can_be_placed(view):
        return None
    shown = {plane: sampled(explanation, view.images[plane]) for plane in planes}
    shown = {plane: values for plane, values in shown.items() if (values > 0.5 / STEPS).any()}
    if not shown:
        return None  # an all-empty map must never reach highdicom, which then writes every frame
    sources = [view.images[plane] for plane in shown]
    first, run = view.images[0], result.run
    factor = reduction(explanation, first)
    dataset = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(shown.values()))[..., None],
        segmentation_type=hd.seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=hd.seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=STEPS,
        segment_descriptions=[_description(result)],
        series_instance_uid=series_uid(run, "explanation"),
        series_number=SERIES_NUMBERS["explanation"],
        sop_instance_uid=instance_uid(run, "explanation", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=lo(run.detector),
        software_versions=lo(run.software),
        device_serial_number=lo(run.model_digest) or NONE,
        content_label="SCORE_ORIGIN",
        content_description=RUO_SHORT,
        content_creator_name=f"{MANUFACTURER}^AI",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        plane_positions=[
            hd.PlanePositionSequence(
                hd.CoordinateSystemNames.PATIENT,
                _decimals(_position(source) + (factor - 1) / 2 * sum(_axes(source))),
            )
            for source in sources
        ],
        plane_orientation=hd.PlaneOrientationSequence(
            hd.CoordinateSystemNames.PATIENT, [float(v) for v in first.ImageOrientationPatient]
        ),
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(v) * factor for v in first.PixelSpacing], slice_thickness=first.SliceThickness
        ),
        omit_empty_frames=True,
        specific_character_set=UTF8,
    )
    text = says(explanation.method, explanation.note)
    dataset.SegmentSequence[0].SegmentDescription = text
    dataset.ImageComments = f"{text} {RUO_STATEMENT}"
    stamp(dataset, run, view)
    dataset.SeriesDescription = series_description(run, "score origin")
    return dataset


def _description(result: ResultSet) -> hd.seg.SegmentDescription:
    run, known = result.run, concept("score_origin")
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=known.code.meaning,
        segmented_property_category=concept_code(known.category),
        segmented_property_type=concept_code("score_origin"),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(run),
        tracking_uid=instance_uid(run, "score-origin", 0),
        tracking_id=lo(f"{run.detector} score origin"),
    )


def _position(source: Dataset) -> npt.NDArray[np.float64]:
    return np.array([float(v) for v in source.ImagePositionPatient])


def _axes(source: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the steps from row to row and from column to column, LPS mm."""
    orientation = np.array([float(v) for v in source.ImageOrientationPatient])
    between_rows, between_columns = (float(v) for v in source.PixelSpacing)
    return orientation[3:] * between_rows, orientation[:3] * between_columns


def _decimals(point: npt.NDArray[np.float64]) -> list[float]:
    """Return coordinates to a tenth of a micrometre: DS holds 16 characters."""
    return [round(float(v), 4) for v in point]
