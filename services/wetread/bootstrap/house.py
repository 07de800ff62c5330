"""The composition root: settings become adapters, adapters become services. The only place that knows them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings
from sqlalchemy import text

import wetread
from wetread.adapters.audit.trail import SqlAccessTrail
from wetread.adapters.index.breakers import SqlBreaker
from wetread.adapters.index.database import SqlDatabase, connection_of
from wetread.adapters.index.deliveries import SqlDeliveries
from wetread.adapters.index.events import SqlEventLog
from wetread.adapters.index.reading_order import SqlReadingOrder
from wetread.adapters.index.results import SqlResults
from wetread.adapters.index.studies import SqlArchive
from wetread.adapters.index.subscriptions import SqlSubscriptions
from wetread.adapters.index.tasks import SqlTasks
from wetread.adapters.index.workitems import SqlWorkitems
from wetread.adapters.notify.addresses import AddressPolicy
from wetread.adapters.notify.webhook import HttpWebhookSender
from wetread.adapters.telemetry.read_cache import ReadCacheMetrics
from wetread.adapters.workqueue.dbos import DbosWorkQueue, create_queue_schema
from wetread.bootstrap.channels import house_sink, mail_server
from wetread.bootstrap.crew import Place, alone
from wetread.bootstrap.stores import artifact_store, object_store
from wetread.bootstrap.telemetry import close_telemetry, open_telemetry
from wetread.core.breaker import predicted_share
from wetread.core.errors import ConfigurationError, StorageFull, Unavailable
from wetread.core.ports import DetectorInfo
from wetread.core.service import Service
from wetread.registry import DIMSE, EXTRAS, SERVICES, WORKER
from wetread.settings import Settings
from wetread.triage.channels import ChannelDirectory

if TYPE_CHECKING:
    from prometheus_client.registry import Collector
    from starlette.types import ASGIApp

    from wetread.adapters.audit.journal import AccessJournal
    from wetread.adapters.codecs.pool import CodecPool
    from wetread.adapters.telemetry.otlp import Otlp
    from wetread.bootstrap.runners import RunnerSet
    from wetread.core.tenants import Tenants
    from wetread.detection.registry import InstalledDetector
    from wetread.gateway.ingest import GroupIngest
    from wetread.orchestration.held import HeldEvaluations
    from wetread.orchestration.ports import Rules
    from wetread.triage.delivery import Notifier
    from wetread.triage.escalation import Escalator

_PRIVATE_NETWORKS: Final = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_MINIMUM_FREE_BYTES: Final = 256 << 20
_LEAST_IN_FLIGHT: Final = 32 << 20
"""Room for a commit group, in however many processes a server is."""
_CODEC_PROCESSES: Final = 2
WORKER_EXECUTOR: Final = "worker"
"""Executor of the embedded profile: a restart takes up what it left behind at once."""


class SystemClock:
    """``Clock`` of the operating system."""

    def now(self) -> float:
        """Return Unix seconds, UTC."""
        return time.time()


def installed_detectors(settings: Settings) -> Mapping[str, DetectorInfo]:
    """Return the installed detectors by name. Raises ConfigurationError."""
    from wetread.detection.registry import discover

    return _with_slides(discover(settings.detectors))


def _with_slides(volumes: Mapping[str, InstalledDetector]) -> Mapping[str, DetectorInfo]:
    from wetread.bootstrap.runners import only_once
    from wetread.pathology.tile_model import detector_info, installed_tile_models

    slides = {name: detector_info(model) for name, model in installed_tile_models().items()}
    return only_once([{name: found.info for name, found in volumes.items()}, slides])


def workflow_folder(settings: Settings) -> Path:
    """Return the folder of active workflows: configured, of the wheel, or of the repository."""
    if settings.workflows is not None:
        return settings.workflows
    package = Path(wetread.__file__).resolve().parent
    shared = package / "_share" / "workflows"
    return shared if shared.is_dir() else package.parent.parent / "workflows"


def installed_workflows(settings: Settings) -> list[str]:
    """Return the active workflows as ``name@version``. Raises ConfigurationError with file and line."""
    return [f"{workflow.model.workflow}@{workflow.model.version}" for workflow in load_rules(settings).workflows]


def load_rules(settings: Settings) -> Rules:
    """Return workflows and completeness policy. Raises ConfigurationError with file and line."""
    from wetread.core.completeness import CompletenessPolicy
    from wetread.detection.registry import discover
    from wetread.orchestration.load import load_folder
    from wetread.orchestration.ports import Rules

    volumes = discover(settings.detectors)
    # A detector's own workflow is active unless the configuration names the active ones.
    own = [found.folder / "workflow.yaml" for found in volumes.values()] if settings.workflows is None else []
    extra = [file for file in own if file.is_file()]
    workflows, policy = load_folder(workflow_folder(settings), _with_slides(volumes), extra=extra)
    if policy is None:
        policy = CompletenessPolicy.model_validate(
            {
                "default": {
                    "quiet_series": f"{settings.quiet_series}s",
                    "quiet_study": f"{settings.quiet_study}s",
                    "max_wait": f"{settings.max_wait}s",
                }
            }
        )
    return Rules(workflows, policy)


class House:
    """The adapters of one process, made when first needed, and the services built on them.

    ``shard``: the segment files that this process writes; no two processes share one. ``place``: in a server that is
    several processes.
    """

    def __init__(self, settings: Settings, shard: str, place: Place | None = None) -> None:
        self.settings = settings
        self.place = place or alone()
        self.shares = self.place.page.shares(self.place.number)
        self.names: frozenset[str] = frozenset()
        """The services of this process: what each does depends on who is beside it."""
        self.clock = SystemClock()
        self.stopping = threading.Event()
        self.database = SqlDatabase(settings.database)
        # Rows of the ingest path can be rebuilt from synced segments, so their commits need no sync of their own.
        self.index_database = SqlDatabase(settings.database, full_sync=False)
        self.queue = DbosWorkQueue(self.database.url)
        self.archive = SqlArchive()
        read_cache = ReadCacheMetrics()
        self.objects = object_store(settings, shard, counted=read_cache.read)
        self.artifacts = artifact_store(settings)
        self.channels = ChannelDirectory(lambda tenant: self.tenants.policy(tenant).channels, house_sink(settings))
        self.deliveries = SqlDeliveries(self.queue, self.channels.receivers)
        self.subscriptions = SqlSubscriptions(self.deliveries)
        self.events = SqlEventLog(self.deliveries)
        self.order = SqlReadingOrder(self.events, SqlBreaker(self.events, self._predicted_share))
        self.tasks = SqlTasks()
        self.results = SqlResults(self.clock)
        self.workitems = SqlWorkitems(self.clock)
        self.access_trail = SqlAccessTrail()
        networks = _PRIVATE_NETWORKS if settings.allow_private_webhooks else ()
        self.collectors: list[Collector] = [*read_cache.collectors]
        """Metrics of services that count for themselves."""
        self.telemetry: Otlp | None = None
        self.webhooks = HttpWebhookSender(
            self.clock, AddressPolicy(networks), user_agent=f"wetread/{wetread.__version__}"
        )

    @cached_property
    def ingest(self) -> GroupIngest:
        """The one way in for instances."""
        from wetread.adapters.index.decisions import SqlDecisions
        from wetread.gateway.ingest import GroupIngest
        from wetread.gateway.settings import IngestSettings
        from wetread.orchestration.outbox import Arrivals, DurableOutbox

        return GroupIngest(
            self.index_database,
            self.archive,
            self.objects,
            DurableOutbox(
                self.events, self.order, self.queue, self.clock, self.held, Arrivals(self.archive, SqlDecisions())
            ),
            settings=IngestSettings(
                part_bytes=self.settings.max_part_bytes,
                request_bytes=self.settings.max_request_bytes,
                in_flight_bytes=self.place.part(IngestSettings().in_flight_bytes, least=_LEAST_IN_FLIGHT),
                tenants=self.tenants,
            ),
        )

    @cached_property
    def held(self) -> HeldEvaluations:
        """Evaluations of studies that are still arriving."""
        from wetread.adapters.index.held import SqlHeldEvaluations
        from wetread.orchestration.held import HeldEvaluations

        return HeldEvaluations(self.index_database, SqlHeldEvaluations(), self.queue, self.clock)

    @cached_property
    def codecs(self) -> CodecPool:
        """The processes that decompress and compress pixel data; none runs before one is needed."""
        from wetread.adapters.codecs.pool import CodecPool

        return CodecPool(self.place.part(_CODEC_PROCESSES))

    @cached_property
    def runner(self) -> RunnerSet:
        """The processes that run detectors: of volumes, kept warm, and of slides, one for each."""
        from wetread.adapters.evidence.encoder import Encoder
        from wetread.adapters.evidence.slide import ENCODER_VERSION
        from wetread.adapters.telemetry.slides import SlideMetrics
        from wetread.bootstrap.engines import engine_identity
        from wetread.bootstrap.runners import RunnerSet
        from wetread.detection.process import WorkerSpec
        from wetread.detection.runner import ProcessDetectorRunner
        from wetread.pathology.runner import SlideProcesses, SlideRunner
        from wetread.pathology.tile_model import installed_tile_models

        engine, meter = engine_identity(self.settings), SlideMetrics()
        self.collectors += meter.collectors
        spec = WorkerSpec(
            ports="wetread.bootstrap.inputs:worker_ports",
            detectors=self.settings.detectors,
            environment=self.settings.environment(),
            threads=self.settings.inference_threads,
        )
        slides = SlideProcesses(
            "wetread.bootstrap.slide_process", self.settings.data / "slides", self.settings.environment()
        )
        return RunnerSet(
            ProcessDetectorRunner(spec, engine=engine, encoder_version=Encoder().version),
            SlideRunner(installed_tile_models(), slides, engine=engine, encoder_version=ENCODER_VERSION, meter=meter),
        )

    @cached_property
    def notifier(self) -> Notifier:
        """Delivers events to subscribers."""
        from wetread.adapters.notify.mail import SmtpMailer
        from wetread.adapters.notify.sink import CloudEventsSink
        from wetread.triage.delivery import Notifier, Ports

        # Channels are written down by the operator, not by a tenant's user: they may lead to private addresses.
        inside = HttpWebhookSender(
            self.clock, AddressPolicy(_PRIVATE_NETWORKS), user_agent=f"wetread/{wetread.__version__}"
        )
        server = mail_server(self.settings)
        return Notifier(
            Ports(
                database=self.database,
                clock=self.clock,
                events=self.events,
                deliveries=self.deliveries,
                subscriptions=self.subscriptions,
                studies=self.archive,
                webhooks=self.webhooks,
                channels=self.channels,
                sink=CloudEventsSink(inside),
                mailer=None if server is None else SmtpMailer(server),
                public_url=self.settings.public_base_url or f"http://{self.settings.host}:{self.settings.port}",
            )
        )

    @cached_property
    def detectors(self) -> Mapping[str, DetectorInfo]:
        """The installed detectors by name."""
        return installed_detectors(self.settings)

    def _predicted_share(self, detector: str) -> float | None:
        """Return the share of studies that a detector flags at most by its card; None: its card does not say."""
        info = self.detectors.get(detector)
        point = None if info is None else info.card.operating_point()
        return None if point is None else predicted_share(point.sensitivity, point.specificity)

    @cached_property
    def escalator(self) -> Escalator:
        """Takes unacknowledged time-critical findings to the next channel."""
        from wetread.triage.escalation import Escalator

        return Escalator(
            self.database, self.clock, self.events, self.order, lambda tenant: self.tenants.policy(tenant).escalation
        )

    def prepare(self) -> None:
        """Create folders and tables (idempotent), or make sure that the tables are there."""
        self.settings.data.mkdir(parents=True, exist_ok=True)
        if self.settings.migrate:
            self.database.create_schema()
            create_queue_schema(self.database.url)
        else:
            self.database.verify_schema()

    def close(self) -> None:
        """Close what was opened."""
        if "codecs" in self.__dict__:
            self.codecs.close()
        if "held" in self.__dict__:
            self.held.close()
        self.queue.close()
        self.objects.close()
        self.index_database.close()
        self.database.close()

    def services(self, names: Sequence[str]) -> list[Service]:
        """Build the named services; imports only what they need."""
        from wetread.bootstrap import inputs

        self.names = frozenset(names)
        built = []
        for name in names:
            module, _, function = SERVICES[name].partition(":")
            try:
                build = getattr(import_module(module), function)
            except ModuleNotFoundError as error:
                if name not in EXTRAS or (error.name or "").partition(".")[0] == "wetread":
                    raise
                msg = f"the service {name} needs a package that is not installed: pip install 'wetread[{name}]'"
                raise ConfigurationError(msg) from error
            built.append(getattr(inputs, name)(self, build))
        return built

    def application(self, services: Sequence[Service]) -> ASGIApp:
        """Return the ASGI application over the HTTP faces of *services*."""
        from wetread.adapters.telemetry.metrics import Metrics
        from wetread.bootstrap import audit
        from wetread.bootstrap.cors import CorsPolicy
        from wetread.bootstrap.credentials import authenticator
        from wetread.bootstrap.forwarded import TrustedNetworks
        from wetread.bootstrap.shell import Guards
        from wetread.bootstrap.web import build_app

        metrics = Metrics(self.database, self.place, self.place.metrics)
        for collector in self.collectors:
            metrics.registry.register(collector)
        if self.telemetry is not None:
            metrics.registry.register(self.telemetry.meter.items)
            self.telemetry.push(metrics.registry)
        journal = self.access_journal(lost=metrics.audit_lost.inc)
        trail = Service("audit", audit.router(self.database, self.access_trail), lifespan=journal.lifespan)
        guards = Guards(authenticator(self.settings), journal, self.tenants, shares=self.shares)
        cors = CorsPolicy(self.settings.allowed_origins, self.settings.cross_origin_resource_policy)
        trusted = self.settings.proxy_networks
        proxies = TrustedNetworks(trusted, self.settings.proxy_headers) if trusted else None
        return build_app(
            [trail, *services], checks=self.checks(), metrics=metrics, guards=guards, cors=cors, proxies=proxies
        )

    @cached_property
    def tenants(self) -> Tenants:
        """Limits of each tenant. Raises ConfigurationError."""
        from wetread.bootstrap.tenants import load_tenants

        return load_tenants(self.settings.tenants_file)

    def access_journal(self, *, lost: Callable[[int], None] = lambda _count: None) -> AccessJournal:
        """Return an audit journal for this process; whoever takes it opens and closes it (``lifespan``)."""
        from wetread.adapters.audit.journal import AccessJournal

        days = self.settings.audit_days
        retention = days * 86_400 if days else None
        return AccessJournal(self.index_database, self.access_trail, retention_seconds=retention, lost=lost)

    def checks(self) -> dict[str, Callable[[], None]]:
        """Return the readiness checks: database, disk, object store, and in the embedded profile a living worker.

        A pod of a cluster takes requests whether or not workers are up: the work waits in the queue.
        """
        checks = {"database": self._check_database, "disk": self._check_disk, "objects": self.objects.check}
        return checks if self.settings.shared else checks | {"worker": self._check_worker}

    def _check_database(self) -> None:
        with self.database.read() as tx:
            connection_of(tx).execute(text("SELECT 1"))

    def _check_disk(self) -> None:
        import shutil

        if shutil.disk_usage(self.settings.data).free < _MINIMUM_FREE_BYTES:
            msg = "less than 256 MiB are free for images"
            raise StorageFull(msg)

    def _check_worker(self) -> None:
        query = text("SELECT max(lease_until) FROM executors WHERE id = :id")
        with self.database.read() as tx:
            lease: Any = connection_of(tx).execute(query, {"id": WORKER_EXECUTOR}).scalar()
        if lease is None or lease < self.clock.now():
            msg = "no worker process is running"
            raise Unavailable(msg)


@contextmanager
def open_house(settings: Settings, names: Sequence[str], place: Place | None = None) -> Iterator[House]:
    """Open the adapters for the named services of this process and close them at the end.

    ``place``: of the process in its server; None: it is the whole server.
    """
    place = place or alone()
    if place.metrics is not None:
        from wetread.adapters.telemetry.metrics import count_together

        count_together(place.metrics, str(place.number))
    # pydicom's warnings about odd values quote them: patient data must not reach a log.
    pydicom_settings.reading_validation_mode = IGNORE
    roles = {"worker": WORKER, "dimse": DIMSE}
    role = next((role for role, of in roles.items() if set(names) & set(of)), "web")
    house = House(settings, shard=place.writer(settings.instance or role), place=place)
    house.prepare()
    instance = place.writer(settings.instance) if settings.instance else ""
    house.telemetry = open_telemetry(settings, names[0] if len(names) == 1 else role, instance)
    try:
        yield house
    finally:
        close_telemetry(house.telemetry)
        house.close()
