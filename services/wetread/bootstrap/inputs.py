"""What each service is built from: one function per service, called by its name in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from wetread.core.service import Service

if TYPE_CHECKING:
    from wetread.bootstrap.house import House
    from wetread.ffrct.ports import FfrPorts
    from wetread.orchestration.service import Orchestration
    from wetread.pathology.ports import SlidePorts

_DRAIN_SECONDS = 8
"""A stopping worker finishes what runs for so long; the rest is taken up at the next start."""

Build = Callable[..., Service]


def gateway(house: House, build: Build) -> Service:
    """DICOMweb over the archive."""
    from wetread.adapters.index.usage import SqlUsageMeter
    from wetread.gateway.settings import GatewaySettings

    return build(
        house.index_database,
        house.archive,
        house.objects,
        house.ingest,
        house.codecs,
        settings=GatewaySettings(
            public_base_url=house.settings.public_base_url or "",
            codec_cache_bytes=house.place.part(GatewaySettings().codec_cache_bytes),
            qido_empty_status=house.settings.qido_empty_status,
            strict_negotiation=house.settings.strict_negotiation,
            ingest=house.ingest.settings,
        ),
        scratch=house.settings.data / "scratch",
        meter=SqlUsageMeter(),
        shares=house.shares,
        stopping=house.stopping,
    )


def dimse(house: House, build: Build) -> Service:
    """The DICOM network edge over the same ingest and index as the gateway."""
    from wetread.adapters.index.dicom_sends import SqlResultSends
    from wetread.adapters.index.usage import SqlUsageMeter
    from wetread.adapters.telemetry.dimse import DimseMetrics
    from wetread.core.dicom.transfer_syntax import EXPLICIT_LE
    from wetread.dimse.ports import DimsePorts
    from wetread.dimse.settings import DEFAULT_PORT, DimseSettings, TlsFiles
    from wetread.gateway.intake import GroupIntake

    settings = house.settings
    tls = None
    if settings.dimse_tls_certificate is not None and settings.dimse_tls_key is not None:
        tls = TlsFiles(settings.dimse_tls_certificate, settings.dimse_tls_key, settings.dimse_tls_authorities)
    meter = DimseMetrics()
    house.collectors += meter.collectors
    journal = house.access_journal()
    ports = DimsePorts(
        database=house.index_database,
        durable=house.database,
        archive=house.archive,
        objects=house.objects,
        intake=GroupIntake(house.index_database, house.archive, house.objects, house.ingest),
        events=house.events,
        sends=SqlResultSends(),
        access=journal,
        decompress=lambda stored: house.codecs.transcode(stored, EXPLICIT_LE),
        clock=house.clock,
        meter=meter,
        tenants=house.tenants,
        usage=SqlUsageMeter(),
    )
    service = build(
        ports,
        DimseSettings(
            ae_title=settings.dimse_ae_title,
            host=settings.dimse_host,
            port=DEFAULT_PORT if settings.dimse_port is None else settings.dimse_port,
            peers=settings.dimse_peers,
            tls=tls,
            scratch=settings.data / "scratch",
            max_associations=settings.dimse_max_associations,
            max_pdu=settings.dimse_max_pdu,
            idle_seconds=settings.dimse_idle,
            object_bytes=settings.max_part_bytes,
        ),
    )

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with journal.lifespan(), service.lifespan():
            yield

    return replace(service, lifespan=lifespan)


def worklist(house: House, build: Build) -> Service:
    """Reading order, provider API, events, pages and UPS-RS."""
    from wetread.adapters.index.claims import SqlReadingClaims
    from wetread.adapters.index.decisions import SqlDecisions, SqlRuleSets
    from wetread.adapters.index.reports import SqlReports
    from wetread.adapters.index.worklist import SqlWorklist
    from wetread.bootstrap.house import load_rules
    from wetread.orchestration.endpoints import router as operations
    from wetread.orchestration.explain import Explainer
    from wetread.orchestration.foreign_outputs import OfferedTasks
    from wetread.orchestration.requests import Renotification, Requests
    from wetread.worklist import viewer
    from wetread.worklist.ports import WorklistPorts, tenant_of
    from wetread.worklist.ups import UpsHooks, UpsService, UpsSettings
    from wetread.worklist.ups_endpoints import build_router
    from wetread.worklist.ups_upkeep import upkeep

    detectors = house.detectors
    active = cache(lambda: load_rules(house.settings))
    offers = OfferedTasks(house.archive, house.workitems, lambda: active().external)
    requests = Requests(house.database, house.tasks, house.events, house.queue, house.clock, offers)
    renotification = Renotification(house.database, house.events, house.deliveries, house.clock)
    hooks = UpsHooks(on_cancel_requested=requests.cancel_requested, on_state_changed=requests.workitem_changed)

    @cache
    def explainer() -> Explainer:
        return Explainer(house.database, SqlDecisions(), SqlRuleSets(), active().workflows)

    policy = UpsSettings(
        public_base_url=house.settings.public_base_url,
        lease_s=house.settings.ups_lease,
        strict_negotiation=house.settings.strict_negotiation,
    )
    workitems = build_router(
        database=house.database, repository=house.workitems, clock=house.clock, settings=policy, hooks=hooks
    )
    ups = UpsService(house.database, house.workitems, house.clock, policy, hooks)
    ports = WorklistPorts(
        database=house.database,
        clock=house.clock,
        worklist=SqlWorklist(),
        order=house.order,
        claims=SqlReadingClaims(),
        events=house.events,
        subscriptions=house.subscriptions,
        deliveries=house.deliveries,
        tasks=house.tasks,
        results=house.results,
        studies=house.archive,
        work=house.queue,
        webhooks=house.webhooks,
        reports=SqlReports(),
        detectors=lambda: detectors,
        stopping=house.stopping,
    )
    every = min(30.0, house.settings.ups_lease / 4)
    also = [workitems, operations(requests, renotification, explainer, tenant_of), viewer.router(house.settings.viewer)]
    # What the specialities say of a study lies below its own path, which no ingress can send elsewhere by prefix.
    if "ffrct" not in house.names:
        from wetread.ffrct import study_endpoints

        trees = _ffr_ports(house)
        also += [study_endpoints.study_router(trees), study_endpoints.pages(trees)]
    if "pathology" not in house.names:
        from wetread.pathology import endpoints, page

        slides = _slide_ports(house)
        also += [endpoints.router(slides), page.pages(slides)]
    service = build(ports, also=also)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with service.lifespan(), upkeep(ups, every_s=every, on_silent=requests.performers_silent):
            yield

    return replace(service, lifespan=lifespan)


def ffrct(house: House, build: Build) -> Service:
    """CT-derived FFR over vessel trees, and its results of the archive's studies."""
    return build(_ffr_ports(house))


def _ffr_ports(house: House) -> FfrPorts:
    from wetread.ffrct.ports import FfrPorts

    return FfrPorts(
        database=house.database,
        clock=house.clock,
        studies=house.archive,
        tasks=house.tasks,
        results=house.results,
        artifacts=house.artifacts,
        work=house.queue,
    )


def pathology(house: House, build: Build) -> Service:
    """Slide analysis of the archive's studies: ask for it, read its result, look at it."""
    return build(_slide_ports(house))


def _slide_ports(house: House) -> SlidePorts:
    from wetread.pathology.ports import SlidePorts
    from wetread.pathology.tile_model import installed_tile_models

    return SlidePorts(
        database=house.database,
        clock=house.clock,
        studies=house.archive,
        tasks=house.tasks,
        results=house.results,
        artifacts=house.artifacts,
        work=house.queue,
        models=frozenset(installed_tile_models()),
        viewer=house.settings.viewer,
    )


def orchestration(house: House, build: Build) -> Service:
    """Durable workflows; carries triage's deliveries as one of them."""
    return build(_durable(house))


def _durable(house: House) -> Orchestration:
    """Return the durable application of this process, for the queues that its services can work on."""
    from wetread.adapters.audit.chain import ChainWatch
    from wetread.adapters.evidence.studies import StudyEncoder
    from wetread.adapters.index.decisions import (
        SqlDecisions,
        SqlManifests,
        SqlQuietWatches,
        SqlRuleSets,
        SqlRunInputs,
    )
    from wetread.adapters.index.executors import SqlExecutors
    from wetread.adapters.workqueue.dbos import DbosRunControl
    from wetread.adapters.workqueue.signals import queue_signal
    from wetread.bootstrap.house import WORKER_EXECUTOR, load_rules
    from wetread.core.workqueue import lanes_of
    from wetread.orchestration.ports import Ports
    from wetread.orchestration.service import Orchestration

    ports = Ports(
        database=house.database,
        clock=house.clock,
        studies=house.archive,
        objects=house.objects,
        artifacts=house.artifacts,
        ingest=house.ingest,
        tasks=house.tasks,
        results=house.results,
        decisions=SqlDecisions(),
        rule_sets=SqlRuleSets(),
        inputs=SqlRunInputs(),
        manifests=SqlManifests(),
        watches=SqlQuietWatches(),
        executors=SqlExecutors(),
        workitems=house.workitems,
        events=house.events,
        reading=house.order,
        queue=house.queue,
        control=DbosRunControl(house.queue),
        runner=house.runner,
        encoder=StudyEncoder(),
    )
    queues = lanes_of(
        detects="detection" in house.names,
        orchestrates="orchestration" in house.names,
        chosen=house.settings.chosen_queues,
    )
    return Orchestration(
        ports,
        load_rules(house.settings),
        house.database.url,
        workflows={"deliver": house.notifier.deliver},
        executor_id=house.settings.instance or WORKER_EXECUTOR,
        queues=queues,
        held=house.held,
        drain_seconds=_DRAIN_SECONDS,
        upkeep=ChainWatch(house.database, (house.access_trail, house.archive), house.clock).look,
        signals=partial(queue_signal, house.database.url),
    )


def triage(house: House, build: Build) -> Service:
    """Notification and escalation."""
    return build(house.notifier, house.escalator)


def detection(house: House, build: Build) -> Service:
    """The processes that run detectors. Without the orchestration beside it, it takes the runs itself."""
    processes = build(house.runner)
    if "orchestration" in house.names:
        return processes
    from wetread.orchestration.service import build as durable

    runs = durable(_durable(house))

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with processes.lifespan(), runs.lifespan():
            yield

    return replace(processes, queues=runs.queues, lifespan=lifespan)


def health(_house: House, build: Build) -> Service:
    """Probes and metrics of a process whose other services have no HTTP face (a worker pod)."""
    return build()


def worker_ports() -> Any:
    """Make the ports of a detection process inside that process (named in its ``WorkerSpec``)."""
    from wetread.adapters.codecs.decoder import PydicomFrameDecoder
    from wetread.bootstrap.engines import inference_client
    from wetread.bootstrap.stores import artifact_store, object_store
    from wetread.detection.worker_ports import WorkerPorts
    from wetread.settings import Settings

    settings = Settings()
    return WorkerPorts(
        objects=object_store(settings, "detection"),
        artifacts=artifact_store(settings),
        decoder=PydicomFrameDecoder(),
        inference=lambda networks: inference_client(settings, networks),
        threads=settings.inference_threads,
    )
