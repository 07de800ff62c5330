"""Every outcome as a Comprehensive 3D SR, Measurement Report (PS3.16 TID 1500): the answer a study always gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import RelationshipTypeValues, TextContentItem
from pydicom import Dataset, Sequence

from wetread.adapters.evidence.coding import concept_code
from wetread.adapters.evidence.outline import Outline
from wetread.adapters.evidence.reference_header import UTF8, ReferenceView
from wetread.adapters.evidence.sr_groups import (
    Group,
    compared_with,
    description_group,
    drawn_groups,
    outcome_group,
)
from wetread.adapters.evidence.stamp import (
    MANUFACTURER,
    NONE,
    SERIES_NUMBERS,
    instance_uid,
    lo,
    series_uid,
    stamp,
)
from wetread.core.codes import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, PRIVATE_SCHEME_UID
from wetread.core.findings import ResultSet
from wetread.core.identifiers import derived_uid
from wetread.core.ruo import RUO_STATEMENT

MEASUREMENT_REPORT: Final = "1500"


class _Report(hd.sr.Comprehensive3DSR):
    """highdicom's report, open to any source: its own copying knows no private or new SOP class.

    It holds *content* itself. highdicom would copy the tree and search it twice, to check that what is referenced is
    evidence, which ``measurement_report`` sees to.
    """

    def __init__(self, *, content: Dataset, **keywords: Any) -> None:
        name = hd.sr.CodedConcept.from_dataset(content.ConceptNameCodeSequence[0])
        root = hd.sr.ContainerContentItem(name=name, template_id=MEASUREMENT_REPORT)
        root.ContentSequence = Sequence([])
        super().__init__(content=root, **keywords)
        self.update(content)

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing: ``stamp`` puts patient and study on the finished object."""


_EXAMINATIONS = {"CT": "ct_examination", "MR": "mr_examination"}


def measurement_report(
    result: ResultSet,
    view: ReferenceView,
    outlines: Mapping[str, Outline],
    segmentation: Dataset | None,
    segments: Mapping[str, int],
    flags: tuple[str, ...],
    explained: Dataset | None = None,
) -> Dataset:
    """Build the report: what ran, on what, with which outcome and reason, and each finding.

    ``outlines`` and ``segments`` by finding id; ``flags`` say what the encoders had to do without; ``explained`` is
    the map of where the score came from. The report stays PRELIMINARY and UNVERIFIED: no person has looked at it.
    Every selected instance and both segmentations are listed as evidence (PS3.3 C.17.2).
    """
    run = result.run
    groups: list[Group] = []
    # First what a viewer draws: OHIF shows nothing of a report whose first group stands on no image.
    for finding in result.findings:
        groups += drawn_groups(result, finding, view, outlines.get(finding.finding_id))
    groups.append(outcome_group(result, view, flags))
    for index, finding in enumerate(result.findings, start=1):
        number = segments.get(finding.finding_id)
        reference = (str(segmentation.SOPInstanceUID), number) if segmentation is not None and number else None
        groups.append(description_group(result, finding, index, view, reference))
    report = hd.sr.MeasurementReport(
        observation_context=_observer(result),
        procedure_reported=concept_code(_EXAMINATIONS.get(view.images[0].Modality, "imaging_examination")),
        imaging_measurements=groups,
    )
    texts = [RUO_STATEMENT, summary(result)]
    if explained is not None:
        number = SERIES_NUMBERS["explanation"]
        texts.append(f"{explained.SegmentSequence[0].SegmentDescription} See series {number}, key slices only.")
    for text in texts:
        report[0].ContentSequence.append(
            TextContentItem(name=concept_code("comment"), value=text, relationship_type=RelationshipTypeValues.CONTAINS)
        )
    dataset = _Report(
        evidence=[*view.images, *(item for item in (segmentation, explained) if item is not None)],
        content=report[0],
        series_instance_uid=series_uid(run, "sr"),
        series_number=SERIES_NUMBERS["sr"],
        sop_instance_uid=instance_uid(run, "sr", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=not result.preliminary,
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


def summary(result: ResultSet) -> str:
    """Return the outcome in words, for readers whose viewer shows text only."""
    run = result.run
    name = f"{run.title or run.detector} ({run.detector} {run.version})"
    lines = [f"{name}: {str(result.state).replace('_', ' ').upper()}"]
    if result.reason:
        lines.append(f"Reason: {result.reason}" + (f" ({result.detail})" if result.detail else ""))
    elif result.detail:
        lines.append(result.detail)
    if result.score:
        point = f", operating point {result.score.operating_point}" if result.score.operating_point else ""
        lines.append(f"Score {result.score.value:.3f}, threshold {result.score.threshold:.3f}{point}.")
    for finding in result.findings:
        measures = ", ".join(f"{m.code.meaning} {m.value:.4g} {m.unit}" for m in finding.measurements)
        kinds = f" [{', '.join(finding.types)}]" if finding.types else ""
        change = finding.change
        since = f", {change.course} since {change.prior_date.isoformat()}" if change else ""
        lines.append(f"{finding.code.meaning}: {finding.state}{since}{kinds}" + (f"; {measures}" if measures else ""))
    if compared := compared_with(run):
        lines.append(compared)
    if result.preliminary:
        lines.append("Early result on an incomplete image set.")
    if run.shadow:
        lines.append("Shadow run: not for display to readers.")
    if run.phantom_evidence_id:
        lines.append("Phantom-trained model.")
    return "\n".join(lines)


def _observer(result: ResultSet) -> hd.sr.ObservationContext:
    run = result.run
    return hd.sr.ObservationContext(
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
    )
