"""What each service is built from: one function per service, called by its name in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wetread.core.service import Service

if TYPE_CHECKING:
    from wetread.bootstrap.house import House

_DRAIN_SECONDS = 8
"""A stopping worker finishes what runs for so long; the rest is taken up at the next start."""

Build = Callable[..., Service]


def gateway(house: House, build: Build) -> Service:
    """DICOMweb over the archive."""
    from wetread.gateway.settings import GatewaySettings

    return build(
        house.index_database,
        house.archive,
        house.objects,
        house.ingest,
        settings=GatewaySettings(public_base_url=house.settings.public_base_url or "", ingest=house.ingest.settings),
        scratch=house.settings.data / "scratch",
    )


def worklist(house: House, build: Build) -> Service:
    """Reading order, provider API, events, pages and UPS-RS."""
    from wetread.adapters.index.worklist import SqlWorklist
    from wetread.bootstrap.house import installed_detectors
    from wetread.worklist.ports import WorklistPorts
    from wetread.worklist.ups import UpsHooks, UpsService, UpsSettings
    from wetread.worklist.ups_endpoints import build_router
    from wetread.worklist.ups_upkeep import upkeep

    detectors = installed_detectors(house.settings)
    # A run takes seconds: once started it is not called off (C313); a waiting task is, by the state machine itself.
    hooks = UpsHooks(on_cancel_requested=lambda _tx, _tenant, _uid: False)
    policy = UpsSettings(public_base_url=house.settings.public_base_url)
    workitems = build_router(
        database=house.database, repository=house.workitems, clock=house.clock, settings=policy, hooks=hooks
    )
    ups = UpsService(house.database, house.workitems, house.clock, policy, hooks)
    ports = WorklistPorts(
        database=house.database,
        clock=house.clock,
        worklist=SqlWorklist(),
        order=house.order,
        events=house.events,
        subscriptions=house.subscriptions,
        deliveries=house.deliveries,
        tasks=house.tasks,
        results=house.results,
        studies=house.archive,
        work=house.queue,
        webhooks=house.webhooks,
        detectors=lambda: detectors,
        stopping=house.stopping,
    )
    service = build(ports, also=[workitems])

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with service.lifespan(), upkeep(ups):
            yield

    return replace(service, lifespan=lifespan)


def ffrct(_house: House, build: Build) -> Service:
    """CT-derived FFR over vessel trees: a pure computation."""
    return build()


def orchestration(house: House, build: Build) -> Service:
    """Durable workflows; carries triage's deliveries as one of them."""
    from wetread.adapters.evidence.encoder import Encoder
    from wetread.adapters.index.decisions import SqlDecisions, SqlManifests, SqlQuietWatches, SqlRunInputs
    from wetread.adapters.index.executors import SqlExecutors
    from wetread.adapters.workqueue.dbos import DbosRunControl
    from wetread.bootstrap.house import WORKER_EXECUTOR, load_rules
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
        encoder=Encoder(),
    )
    return build(
        Orchestration(
            ports,
            load_rules(house.settings),
            house.database.url,
            workflows={"deliver": house.notifier.deliver},
            executor_id=house.settings.instance or WORKER_EXECUTOR,
            drain_seconds=_DRAIN_SECONDS,
        )
    )


def triage(house: House, build: Build) -> Service:
    """Notification."""
    return build(house.notifier)


def detection(house: House, build: Build) -> Service:
    """The processes that run detectors."""
    return build(house.runner)


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
