"""The measurement groups of the report: one for the run, and for each finding those that viewers can show.

Viewer rule (workflow-and-results 8.4): OHIF draws a group whose tracking identifier names one of its tools and whose
*first* NUM holds the coordinates; a group that only references a segment is not drawn; and it opens a report on the
image of its first group. So a finding with a region gives, in front of all others, its outline with area and its
longest diameter on the key image (TID 1501), and further down a volumetric group on its segment (TID 1411).
"""

from __future__ import annotations

from typing import Any

import highdicom as hd
from highdicom.sr import (
    CodeContentItem,
    DateContentItem,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.uid import SegmentationStorage

from wetread.adapters.evidence.coding import concept_code, to_concept, unit_concept
from wetread.adapters.evidence.outline import Outline, Points
from wetread.adapters.evidence.reference_header import ReferenceView
from wetread.adapters.evidence.stamp import NONE
from wetread.core.codes import CONCEPTS, concept_of
from wetread.core.findings import Change, Finding, Measurement, ResultSet, Run, Score
from wetread.core.identifiers import derived_uid
from wetread.core.states import AiState

_TOOLS = "Cornerstone3DTools@^0.1.0"
_PRESENCE = {"positive": "present", "negative": "absent", "indeterminate": "undetermined"}
_ANALYSIS = {
    AiState.FAILED: "failed",
    AiState.NOT_PROCESSABLE: "failed",
    AiState.NOT_APPLICABLE: "not_attempted",
    AiState.CANCELLED: "not_attempted",
}
_Group = hd.sr.MeasurementsAndQualitativeEvaluations
_VolumeGroup = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
Group = _Group | _VolumeGroup
"""A group of the report: TID 1501, or TID 1411 when it stands on a segment."""


def outcome_group(result: ResultSet, view: ReferenceView, flags: tuple[str, ...]) -> _Group:
    """Build the group on the run as a whole: outcome, reason, score beside its threshold, provenance, quality."""
    run = result.run
    group = _Group(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derived_uid(run.result_key, "outcome", 0), identifier=f"{run.detector} {run.version} outcome"
        ),
        algorithm_id=_algorithm(run, result.score, provenance=True),
        measurements=_score_measurements(result.score),
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(
                concept_code("analysis_summary"), concept_code(_ANALYSIS.get(result.state, "succeeded"))
            )
        ],
    )
    texts = [("ai_state", str(result.state))]
    if result.reason:
        texts.append(("ai_reason", result.reason))
    if result.detail:
        texts.append(("comment", result.detail))
    if compared := compared_with(run):
        texts.append(("comment", compared))
    texts += [("quality_flag", flag) for flag in (*result.quality, *view.flags, *flags)]
    if result.preliminary:
        texts.append(("quality_flag", "preliminary"))
    if run.shadow:
        texts.append(("quality_flag", "shadow"))
    _add_texts(group, texts)
    return group


def compared_with(run: Run) -> str:
    """Say which earlier results a run was handed, or that there was none; empty for a detector that asks for none."""
    if run.priors is None:
        return ""
    days = ", ".join(prior.study_date.isoformat() for prior in run.priors.results)
    text = f"Earlier results of {run.detector} handed in: {days}." if days else "No earlier result to compare with."
    if run.priors.left_out:
        text += f" Not used, with the reason: {', '.join(run.priors.left_out)}."
    return text


def drawn_groups(result: ResultSet, finding: Finding, view: ReferenceView, outline: Outline | None) -> list[Group]:
    """Build the groups that viewers draw on the key image of a finding: none without an outline or a key image."""
    image = _key_image(finding, view)
    if outline is None or image is None:
        return []
    return [_drawn(result, finding, tool, outline, image) for tool in ("PlanarFreehandROI", "Length")]


def description_group(
    result: ResultSet, finding: Finding, number: int, view: ReferenceView, segment: tuple[str, int] | None
) -> Group:
    """Build the group that describes one finding. ``segment``: SOP instance UID and number of its segment."""
    run = result.run
    kind = _VolumeGroup if segment else _Group
    arguments: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=finding.tracking_uid, identifier=f"{run.detector} finding {number}"
        ),
        "finding_type": to_concept(finding.code),
        "finding_category": concept_code(concept_of(finding.code).category),
        "algorithm_id": _algorithm(run, finding.score, provenance=False),
        "measurements": [*map(_measurement, finding.measurements), *(_score_measurements(finding.score) or [])] or None,
        "qualitative_evaluations": _evaluations(finding) or None,
    }
    if segment:
        arguments["referenced_segment"] = hd.sr.ReferencedSegment(
            sop_class_uid=SegmentationStorage,
            sop_instance_uid=segment[0],
            segment_number=segment[1],
            source_series=hd.sr.SourceSeriesForSegmentation(view.images[0].SeriesInstanceUID),
        )
    elif finding.key_image and (source := view.image(finding.key_image.sop_instance_uid)) is not None:
        arguments["source_images"] = [
            hd.sr.SourceImageForMeasurementGroup(
                source.SOPClassUID, source.SOPInstanceUID, _frame_numbers(finding, view)
            )
        ]
    group = kind(**arguments)
    texts = [("comment", finding.site)] if finding.site else []
    texts += [("finding_type", name) for name in finding.types if name not in CONCEPTS]
    _add_texts(group, texts)
    if finding.change is not None:
        group[0].ContentSequence.append(_change(finding.change))
    return group


def _change(change: Change) -> CodeContentItem:
    """Say what became of a finding, inferred from the study of an earlier result (PS3.16 CID 6134 where it has a word).

    The result itself is named among the parameters of the run: its report may be in another archive.
    """
    item = CodeContentItem(
        name=concept_code("qualitative_difference"),
        value=concept_code(f"change_{change.course}"),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    inferred = RelationshipTypeValues.INFERRED_FROM
    item.ContentSequence = hd.sr.ContentSequence(
        [
            DateContentItem(name=concept_code("study_date"), value=change.prior_date, relationship_type=inferred),
            UIDRefContentItem(
                name=concept_code("study_instance_uid"), value=change.prior_study_uid, relationship_type=inferred
            ),
        ]
    )
    return item


def _drawn(
    result: ResultSet, finding: Finding, tool: str, outline: Outline, image: hd.sr.SourceImageForRegion
) -> _Group:
    """Build a group that a viewer draws: the coordinates sit inside its one NUM."""
    name, value, unit, points = {
        "PlanarFreehandROI": ("area", outline.area_mm2, "mm2", outline.points),
        "Length": ("length", outline.diameter_mm, "mm", outline.diameter),
    }[tool]
    return _Group(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derived_uid(result.run.result_key, tool, finding.finding_id), identifier=f"{_TOOLS}:{tool}"
        ),
        finding_type=to_concept(finding.code),
        measurements=[
            hd.sr.Measurement(
                name=concept_code(name),
                value=_significant(value),
                unit=unit_concept(unit),
                referenced_coordinates=[_polyline(points, image)],
            )
        ],
    )


def _polyline(points: Points, image: hd.sr.SourceImageForRegion) -> hd.sr.CoordinatesForMeasurement:
    return hd.sr.CoordinatesForMeasurement(graphic_type="POLYLINE", graphic_data=points, source_image=image)


def _key_image(finding: Finding, view: ReferenceView) -> hd.sr.SourceImageForRegion | None:
    source = view.image(finding.key_image.sop_instance_uid) if finding.key_image else None
    if source is None:
        return None
    return hd.sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID, _frame_numbers(finding, view))


def _frame_numbers(finding: Finding, view: ReferenceView) -> list[int] | None:
    """Return the frame to reference; single-frame images are referenced whole (PS3.3 table 10-3)."""
    source = view.image(finding.key_image.sop_instance_uid) if finding.key_image else None
    return (
        [finding.key_image.frame] if source is not None and finding.key_image and "NumberOfFrames" in source else None
    )


def _algorithm(run: Run, score: Score | None, *, provenance: bool) -> hd.sr.AlgorithmIdentification:
    """Name the algorithm (TID 4019); the run's group also carries every digest, so the result can be repeated."""
    parameters = [f"model_sha256={run.model_digest or NONE}"]
    if score and score.operating_point:
        parameters.append(f"operating_point={score.operating_point}")
    if provenance:
        parameters += [
            f"input_sha256={run.input_digest or NONE}",
            f"params_sha256={run.params_digest or NONE}",
            f"rules_sha256={run.rules_digest or NONE}",
            f"software={run.software or NONE}",
            f"engine={run.engine or NONE}",
            f"phantom_evidence_id={run.phantom_evidence_id or NONE}",
            f"result_key={run.result_key}",
            *(f"prior_result_key={prior.result_key}" for prior in (run.priors.results if run.priors else ())),
        ]
    return hd.sr.AlgorithmIdentification(name=run.detector, version=run.version, parameters=parameters)


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    coded = measurement.method in CONCEPTS
    item = hd.sr.Measurement(
        name=to_concept(measurement.code),
        value=_significant(measurement.value),
        unit=unit_concept(measurement.unit),
        method=concept_code(measurement.method) if coded else None,
    )
    content: list[hd.sr.ContentItem] = list(item[0].get("ContentSequence", []))
    if measurement.method and not coded:
        content.append(_text("comment", f"Method: {measurement.method}"))
    if measurement.uncertainty is not None:
        content.append(
            hd.sr.NumContentItem(
                name=concept_code("uncertainty"),
                value=_significant(measurement.uncertainty),
                unit=unit_concept(measurement.unit),
                relationship_type=RelationshipTypeValues.HAS_PROPERTIES,
            )
        )
    if content:
        item[0].ContentSequence = hd.sr.ContentSequence(content)
    return item


def _score_measurements(score: Score | None) -> list[hd.sr.Measurement] | None:
    if score is None:
        return None
    return [
        hd.sr.Measurement(concept_code("score"), _significant(score.value), unit_concept("1")),
        hd.sr.Measurement(concept_code("score_threshold"), _significant(score.threshold), unit_concept("1")),
    ]


def _evaluations(finding: Finding) -> list[hd.sr.QualitativeEvaluation]:
    pairs = []
    if finding.state in _PRESENCE:
        pairs.append(("presence", _PRESENCE[finding.state]))
    pairs += [("finding_type", name) for name in finding.types if name in CONCEPTS]
    if finding.laterality in {"left", "right", "bilateral"}:
        pairs.append(("laterality", finding.laterality))
    return [hd.sr.QualitativeEvaluation(concept_code(name), concept_code(value)) for name, value in pairs]


def _add_texts(group: Group, texts: list[tuple[str, str]]) -> None:
    group[0].ContentSequence.extend([_text(name, value) for name, value in texts])


def _text(name: str, value: str) -> TextContentItem:
    return TextContentItem(name=concept_code(name), value=value, relationship_type=RelationshipTypeValues.CONTAINS)


def _significant(value: float) -> float:
    """Return *value* with six significant digits: no report claims more, and DS holds 16 characters."""
    return float(f"{value:.6g}")
