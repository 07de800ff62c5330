from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import cache
from html import unescape
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from tests.evidence_cases import evidence, frames, headers, positive, refusal, run

from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import Change, Measure, Observation
from wetread.core.dicom.header import read_header
from wetread.core.dicom.json_model import to_json
from wetread.core.findings import Code, result_json
from wetread.core.ports import EvidenceInput
from wetread.core.priors import PriorFinding, PriorResult, Priors
from wetread.core.results import result_set
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState
from wetread.gateway.report_page import page, plain
from wetread.worklist.schemas import RecordedResultOut


def report(case: EvidenceInput) -> hd.sr.Comprehensive3DSR:
    return hd.sr.srread(BytesIO(Encoder().encode(case)[0].data))


@cache
def standard() -> hd.sr.Comprehensive3DSR:
    return report(evidence())


def groups(dataset: Dataset) -> list[Dataset]:
    measurements = next(i for i in dataset.ContentSequence if name(i) == ("126010", "DCM"))
    return list(measurements.ContentSequence)


def outcome(dataset: Dataset) -> Dataset:
    """Return the group on the run as a whole."""
    return next(group for group in groups(dataset) if tool(group).endswith(" outcome"))


def described(dataset: Dataset, number: int = 1) -> Dataset:
    """Return the group that describes a finding."""
    return next(group for group in groups(dataset) if tool(group).endswith(f" finding {number}"))


def name(item: Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return code.CodeValue, code.CodingSchemeDesignator


def values(group: Dataset, wanted: tuple[str, str]) -> list[str]:
    found = []
    for item in group.ContentSequence:
        if name(item) == wanted:
            found.append(item.TextValue if item.ValueType == "TEXT" else item.ConceptCodeSequence[0].CodeMeaning)
    return found


def tool(group: Dataset) -> str:
    return str(values(group, ("112039", "DCM"))[0])


def drawn_by_viewer(group: Dataset) -> np.ndarray | None:
    """The coordinates that a viewer finds in a group by the rule of the specification: inside the first NUM."""
    first = next((i for i in group.ContentSequence if i.ValueType == "NUM"), None)
    inner = [] if first is None else [i for i in first.get("ContentSequence", []) if i.ValueType == "SCOORD"]
    return np.array(inner[0].GraphicData).reshape(-1, 2) if inner else None


def test_report_is_a_preliminary_unverified_measurement_report() -> None:
    dataset = standard()
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (dataset.PreliminaryFlag, dataset.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert dataset.CompletionFlag == "COMPLETE"


def test_early_result_is_a_partial_report() -> None:
    sources = headers()
    early = result_set(run(), positive(), frames(sources), preliminary=True)
    dataset = report(EvidenceInput(early, sources, positive().mask, None))
    assert dataset.CompletionFlag == "PARTIAL"
    assert values(outcome(dataset), ("ai-state", "99WETREAD")) == ["preliminary_positive"]


def test_root_comment_is_the_statement_word_for_word() -> None:
    comments = [i.TextValue for i in standard().ContentSequence if name(i) == ("121106", "DCM")]
    assert comments[0] == RUO_STATEMENT
    assert "Phantom-trained" in comments[1]
    assert "POSITIVE" in comments[1]


@pytest.mark.parametrize(
    ("state", "reason", "analysis"),
    [
        (AiState.NEGATIVE, None, "Succeeded"),
        (AiState.MEASURED, None, "Succeeded"),
        (AiState.NOT_PROCESSABLE, "missing_slices", "Failed"),
        (AiState.FAILED, "timeout", "Failed"),
        (AiState.NOT_APPLICABLE, "modality", "Not Attempted"),
        (AiState.CANCELLED, "superseded", "Not Attempted"),
    ],
)
def test_every_outcome_says_what_ran_on_what_and_how_it_ended(state, reason, analysis) -> None:
    case = refusal(state, reason, "the detail" if reason else "")
    dataset = report(case)
    (group,) = groups(dataset)
    assert values(group, ("ai-state", "99WETREAD")) == [str(state)]
    assert values(group, ("ai-reason", "99WETREAD")) == ([reason] if reason else [])
    assert values(group, ("111065", "DCM")) == [analysis]
    assert values(group, ("111001", "DCM")) == ["ich"]
    assert values(group, ("111003", "DCM")) == ["1.2.0"]
    evidence_items = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence_items.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == case.headers[0].SOPInstanceUID


def test_states_are_never_confused_in_the_words_for_readers() -> None:
    texts = {}
    for state in (AiState.NEGATIVE, AiState.NOT_PROCESSABLE, AiState.FAILED, AiState.NOT_APPLICABLE, AiState.MEASURED):
        comments = [i.TextValue for i in report(refusal(state, "r")).ContentSequence if name(i) == ("121106", "DCM")]
        texts[state] = comments[1].splitlines()[0]
    assert len(set(texts.values())) == len(texts)
    assert [s for s, text in texts.items() if "NEGATIVE" in text] == [AiState.NEGATIVE]


def test_provenance_repeats_the_run() -> None:
    parameters = values(outcome(standard()), ("111002", "DCM"))
    assert f"model_sha256={'c' * 64}" in parameters
    assert f"input_sha256={'e' * 64}" in parameters
    assert f"phantom_evidence_id={'9' * 64}" in parameters
    assert "operating_point=sens90" in parameters
    assert f"result_key={'ab' * 32}" in parameters


def test_volumetric_group_stands_on_the_segment() -> None:
    objects = Encoder().encode(evidence())
    dataset = hd.sr.srread(BytesIO(objects[0].data))
    found = dataset.content.get_volumetric_roi_measurement_groups()
    assert len(found) == 2
    assert found[0].referenced_segment.referenced_sop_instance_uid == objects[1].sop_instance_uid
    assert [g.referenced_segment.referenced_segment_numbers for g in found] == [[1], [2]]
    volume = found[0].get_measurements(name=codes.SCT.Volume)[0]
    assert float(volume.value) == 0.58
    assert volume.unit.value == "mL"
    assert found[0].tracking_uid == evidence().result.findings[0].tracking_uid
    assert found[0].finding_type.value == "1386000"


def test_finding_says_presence_type_side_and_score() -> None:
    group = described(standard())
    assert values(group, ("121052", "DCM")) == ["Present"]
    assert values(group, ("finding-type", "99WETREAD")) == [
        "Intraparenchymal hemorrhage",
        "Intraventricular hemorrhage",
    ]
    assert values(group, ("272741003", "SCT")) == ["Right"]
    numbers = {
        name(i)[0]: float(i.MeasuredValueSequence[0].NumericValue)
        for i in group.ContentSequence
        if i.ValueType == "NUM"
    }
    assert numbers == {"118565006": 0.58, "midline-shift": 3.25, "score": 0.93, "threshold": 0.61}


def test_uncertainty_and_method_hang_on_their_measurement() -> None:
    group = described(standard())
    volume = next(i for i in group.ContentSequence if i.ValueType == "NUM" and name(i)[0] == "118565006")
    assert [i.ValueType for i in volume.ContentSequence] == ["TEXT", "NUM"]
    assert float(volume.ContentSequence[1].MeasuredValueSequence[0].NumericValue) == 0.1


def test_viewer_finds_outline_and_length_of_each_finding() -> None:
    found = groups(standard())
    drawn = [g for g in found if tool(g).startswith("Cornerstone3DTools@^0.1.0:")]
    assert [tool(g).split(":")[1] for g in drawn] == ["PlanarFreehandROI", "Length"] * 2
    assert found[:4] == drawn, "a viewer opens the report on the image of its first group"
    assert len({values_uid(g) for g in found}) == len(found)  # the viewer's annotation id
    for group in drawn:
        points = drawn_by_viewer(group)
        assert points is not None
        assert values(group, ("121071", "DCM")) == ["Intracranial hemorrhage"]
    assert all(drawn_by_viewer(g) is None for g in found if g not in drawn)


def values_uid(group: Dataset) -> str:
    return next(str(i.UID) for i in group.ContentSequence if name(i) == ("112040", "DCM"))


def test_one_pixel_outline_has_its_centre_half_a_pixel_inside() -> None:
    mask = np.zeros((12, 64, 80), np.uint8)
    mask[5, 10, 33] = 1  # row 10, column 33
    seen = Observation("intracranial_hemorrhage", "positive", label=1)
    found = groups(report(evidence(result=positive(mask, observations=(seen,)))))
    outline, length = drawn_by_viewer(found[0]), drawn_by_viewer(found[1])
    assert outline is not None
    assert length is not None
    assert (outline[0] == outline[-1]).all()
    assert outline[:-1].mean(axis=0).tolist() == [33.5, 10.5]  # column \ row
    assert length.mean(axis=0).tolist() == [33.5, 10.5]
    area = next(i for i in found[0].ContentSequence if i.ValueType == "NUM")
    assert name(area) == ("42798000", "SCT")
    assert float(area.MeasuredValueSequence[0].NumericValue) == 0.25
    assert area.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "mm2"


def test_outline_references_the_key_image() -> None:
    case = evidence()
    outline = groups(report(case))[0]
    number = next(i for i in outline.ContentSequence if i.ValueType == "NUM")
    image = number.ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == case.headers[5].SOPInstanceUID
    assert "ReferencedFrameNumber" not in image


def test_finding_without_a_region_references_its_key_image() -> None:
    seen = Observation("intracranial_hemorrhage", "indeterminate", key_plane=3)
    case = evidence(result=positive(observations=(seen,), mask=None, state="indeterminate"))
    dataset = report(case)
    group = described(dataset)
    assert values(group, ("121052", "DCM")) == ["Presence Undetermined"]
    image = next(i for i in group.ContentSequence if i.ValueType == "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == case.headers[3].SOPInstanceUID


def test_every_selected_image_and_the_segmentation_are_evidence() -> None:
    case = evidence()
    objects = Encoder().encode(case)
    listed = {item[2] for item in hd.sr.srread(BytesIO(objects[0].data)).get_evidence()}
    assert listed == {h.SOPInstanceUID for h in case.headers} | {objects[1].sop_instance_uid}


def test_quality_and_shadow_are_flagged() -> None:
    sources = headers()
    del sources[0].FrameOfReferenceUID
    flags = values(outcome(report(evidence(sources, shadow=True))), ("quality-flag", "99WETREAD"))
    assert flags == ["holes_bridged", "frame_of_reference=derived", "shadow"]


def test_private_codes_are_declared() -> None:
    scheme = standard().CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == "99WETREAD"


def test_no_three_dimensional_coordinates_in_a_derived_frame() -> None:
    sources = headers()
    for source in sources:
        del source.FrameOfReferenceUID
    assert not [e for e in report(evidence(sources)).iterall() if e.value == "SCOORD3D"]


def told(item: Dataset) -> list[str]:
    """What a reader has to see of a content item, read by pydicom."""
    if item.ValueType == "TEXT":
        return [item.TextValue.rstrip()]
    if item.ValueType == "CODE":
        return [item.ConceptCodeSequence[0].CodeMeaning, item.ConceptCodeSequence[0].CodeValue]
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0]
        return [f"{float(measured.NumericValue):.15g}", unit.CodeValue, unit.CodeMeaning]
    if item.ValueType == "IMAGE":
        reference = item.ReferencedSOPSequence[0]
        return [reference.ReferencedSOPInstanceUID, reference.ReferencedSOPClassUID.name]
    return [item.GraphicType] if item.ValueType in ("SCOORD", "SCOORD3D") else []


def test_report_can_be_read_as_a_page_and_as_text() -> None:
    """PS3.18 8.7.4, table 8.7.4-1: every name, code, value, unit and reference of the tree, and the statement."""
    file = BytesIO()
    standard().save_as(file)
    model, clean = to_json(read_header(file.getvalue()))
    shown = page(model, lambda study, series, instance: f"https://pacs/{study}/{series}/{instance}").decode()
    words = unescape(re.sub(r"<[^>]*>", "", shown))
    text = plain(model).decode()
    assert clean
    for each in (RUO_STATEMENT, "Doe, Jane", "Imaging Measurement Report", "complete, unverified, preliminary"):
        assert each in words
        assert each in text
    items = list(content_items(standard()))
    assert len(items) > 60
    for item in items:
        concept = item.ConceptNameCodeSequence[0]
        for each in (concept.CodeMeaning, concept.CodeValue, *told(item)):
            assert each in words
            assert each.split("\n")[0] in text
    images = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in items if i.ValueType == "IMAGE"}
    assert images
    assert {link.rpartition("/")[2] for link in re.findall(r'href="https://pacs/([^"]*)"', shown)} >= images


def content_items(data: Dataset) -> Iterator[Dataset]:
    for item in data.get("ContentSequence", []):
        yield item
        yield from content_items(item)


PRIOR = PriorResult(
    study_uid="1.2.840.99.1",
    result_key="9f" * 32,
    version="1.2.0",
    state="positive",
    study_date=date(2025, 3, 1),
    days=306.0,
    findings=(PriorFinding(finding_id="p0", code=Code(value="1386000", scheme="SCT", meaning="x"), state="positive"),),
)


def test_what_became_of_a_finding_is_coded_and_stands_on_the_study_of_then() -> None:
    priors = Priors(results=(PRIOR,), left_out=("birth_date",))
    result = positive()
    measures = (Measure("volume_change", 150.0, "%", "against then"), Measure("doubling_time", 231.4, "d"))
    grown = replace(result.observations[0], measures=measures, change=Change("grown", PRIOR, PRIOR.findings[0]))
    new = replace(result.observations[1], change=Change("new", PRIOR))
    dataset = report(evidence(result=replace(result, observations=(grown, new)), priors=priors.record()))
    assert values(described(dataset, 1), ("111049", "DCM")) == ["Increase in size"]
    assert values(described(dataset, 2), ("111049", "DCM")) == ["New: the earlier result holds no such finding"]
    [change] = [i for i in described(dataset, 1).ContentSequence if name(i) == ("111049", "DCM")]
    day, study = change.ContentSequence
    assert (day.RelationshipType, day.Date, study.UID) == ("INFERRED FROM", "20250301", PRIOR.study_uid)
    numbers = {
        name(i)[0]: (
            float(i.MeasuredValueSequence[0].NumericValue),
            i.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for i in described(dataset, 1).ContentSequence
        if i.ValueType == "NUM"
    }
    assert (numbers["volume-change"], numbers["doubling-time"]) == ((150.0, "%"), (231.4, "d"))
    assert f"prior_result_key={PRIOR.result_key}" in values(outcome(dataset), ("111002", "DCM"))
    [said] = values(outcome(dataset), ("121106", "DCM"))
    assert said == "Earlier results of ich handed in: 2025-03-01. Not used, with the reason: birth_date."
    words = [i.TextValue for i in dataset.ContentSequence if i.ValueType == "TEXT"][-1]
    assert "Intracranial hemorrhage: positive, grown since 2025-03-01" in words


def test_that_there_was_no_earlier_result_is_said_only_by_who_asked() -> None:
    asked = report(evidence(priors=Priors().record()))
    assert values(outcome(asked), ("121106", "DCM")) == ["No earlier result to compare with."]
    assert values(outcome(standard()), ("121106", "DCM")) == []


def test_the_answer_of_the_api_says_what_was_compared() -> None:
    result = positive()
    grown = replace(result.observations[0], change=Change("grown", PRIOR, PRIOR.findings[0]))
    case = evidence(result=replace(result, observations=(grown,)), priors=Priors(results=(PRIOR,)).record())
    answer = RecordedResultOut.model_validate(result_json(case.result, ())).model_dump()
    assert answer["priors"]["results"][0]["study_date"] == "2025-03-01"
    assert answer["findings"][0]["change"] == {
        "course": "grown",
        "prior_study_uid": PRIOR.study_uid,
        "prior_result_key": PRIOR.result_key,
        "prior_date": "2025-03-01",
        "prior_finding_id": "p0",
    }
    silent = RecordedResultOut.model_validate(result_json(evidence().result, ()))
    assert (silent.priors, silent.findings[0].change) == (None, None)
