"""External performers: offered, claimed, silent, overdue, performed, given up, on the real UPS service."""

from __future__ import annotations

import pytest
from tests.external_site import SERIES, SOP, Site
from tests.foreign_sr import foreign_sr
from tests.orchestration_fakes import STUDY, TENANT

from wetread.core.errors import ConfigurationError, WorkitemStateError
from wetread.core.priority import Priority
from wetread.core.states import AiState
from wetread.core.ups_dataset import code, element
from wetread.core.workflow import WorkflowModel, check_workflow
from wetread.orchestration.foreign_report import findings_of


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.world.close()


def test_a_complete_study_is_offered_with_every_image_and_nothing_runs_here(site):
    task = site.offered()
    item = site.workitem()
    assert item["00741000"]["Value"] == ["SCHEDULED"]
    assert item["00404041"]["Value"] == ["READY"]
    assert item["00741202"]["Value"] == ["head-ct"], "the label that performers look for"
    [inputs] = item["00404021"]["Value"]
    assert len(inputs["00081199"]["Value"]) == 8
    assert task.version == "2.0.0"
    assert site.world.runner.runs == []


def test_findings_of_a_performer_enter_triage_like_our_own(site):
    site.offered()
    site.claim()
    assert site.task.state is AiState.RUNNING
    site.store()
    site.complete()
    assert site.task.state is AiState.POSITIVE
    [result] = site.world.current()
    [finding] = result.findings
    assert (finding.code.value, finding.state, finding.volume_ml()) == ("1386000", "positive", 7.5)
    assert result.run.engine == "external"
    [stored] = site.world.stored()[0]
    assert (stored.modality, stored.series_uid, stored.sop_instance_uids) == ("SR", SERIES, (SOP,))
    assert site.world.reading.classes[STUDY][0] is Priority.STAT
    assert len(site.world.log("finding.positive")) == len(site.world.log("result.ready")) == 1
    assert site.world.encoder.seen == [], "their report stands; none of ours is written over it"
    assert len(site.world.log("task.started")) == 1


@pytest.mark.parametrize(
    ("call", "state"),
    [
        (("121054", "Absent"), AiState.NEGATIVE),
        (("121059", "Presence Undetermined"), AiState.INDETERMINATE),
        (("1", "free words"), AiState.MEASURED),
    ],
)
def test_a_coded_call_decides_and_nothing_else(call, state):
    assert findings_of([foreign_sr("1", "2", "3", call=call)], "k")[0] is state


def test_what_is_no_report_says_nothing():
    assert findings_of([b"", b"not dicom" * 40], "k") == (AiState.MEASURED, ())


@pytest.mark.parametrize(
    ("store", "claim", "words"),
    [
        ({}, {"study": "9.9"}, "another study"),
        ({}, {"sop": "9.9.9"}, "not stored"),
        ({}, {"sop_class": "1.2.840.10008.5.1.4.1.1.2"}, "SOP class"),
        ({"patient": "OTHER"}, {}, "another patient"),
    ],
)
def test_outputs_that_do_not_hold_are_refused_and_the_claim_stays(site, store, claim, words):
    site.offered()
    site.claim()
    site.store(**store)
    with pytest.raises(WorkitemStateError, match=words) as caught:
        site.complete(**claim)
    assert caught.value.dicom_status == 0xC304
    assert site.workitem()["00741000"]["Value"] == ["IN PROGRESS"]
    assert site.task.state is AiState.RUNNING
    site.store()
    site.complete()
    assert site.task.state is AiState.POSITIVE


def test_a_silent_performer_is_flagged_and_keeps_its_claim_until_its_time_is_over(tmp_path):
    site = Site(tmp_path, timeout="30m")
    try:
        site.offered()
        site.claim()
        site.fall_silent()
        assert site.task.state is AiState.RUNNING
        assert [e.data["detail"] for e in site.world.log("task.stalled")] == ["the external performer fell silent"]
        site.world.advance(1800)
        assert (site.task.state, site.task.reason) == (AiState.FAILED, "timeout")
        assert site.workitem()["00741000"]["Value"] == ["CANCELED"]
    finally:
        site.world.close()


def test_a_lost_claim_is_offered_again_and_points_back(tmp_path):
    site = Site(tmp_path, on_lease_lost="replace", timeout="1h", retries={"max": 1})
    try:
        first = site.offered().workitem_uid
        site.claim()
        site.fall_silent()
        assert site.task.state is AiState.QUEUED
        assert site.workitem(first)["00741000"]["Value"] == ["CANCELED"]
        again = site.workitem()
        assert again["00741000"]["Value"] == ["SCHEDULED"]
        assert again["00741224"]["Value"][0]["00081155"]["Value"] == [first]
        assert len(again["00404021"]["Value"][0]["00081199"]["Value"]) == 8
        site.claim("2.25.8")
        site.fall_silent()
        assert (site.task.state, site.task.reason) == (AiState.FAILED, "performer_lost")
        assert len(site.world.log("task.dead")) == 1
    finally:
        site.world.close()


def test_a_lost_claim_fails_where_the_policy_says_so(tmp_path):
    site = Site(tmp_path, on_lease_lost="fail", timeout="1h")
    try:
        site.offered()
        site.claim()
        site.fall_silent()
        assert (site.task.state, site.task.reason) == (AiState.FAILED, "performer_lost")
    finally:
        site.world.close()


def test_what_nobody_claims_fails_with_its_reason(tmp_path):
    site = Site(tmp_path, claim_within="5m")
    try:
        site.offered()
        site.world.advance(301)
        assert (site.task.state, site.task.reason) == (AiState.FAILED, "not_claimed")
    finally:
        site.world.close()


def test_a_performer_that_gives_up_says_why(site):
    site.offered()
    site.claim()
    uid = site.task.workitem_uid
    progress = {"0074100E": element("SQ", code("110501", "DCM", "Equipment failure"))}
    site.ups.update(TENANT, uid, "2.25.7", {"00741002": element("SQ", progress)})
    body = {"00741000": element("CS", "CANCELED"), "00081195": element("UI", "2.25.7")}
    site.ups.change_state(TENANT, uid, body)
    site.world.drain()
    task = site.task
    assert (task.state, task.reason, task.detail) == (AiState.FAILED, "performer_discontinued", "Equipment failure")


def test_an_offer_called_off_before_it_was_taken_is_cancelled(site):
    site.offered()
    site.ups.request_cancel(TENANT, site.task.workitem_uid, None, "AET")
    site.world.drain()
    assert (site.task.state, site.task.reason) == (AiState.CANCELLED, "ups_request")


def test_only_a_detector_can_be_left_to_others():
    content = {
        "workflow": "x",
        "version": 1,
        "on": {"event": "study.changed", "when": "any(s.modality == 'CT' for s in series)"},
        "tasks": {"report": {"uses": "evidence/standard", "performer": "external"}},
    }
    with pytest.raises(ConfigurationError, match="external performer needs"):
        check_workflow(WorkflowModel.model_validate(content))
