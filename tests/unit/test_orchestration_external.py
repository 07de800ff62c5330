"""External performers: offered, claimed, silent, overdue, performed, given up, on the real UPS service."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from types import SimpleNamespace

import orjson
import pytest
from pydicom import dcmread
from tests.foreign_sr import COMPREHENSIVE_3D_SR, foreign_sr
from tests.orchestration_fakes import STUDY, TENANT, FakeObjects
from tests.orchestration_world import World, workflow

from wetread.adapters.index.workitems import SqlWorkitems
from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.errors import ConfigurationError, WorkitemStateError
from wetread.core.facts import InstanceFacts, SeriesFacts
from wetread.core.identifiers import digest
from wetread.core.priority import Priority
from wetread.core.states import AiState
from wetread.core.ups_dataset import code, element
from wetread.core.workflow import WorkflowModel, check_workflow
from wetread.orchestration.compose import Composition
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.execute import Execution
from wetread.orchestration.external import ExternalRunner
from wetread.orchestration.foreign_outputs import OfferedTasks
from wetread.orchestration.foreign_report import findings_of
from wetread.orchestration.operations import Operations
from wetread.orchestration.ports import Rules
from wetread.orchestration.requests import Requests
from wetread.worklist.ups import UpsHooks, UpsService, UpsSettings

TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))
CLOSED = range(1, 9)
SERIES, SOP = "7.7.1", "7.7.1.1"
LEASE = 900.0


class Reports(FakeObjects):
    """An object store that also holds what performers stored, by SOP Instance UID."""

    def __init__(self):
        self.held = {}

    def read(self, ref, start=0, length=None):
        return self.held.get(ref.locator.rpartition("/")[2]) or super().read(ref, start, length)


class Site:
    """A world with an external task, and the UPS service in front of it."""

    def __init__(self, folder, **task):
        spec = {"uses": "detector/lvo@^2", "performer": "external", "timeout": "10m", **task}
        declared = workflow(
            tasks={"lvo": spec},
            triage=[{"if": "result('lvo').state == 'positive'", "then": {"raise_to": "stat", "reason": "vendor flag"}}],
        )
        world = World(folder, rules=Rules((declared,), TRUSTED, early_settle_seconds=0.0))
        self.objects = Reports()
        world.ports = replace(
            world.ports,
            workitems=SqlWorkitems(world.clock),
            objects=self.objects,
            runner=ExternalRunner(world.runner, world.rules.external),
        )
        world.evaluator = Evaluator(world.ports, world.rules)
        world.execution, world.composition = Execution(world.ports, world.rules), Composition(world.ports, world.rules)
        world.operations = Operations(world.ports, world.rules, world.evaluator)
        archive = SimpleNamespace(summary=world.studies.summary, metadata=self.metadata)
        offers = OfferedTasks(archive, world.ports.workitems, lambda: world.rules.external)
        ports = world.ports
        self.requests = Requests(world.database, ports.tasks, ports.events, ports.queue, world.clock, offers)
        hooks = UpsHooks(self.requests.cancel_requested, self.requests.workitem_changed)
        settings = UpsSettings(lease_s=LEASE)
        self.ups = UpsService(world.database, world.ports.workitems, world.clock, settings, hooks)
        self.world = world

    def metadata(self, tx, tenant, study_uid, series_uid):
        found = {}
        for sop, data in self.objects.held.items():
            header = dcmread(io.BytesIO(data))
            if header.SeriesInstanceUID == series_uid:
                found[sop] = header.to_json_dict()
        packed = tuple((sop, zlib.compress(orjson.dumps(content))) for sop, content in found.items())
        return [SimpleNamespace(instances=packed)]

    @property
    def task(self):
        return self.world.task("lvo")

    def offered(self):
        """Deliver a complete study; return the task once it is offered."""
        self.world.deliver(CLOSED, transfer_end=True)
        self.world.drain()
        assert self.task.state is AiState.QUEUED
        return self.task

    def claim(self, lock="2.25.7"):
        body = {"00741000": element("CS", "IN PROGRESS"), "00081195": element("UI", lock)}
        self.ups.change_state(TENANT, self.task.workitem_uid, body)
        self.world.drain()

    def store(self, **options):
        """Store a report as a performer does: it becomes a series of the study."""
        self.objects.held[SOP] = foreign_sr(STUDY, SERIES, SOP, **options)
        facts = self.world.studies.studies[TENANT, STUDY]
        instance = InstanceFacts(SOP, COMPREHENSIVE_3D_SR, digest(SOP), "1.2.840.10008.1.2.1", 1)
        series = (*facts.series, SeriesFacts(SERIES, "SR", (instance,)))
        self.world.studies.studies[TENANT, STUDY] = replace(facts, series=series, generation=facts.generation + 1)

    def complete(self, lock="2.25.7", *, study=STUDY, sop_class=COMPREHENSIVE_3D_SR, sop=SOP):
        reference = {"00081150": element("UI", sop_class), "00081155": element("UI", sop)}
        output = {
            "0020000D": element("UI", study),
            "0020000E": element("UI", SERIES),
            "00081199": element("SQ", reference),
        }
        performed = {
            "00404028": element("SQ", code("v", "99V", "vendor")),
            "00404050": element("DT", "20260101080000"),
            "00404051": element("DT", "20260101080100"),
            "00404019": element("SQ", code("110004", "DCM", "CAD")),
            "00404033": element("SQ", output),
        }
        uid = self.task.workitem_uid
        self.ups.update(TENANT, uid, lock, {"00741216": element("SQ", performed)})
        body = {"00741000": element("CS", "COMPLETED"), "00081195": element("UI", lock)}
        self.ups.change_state(TENANT, uid, body)
        self.world.settle()

    def fall_silent(self):
        self.world.clock.time += LEASE + 1
        self.requests.performers_silent(self.ups.flag_silent(self.world.clock.now()))
        self.world.drain()

    def workitem(self, uid=None):
        return self.ups.retrieve(TENANT, uid or self.task.workitem_uid)


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
