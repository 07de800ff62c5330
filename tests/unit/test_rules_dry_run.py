"""Dry runs: what would happen, why, and to which series, without anything happening."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.orchestration_detectors import FakeRunner
from tests.orchestration_fakes import FakeClock
from tests.orchestration_world import workflow
from typer.testing import CliRunner

from wetread.cli import app
from wetread.commands.rules import instant
from wetread.core.completeness import CompletenessPolicy
from wetread.core.errors import InvalidInput, NotFound, NotProcessable
from wetread.core.facts import InstanceFacts, SeriesFacts, Source, StudyFacts
from wetread.core.priority import Priority
from wetread.core.ruo import RUO_STATEMENT
from wetread.detection.chooser import InstalledChooser
from wetread.detection.registry import discover
from wetread.orchestration.dry_run import DryRun, dry_run
from wetread.orchestration.ports import Rules
from wetread.testing.sections import ct_plane, part10
from wetread.testing.sections import instance_facts as plane
from wetread.testing.sections import series_facts as head_series
from wetread.testing.sections import study_facts as head_study
from wetread.testing.toy_detector import write_toy

ROOT = Path(__file__).resolve().parents[2]
AT = 1_772_323_200.0  # 2026-03-01T00:00:00Z


def series(uid: str, slices: int, **changes: Any) -> SeriesFacts:
    instances = tuple(InstanceFacts(f"{uid}.{n}", "1.2", "h", "t", instance_number=n) for n in range(1, slices + 1))
    return SeriesFacts(
        uid, **({"modality": "CT", "body_part": "HEAD", "contrast": False} | changes), instances=instances
    )


def study(*parts: SeriesFacts, **changes: Any) -> StudyFacts:
    return StudyFacts("default", "1.2.3", parts or (series("1.2.3.1", 30),), **changes)


def tried(facts: StudyFacts, rules: Rules | None = None, **runner: Any) -> DryRun:
    fake = FakeRunner(FakeClock())
    for name, value in runner.items():
        setattr(fake, name, value)
    return dry_run(facts, rules or Rules((workflow(),)), fake, at=AT)


def test_a_matching_study_runs_and_says_where_it_stands() -> None:
    outcome = tried(study())
    [rule], [detector] = outcome.rules, outcome.detectors
    assert (rule.verdict, detector.plan.verdict) == ("matched", "run")
    assert (outcome.priority, outcome.due_at) == (Priority.URGENT, AT + 1800)
    assert [s.selected for s in detector.series] == [True]
    assert detector.consequences[0][1].notify == "stroke-team"


def test_stat_follows_the_source() -> None:
    outcome = tried(study(source=Source(ae="CT_ER")))
    assert (outcome.priority, outcome.due_at) == (Priority.STAT, AT + 300)
    assert outcome.rules[0].stat is not None
    assert outcome.rules[0].stat.value is True
    assert tried(study(source=Source(ae="CT_2"))).priority is Priority.URGENT


def test_no_rule_means_routine_and_a_typed_reason() -> None:
    outcome = tried(study(series("1.2.3.1", 30, body_part="CHEST")))
    [detector] = outcome.detectors
    assert outcome.rules[0].verdict == "not matched"
    assert (detector.plan.verdict, detector.plan.reason) == ("not wanted", "body_part")
    assert outcome.priority is Priority.ROUTINE
    assert detector.consequences == ()
    assert detector.series[0].why == "body_part: not a head"


def test_unknown_is_said_with_the_missing_attribute() -> None:
    rules = Rules((workflow(on={"event": "study.changed", "when": "study.age_years > 2"}),))
    outcome = tried(study(), rules)
    assert outcome.rules[0].verdict == "unknown"
    steps = outcome.as_json()["workflows"][0]["when"]["steps"]
    assert steps["unknown"] is True
    assert steps["parts"] == [{"expression": "study.age_years", "unknown": True, "tag": "PatientAge"}]


def test_the_time_of_arrival_counts() -> None:
    rules = Rules((workflow(on={"event": "study.changed", "when": "now.hour < 6"}),))
    assert tried(study(), rules).rules[0].verdict == "matched"
    late = dry_run(study(), rules, FakeRunner(FakeClock()), at=AT + 12 * 3600)
    assert late.rules[0].verdict == "not matched"


def test_a_policy_that_wants_a_manifest_does_not_make_a_folder_wait() -> None:
    policy = CompletenessPolicy.model_validate({"default": {"require": "manifest"}})
    assert tried(study(), Rules((workflow(),), policy)).detectors[0].plan.verdict == "run"


def test_a_refusal_and_a_broken_selection_are_told_apart() -> None:
    refused = tried(study(), select_error=NotProcessable("no_geometry", "no positions")).detectors[0]
    assert (refused.plan.verdict, refused.plan.reason) == ("refused", "no_geometry")
    assert refused.series[0].why == "no_geometry: no positions"
    broken = tried(study(), select_error=KeyError("x")).detectors[0]
    assert (broken.plan.verdict, broken.plan.reason) == ("broken", "crashed")
    assert broken.series[0].why == "crashed: KeyError"
    short = tried(study(series("1.2.3.1", 2))).detectors[0]
    assert (short.plan.verdict, short.plan.reason) == ("refused", "missing_slices")


def test_a_task_that_needs_another_waits_for_it() -> None:
    chain = workflow(
        tasks={
            "ich": {"uses": "detector/ich@^0"},
            "stroke": {"uses": "detector/stroke@^0", "needs": ["ich"], "if": "result('ich').state == 'negative'"},
        }
    )
    outcome = dry_run(study(), Rules((chain,)), FakeRunner(FakeClock(), "ich", "stroke"), at=AT)
    assert [(d.plan.verdict, d.plan.detail) for d in outcome.detectors][1] == ("wait", "waits for ich")


def test_results_of_our_own_are_left_out() -> None:
    own = replace(series("1.2.3.9", 1, modality="SR"), detector_result=True)
    outcome = tried(study(series("1.2.3.1", 30), own))
    assert [s.series.series_instance_uid for s in outcome.detectors[0].series] == ["1.2.3.1"]


def test_every_other_series_says_why_it_was_not_taken(tmp_path: Path) -> None:
    write_toy(tmp_path)
    chooser = InstalledChooser(discover(bundled=tmp_path))
    facts = head_study(
        head_series([plane(5.0 * n, number=n) for n in range(20)], uid="1.1", kernel="SOFT"),
        head_series([plane(5.0 * n, number=n, series="sharp") for n in range(20)], uid="1.2", kernel="BONE"),
        head_series([plane(0, number=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))], uid="1.3"),
        head_series([plane(5.0 * n, number=n, series="few") for n in range(2)], uid="1.4"),
        head_series([plane(5.0 * n, number=n, series="c") for n in range(20)], uid="1.5", contrast=True),
        head_series([plane(0, number=1, series="mr")], uid="1.6", modality="MR"),
    )
    toy = workflow(tasks={"ich": {"uses": "detector/toy@^1"}})
    [detector] = dry_run(facts, Rules((toy,)), chooser, at=AT).detectors
    why = {s.series.series_instance_uid: (s.selected, s.why.split(":")[0].split(",")[0]) for s in detector.series}
    assert why == {
        "1.1": (True, "20 planes"),
        "1.2": (False, "possible"),
        "1.3": (False, "no_suitable_series"),
        "1.4": (False, "possible"),
        "1.5": (False, "contrast"),
        "1.6": (False, "modality"),
    }
    assert "missing_slices" in detector.series[3].why
    with pytest.raises(NotFound):
        chooser.select("absent", facts)


def test_the_json_form_is_json_and_carries_the_statement() -> None:
    body = json.loads(json.dumps(tried(study()).as_json()))
    assert body["ruo"] == RUO_STATEMENT
    assert body["at"] == "2026-03-01T00:00:00.000Z"
    [detector] = body["detectors"]
    assert detector["series"][0]["selected"] is True
    assert detector["consequences"][0] == {
        "if": "result('ich').state in ('positive', 'preliminary_positive')",
        "raise_to": "stat",
        "notify": "stroke-team",
        "reason": "suspected haemorrhage",
    }


@pytest.mark.parametrize(("text", "seconds"), [("2026-03-01T02:00+01:00", AT + 3600), ("2026-03-01T00:00:00Z", AT)])
def test_instants_have_an_offset(text: str, seconds: float) -> None:
    assert instant(text) == seconds


@pytest.mark.parametrize("text", ["2026-03-01T02:00", "yesterday", ""])
def test_other_instants_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="offset"):
        instant(text)


# --- the command -----------------------------------------------------------------------------------------------------


def write_head(folder: Path, **attributes: Any) -> None:
    folder.mkdir(exist_ok=True)
    for k in range(30):
        values = {
            "BodyPartExamined": "HEAD",
            "StudyDescription": "CT HEAD",
            "SeriesDescription": "5.0 H31s",
        } | attributes
        header = ct_plane(np.zeros((8, 8), np.int16), (0, 0, 5.0 * k), number=k + 1, **values)
        (folder / f"{k}.dcm").write_bytes(part10(header))


def called(*arguments: Any) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["rules", "test", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_explains_a_folder(tmp_path: Path) -> None:
    write_head(tmp_path / "dicom")
    arguments = (ROOT / "workflows", "--dicom", tmp_path / "dicom", "--at", "2026-03-01T00:00Z", "--ae", "CT_ER")
    code, text, _ = called(*arguments)
    assert code == 0
    assert "workflow head-ct-emergency@1: matched" in text
    assert "workflow head-ct-untagged@1: not matched" in text
    assert "'HEAD'    s.body_part  [BodyPartExamined]" in text
    assert "place on the worklist: stat, due 2026-03-01T00:05:00.000Z" in text
    assert "-> series - CT 5.0 H31s, 30 images: 30 planes" in text
    assert RUO_STATEMENT in text
    code, text, _ = called(*arguments, "--json")
    [line] = text.splitlines()
    assert json.loads(line)["priority"] == "stat"


def test_the_command_runs_the_cases(tmp_path: Path) -> None:
    code, text, _ = called(ROOT / "workflows")
    assert code == 0
    assert ", 0 failed, 0 parts of rules not seen" in text
    rule = "workflow: w\nversion: 1\non: {event: study.changed, when: \"source.ae == 'A'\"}\n"
    (tmp_path / "w.yaml").write_text(rule + "tasks: {report: {uses: evidence/standard}}\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "w.yaml").write_text("cases: [{name: n, series: [], source: {ae: B}, matches: [w]}]\n")
    code, text, _ = called(tmp_path)
    assert code == 1
    assert "FAILED n: matches [], not ['w']" in text
    assert "never true in w: source.ae == 'A'" in text
    code, text, _ = called(tmp_path, "--json")
    assert json.loads(text)["failed"] == [{"name": "n", "faults": ["matches [], not ['w']"]}]


def test_wrong_use_is_said_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    shipped = ROOT / "workflows"
    (tmp_path / "bad.yaml").write_text("workflow: w\nversion: zero\n")
    for arguments, says in [
        ((shipped, "--dicom", tmp_path / "dicom"), "no DICOM instances"),
        ((shipped, "--dicom", tmp_path / "none"), "not a folder"),
        ((shipped, "--dicom", tmp_path, "--at", "noon"), "offset"),
        ((shipped, "--at", "2026-03-01T00:00Z"), "for --dicom"),
        ((tmp_path / "none",), "no such folder"),
        ((tmp_path,), "bad.yaml:2: version"),
        ((tmp_path / "dicom",), "no cases"),
    ]:
        code, _, error = called(*arguments)
        assert (code, says in error) == (2, True), (arguments, error)
    code, _, error = called(tmp_path, "--json")
    assert json.loads(error)["type"] == "urn:wetread:problem:configuration"
