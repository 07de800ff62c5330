"""Workflow files: typed, checked, with the line of every fault; the shipped ones on their cases."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.orchestration_detectors import detector_info
from tests.orchestration_world import workflow

from wetread.core.completeness import CompletenessPolicy, parse_duration
from wetread.core.errors import ConfigurationError
from wetread.core.facts import InstanceFacts, SeriesFacts, Source, StudyFacts
from wetread.core.priority import Priority
from wetread.core.workflow import WorkflowError, WorkflowModel, check_workflow, rules_digest, schema_json, version_fits
from wetread.orchestration.load import load_folder, load_workflow, read_yaml
from wetread.orchestration.namespace import namespace, source_study
from wetread.orchestration.rule_cases import load_cases, run_cases

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("ich", "ffr-ct", "he-tile", "perfusion", "lung-nodule", "lvo", "echo-ef")
DETECTORS = {name: detector_info(name) for name in NAMES}

GOOD = """\
workflow: demo
version: 3
on:
  event: study.changed
  when: "any(s.modality == 'CT' for s in series)"
priority: {base: urgent}
tasks:
  ich: {uses: detector/ich@^0, timeout: 60s, with: {threshold: card}}
  report: {uses: evidence/standard, needs: [ich]}
triage:
  - if: "result('ich').state == 'positive'"
    then: {raise_to: stat, notify: team}
"""


def write(folder: Path, text: str, name: str = "demo.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_a_good_file_loads_and_on_is_not_true(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    assert list(read_yaml(file)) == ["workflow", "version", "on", "priority", "tasks", "triage"]
    [loaded], policy = load_folder(tmp_path, DETECTORS)
    assert policy is None
    assert loaded.name == "demo"
    assert loaded.model.tasks["ich"].timeout == 60.0
    assert loaded.detectors == {"ich": "ich"}
    assert loaded.triage[0][1].raise_to is Priority.STAT


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("base: urgent", "base: urgentt", 6, "priority.base"),
        ("version: 3", "version: 0", 2, "version"),
        ("version: 3", "versoin: 3", 1, "version"),
        ("triage:", "unexpected: 1\ntriage:", 10, "Extra inputs"),
        ("s.modality == 'CT'", "s.modalty == 'CT'", 5, "no attribute 'modalty'"),
        ("result('ich')", "result('ihc')", 11, "no task 'ihc'"),
        ("'positive'", "'posititve'", 11, "none of"),
        ("detector/ich@^0", "detector/stroke@^0", 8, "unknown detector 'stroke'"),
        ("detector/ich@^0", "detector/ich@^1", 8, "installed as 0.1.0"),
        ("detector/ich@^0", "route/dicom", 8, "neither"),
        ("threshold: card", "treshold: card", 8, "no parameter 'treshold'"),
        ("timeout: 60s", "timeout: 2h", 8, "longer than the workflow's"),
        ("timeout: 60s", "timeout: soon", 8, "duration"),
        ("needs: [ich]", "needs: [ihc]", 9, "no task 'ihc'"),
        ("with: {threshold", "needs: [report], with: {threshold", 8, "in a circle"),
        ("uses: evidence/standard", "uses: detector/ich@^0", 9, "already used"),
        ("workflow: demo", "workflow: Demo!", 1, "pattern"),
        ("tasks:", "tasks: [1, 2", 7, ""),
        ("version: 3", "version: 3\nversion: 4", 3, "duplicate"),
    ],
)
def test_faults_have_file_and_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        load_folder(tmp_path, DETECTORS)
    assert caught.value.detail.startswith("demo.yaml:")
    found = int(caught.value.detail.split(":")[1])
    assert found == line or new.startswith("tasks: [")
    assert says in caught.value.detail


def test_other_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        load_folder(tmp_path / "none", DETECTORS)
    write(tmp_path, "- a list\n")
    with pytest.raises(ConfigurationError, match="mapping"):
        load_folder(tmp_path, DETECTORS)
    (tmp_path / "demo.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError):
        load_folder(tmp_path, DETECTORS)
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "again.yaml")
    with pytest.raises(ConfigurationError, match="declared twice"):
        load_folder(tmp_path, DETECTORS)


def test_a_folder_may_bring_its_completeness_policy(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    policy_file = """\
completeness:
  default: {quiet_series: 2s, quiet_study: 8s, max_wait: 15m}
  sources:
    - match: {ae: "CT_ER*"}
      treat_transfer_end_as: complete
    - match: {client: telerad-a}
      require: manifest
"""
    write(tmp_path, policy_file, "completeness.yaml")
    _, policy = load_folder(tmp_path, DETECTORS)
    assert policy is not None
    assert policy.timing(Source(ae="CT_ER1")).treat_transfer_end_as == "complete"
    assert policy.timing(Source(ae="CT_ER1")).quiet_series == 2.0
    assert policy.timing(Source(client="telerad-a")).require == "manifest"
    assert policy.timing(Source(ae="CT_2")).max_wait == 900.0
    write(tmp_path, policy_file.replace("quiet_study", "quiet_stduy"), "completeness.yaml")
    with pytest.raises(ConfigurationError, match=r"completeness\.yaml:2"):
        load_folder(tmp_path, DETECTORS)


def test_graph_checks_without_a_file() -> None:
    def model(tasks: dict[str, Any]) -> WorkflowModel:
        return WorkflowModel.model_validate(
            {"workflow": "w", "version": 1, "on": {"event": "study.changed", "when": "True"}, "tasks": tasks}
        )

    with pytest.raises(WorkflowError) as caught:
        check_workflow(
            model(
                {
                    "a": {"uses": "detector/a@*", "needs": ["b"]},
                    "b": {"uses": "detector/b@*", "needs": ["a"]},
                    "c": {"uses": "evidence/standard"},
                }
            )
        )
    assert caught.value.where == ("tasks", "a", "needs")
    with pytest.raises(WorkflowError, match="no task 'a'"):  # a condition sees only what the task waits for
        check_workflow(
            model(
                {
                    "a": {"uses": "detector/a@*"},
                    "b": {"uses": "detector/b@*", "if": "result('a').state == 'positive'"},
                }
            )
        )


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("1.2.3", "*", True),
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "1.2", True),
        ("1.3.0", "1.2", False),
        ("1.9.0", "^1.2", True),
        ("1.1.0", "^1.2", False),
        ("2.0.0", "^1.2", False),
        ("0.1.0", "^0", True),
        ("0.9.0", "^0", True),
        ("1.0.0", "^0", False),
        ("0.3.4", "^0.3.1", True),
        ("0.4.0", "^0.3", False),
    ],
)
def test_version_ranges(version: str, wanted: str, fits: bool) -> None:
    assert version_fits(version, wanted) is fits


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("3s", 3), ("15m", 900), ("1h", 3600), (7, 7), ("1.5", 1.5)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "3 days", "-1s", "s", True, None])
def test_no_durations(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_the_digest_is_that_of_the_meaning() -> None:
    assert workflow().digest == workflow().digest
    assert workflow().digest != workflow(version=2).digest
    assert rules_digest((workflow(), workflow(workflow="b"))) == rules_digest((workflow(workflow="b"), workflow()))


# --- the schema and the shipped files --------------------------------------------------------------------------------


def test_the_committed_schema_is_fresh() -> None:
    assert (ROOT / "services/wetread/schemas/workflow.schema.json").read_bytes() == schema_json(), (
        "regenerate it: see docs/workflows.md"
    )


@pytest.mark.parametrize("file", sorted((ROOT / "workflows").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_workflows_fit_the_schema(file: Path) -> None:
    schema = json.loads(schema_json())
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(read_yaml(file))))
    assert load_workflow(file).name == file.stem


def head_ct(**changes: Any) -> StudyFacts:
    study = {k: changes.pop(k) for k in list(changes) if k in {"description", "patient_age_years", "patient_sex"}}
    source = changes.pop("source", Source())
    values: dict[str, Any] = {"modality": "CT", "contrast": False}
    instance = InstanceFacts("1.1", "1.2", "h", "1.2.840.10008.1.2.1")
    series = SeriesFacts("1.2", instances=(instance,), **{**values, **changes})
    return StudyFacts("default", "1", (series,), source=source, **study)


def test_the_cases_of_the_shipped_rules_hold() -> None:
    loaded, _ = load_folder(ROOT / "workflows", DETECTORS)
    cases = [case for file in sorted((ROOT / "workflows/tests").glob("*.yaml")) for case in load_cases(file)]
    outcomes, missing = run_cases(cases, loaded)
    assert len(cases) >= 15
    assert {o.case.name: o.faults for o in outcomes if o.faults} == {}
    assert missing == [], "every part of every rule is seen true and false"


def test_a_case_that_does_not_hold_says_what_is_wrong(tmp_path: Path) -> None:
    text = """\
cases:
  - {name: a, series: [{modality: MR}], matches: [demo], unknown: [demo], stat: true}
  - {name: b, series: [{modality: CT}], matches: [demo], stat: false}
"""
    write(tmp_path, GOOD)
    loaded, _ = load_folder(tmp_path, DETECTORS)
    outcomes, missing = run_cases(load_cases(write(tmp_path, text, "cases.txt")), loaded)
    assert len(outcomes[0].faults) == 3
    assert outcomes[1].faults == ()
    assert missing == []
    _, untested = run_cases(load_cases(tmp_path / "cases.txt")[:1], loaded)
    assert {c.missing for c in untested} == {"true"}
    write(tmp_path, text.replace("matches", "mathces"), "cases.txt")
    with pytest.raises(ConfigurationError, match="matches: Field required"):
        load_cases(tmp_path / "cases.txt")


def test_stat_by_source_or_words() -> None:
    [emergency] = [
        w
        for w in load_folder(ROOT / "workflows", {**DETECTORS, "ffr-ct": detector_info("ffr-ct")})[0]
        if w.name == "head-ct-emergency"
    ]
    assert emergency.stat_if is not None
    urgent = emergency.stat_if.evaluate(namespace(head_ct(source=Source(ae="CT_2"), description="x"), now=0.0))
    assert urgent is False
    for study in (head_ct(source=Source(ae="CT_ER")), head_ct(description="stroke protocol")):
        assert emergency.stat_if.evaluate(namespace(study, now=0.0)) is True


def test_own_series_are_never_seen() -> None:
    own = SeriesFacts("9", "SR", (InstanceFacts("9.1", "1.2", "h", "t"),), detector_result=True)
    study = head_ct(body_part="HEAD")
    mixed = StudyFacts("default", "1", (*study.series, own))
    assert source_study(mixed).series == study.series


def test_a_hundred_rules_take_about_a_millisecond(capsys: pytest.CaptureFixture[str]) -> None:
    [emergency] = [
        w
        for w in load_folder(ROOT / "workflows", {**DETECTORS, "ffr-ct": detector_info("ffr-ct")})[0]
        if w.name == "head-ct-emergency"
    ]
    study = head_ct(body_part="CHEST")
    several = StudyFacts("default", "1", study.series * 4)
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        space = namespace(several, now=0.0)
        for _ in range(100):
            emergency.when.evaluate(space)
        best = min(best, time.perf_counter() - started)
    with capsys.disabled():
        print(f"\n100 rules on a study of 4 series: {best * 1000:.2f} ms (best of 7)")
    assert best < 0.02


def test_default_policy_is_the_documented_one() -> None:
    timing = CompletenessPolicy().timing(Source())
    assert (timing.quiet_series, timing.quiet_study, timing.max_wait, timing.early) == (3.0, 10.0, 900.0, True)
