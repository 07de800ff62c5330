"""DELETE and the change feed: soft, durable, audited, gapless in commit order (spec 2.4, ADR 0204)."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from tests.databases import database_at
from tests.gateway_support import Parts, build, instance, multipart, running, serving, stow_headers

from wetread.adapters.index.audit import told as told_of
from wetread.adapters.index.changes import record
from wetread.adapters.index.database import connection_of
from wetread.core.errors import Unavailable
from wetread.core.facts import Source
from wetread.core.ports.access import chained
from wetread.core.ports.changes import KEY_SECONDS, Removal, RemovedInstance
from wetread.gateway.deletion import describe, removal_of
from wetread.gateway.replay import rebuild, recover


@pytest.fixture
def site(tmp_path: Path, each_database: str):
    with running(tmp_path) as parts:
        yield parts


@pytest.fixture(scope="module")
def site_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """One that is only asked for what it refuses."""
    with running(tmp_path_factory.mktemp("asked")) as parts:
        yield parts


def uid_of(part: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(part)).SOPInstanceUID)


def put(site: Parts, study: str = "1.2.3", series: str | None = None, **changes: Any) -> str:
    """Store one instance and return its path."""
    part = instance(StudyInstanceUID=study, SeriesInstanceUID=series or f"{study}.1", **changes)
    assert site.store(part).status_code == 200
    return f"/studies/{study}/series/{series or f'{study}.1'}/instances/{uid_of(part)}"


def delete(site: Parts, path: str) -> int:
    return site.client.delete(f"/dicom-web{path}").status_code


def feed(site: Parts, query: str = "") -> list[dict[str, Any]]:
    response = site.get(f"/changefeed{query}")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json"), response.text
    return response.json()


def told(site: Parts) -> list[tuple[int, str, str]]:
    return [(item["Sequence"], item["Action"], item["State"]) for item in feed(site)]


def audit(site: Parts) -> list[Any]:
    with site.database.read() as tx:
        return list(site.archive.audit_entries(tx, "default"))


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_delete_takes_away_what_the_path_names_and_no_more(site: Parts, level: str) -> None:
    paths = [put(site), put(site), put(site, series="1.2.3.2", Modality="SR"), put(site, "9.9")]
    cut = {"study": (0, 1, 2), "series": (0, 1), "instance": (0,)}[level]
    series = paths[0].partition("/instances")[0]
    target = {"study": "/studies/1.2.3", "series": series, "instance": paths[0]}[level]
    assert delete(site, target) == 204
    for number, path in enumerate(paths):
        for resource in ("", "/metadata", "/rendered", "/frames/1"):
            if number in cut:
                assert site.get(path + resource).status_code == 410, resource
        assert site.get(path).status_code == (410 if number in cut else 200)
    studies = {item["0020000D"]["Value"][0]: item for item in site.get("/studies").json()}
    left = 3 - len(cut)
    assert set(studies) == ({"1.2.3", "9.9"} if left else {"9.9"})
    if left:
        assert studies["1.2.3"]["00201208"]["Value"] == [left]
        kinds = studies["1.2.3"]["00080061"]["Value"]
        assert kinds == (["SR"] if level == "series" else ["CT", "SR"])
        assert studies["1.2.3"]["00201206"]["Value"] == [1 if level == "series" else 2]
    assert len(site.get("/instances").json()) == left + 1
    assert delete(site, target) == 410


@pytest.mark.parametrize("path", ["/studies/8", "/studies/1.2.3/series/8", "/studies/1.2.3/series/1.2.3.1/instances/8"])
def test_delete_of_what_never_was_is_404(site: Parts, path: str) -> None:
    put(site)
    assert delete(site, path) == 404
    assert delete(site, "/studies/not-a-uid") == 400
    assert site.get("/studies/1.2.3").status_code == 200


def test_store_after_delete_stores_anew(site: Parts) -> None:
    part = instance()
    site.store(part)
    tag = site.get("/studies/1.2.3/metadata").headers["etag"]
    assert delete(site, "/studies/1.2.3") == 204
    assert site.store(part).status_code == 200
    other = instance(SeriesDescription="NEW")
    assert site.store(other).status_code == 200
    assert len(site.get("/studies/1.2.3/metadata").json()) == 2
    assert site.get("/studies/1.2.3/metadata", **{"If-None-Match": tag}).status_code == 200
    assert told(site) == [(1, "create", "replaced"), (2, "delete", "replaced"), (3, "create", "current"),
                          (4, "create", "current")]  # fmt: skip
    generations = [change.generation for change in site.outbox.changes]
    assert generations == sorted(set(generations)), "a new copy does not repeat generations of the old one"


def test_entity_tags_are_never_used_twice(site: Parts) -> None:
    seen = set()
    for number in range(3):
        put(site, InstanceNumber=number)
        seen.add(site.get("/studies/1.2.3/metadata").headers["etag"])
        assert delete(site, "/studies/1.2.3") == 204
    assert len(seen) == 3


def test_feed_tells_everything_in_order(site: Parts) -> None:
    paths = [put(site) for _ in range(3)]
    delete(site, paths[1])
    items = feed(site)
    assert [item["Sequence"] for item in items] == [1, 2, 3, 4]
    assert [(item["Action"], item["State"]) for item in items] == [
        ("create", "current"),
        ("create", "deleted"),
        ("create", "current"),
        ("delete", "deleted"),
    ]
    assert {"Metadata"} & set(items[0]) == set()
    assert f"/studies/{items[3]['StudyInstanceUid']}" in paths[1]
    assert paths[1].endswith(items[3]["SopInstanceUid"])
    assert items[3]["Timestamp"].endswith("Z")
    assert feed(site, "?offset=1&limit=2") == items[1:3]
    assert feed(site, "?after=3") == items[3:]
    assert feed(site, "?after=4") == []
    assert feed(site, f"?startTime={items[2]['Timestamp']}") == items[2:]
    assert feed(site, f"?endTime={items[2]['Timestamp']}") == items[:2]
    latest = site.get("/changefeed/latest")
    assert latest.json() == items[3]
    full = feed(site, "?includeMetadata=true")
    (metadata,) = site.get(f"{paths[0]}/metadata").json()
    assert full[0]["Metadata"] == metadata
    assert metadata["7FE00010"]["BulkDataURI"].startswith("http://testserver/dicom-web/studies/")
    assert "Metadata" not in full[1]


def test_feed_of_nothing(site: Parts) -> None:
    assert feed(site) == []
    assert site.get("/changefeed/latest").status_code == 204


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "offset=-1", "after=1.5", "startTime=today", "startTime=2026-01-01T00:00:00",
     "includeMetadata=1", "since=4", "limit=1&limit=2"],
)  # fmt: skip
def test_feed_refuses_what_it_does_not_understand(site: Parts, query: str) -> None:
    assert site.get(f"/changefeed?{query}").status_code == 400


class EventSource:
    """What a browser's EventSource does: it reads frames, and remembers the last id (HTML 9.2)."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self.http, self.url = http, url
        self.last, self.comments = "", 0

    @contextmanager
    def open(self) -> Iterator[Iterator[dict[str, Any]]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last} if self.last else {})
        with self.http.stream("GET", self.url, headers=headers) as answer:
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
            yield self._items(answer.iter_lines())

    def _items(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        for line in lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last = value
            elif name == "data":
                item = json.loads(value)
                assert str(item["Sequence"]) == self.last
                yield item


def test_feed_as_event_stream_tells_each_change_once_across_reconnects(tmp_path: Path, each_database: str) -> None:
    """Spec 2.4: several writers, a reader that loses its connection, and an end when the server drains."""
    another_process = database_at(tmp_path / "index.db")

    def others(tenant: str, count: int) -> None:
        with another_process.write() as tx:
            paths = [("7", "7.1", f"7.1.{threading.get_ident()}.{number}") for number in range(count)]
            record(connection_of(tx), tenant, paths, "create", 5.0)

    with serving(tmp_path) as (base, parts), httpx.Client(timeout=30) as http:
        parts.ingest.store("default", [instance(), instance()], source=Source())
        source, seen = EventSource(http, f"{base}/changefeed?after=0&includeMetadata=true"), []
        with source.open() as items:
            seen += [next(items), next(items)]
            others("default", 1)
            seen.append(next(items))
        others("other", 3)  # nobody may see that they are there
        others("default", 12)
        parts.ingest.store("default", [instance()], source=Source())
        with source.open() as items:
            seen += [next(items) for _ in range(13)]
            assert http.delete(f"{base}/studies/1.2.3").status_code == 204
            seen += [next(items) for _ in range(3)]
            parts.stopping.set()
            assert list(items) == [], "the stream ends, whole"
        assert [item["Sequence"] for item in seen] == list(range(1, 20))
        assert [item["Action"] for item in seen] == ["create"] * 16 + ["delete"] * 3
        assert "Metadata" in seen[0]
        assert "Metadata" not in seen[2]
        page = http.get(f"{base}/changefeed?after=3&limit=12").json()
        assert page == seen[3:15], "as the pages tell it"
    another_process.close()


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?offset=1", {}), ("?limit=5", {}), ("?startTime=2026-01-01T00:00:00Z", {}), ("?after=-1", {}), ("?after=x", {}),
     ("?after=1&after=2", {}), ("", {"Last-Event-ID": "1; DROP"}), ("", {"Last-Event-ID": "-1"}),
     ("?includeMetadata=1", {})],
)  # fmt: skip
def test_an_event_stream_refuses_what_it_does_not_understand(
    site_of_all: Parts, query: str, headers: dict[str, str]
) -> None:
    answer = site_of_all.get(f"/changefeed{query}", "text/event-stream", **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_head_of_an_event_stream_ends(site_of_all: Parts) -> None:
    answer = site_of_all.client.head("/dicom-web/changefeed", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert site_of_all.get("/changefeed", "application/json, text/event-stream").json() == []


def test_duplicates_and_refusals_are_no_changes(site: Parts) -> None:
    part = instance()
    site.store(part, part)
    site.store(part)
    data = pydicom.dcmread(io.BytesIO(part))
    site.store(instance(SOPInstanceUID=data.SOPInstanceUID, PatientID="OTHER"))
    site.outbox.fail = Unavailable()
    assert site.store(instance()).status_code == 409
    put(site)
    assert [item["Sequence"] for item in feed(site)] == [1, 2], "a rolled back commit leaves no gap"


def test_numbers_are_gapless_and_in_commit_order_among_many_writers(tmp_path: Path) -> None:
    database = database_at(tmp_path / "x.db")
    database.create_schema()
    seen: list[int] = []
    lock = threading.Lock()

    def writer(name: int) -> None:
        for number in range(8):
            with suppress(ZeroDivisionError), database.write() as tx:
                record(connection_of(tx), f"t{name % 2}", [("1", "2", f"{name}.{number}")], "create", 1.0)
                if number % 4 == 3:
                    raise ZeroDivisionError
                if name % 2 == 0:
                    with lock:
                        seen.append(record(connection_of(tx), "t0", [("1", "2", f"{name}.{number}.1")], "create", 1.0))

    threads = [threading.Thread(target=writer, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == sorted(seen)
    assert seen[-1] == 2 * len(seen) == 36
    database.close()


def test_who_deleted_what_is_in_the_audit_log(site: Parts) -> None:
    path = put(site, PatientName="MARKED^PATIENT", PatientID="MARKED")
    answer = site.client.delete(f"/dicom-web{path}")
    delete(site, "/studies/1.2.3")
    delete(site, "/studies/404")
    entries = audit(site)
    assert [(entry.action, entry.actor, entry.outcome) for entry, _ in entries] == [
        ("delete", "local", "done"),
        ("delete", "local", "gone"),
        ("delete", "local", "not-found"),
    ]
    assert entries[0][0].request_id == answer.headers["x-request-id"]
    assert f"/studies/{entries[0][0].study_uid}/series/{entries[0][0].series_uid}" in path
    assert "MARKED" not in repr(entries)
    before = ""
    for entry, link in entries:
        assert link == chained(before, told_of(entry)), "each entry is chained to the one before"
        before = link


def test_deletions_survive_a_rebuild(site: Parts) -> None:
    gone, kept = put(site), put(site)
    part = instance(StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1")
    site.store(part)
    delete(site, gone)
    delete(site, "/studies/9.9")
    site.store(part)
    before = (site.get("/studies").json(), site.get("/instances").json(), feed(site), audit(site))
    for _ in range(2):
        report = rebuild(site.database, site.archive, site.objects, site.ingest)
        assert (report.indexed, report.removals) == (2, 2)
        after = (site.get("/studies").json(), site.get("/instances").json(), feed(site), audit(site))
        assert after == before
    assert (site.get(gone).status_code, site.get(kept).status_code) == (410, 200)


def test_deletions_survive_the_loss_of_the_database(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        gone, kept = put(site), put(site)
        part = instance(StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1")
        site.store(part)
        delete(site, gone)
        delete(site, "/studies/9.9")
        site.store(part)
        before = [{**item, "Timestamp": ""} for item in feed(site)]
        chain = audit(site)
    for file in tmp_path.glob("index.db*"):
        file.unlink()
    with running(tmp_path) as site:
        assert [{**item, "Timestamp": ""} for item in feed(site)] == before
        assert audit(site) == chain
        assert (site.get(gone).status_code, site.get(kept).status_code) == (410, 200)
        assert site.get("/studies/9.9").status_code == 200


def test_a_leftover_copy_does_not_come_back(site: Parts) -> None:
    part = instance()
    site.outbox.fail = Unavailable()
    assert site.store(part).status_code == 409, "bytes are stored, the index transaction failed"
    assert site.store(part).status_code == 200
    assert delete(site, "/studies/1.2.3") == 204
    rebuild(site.database, site.archive, site.objects, site.ingest)
    assert site.get("/studies/1.2.3").status_code == 410
    assert site.get("/studies").json() == []


def test_a_recorded_deletion_is_done_after_a_crash(tmp_path: Path) -> None:
    """The record is synced, then the process dies before the index transaction."""
    parts = build(tmp_path)
    path = None
    from starlette.testclient import TestClient

    with TestClient(parts.app) as client:
        parts.client = client
        path = put(parts)
        original = parts.archive.remove

        def die(*_arguments: Any, **_names: Any) -> int:
            raise Unavailable

        parts.archive.remove = die  # type: ignore[method-assign]
        assert delete(parts, path) == 503
        assert parts.get(path).status_code == 200
        parts.archive.remove = original  # type: ignore[method-assign]
        report = recover(parts.database, parts.archive, parts.objects, parts.ingest)
        assert (report.removals, parts.get(path).status_code) == (1, 410)
        assert recover(parts.database, parts.archive, parts.objects, parts.ingest).removals == 0
    parts.objects.close()
    parts.database.close()


def test_delete_during_a_transfer_that_goes_on(site: Parts) -> None:
    """The end of a transfer whose study is gone by then is told to nobody, and nothing fails."""
    from wetread.core.facts import Source
    from wetread.gateway.ingest import Batch, Transfer

    transfer = Transfer("default", Source())
    first = site.ingest.prepare(instance(), transfer)
    site.ingest.commit([Batch(transfer, [first], last=False)])
    assert delete(site, "/studies/1.2.3") == 204
    other = Batch(transfer, [site.ingest.prepare(instance(StudyInstanceUID="7"), transfer)], last=True)
    site.ingest.commit([other])
    assert other.outcomes[0].failure_reason is None
    assert site.get("/studies/7").status_code == 200


def test_stow_racing_delete_is_never_torn(site: Parts) -> None:
    parts = [instance(InstanceNumber=number) for number in range(12)]
    codes: set[int] = set()

    def store() -> None:
        for part in parts:
            response = site.client.post("/dicom-web/studies", content=multipart([part]), headers=stow_headers())
            codes.add(response.status_code)

    thread = threading.Thread(target=store)
    thread.start()
    for _ in range(6):
        codes.add(delete(site, "/studies/1.2.3"))
    thread.join()
    assert codes <= {200, 204, 404, 410}
    items = feed(site)
    assert [item["Sequence"] for item in items] == list(range(1, len(items) + 1))
    current = {item["SopInstanceUid"] for item in items if item["State"] == "current"}
    assert current == {item["00080018"]["Value"][0] for item in site.get("/instances").json()}
    counted = sum(item["00201208"]["Value"][0] for item in site.get("/studies").json())
    assert counted == len(current)


def test_tenants_do_not_see_each_other(site: Parts) -> None:
    path = put(site)
    with site.database.read() as tx:
        assert site.archive.changes(tx, "other", limit=10) == []
        assert site.archive.latest_change(tx, "other") is None
        assert site.archive.last_change(tx, "other") == 0
    delete(site, path)
    with site.database.read() as tx:
        assert site.archive.dead(tx, "other", [(uid_of(instance()), "x")]) == set()
        assert list(site.archive.audit_entries(tx, "other")) == []


def test_a_result_for_a_deleted_study_is_refused_and_the_deletion_is_told(site: Parts) -> None:
    def own(number: int) -> list[int | None]:
        part = instance(StudyInstanceUID="1.2.77", SeriesInstanceUID=f"1.2.77.{number}", Modality="SR")
        report = site.ingest.store("default", [part], source=Source(client="wetread"), own_result=True)
        return [outcome.failure_reason for outcome in report.outcomes]

    path = put(site, "1.2.77")
    assert own(2) == [None]
    assert delete(site, "/studies/1.2.77") == 204
    assert site.outbox.removed == [("default", "1.2.77")]
    assert own(3) == [0xA901]
    assert site.get(path).status_code == 410, "the study does not come back"
    put(site, "1.2.77")
    assert own(4) == [None], "its sender may bring it back"


def delete_by(site: Parts, path: str, key: str) -> int:
    return site.client.delete(f"/dicom-web{path}", headers={"Idempotency-Key": key}).status_code


def test_idempotency_key_of_a_deletion_that_was_done(tmp_path: Path, each_database: str) -> None:
    key = "8e03978e-40d5-43e8-bc93-6894a57f9324"
    with running(tmp_path) as site:
        path = put(site)
        assert [delete_by(site, "/studies/1.2.9", key) for _ in range(2)] == [404, 404], "nothing was done"
        assert [delete_by(site, path, key), delete_by(site, path, f'"{key}"')] == [204, 204]
        assert (delete(site, path), delete_by(site, path, "another")) == (410, 410)
        other = put(site)
        answer = site.client.delete(f"/dicom-web{other}", headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")
        assert site.get(other).status_code == 200
        site.store(instance(SOPInstanceUID=path.rpartition("/")[2]))
        assert delete_by(site, path, key) == 204, "a request that comes late does not delete what came after it"
        assert site.get(path).status_code == 200
        outcomes = [entry.outcome for entry, _ in audit(site)]
        assert outcomes == ["not-found", "not-found", "done", "repeated", "gone", "gone", "repeated"]
        assert [item["Action"] for item in feed(site)].count("delete") == 1
    with running(tmp_path) as site:
        assert delete_by(site, path, key) == 204, "after a restart"
        rebuild(site.database, site.archive, site.objects, site.ingest)
        assert delete_by(site, path, key) == 204, "and after a rebuild"


def test_idempotency_keys_are_of_one_tenant_and_of_one_day(site: Parts) -> None:
    path = put(site)
    assert delete_by(site, path, "k") == 204
    digest = hashlib.sha256(b"k").hexdigest()
    with site.database.read() as tx:
        at = next(entry.at for entry, _ in site.archive.audit_entries(tx, "default"))
        assert site.archive.removed_by_key(tx, "default", digest, since=at) == path.removeprefix("/studies/").replace(
            "/series/", "/"
        ).replace("/instances/", "/")
        assert site.archive.removed_by_key(tx, "other", digest, since=0) is None
        assert site.archive.removed_by_key(tx, "default", digest, since=at + 1) is None
    with site.database.write() as tx:
        for tenant, key in (("default", "next"), ("other", digest)):
            removal = Removal("5", None, None, (), at=at + KEY_SECONDS + 1, by="x", request_id="y", key=key)
            site.archive.remove(tx, tenant, removal)
        assert site.archive.removed_by_key(tx, "default", digest, since=0) is None, "forgotten"
        assert site.archive.removed_by_key(tx, "other", digest, since=0) == "5"


def test_a_deletion_that_a_crash_has_cut_is_known_by_its_key(tmp_path: Path) -> None:
    """The record is synced, the index does not know of it yet, and the client has heard nothing."""
    with running(tmp_path) as site:
        path = put(site)
        with site.database.read() as tx:
            (found,) = site.archive.instances(tx, "default", "1.2.3", "1.2.3.1", path.rpartition("/")[2])
        members = (RemovedInstance(found.series_uid, found.sop_uid, found.ref.locator),)
        digest = hashlib.sha256(b"k").hexdigest()
        removal = Removal("1.2.3", found.series_uid, found.sop_uid, members, time.time(), "x", "y", digest)
        stored = json.loads(describe(removal))
        assert "key" not in stored["removed"], "the release before reads the record"
        assert removal_of(stored) == removal
        site.objects.append("default", [(describe(removal), ())])
    with running(tmp_path) as site:
        assert site.get(path).status_code == 410
        assert (delete_by(site, path, "k"), delete(site, path)) == (204, 410)


@pytest.mark.parametrize("key", ["", " ", "a b", '"', '""', '"a', "a\\b", "x" * 256, "\u00e9"])
def test_idempotency_keys_that_are_none(site_of_all: Parts, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = site_of_all.client.delete("/dicom-web/studies/1.2.3", headers=headers)
    assert answer.status_code == 400, answer.text
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert site_of_all.client.delete("/dicom-web/studies/1.2.3", headers=twice).status_code == 400
