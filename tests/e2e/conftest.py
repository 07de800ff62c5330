"""A real ``wetread up`` on an ephemeral loopback port, and phantom studies rendered once per run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from tests.conftest import need
from tests.databases import close_databases, on_postgres
from tests.e2e.stores import profile_of, use_stores
from typer.testing import CliRunner

from wetread.adapters.inference.triton_repository import render
from wetread.bootstrap.networks import installed_networks
from wetread.cli import app
from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.commands.local_server import local_server
from wetread.commands.up import Supervisor
from wetread.core.states import FINAL
from wetread.testing.phantoms import BleedType, HeadSpec, make, write_dicom
from wetread.testing.servers.triton import TritonServer, triton


@dataclass(frozen=True)
class Wetread:
    """A running server with what tests ask of it."""

    supervisor: Supervisor

    @property
    def url(self) -> str:
        return self.supervisor.url

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **arguments)

    def results(self, study_uid: str) -> list[dict[str, Any]]:
        answer = self.get(f"/api/v1/studies/{study_uid}/findings")
        return answer.json()["results"] if answer.status_code == 200 else []

    def final_results(self, study_uid: str, *, seconds: float = 90) -> list[dict[str, Any]]:
        """Wait for every detector's final state and stored report."""
        return wait_for(
            lambda: self.results(study_uid),
            lambda results: (
                bool(results)
                and all(r["state"] in FINAL and (r["stored"] or r["state"] == "not_applicable") for r in results)
            ),
            seconds=seconds,
        )

    def worklist_item(self, study_uid: str) -> dict[str, Any] | None:
        items = self.get("/api/v1/worklist", params={"limit": 200}).json()["items"]
        return next((item for item in items if item["study_uid"] == study_uid), None)


def wait_for(read: Callable[[], Any], done: Callable[[Any], bool], *, seconds: float = 30) -> Any:
    """Poll until *done*; fail with the last value otherwise."""
    import time

    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if done(value):
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s; last seen: {value!r}"[:2000])
        time.sleep(0.1)


NEW_DETECTOR = "abdomen-spots"


@pytest.fixture(scope="session")
def new_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector folder as ``wetread models new`` leaves it; it reads abdominal CT, which no other test sends."""
    into = tmp_path_factory.mktemp("detectors")
    answer = CliRunner().invoke(app, ["models", "new", NEW_DETECTOR, "--into", str(into)])
    assert answer.exit_code == 0, answer.output
    return into / NEW_DETECTOR


@pytest.fixture
def stores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stores of this run's profile for the servers that a test starts."""
    use_stores(request, monkeypatch)


@pytest.fixture(scope="module")
def module_stores(request: pytest.FixtureRequest) -> Iterator[None]:
    """... and for servers that live as long as their module."""
    with pytest.MonkeyPatch.context() as environment:
        use_stores(request, environment)
        yield


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """The database of this run's profile for what a test builds in its own process (``tests.databases``)."""
    if profile_of(request.node) == "embedded":
        yield
        close_databases()
        return
    with on_postgres(request.getfixturevalue("postgres_server")):
        yield


_shared = contextlib.ExitStack()
"""The servers that tests of this folder share."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End what is shared with the last test of this folder: an idle server costs the rest of the run CPU time."""
    if nextitem is not None and Path(__file__).parent not in nextitem.path.parents:
        _shared.close()


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One real Triton per run with every network of ours."""
    need("triton")
    networks = installed_networks("")
    repository = tmp_path_factory.mktemp("triton") / "repository"
    yield _shared.enter_context(triton(repository, render(networks, repository, "python")))
    _shared.close()


@pytest.fixture(scope="session")
def wetread(
    tmp_path_factory: pytest.TempPathFactory, new_detector: Path, request: pytest.FixtureRequest
) -> Iterator[Wetread]:
    """One server for all tests that do not kill anything."""
    with pytest.MonkeyPatch.context() as environment:  # of the server, not of the tests after this one
        use_stores(request, environment)
        environment.setenv("WETREAD_DETECTORS", str(new_detector.parent))
        environment.delenv("WETREAD_WEB_PROCESSES")  # as it comes
        supervisor = _shared.enter_context(local_server(tmp_path_factory.mktemp("server")))
    yield Wetread(supervisor)
    _shared.close()


@dataclass(frozen=True)
class PhantomStudies:
    """Renders phantom head CTs on demand; each seed is another patient with its own UIDs."""

    folder: Path

    def study(
        self, seed: int, *, bleeds: tuple[BleedType, ...] = (), volume_ml: float | None = None, slices_mm: float = 5.0
    ) -> FileStudy:
        target = self.folder / str(seed)
        if not target.exists():
            spec = HeadSpec(
                split="s0",
                matrix=256,
                bleeds=bleeds,
                volume_ml=volume_ml,
                thickness_mm=slices_mm,
                step_mm=slices_mm,
                regular=True,
            )
            write_dicom(make(seed, spec), target)
        return scan_folder(target).studies[0]


def another(study: FileStudy, folder: Path, *, slices: int = 5, **header: Any) -> FileStudy:
    """Write the first slices of a study into *folder* as a study of its own: rendered and read in no time."""
    folder.mkdir()
    study_uid, series_uid = generate_uid(), generate_uid()
    for number, instance in enumerate(study.instances[:slices]):
        data = dcmread(instance.path)
        data.StudyInstanceUID, data.SeriesInstanceUID = study_uid, series_uid
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in header.items():
            setattr(data, keyword, value)
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return scan_folder(folder).studies[0]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudies:
    return PhantomStudies(tmp_path_factory.mktemp("phantoms"))


@pytest.fixture(scope="session")
def bleed(phantoms: PhantomStudies) -> FileStudy:
    """A large intraparenchymal bleed: any working detector sees it."""
    return phantoms.study(2_800_001, bleeds=(BleedType.IPH,), volume_ml=60.0)


@pytest.fixture(scope="session")
def quiet(phantoms: PhantomStudies) -> FileStudy:
    """A head without blood."""
    return phantoms.study(2_800_002)
