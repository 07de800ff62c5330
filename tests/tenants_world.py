"""Two hospitals on one real server, with everything that one could want to know of the other."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from tests.gateway_support import instance, multipart, stow_headers
from tests.ups_worklist import request_dataset

from wetread.adapters.index.decisions import SqlDecisions
from wetread.bootstrap.house import House
from wetread.bootstrap.http_protocol import GuardedHttpProtocol
from wetread.core.events import Event, EventType
from wetread.core.findings import Code, Finding, KeyImage, ResultSet, Run
from wetread.core.ports import Task
from wetread.core.ports.orchestration import Decision
from wetread.core.states import AiState
from wetread.registry import WEB
from wetread.settings import Settings

AE = "READER"
BULK = "00281201"
_random = random.Random(3)


def fresh(root: str = "2.25.7") -> str:
    """Return a UID of fixed length: answers about different ones have the same length."""
    return f"{root}{_random.randrange(10**20, 10**21)}"


@dataclass(frozen=True)
class Ids:
    """What a tenant's data are called. Made up, they name nothing at all."""

    study: str = field(default_factory=fresh)
    series: str = field(default_factory=fresh)
    instance: str = field(default_factory=fresh)
    workitem: str = field(default_factory=fresh)
    subscription: str = field(default_factory=lambda: f"{_random.getrandbits(128):032x}")
    marker: str = field(default_factory=lambda: f"M{_random.randrange(10**8, 10**9)}")
    """Patient's id, name, accession number: must never be seen elsewhere."""

    def names(self) -> dict[str, str]:
        """Return the identifiers by what they stand for."""
        return {
            "study": self.study,
            "series": self.series,
            "series_uid": self.series,
            "instance": self.instance,
            "workitem": self.workitem,
            "subscription": self.subscription,
            "marker": self.marker,
        }

    def path(self, template: str) -> str:
        """Return the path of a route template that names these data."""
        values = {
            "study": self.study,
            "study_uid": self.study,
            "series": self.series,
            "series_uid": self.series,
            "instance": self.instance,
            "uid": self.workitem,
            "subscription_id": self.subscription,
            "frames": "1",
            "path": BULK,
            "detector": "ich",
            "finding_id": f"f-{self.study}",
            "aet": AE,
            "name": {"/ffr/static/{name}": "ffr.css", "/slides/static/{name}": "slide.css"}.get(
                template, "worklist.css"
            ),
        }
        return template.replace(":path}", "}").format(**values)


class Hospital:
    """A tenant: its credential and what it has stored."""

    def __init__(self, world: World, tenant: str) -> None:
        self.tenant = tenant
        self._house = world.house
        self.headers = {"Authorization": f"Bearer {tenant}-key"}
        self.http = httpx.Client(base_url=world.url, headers=self.headers, timeout=20)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.http.request(method, path, **options)

    def store(self, ids: Ids, **changes: Any) -> httpx.Response:
        """Store one instance that bears the marker in every attribute that describes the patient."""
        file = instance(
            StudyInstanceUID=ids.study,
            SeriesInstanceUID=ids.series,
            SOPInstanceUID=ids.instance,
            PatientID=ids.marker,
            PatientName=f"{ids.marker}^X",
            AccessionNumber=ids.marker,
            StudyDescription=ids.marker,
            SeriesDescription=ids.marker,
            RedPaletteColorLookupTableData=ids.marker.encode().ljust(8192, b"."),
            **changes,
        )
        answer = self.ask("POST", "/dicom-web/studies", content=multipart([file]), headers=stow_headers())
        assert answer.status_code == 200, answer.text
        return answer

    def furnish(self) -> Ids:
        """Return the names of a study with task, finding, event, place on the worklist, workitem and subscription."""
        ids = Ids()
        self.store(ids)
        raised = {"priority": "urgent", "reason": f"because {ids.marker}"}
        assert self.ask("POST", f"/api/v1/worklist/{ids.study}:raise", json=raised).status_code == 200
        workitem = request_dataset(t00741204={"vr": "LO", "Value": [ids.marker]})
        created = self.ask("POST", f"/dicom-web/workitems?workitem={ids.workitem}", json=[workitem])
        assert created.status_code == 201, created.text
        hook = {"url": f"http://127.0.0.1:9/{ids.marker}", "types": ["delivery.dead"]}
        subscription = self.ask("POST", "/api/v1/subscriptions", json=hook).json()["id"]
        self._compute(ids)
        return Ids(ids.study, ids.series, ids.instance, ids.workitem, subscription, ids.marker)

    def _compute(self, ids: Ids) -> None:
        house, now = self._house, time.time()
        code = Code(value="1386000", scheme="SCT", meaning=ids.marker)
        key = KeyImage(sop_instance_uid=ids.instance, plane=0)
        found = Finding(finding_id=f"f-{ids.study}", tracking_uid=fresh(), code=code, state="positive", key_image=key)
        run = Run(
            result_key=f"{self.tenant}/{ids.study}/ich", tenant=self.tenant, study_uid=ids.study, series_uid=ids.series,
            detector="ich", version="1.0.0", title="ICH", model_digest="ab" * 32, params_digest="", input_digest="",
            rules_digest="", software="wetread", engine="onnxruntime", started_at=now, shadow=False,
        )  # fmt: skip
        task = Task(self.tenant, ids.study, "ich", "1.0.0", AiState.AWAITING_IMAGES, due_at=now, updated_at=now)
        failed = Task(
            self.tenant, ids.study, "ich", "1.0.0", AiState.FAILED, reason="crashed", detail=ids.marker, due_at=now,
            updated_at=now, result_key=run.result_key,
        )  # fmt: skip
        event = Event(
            id=f"e-{ids.marker}", type=EventType.TASK_FAILED, tenant=self.tenant, subject=ids.study, time=now,
            data={"detector": "ich", "reason": ids.marker},
        )  # fmt: skip
        decision = Decision(
            self.tenant, ids.study, 1, "end", now, "digest", {"study": {"why": ids.marker}, "plans": []}
        )
        with house.database.write() as tx:
            SqlDecisions().put(tx, decision)
            house.tasks.put(tx, task)
            house.tasks.put(tx, failed)
            house.results.put(tx, ResultSet(run=run, state=AiState.POSITIVE, findings=(found,)), ())
            house.events.append(tx, event)


@dataclass
class World:
    """The server and its two hospitals; ``north`` is attacked by ``south``."""

    house: House
    app: Any
    url: str
    north: Hospital = field(init=False)
    south: Hospital = field(init=False)
    nobody: httpx.Client = field(init=False)
    """A client without a credential of its own."""

    def __post_init__(self) -> None:
        self.nobody = httpx.Client(base_url=self.url, timeout=20)
        self.north, self.south = Hospital(self, "north"), Hospital(self, "south")


@contextmanager
def two_hospitals(folder: Path, **settings: Any) -> Iterator[World]:
    """Serve all web services to two tenants on a loopback port."""
    keys = folder / "keys"
    lines = [f"{hashlib.sha256(f'{name}-key'.encode()).hexdigest()} {name} {name}-desk" for name in ("north", "south")]
    keys.write_text("\n".join(lines), encoding="utf-8")
    house = House(Settings(data=folder / "data", api_keys_file=keys, **settings), shard="web")
    house.prepare()
    app = house.application(house.services(WEB))
    config = uvicorn.Config(app, port=0, http=GuardedHttpProtocol, ws="websockets-sansio", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        world = World(house, app, f"http://127.0.0.1:{port}")
        yield world
        for client in (world.north.http, world.south.http, world.nobody):
            client.close()
    finally:
        house.stopping.set()
        server.should_exit = True
        thread.join(20)
        house.close()


def told(answer: httpx.Response, ids: Ids) -> tuple[int, Mapping[str, str], str]:
    """Return what an answer says, with the names that were asked for taken out: the same for two that say the same."""
    volatile = {"x-request-id", "date", "content-length", "etag"}
    text = re.sub(r'data-now="[0-9.]+"', "", answer.text)
    headers = json.dumps({name: value for name, value in answer.headers.items() if name not in volatile})
    for name, value in ids.names().items():
        text, headers = text.replace(value, f"<{name}>"), headers.replace(value, f"<{name}>")
    return answer.status_code, json.loads(headers), text
