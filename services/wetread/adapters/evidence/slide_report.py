"""A slide's result as Comprehensive 3D SR (PS3.16 TID 1500): one group on the slide, one per strong region."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import RelationshipTypeValues, TextContentItem
from pydicom import Dataset

from wetread.adapters.evidence.coding import concept_code, unit_concept
from wetread.adapters.evidence.reference_header import UTF8, ReferenceView
from wetread.adapters.evidence.sr import _Report
from wetread.adapters.evidence.stamp import MANUFACTURER, NONE, instance_uid, lo, series_uid, stamp
from wetread.core.codes import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, PRIVATE_SCHEME_UID
from wetread.core.identifiers import derived_uid, digest
from wetread.core.ports.slide_evidence import SlideEvidence, SlideRegion
from wetread.core.ruo import RUO_STATEMENT

_SERIES_NUMBER = 9011
_Region = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
_Group = hd.sr.MeasurementsAndQualitativeEvaluations | _Region


def slide_report(
    evidence: SlideEvidence,
    view: ReferenceView,
    sources: Sequence[Dataset],
    segmentation: Dataset | None,
    annotations: Dataset | None,
) -> Dataset:
    """Build the report; the segmentation and the annotations are listed as evidence beside the slide."""
    run = evidence.run
    groups: list[_Group] = [_slide_group(evidence)]
    groups += [_region_group(evidence, sources[0], region, n) for n, region in enumerate(evidence.regions, 1)]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(
                observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
                observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                    uid=derived_uid("device", run.detector, run.version, run.model_digest),
                    name=lo(f"{MANUFACTURER} {run.detector}"),
                    manufacturer_name=MANUFACTURER,
                    model_name=lo(f"{run.detector} {run.version}"),
                    serial_number=lo(run.model_digest) or NONE,
                ),
            )
        ),
        procedure_reported=concept_code("imaging_examination"),
        imaging_measurements=groups,
    )
    for text in (RUO_STATEMENT, summary(evidence)):
        report[0].ContentSequence.append(
            TextContentItem(name=concept_code("comment"), value=text, relationship_type=RelationshipTypeValues.CONTAINS)
        )
    dataset = _Report(
        evidence=[*sources, *(made for made in (segmentation, annotations) if made is not None)],
        content=report[0],
        series_instance_uid=series_uid(run, "slide-sr"),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=instance_uid(run, "slide-sr", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=evidence.state != "partial",
        is_final=False,
        is_verified=False,
        specific_character_set=UTF8,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                PRIVATE_SCHEME, name=PRIVATE_SCHEME_NAME, uid=PRIVATE_SCHEME_UID, responsible_organization=MANUFACTURER
            )
        ],
    )
    stamp(dataset, run, view)
    return dataset


def short_code(kind: str, name: str) -> str:
    """Return a private code value (SH, 16 characters) for a model's class; a long name is told by its digest."""
    whole = f"{kind}-{name}"
    return whole if len(whole) <= 16 else f"{kind}-{digest(name)[:12]}"


def summary(evidence: SlideEvidence) -> str:
    """Return the outcome in words."""
    run = evidence.run
    lines = [f"{run.title or run.detector} ({run.detector} {run.version}): {evidence.state.replace('_', ' ').upper()}"]
    if evidence.reason:
        lines.append(f"Reason: {evidence.reason}")
    for key, value, unit, kind in evidence.facts:
        name = concept_code(key).meaning + (f", {kind}" if kind else "")
        lines.append(f"{name}: {value:.4g}{'' if unit == '1' else ' ' + unit}")
    lines.append(f"Model {run.model_digest[:12]}, plan {run.params_digest[:12]}. Trained on synthetic texture only.")
    return "\n".join(lines)


def _algorithm(evidence: SlideEvidence) -> hd.sr.AlgorithmIdentification:
    run = evidence.run
    return hd.sr.AlgorithmIdentification(
        name=lo(run.detector),
        version=lo(run.version),
        parameters=[f"model_sha256={run.model_digest or NONE}", f"plan_sha256={run.params_digest or NONE}"],
    )


def _slide_group(evidence: SlideEvidence) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    run = evidence.run
    measurements = [
        hd.sr.Measurement(
            name=hd.sr.CodedConcept(short_code("sh", kind), PRIVATE_SCHEME, lo(f"Share of analysed tissue: {kind}"))
            if kind
            else concept_code(key),
            value=float(value),
            unit=unit_concept(unit),
        )
        for key, value, unit, kind in evidence.facts
    ]
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derived_uid(run.result_key, "slide-outcome", 0), identifier=f"{run.detector} {run.version} slide"
        ),
        algorithm_id=_algorithm(evidence),
        measurements=measurements,
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(concept_code("analysis_summary"), concept_code("succeeded"))
        ],
    )
    texts = [("slide_state", evidence.state), *(("quality_flag", flag) for flag in evidence.flags)]
    if evidence.reason:
        texts.append(("ai_reason", evidence.reason))
    for key, value in texts:
        group[0].ContentSequence.append(
            TextContentItem(name=concept_code(key), value=value, relationship_type=RelationshipTypeValues.CONTAINS)
        )
    return group


def _region_group(evidence: SlideEvidence, source: Dataset, region: SlideRegion, number: int) -> _Region:
    run = evidence.run
    return _Region(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derived_uid(run.result_key, "slide-region", number), identifier=f"{run.detector} region {number}"
        ),
        referenced_region=hd.sr.ImageRegion3D(
            graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
            graphic_data=_on_slide(source, region),
            frame_of_reference_uid=str(source.FrameOfReferenceUID)[:64],
        ),
        finding_type=concept_code("slide_region"),
        algorithm_id=_algorithm(evidence),
        measurements=[
            hd.sr.Measurement(concept_code("region_area"), value=region.area_mm2, unit=unit_concept("mm2")),
            hd.sr.Measurement(concept_code("tile_score"), value=region.score, unit=unit_concept("1")),
        ],
    )


def _on_slide(source: Dataset, region: SlideRegion) -> np.ndarray:
    """Return the box's corners, closed, in mm of the slide coordinate system (PS3.3 C.8.12.2.1)."""
    spacing = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    origin = source.TotalPixelMatrixOriginSequence[0]
    transformer = hd.spatial.PixelToReferenceTransformer(
        image_position=[
            float(origin.XOffsetInSlideCoordinateSystem),
            float(origin.YOffsetInSlideCoordinateSystem),
            float(origin.get("ZOffsetInSlideCoordinateSystem", 0) or 0),
        ],
        image_orientation=[float(v) for v in source.ImageOrientationSlide],
        pixel_spacing=[float(spacing[0]), float(spacing[1])],
    )
    x, y, width, height = region.box
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]])
    return np.asarray(transformer(corners), dtype=np.float64)
