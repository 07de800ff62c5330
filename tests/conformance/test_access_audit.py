"""What the server writes down about accesses: reads, stores, deletions, refusals; told to its own tenant only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway_support import instance, multipart, stow_headers
from tests.tenants_world import Hospital, Ids, World, two_hospitals

from wetread.adapters.audit.chain import broken_links
from wetread.adapters.audit.journal import FLUSH_SECONDS
from wetread.adapters.audit.trail import SqlAccessTrail
from wetread.adapters.index.database import SqlDatabase
from wetread.core.ports.access import AccessFilter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with two_hospitals(tmp_path_factory.mktemp("audit")) as running:
        yield running


def trail(hospital: Hospital, study: str, *, at_least: int) -> list[dict[str, Any]]:
    """Return the entries about a study once they are written."""
    deadline = time.monotonic() + 5
    while True:
        found = hospital.ask("GET", "/api/v1/audit", params={"study": study, "limit": 1000}).json()["entries"]
        if sum(entry["count"] for entry in found) >= at_least or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_who_did_what_to_which_study_with_which_outcome(world: World) -> None:
    ids = Ids()
    world.north.store(ids)
    study = f"/dicom-web/studies/{ids.study}"
    series = f"{study}/series/{ids.series}"
    frames = f"{series}/instances/{ids.instance}/frames/1"
    for _ in range(3):
        assert world.north.ask("GET", frames).status_code == 200
    world.north.ask("GET", f"{study}/metadata")
    world.north.ask("GET", f"/api/v1/studies/{ids.study}/findings")
    world.north.ask("GET", f"/dicom-web/studies?PatientID={ids.marker}&StudyInstanceUID={ids.study}")
    world.north.ask("DELETE", study)
    world.north.ask("GET", f"{study}/metadata")
    found = trail(world.north, ids.study, at_least=8)
    told = {(entry["action"], entry["outcome"]) for entry in found}
    assert told == {
        ("POST /dicom-web/studies", "200"),
        ("GET /dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", "200"),
        ("GET /dicom-web/studies/{study}/metadata", "200"),
        ("GET /dicom-web/studies/{study}/metadata", "410"),
        ("GET /api/v1/studies/{study_uid}/findings", "200"),
        ("DELETE /dicom-web/studies/{study}", "204"),
    }
    assert {(entry["actor"], entry["address"], entry["study_uid"]) for entry in found} == {
        ("north-desk", "127.0.0.1", ids.study)
    }
    assert sum(entry["count"] for entry in found if "frames" in entry["action"]) == 3
    assert ids.marker not in str(found)
    assert ids.instance not in str(found)
    assert trail(world.south, ids.study, at_least=0) == []
    whole = world.north.ask("GET", "/api/v1/audit", params={"limit": 1000}).json()
    searches = [entry for entry in whole["entries"] if entry["action"] == "GET /dicom-web/studies"]
    assert searches, "a search is an access, without what was asked for"
    assert ids.marker not in str(whole)
    after = world.north.ask("GET", "/api/v1/audit", params={"after": whole["next"], "limit": 1000}).json()
    assert all(entry["number"] > whole["next"] for entry in after["entries"])


def test_a_store_is_told_per_study_and_a_junk_uid_is_not_told(world: World) -> None:
    one, two = Ids(), Ids()
    files = [
        instance(StudyInstanceUID=ids.study, SeriesInstanceUID=ids.series, SOPInstanceUID=ids.instance)
        for ids in (one, two)
    ]
    world.north.ask("POST", "/dicom-web/studies", content=multipart(files), headers=stow_headers())
    for ids in (one, two):
        assert [entry["action"] for entry in trail(world.north, ids.study, at_least=1)] == ["POST /dicom-web/studies"]
    world.north.ask("GET", "/dicom-web/studies/MARKED^NAME/metadata")
    world.north.ask("GET", "/api/v1/tasks/MARKED/MARKED")
    time.sleep(2 * FLUSH_SECONDS)
    with world.house.database.read() as tx:
        everything = SqlAccessTrail().entries(tx, None, AccessFilter(), limit=10_000)
    assert "MARKED" not in str(everything)


def test_refusals_are_told_to_the_operator(world: World) -> None:
    ids = Ids()
    world.nobody.get(f"/dicom-web/studies/{ids.study}/metadata")
    world.nobody.get(f"/dicom-web/studies/{ids.study}/metadata", headers={"Authorization": "Bearer guess"})
    world.north.ask("GET", "/metrics")
    time.sleep(2 * FLUSH_SECONDS)
    with world.house.database.read() as tx:
        found = SqlAccessTrail().entries(tx, "", AccessFilter(study_uid=ids.study), limit=10)
        refused = SqlAccessTrail().entries(tx, "north", AccessFilter(), limit=10_000)
    assert sum(entry.count for entry in found) == 2
    assert {(entry.access.actor, entry.access.outcome) for entry in found} == {("", "401")}
    assert ("GET /metrics", "403") in {(entry.access.action, entry.access.outcome) for entry in refused}
    assert "guess" not in str(found)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=5000", "after=-1", "study=MARKED", "since=yesterday", "since=2026-01-01T00:00:00"]
)
def test_questions_that_make_no_sense(world: World, query: str) -> None:
    answer = world.north.ask("GET", f"/api/v1/audit?{query}")
    assert answer.status_code == 400
    assert "MARKED" not in answer.text


def test_a_kill_takes_the_last_half_second_at_most(tmp_path: Path) -> None:
    """Kill -9 a real server: every access that is older than the stated bound is in the trail."""
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = subprocess.Popen(
            [sys.executable, "-m", "wetread", "serve", "gateway", "--fd", str(listening.fileno())],
            pass_fds=(listening.fileno(),),
            env=os.environ | {"PYTHONPATH": str(ROOT / "services"), "WETREAD_DATA": str(data)},
        )
        try:
            uids = [Ids().study for _ in range(30)]
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=60) as client:  # the first request waits until the server is up
                for uid in uids:
                    assert client.get(f"/dicom-web/studies/{uid}/metadata").status_code == 404
                    time.sleep(0.01)
                time.sleep(FLUSH_SECONDS + 0.5)
                client.get(f"/dicom-web/studies/{Ids().study}/metadata")
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait(20)
    database = SqlDatabase(data / "wetread.db")
    with database.read() as tx:
        found = SqlAccessTrail().entries(tx, "default", AccessFilter(), limit=1000)
    assert broken_links(database, SqlAccessTrail()) == []
    database.close()
    assert set(uids) <= {entry.access.study_uid for entry in found}
    assert {entry.access.actor for entry in found} == {"local"}
