"""A small world with one external task, and the real UPS service in front of it."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from types import SimpleNamespace

import orjson
from pydicom import dcmread
from tests.foreign_sr import COMPREHENSIVE_3D_SR, foreign_sr
from tests.orchestration_fakes import STUDY, TENANT, FakeObjects
from tests.orchestration_world import World, workflow

from wetread.adapters.index.workitems import SqlWorkitems
from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.facts import InstanceFacts, SeriesFacts
from wetread.core.identifiers import digest
from wetread.core.states import AiState
from wetread.core.ups_dataset import code, element
from wetread.orchestration.external import ExternalRunner
from wetread.orchestration.foreign_outputs import OfferedTasks
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
        world.ports = replace(world.ports, workitems=SqlWorkitems(world.clock), objects=self.objects)
        world.use(ExternalRunner(world.runner, world.rules.external))
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
