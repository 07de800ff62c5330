"""The reading part of the DICOMweb bench expects what a right server answers: a bad answer is the server's fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "loadtest"))

from dicomweb import reading
from dicomweb.connection import Answer
from dicomweb.instances import Place
from dicomweb.load import Cell


@dataclass
class RightServer:
    """Knows what was stored and answers every request of the bench from it."""

    name: str
    studies: dict[str, set[str]] = field(default_factory=dict)
    """Study UIDs by patient."""
    series: dict[str, set[str]] = field(default_factory=dict)
    """SOP UIDs by path."""
    asked: list[str] = field(default_factory=list)

    def stop(self) -> None:
        pass

    def store(self, places: Sequence[Place]) -> None:
        for place in places:
            self.studies.setdefault(place.patient_id, set()).add(place.study_uid)
            self.series.setdefault(f"/studies/{place.study_uid}/series/{place.series_uid}", set()).add(place.sop_uid)

    def count(self, path: str) -> int:
        """Return how many results a search or a metadata request has."""
        parts = urlsplit(path)
        if parts.path == "/studies":
            query = parse_qs(parts.query)
            patients = query.get("PatientID", list(self.studies))
            found = set().union(*(self.studies.get(patient, set()) for patient in patients))
            return min(len(found), int(query.get("limit", ["5000"])[0]))
        words = parts.path.split("/")
        below = self.series["/".join(words[:5])]
        return len(below) if len(words) < 7 else int(words[6] in below)

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        if path.endswith("/rendered"):
            return Answer(200, 9, 0.001, body=b"\xff\xd8")
        if "/frames/" in path or (path.count("/") == 4 and "?" not in path):
            return Answer(200, 1 << 30, 0.001)
        body = json.dumps([{}] * self.count(path)).encode()
        return Answer(200, len(body), 0.001, body=body)


def run(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[list[RightServer], list[dict[str, Any]]]:
    servers: list[RightServer] = []

    def start(name: str, _base: Path, _orthanc: Path) -> RightServer:
        servers.append(RightServer(name))
        return servers[-1]

    def stow(server: RightServer, _template: Any, groups: Sequence[Sequence[Sequence[Place]]]) -> Cell:
        sent = [place for requests in groups for places in requests for place in places]
        server.store(sent)
        return Cell(len(sent), 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0)

    def fetch(
        server: RightServer, gets: Sequence[Any], _connections: int, check: Callable[[Answer], bool], **_: Any
    ) -> Cell:
        bad = sum(not check(server.answer(path)) for path, _ in gets)
        return Cell(len(gets), 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, bad)

    for name, stand_in in (("start", start), ("stow", stow), ("fetch", fetch)):
        monkeypatch.setattr(reading, name, stand_in)
    # Every answer is looked at here, not one in sixteen.
    monkeypatch.setattr(reading, "_results", lambda wanted: lambda answer: len(reading._parsed(answer)) == wanted)
    given = {"count": 2, "size": 6_000, "requests": 40, "settle": False, "retrievals": True}
    records = reading.run(
        ["wetread", "default"],
        Path(),
        base=Path(),
        say=lambda _record: None,
        **given | changes,
    )
    return servers, records


def test_a_right_server_gives_no_bad_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    servers, records = run(monkeypatch)
    assert [record for record in records if record.get("bad")] == []
    assert {record["cell"] for record in records if record["part"] == "qido list"} == {"at 4000", "at 6000"}
    assert all(any("/rendered" in path for path in server.asked) for server in servers)


def test_searches_alone_store_small_instances_only_and_ask_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    servers, records = run(monkeypatch, retrievals=False, count=3, size=10_000)
    assert [record for record in records if record.get("bad")] == []
    assert {record["part"] for record in records} == {"fill", "qido PatientID", "qido list", "qido instances"}
    assert [sum(map(len, server.series.values())) for server in servers] == [10_000, 10_000]
    rounds = [record["round"] for record in records if record["cell"] == "at 10000" and record["server"] == "wetread"]
    assert sorted(rounds) == sorted([0, 1, 2] * 3)


def test_a_server_that_forgets_a_study_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = RightServer.count
    monkeypatch.setattr(RightServer, "count", lambda self, path: counting(self, path) - ("PatientID" in path))
    _, records = run(monkeypatch)
    assert all(record["bad"] for record in records if record["part"] == "qido PatientID")
