"""The worklist as a service: reading order, findings, events, subscriptions and the pages, in one router."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter

from wetread.core.service import Service
from wetread.core.tail import EventTail
from wetread.worklist import (
    endpoints,
    event_endpoints,
    pages,
    reading_endpoints,
    report_endpoints,
    simulation_endpoints,
    subscription_endpoints,
    task_endpoints,
    timeline,
)
from wetread.worklist.ports import WorklistPorts

API_PREFIX = "/api/v1"


def build(ports: WorklistPorts, *, also: Sequence[APIRouter] = ()) -> Service:
    """Return the service. ``also``: routers that share its process and prefix theirs themselves (UPS-RS)."""

    def latest() -> int:
        with ports.database.read() as tx:
            return ports.events.latest(tx)

    tail = EventTail(latest, ports.stopping)
    router = APIRouter()
    router.include_router(endpoints.router(ports, tail), prefix=API_PREFIX)
    router.include_router(reading_endpoints.router(ports), prefix=API_PREFIX)
    router.include_router(report_endpoints.router(ports.database, ports.clock, ports.reports), prefix=API_PREFIX)
    router.include_router(event_endpoints.router(ports, tail), prefix=API_PREFIX)
    router.include_router(subscription_endpoints.router(ports), prefix=API_PREFIX)
    router.include_router(timeline.router(ports), prefix=API_PREFIX)
    router.include_router(task_endpoints.router(ports), prefix=API_PREFIX)
    router.include_router(simulation_endpoints.router(ports), prefix=API_PREFIX)
    router.include_router(pages.router(ports))
    for part in also:
        router.include_router(part)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with tail.running():
            yield

    return Service(name="worklist", http=router, lifespan=lifespan)
