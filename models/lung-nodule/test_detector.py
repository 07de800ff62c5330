"""Nodules of the lung: the golden case, refusals, what a result holds, and the card from its rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.codes import concept, unit_code
from wetread.core.detector import Context
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.core.findings import Run
from wetread.core.manifest import Card
from wetread.core.priors import PatientStudy, PriorCandidate, choose_priors
from wetread.core.results import result_set
from wetread.detection.authoring import cards
from wetread.detection.authoring.golden import differences
from wetread.detection.evaluation.measure import case_maker, drive, read_rows
from wetread.detection.evaluation.report import readme
from wetread.detection.registry import companion, load, read_folder

INSTALLED = read_folder(Path(__file__).parent)
CASES = companion(INSTALLED, "cases")


@pytest.fixture(scope="module")
def engine():
    return OnnxRuntimeClient(INSTALLED.networks, threads=1)


@pytest.fixture(scope="module")
def case():
    return case_maker(INSTALLED)("s0", 2_000_000, **CASES.CONTRACT_OPTIONS)


@pytest.fixture(scope="module")
def result(case, engine):
    return drive(load(INSTALLED), engine, case.volume)


def test_the_golden_case_gives_what_it_gave(engine):
    assert differences(INSTALLED, engine) == []


def test_the_nodule_is_found_and_measured(case, result):
    [lesion] = case.truth.lesions
    assert result.state == "positive"
    assert result.score >= result.threshold
    first = result.observations[0]
    values = {m.name: m.value for m in first.measures}
    place = [values[f"position_{axis}"] for axis in "xyz"]
    assert np.linalg.norm(np.subtract(place, lesion.centre_mm)) < lesion.radius_mm
    assert values["volume"] == pytest.approx(4 / 3 * np.pi * lesion.radius_mm**3, rel=0.3)
    assert first.laterality == ("left" if lesion.centre_mm[0] > 0 else "right")
    assert (result.mask == first.label)[first.key_plane].any()


def test_every_word_of_a_result_is_coded(result):
    listed = INSTALLED.info.manifest.findings[0]
    for seen in result.observations:
        for word in (seen.code, *seen.types, *(m.name for m in seen.measures)):
            assert concept(word)
        assert {unit_code(m.unit).value for m in seen.measures} <= {"mm", "mm3", "[hnsf'U]"}
        assert set(seen.types) <= set(listed.types)
        assert {m.name for m in seen.measures} <= set(listed.measurements)


def test_the_document_holds_the_rule_and_its_numbers(result):
    [attachment] = result.attachments
    document = json.loads(attachment.data)
    assert "Research use only" in document["disclaimer"]
    assert document["threshold"] == result.threshold
    assert len(document["nodules"]) == len(result.observations)
    assert document["nodules"][0]["candidate"]["dot_hu"] > 0


@pytest.mark.slow
def test_a_threshold_that_nothing_reaches_gives_a_negative(case, engine):
    detector = load(INSTALLED)
    point = detector.card.operating_points[0].model_copy(update={"threshold": 1.0})
    detector.card = detector.card.model_copy(update={"operating_points": (point,)})
    answer = drive(detector, engine, case.volume)
    assert (answer.state, [o.state for o in answer.observations]) == ("negative", ["negative"])
    assert not answer.mask.any()


def test_without_an_operating_point_it_does_not_run(case):
    detector = load(INSTALLED)
    detector.card = Card(name="lung-nodule", version="0.3.0")
    with pytest.raises(ConfigurationError):
        next(detector.steps(case.volume, Context(case.volume)))


def test_a_body_without_lungs_and_turned_planes_are_refused(case):
    detector = load(INSTALLED)
    solid = replace(case.volume, voxels=np.where(case.volume.voxels > -950, 30, -1000).astype(np.float32))
    turned = replace(case.volume, column_direction=np.array([0, 0, -1.0]))
    with pytest.raises(NotApplicable) as no_lungs:
        next(detector.steps(solid, Context(solid)))
    with pytest.raises(NotProcessable) as sagittal:
        next(detector.steps(turned, Context(turned)))
    assert (no_lungs.value.reason, sagittal.value.reason) == ("body_part", "mixed_orientation")


def study(age=60.0, **changes):
    series = SeriesFacts("1.2.3", **({"modality": "CT", "instances": (), "body_part": "CHEST"} | changes))
    return StudyFacts(tenant="t", study_instance_uid="1", series=(series,), patient_age_years=age)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (study(), None),
        (study(contrast=True), None),
        (study(body_part="", description="CT THORAX"), None),
        (study(modality="MR"), "modality"),
        (study(body_part="HEAD"), "body_part"),
        (study(age=9.0), "patient_age"),
    ],
)
def test_headers_say_which_study_it_wants(given, reason):
    detector = load(INSTALLED)
    answer = detector.applicable(given)
    assert (answer.applicable, answer.reason) == (reason is None, reason)
    if reason:
        with pytest.raises(NotApplicable):
            detector.select(given)


@pytest.mark.slow
def test_the_card_follows_from_the_committed_rows():
    evaluate = companion(INSTALLED, "evaluate")
    stored = cards.read(INSTALLED.folder)
    rows = read_rows(INSTALLED.folder / "cases.csv")
    again = cards.measured(INSTALLED.folder, stored, rows) | evaluate.tables(rows, stored)
    assert json.loads(json.dumps(again)) == stored


def test_the_card_tells_its_evidence_and_the_readme_says_what_it_says():
    stored = cards.read(INSTALLED.folder)
    assert (INSTALLED.folder / "README.md").read_text("utf-8") == readme(stored)
    assert stored["phantom_evidence_id"] == cards.evidence_of(INSTALLED.folder)
    rows = read_rows(INSTALLED.folder / "cases.csv")
    for name, figures in stored["metrics"].items():
        if "seeds" in figures:
            assert figures["n"] == sum(r["set"] == name for r in rows)


def test_the_error_that_growth_must_exceed_is_not_below_the_cards():
    stated = cards.read(INSTALLED.folder)["lesions"]["s0"]["volume_error"]["value"]
    assert INSTALLED.info.manifest.parameters["volume_error"] >= stated


def test_a_nodule_of_half_the_volume_then_has_grown(case, engine, result):
    digests = dict.fromkeys(("model_digest", "params_digest", "input_digest", "rules_digest", "software", "engine"), "")
    known = {"result_key": "k", "tenant": "t", "study_uid": "1.1", "series_uid": None, "started_at": 0.0}
    then = result_set(Run(**known, **digests, detector="lung-nodule", version="0.3.0"), result, case.volume.frames)
    [found] = then.findings
    volume = found.measurements[0]
    halved = volume.model_copy(update={"value": volume.value / 2, "uncertainty": volume.uncertainty / 2})
    finding = found.model_copy(update={"measurements": (halved, *found.measurements[1:])})
    now, before = (PatientStudy(u, "", "", "", day, "") for u, day in (("1.2", "20260101"), ("1.1", "20251001")))
    candidate = PriorCandidate(before, then.model_copy(update={"findings": (finding,)}))
    priors = choose_priors(now, [candidate], version="0.3.0", shadow=True, limit=3)
    steps = load(INSTALLED).steps(case.volume, Context(case.volume, priors=priors))
    request = next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(engine.infer(request.network, request.tensors))
    answer = done.value.value
    [seen] = answer.observations
    assert (seen.change.course, seen.change.finding.finding_id) == ("grown", found.finding_id)
    more = {m.name: m.value for m in seen.measures if m not in result.observations[0].measures}
    assert more == {"volume_change": 100.0, "doubling_time": pytest.approx(92.0)}
    [entry] = json.loads(answer.attachments[0].data)["nodules"]
    assert (entry["change"]["course"], entry["change"]["prior_date"]) == ("grown", "2025-10-01")
    assert result.observations[0].change is None, "without an earlier result nothing is said"


def test_the_operating_point_follows_from_the_tuning_rows():
    evaluate = companion(INSTALLED, "evaluate")
    tuning = [r for r in read_rows(INSTALLED.folder / "cases.csv") if r["set"] == "tune"]
    assert [evaluate.point_of(tuning)] == cards.read(INSTALLED.folder)["operating_points"]
