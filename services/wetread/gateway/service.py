"""The gateway as a service: studies in, searched and out again over DICOMweb."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from anyio.to_thread import run_sync

from wetread.core.ports.archive import Archive
from wetread.core.ports.database import Database
from wetread.core.ports.objects import ObjectStore
from wetread.core.ports.pixels import FrameCodecs
from wetread.core.ports.usage import UsageMeter
from wetread.core.service import Service
from wetread.core.shares import Shares
from wetread.core.tail import EventTail
from wetread.gateway.admission import Admission, Room
from wetread.gateway.bulkdata import BulkEndpoints
from wetread.gateway.capabilities import CapabilitiesEndpoint
from wetread.gateway.changefeed import ChangeFeedEndpoints
from wetread.gateway.committer import Committer
from wetread.gateway.deleting import DeleteEndpoint
from wetread.gateway.endpoints import routes
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.qido import SearchEndpoints
from wetread.gateway.rendered import RenderEndpoints
from wetread.gateway.replay import recover
from wetread.gateway.retrieval import RetrieveEndpoints
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.singleflight import SingleFlight
from wetread.gateway.stow import StowEndpoint
from wetread.gateway.transcoding import Transcoder
from wetread.gateway.uri import UriEndpoint

_COLLECT: Final = (10_000, 20, 50)
"""Allocations before the collector looks at the youngest objects, such looks before it looks at older ones."""


class GatewayPorts(Protocol):
    """What the composition root gives the gateway."""

    @property
    def database(self) -> Database: ...
    @property
    def archive(self) -> Archive: ...
    @property
    def objects(self) -> ObjectStore: ...
    @property
    def ingest(self) -> GroupIngest: ...
    @property
    def codecs(self) -> FrameCodecs: ...
    @property
    def gateway_settings(self) -> GatewaySettings: ...
    @property
    def scratch(self) -> Path | None: ...


def build(ports: GatewayPorts) -> Service:
    """Return the gateway on the composition root's ports."""
    return gateway(
        ports.database,
        ports.archive,
        ports.objects,
        ports.ingest,
        ports.codecs,
        settings=ports.gateway_settings,
        scratch=ports.scratch,
    )


def gateway(
    database: Database,
    archive: Archive,
    objects: ObjectStore,
    ingest: GroupIngest,
    codecs: FrameCodecs,
    *,
    settings: GatewaySettings | None = None,
    scratch: Path | None = None,
    meter: UsageMeter | None = None,
    shares: Shares | None = None,
    stopping: threading.Event | None = None,
) -> Service:
    """Wire the gateway.

    ``scratch``: folder for parts that do not fit into memory (None: all stay in memory). ``meter``: measures tenants
    with a storage quota (None: there are no quotas). ``shares``: what tenants use of the server at this moment (None:
    this process is all of it). ``stopping``: set when the server is told to end, so that event streams end first.

    Its lifespan indexes what a crash left behind, then opens the store path.
    """
    settings = settings or GatewaySettings()
    committer = Committer(ingest)
    transcoder = Transcoder(codecs, objects, SingleFlight(settings.codec_cache_bytes))
    retrieve = RetrieveEndpoints(database, archive, objects, transcoder, settings)
    rendered = RenderEndpoints(retrieve, settings, objects)

    def changed() -> int:
        with database.read() as tx:
            return archive.changes_of_all(tx)

    tail = EventTail(changed, stopping or threading.Event())
    router = routes(
        settings.base_path,
        Admission(
            StowEndpoint(committer, settings, scratch),
            committer.budget,
            settings.ingest,
            Room(database, meter, shares) if meter else None,
            shares=shares,
        ),
        SearchEndpoints(database, archive, settings),
        retrieve,
        BulkEndpoints(retrieve, settings),
        rendered,
        CapabilitiesEndpoint(settings),
        DeleteEndpoint(database, archive, ingest),
        ChangeFeedEndpoints(database, archive, tail, settings),
        UriEndpoint(retrieve, rendered, settings),
    )

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await run_sync(recover, database, archive, objects, ingest)
        # What start-up made stays: a full collection would look at all of it again, for 60 ms amid requests.
        gc.collect()
        gc.freeze()
        # What a request makes goes with it, by reference counts: looking for cycles less often saves a twentieth.
        gc.set_threshold(*_COLLECT)
        committer.open()
        try:
            async with tail.running():
                yield
        finally:
            await run_sync(committer.close)

    return Service(name="gateway", http=router, lifespan=lifespan)
