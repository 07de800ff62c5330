"""A slide in the object store, from its order to the objects that go back into the study; and its routes and page."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from tests.pathology_world import bigger, native, written
from tests.worklist_world import World

from wetread.adapters.evidence.studies import StudyEncoder
from wetread.adapters.objectstore.artifacts import FileArtifactStore
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.adapters.taskpool.inline import InlinePool
from wetread.bootstrap.slides import SlideLocation, stored_location
from wetread.core.errors import NotFound, WetreadError
from wetread.core.findings import ResultSet, Run
from wetread.core.ports import EvidenceInput, Task
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.slide_file import SLIDE_EVIDENCE
from wetread.core.states import AiState
from wetread.core.workflow import pair_name
from wetread.core.workqueue import asked_for
from wetread.orchestration.source_images import SourceImages
from wetread.pathology.convert import ConvertOptions, convert
from wetread.pathology.ports import SlidePorts
from wetread.pathology.service import build
from wetread.pathology.task import Bench, SlideOrder, analyse
from wetread.pathology.tile_model import detector_info, load_tile_model

MODEL = load_tile_model("he-tile")
PARAMETERS = {**detector_info(MODEL).manifest.parameters}


class Stored:
    """A converted slide in a segment store, and what a run of it needs."""

    def __init__(self, folder: Path, monkeypatch: Any, spec: Any = None) -> None:
        self.folder = folder
        slide = native(written(folder, spec=spec or bigger()))
        convert(slide, folder / "dicom", ConvertOptions(base_mpp=(0.5, 0.5), digest="d" * 64, acquired_at=0.0))
        files = sorted((folder / "dicom").glob("*.dcm"), reverse=True)
        monkeypatch.setenv("WETREAD_DATA", str(folder / "data"))
        self.store = SegmentStore(folder / "data" / "segments", shard="web")
        self.refs = self.store.append("default", [(b"{}", [path.read_bytes()]) for path in files])
        self.artifacts = FileArtifactStore(folder / "data" / "artifacts")
        self.headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
        self.bench = Bench(MODEL, "wetread.bootstrap.pathology:chunk_worker", InlinePool, self.artifacts)
        self.told: list[Any] = []

    def order(self, **parameters: Any) -> SlideOrder:
        first = self.headers[0]
        blank = dict.fromkeys(["model_digest", "params_digest", "input_digest", "rules_digest", "software"], "1")
        run = Run(
            result_key="k" * 64,
            tenant="default",
            study_uid=first.StudyInstanceUID,
            series_uid=first.SeriesInstanceUID,
            detector="he-tile",
            version="0.1.0",
            engine="e",
            started_at=0.0,
            **blank,
        )
        return SlideOrder(run, {**PARAMETERS, **parameters}, self.folder / "run")

    def run(self, **parameters: Any) -> ResultSet:
        levels = [(ref.locator, ref.length) for ref in self.refs]
        with SlideLocation(stored_location(levels)) as place:
            return analyse(self.order(**parameters), place, self.bench, lambda p: self.told.append(replace(p)))

    def objects(self, result: ResultSet) -> dict[str, Any]:
        kept = {item.name: item for item in result.attachments}
        given = EvidenceInput(
            result=result,
            headers=sorted(self.headers, key=lambda h: -h.TotalPixelMatrixColumns),
            mask=None,
            read_plane=None,
            captures=[self.artifacts.get("default", item.key) for item in kept.values() if item.capture],
            slide=self.artifacts.get("default", kept[SLIDE_EVIDENCE].key),
        )
        first, again = StudyEncoder().encode(given), StudyEncoder().encode(given)
        assert [o.data for o in first] == [o.data for o in again]
        return {o.role: pydicom.dcmread(io.BytesIO(o.data)) for o in first}


@pytest.mark.server("openslide")
def test_a_stored_slide_gives_its_objects_and_goes_on_from_its_parts(tmp_path, monkeypatch):
    stored = Stored(tmp_path, monkeypatch)
    result = stored.run()
    assert (result.state, result.reason, result.quality) == (AiState.MEASURED, None, ())
    assert {item.name for item in result.attachments} == {
        "overlay.png", "mask.png", "plan.json", "result.json", "tiles.parquet", SLIDE_EVIDENCE,
    }  # fmt: skip
    widths = {str(h.SOPInstanceUID): int(h.TotalPixelMatrixColumns) for h in stored.headers}
    assert [widths[uid] for uid in result.sop_instance_uids] == [2048, 512, 128]
    (finding,) = result.findings
    meanings = {m.code.meaning: m.value for m in finding.measurements}
    assert meanings["Tiles analysed"] == stored.told[-1].finished > 20
    assert 0 < meanings["Share of analysed tissue: dense"] < 0.5

    objects = stored.objects(result)
    assert set(objects) == {"sr", "seg", "ann", "sc"}
    assert all(o.StudyInstanceUID == result.run.study_uid for o in objects.values())
    assert "Research use only" in str(objects["sc"])
    seg = objects["seg"]
    assert (seg.SegmentationType, seg.TotalPixelMatrixColumns) == ("FRACTIONAL", 128)
    frame = next(f for f in seg.SharedFunctionalGroupsSequence)
    assert frame is not None
    assert str(seg.FrameOfReferenceUID) == str(stored.headers[0].FrameOfReferenceUID)

    # The same run again, as after a kill behind the last part: nothing is computed twice, nothing differs.
    stored.told.clear()
    again = stored.run()
    assert stored.told == []
    assert again.model_copy(update={"timings": {}}) == result.model_copy(update={"timings": {}})
    told = json.loads(stored.artifacts.get("default", again.attachments[3].key))
    assert told["tiles"]["resumed"] == told["tiles"]["planned"]

    headers = SourceImages(
        stored.store, [SimpleNamespace(ref=r, transfer_syntax_uid="x") for r in stored.refs]
    ).headers()
    assert {h.SOPInstanceUID for h in headers} == {h.SOPInstanceUID for h in stored.headers}


@pytest.mark.server("openslide")
def test_no_tissue_and_a_resolution_that_is_not_there_are_answers(tmp_path, monkeypatch):
    stored = Stored(tmp_path, monkeypatch, bigger(empty=True))
    empty = stored.run()
    assert (empty.state, empty.reason) == (AiState.NOT_PROCESSABLE, "no_tissue")
    assert set(stored.objects(empty)) == {"sr", "sc"}
    coarse = stored.run(mpp=0.1)
    assert (coarse.state, coarse.reason, coarse.attachments) == (AiState.NOT_PROCESSABLE, "mpp_too_coarse", ())


def test_a_header_of_megabytes_is_not_the_whole_instance():
    header = pydicom.Dataset()
    header.SOPInstanceUID, header.ICCProfile = "1.2.3", bytes(300_000)
    header.PixelData = bytes(8 << 20)
    header["PixelData"].VR = "OB"
    file = io.BytesIO()
    header.save_as(file, implicit_vr=False, little_endian=True)
    asked: list[int | None] = []

    class Store:
        def read(self, ref: Any, start: int = 0, length: int | None = None) -> bytes:
            asked.append(length)
            return file.getvalue()[start : None if length is None else start + length]

    where = SimpleNamespace(ref=SimpleNamespace(length=len(file.getvalue())), transfer_syntax_uid="x")
    (found,) = SourceImages(Store(), [where]).headers()
    assert found.SOPInstanceUID == "1.2.3"
    assert asked == [64 << 10, 1 << 20]


# --- routes and page --------------------------------------------------------------------------------------------------

STUDY, SLIDE, OTHER = "1.2.3.7", "1.2.3.7.1", "1.2.3.7.2"
PAIR = pair_name("he-tile", SLIDE)


class Archive:
    """Facts of a study with a slide and a CT series."""

    def facts(self, tx: Any, tenant: str, study_uid: str) -> Any:
        if (tenant, study_uid) not in {("default", STUDY), ("default", "1.2.3.8")}:
            raise NotFound("no such study")
        kinds = [(SLIDE, "SM"), (OTHER, "CT")] if study_uid == STUDY else [(OTHER, "CT")]
        return SimpleNamespace(
            series=[SimpleNamespace(series_instance_uid=u, modality=m, detector_result=False) for u, m in kinds]
        )

    def summary(self, tx: Any, tenant: str, study_uid: str) -> Any:
        return SimpleNamespace(generation=4)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def client(world: World, tmp_path: Path) -> TestClient:
    ports = SlidePorts(
        world.database, world.clock, Archive(), world.tasks, world.results, FileArtifactStore(tmp_path / "artifacts"),
        world.work, frozenset({"he-tile"}), tmp_path / "viewer",
    )  # fmt: skip
    app = FastAPI()

    @app.middleware("http")
    async def tenant(request: Request, call_next: Any) -> Any:
        request.state.tenant = request.headers.get("x-tenant", "default")
        return await call_next(request)

    @app.exception_handler(WetreadError)
    async def problem(_request: Request, error: WetreadError) -> JSONResponse:
        return JSONResponse(error.problem(), error.http_status, media_type="application/problem+json")

    app.include_router(build(ports).http)
    return TestClient(app)


def put(world: World, state: AiState, **changes: Any) -> None:
    with world.database.write() as tx:
        world.tasks.put(tx, Task("default", STUDY, PAIR, "0.1.0", state, **changes))


def test_asking_queues_one_evaluation_and_names_what_it_will_be(client, world):
    url = f"/api/v1/studies/{STUDY}/series/{SLIDE}/pathology"
    first, again = client.post(url), client.post(url)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == f"/api/v1/tasks/{STUDY}/{PAIR}"
    assert first.json()["disclaimer"] == RUO_STATEMENT
    (queued,) = world.work.take()
    assert asked_for([queued.arguments["signal"]]) == {"he-tile"}
    put(world, AiState.RUNNING, workitem_uid="1.2.9", progress=42)
    told = client.get(url).json()
    assert (told["state"], told["progress"], told["workitem_uid"], told["result"]) == ("running", 42, "1.2.9", None)
    (listed,) = client.get(f"/api/v1/studies/{STUDY}/pathology").json()["slides"]
    assert (listed["series_uid"], listed["detector"], listed["progress"]) == (SLIDE, PAIR, 42)


def test_what_cannot_be_asked_for_is_refused(client, world):
    url = f"/api/v1/studies/{STUDY}/series"
    answer = client.post(f"{url}/{OTHER}/pathology")
    assert (answer.status_code, answer.json()["code"]) == (422, "not_a_slide")
    assert client.post(f"{url}/1.2.3.99/pathology").status_code == 404
    assert client.post(f"{url}/{SLIDE}/pathology", params={"model": "none"}).status_code == 404
    assert client.post(f"{url}/{SLIDE}/pathology", headers={"x-tenant": "other"}).status_code == 404
    assert client.get(f"{url}/{SLIDE}/pathology").status_code == 404
    assert client.get(f"{url}/{SLIDE}/pathology/result.json").status_code == 404
    put(world, AiState.FAILED, reason="timeout")
    assert client.post(f"{url}/{SLIDE}/pathology").status_code == 409


def test_a_result_is_read_with_its_documents(client, world, tmp_path):
    from wetread.core.findings import StoredAttachment

    blank = dict.fromkeys(["model_digest", "params_digest", "input_digest", "rules_digest", "software"], "1")
    run = Run(
        result_key="r", tenant="default", study_uid=STUDY, series_uid=SLIDE, detector=PAIR, version="1", engine="e",
        started_at=0.0, **blank,
    )  # fmt: skip
    kept = StoredAttachment(name="result.json", media_type="application/json", key="attachment/r/result.json")
    FileArtifactStore(tmp_path / "artifacts").put("default", kept.key, b'{"plan_hash": "p"}')
    put(world, AiState.MEASURED)
    with world.database.write() as tx:
        world.results.put(tx, ResultSet(run=run, state=AiState.MEASURED, attachments=(kept,)), ())
    url = f"/api/v1/studies/{STUDY}/series/{SLIDE}/pathology"
    told = client.get(url).json()
    assert (told["result"], told["attachments"]) == ({"plan_hash": "p"}, ["result.json"])
    document = client.get(f"{url}/result.json")
    assert (document.json(), document.headers["cache-control"]) == ({"plan_hash": "p"}, "no-store")
    assert client.get(f"{url}/other.json").status_code == 404


def test_the_page_says_how_to_get_the_viewer_or_loads_it(client, tmp_path):
    page = client.get(f"/slides/{STUDY}")
    assert page.status_code == 200
    assert RUO_STATEMENT in page.text
    assert "dicomMicroscopyViewer" not in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "wetread viewer install" in client.get("/slides/static/slide.js").text
    folder = tmp_path / "viewer" / "dicom-microscopy-viewer"
    folder.mkdir(parents=True)
    (folder / "dicomMicroscopyViewer.min.js").write_text("")
    assert '<script src="/viewer/dicom-microscopy-viewer/' in client.get(f"/slides/{STUDY}").text
    assert client.get("/slides/1.2.3.8").status_code == 404
    assert client.get(f"/slides/{STUDY}", headers={"x-tenant": "other"}).status_code == 404
    assert client.get("/slides/static/other.js").status_code == 404
