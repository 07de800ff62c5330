"""``SlideEncoder``: a slide's result as SEG (fractional map), ANN (tiles, nuclei) and SR (TID 1500)."""

from __future__ import annotations

from copy import deepcopy
from typing import Final

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from wetread.adapters.evidence.coding import concept_code
from wetread.adapters.evidence.reference_header import UTF8, ReferenceView, reference_view
from wetread.adapters.evidence.slide_report import short_code, slide_report
from wetread.adapters.evidence.stamp import MANUFACTURER, NONE, encoded, instance_uid, lo, series_uid, stamp
from wetread.core.codes import PRIVATE_SCHEME
from wetread.core.errors import ComputationFailed, InvalidInput
from wetread.core.identifiers import derived_uid
from wetread.core.ports.evidence import EncodedObject
from wetread.core.ports.slide_evidence import SlideEvidence
from wetread.core.ruo import RUO_SHORT, RUO_STATEMENT

ENCODER_VERSION: Final = "1"
_SERIES_NUMBERS: Final = {"seg": 9012, "ann": 9013}
_BACKGROUND: Final = "background"
_IDENTITY: Final = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")


class SlideEncoder:
    """Port ``SlideEvidenceEncoder``. Holds no state."""

    @property
    def version(self) -> str:
        """Version of the encodings."""
        return ENCODER_VERSION

    def encode(self, evidence: SlideEvidence) -> list[EncodedObject]:
        """Return SR, SEG, ANN.

        Raises InvalidInput (headers and map do not belong together), ComputationFailed (the libraries refuse).
        """
        try:
            return self._encode(evidence)
        except (ValueError, TypeError, AttributeError, LookupError) as broken:
            msg = f"a slide's result could not be written as DICOM ({type(broken).__name__})"
            raise ComputationFailed("crashed", msg) from broken

    @staticmethod
    def _encode(evidence: SlideEvidence) -> list[EncodedObject]:
        view = reference_view(evidence.headers, evidence.run.study_uid)
        seg = _segmentation(evidence, view)
        ann = _annotations(evidence, view)
        report = slide_report(evidence, view, [nameless(header) for header in evidence.headers[:1]], seg, ann)
        objects = [encoded(report, "sr")]
        if seg is not None:
            objects.append(encoded(seg, "seg", RLELossless))
        if ann is not None:
            objects.append(encoded(ann, "ann"))
        return objects


def nameless(header: Dataset) -> Dataset:
    """Return a copy without identity: the libraries quote odd names in warnings. ``stamp`` puts it on the result."""
    copy = deepcopy(header)
    for keyword in _IDENTITY:
        setattr(copy, keyword, "")
    return copy


def class_code(name: str) -> hd.sr.CodedConcept:
    """Return the private code of a tile class: it names a class of a model, not a thing in the body."""
    return hd.sr.CodedConcept(short_code("tc", name), PRIVATE_SCHEME, lo(f"Tile class: {name}"))


def algorithm(evidence: SlideEvidence) -> hd.AlgorithmIdentificationSequence:
    """Return who computed: detector, version, model and plan by their hashes."""
    run = evidence.run
    return hd.AlgorithmIdentificationSequence(
        name=lo(run.detector),
        family=concept_code("artificial_intelligence"),
        version=lo(run.version),
        source=MANUFACTURER,
        parameters={"model_sha256": run.model_digest or NONE, "plan_sha256": run.params_digest or NONE},
    )


def _segmentation(evidence: SlideEvidence, view: ReferenceView) -> Dataset | None:
    """Return the map: FRACTIONAL, one segment per class but background, sparse tiles of an existing level."""
    grid, level, run = evidence.grid, evidence.map_level, evidence.run
    if grid is None or level is None:
        return None
    source = nameless(evidence.headers[level])
    size = (int(source.TotalPixelMatrixRows), int(source.TotalPixelMatrixColumns), len(evidence.classes))
    mapped = (len(evidence.map_rows), len(evidence.map_columns), grid.shape[-1])
    if mapped != size:
        msg = f"a map of {mapped} does not lie on a level of {size}"
        raise InvalidInput(msg)
    shown = [n for n, name in enumerate(evidence.classes) if name != _BACKGROUND]
    if not (grid[..., shown] > 0.5 / 255).any():
        return None  # an all-empty map must never reach highdicom, which then writes every frame
    probability = grid[..., shown][evidence.map_rows[:, None], evidence.map_columns[None, :]]
    dataset = hd.seg.Segmentation(
        source_images=[source],
        pixel_array=probability[None],
        segmentation_type=hd.seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=hd.seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=255,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=lo(evidence.classes[n]),
                segmented_property_category=concept_code("tissue"),
                segmented_property_type=class_code(evidence.classes[n]),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm(evidence),
                tracking_uid=derived_uid(run.result_key, "slide-segment", evidence.classes[n]),
                tracking_id=f"{run.detector} {evidence.classes[n]}"[:64],
            )
            for number, n in enumerate(shown, 1)
        ],
        series_instance_uid=series_uid(run, "slide-seg"),
        series_number=_SERIES_NUMBERS["seg"],
        sop_instance_uid=instance_uid(run, "slide-seg", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=lo(run.detector),
        software_versions=lo(run.software),
        device_serial_number=lo(run.model_digest) or NONE,
        content_label="TILE_MAP",
        content_description=RUO_SHORT,
        content_creator_name=f"{MANUFACTURER}^AI",
        transfer_syntax_uid=RLELossless,
        omit_empty_frames=True,
        dimension_organization_type=hd.DimensionOrganizationTypeValues.TILED_SPARSE,
        tile_pixel_array=True,
        tile_size=(int(source.Rows), int(source.Columns)),
        specific_character_set=UTF8,
    )
    dataset.ImageComments = RUO_STATEMENT
    # Type 2C of General Image for a multi-frame slide; its absence is the one complaint of dciodvfy.
    dataset.PatientOrientation = ""
    stamp(dataset, run, view)
    return dataset


def _annotations(evidence: SlideEvidence, view: ReferenceView) -> Dataset | None:
    """Return bulk annotations in pixels of the finest level: a rectangle per tile, a point per nucleus."""
    run = evidence.run
    groups = []
    if len(evidence.boxes):
        x, y, width, height = evidence.boxes.T
        corners = np.stack(
            [np.stack([x, y], 1), np.stack([x + width, y], 1), np.stack([x + width, y + height], 1),
             np.stack([x, y + height], 1)],
            axis=1,
        )  # fmt: skip
        groups.append(
            hd.ann.AnnotationGroup(
                number=1,
                uid=derived_uid(run.result_key, "slide-tiles", 0),
                label=lo(f"tiles: {evidence.target}"),
                annotated_property_category=concept_code("tissue"),
                annotated_property_type=class_code(evidence.target),
                graphic_type=hd.ann.GraphicTypeValues.RECTANGLE,
                graphic_data=list(corners.astype(np.float32)),
                algorithm_type=hd.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
                algorithm_identification=algorithm(evidence),
                measurements=[
                    hd.ann.Measurements(
                        name=concept_code("tile_score"),
                        values=evidence.scores.astype(np.float32),
                        unit=hd.sr.CodedConcept("1", "UCUM", "no units"),
                    )
                ],
            )
        )
    if evidence.points is not None and len(evidence.points):
        groups.append(
            hd.ann.AnnotationGroup(
                number=len(groups) + 1,
                uid=derived_uid(run.result_key, "slide-nuclei", 0),
                label="nuclei",
                annotated_property_category=concept_code("tissue"),
                annotated_property_type=concept_code("nucleus"),
                graphic_type=hd.ann.GraphicTypeValues.POINT,
                graphic_data=[point[None] for point in evidence.points.astype(np.float32)],
                algorithm_type=hd.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
                algorithm_identification=algorithm(evidence),
            )
        )
    if not groups:
        return None
    dataset = hd.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[nameless(evidence.headers[0])],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=groups,
        series_instance_uid=series_uid(run, "slide-ann"),
        series_number=_SERIES_NUMBERS["ann"],
        sop_instance_uid=instance_uid(run, "slide-ann", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=lo(run.detector),
        software_versions=lo(run.software),
        device_serial_number=lo(run.model_digest) or NONE,
        content_label="TILES",
        content_description=RUO_SHORT,
        content_creator_name=f"{MANUFACTURER}^AI",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=UTF8,
    )
    stamp(dataset, run, view)
    return dataset
