"""Policy ``replace``: another content under the same SOP Instance UID takes the place of the first, everywhere.

Races and crashes: whatever the order, one content stands, it is one that was acknowledged last or never refused, and
the index that is rebuilt from the records (with the database's help, and without) says the same.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.conformance.test_stow_crash import everything, process
from tests.databases import database_at
from tests.dimse_support import edge
from tests.gateway_support import Parts, RecordingOutbox, instance, multipart, reasons, running, stow_headers

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.studies import SqlArchive
from wetread.adapters.index.tables import dead_records
from wetread.adapters.index.tables import instances as rows
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.core.errors import Unavailable
from wetread.core.facts import Source
from wetread.core.ports.ingest import InstanceOutcome
from wetread.core.tenants import DuplicatePolicy, TenantFile, TenantPolicy, Tenants
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.replay import rebuild, recover
from wetread.gateway.settings import GatewaySettings, IngestSettings

UID = "1.2.3.1.1"
PATH = f"/studies/1.2.3/series/1.2.3.1/instances/{UID}"
REPLACE = GatewaySettings(ingest=IngestSettings(duplicates="replace"))


def content(number: int, **changes: Any) -> bytes:
    return instance(SOPInstanceUID=UID, PatientComments=f"content {number}", **changes)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Parts]:
    with running(tmp_path, settings=REPLACE) as parts:
        yield parts


def feed(site: Parts) -> list[tuple[str, str]]:
    return [(change["Action"], change["State"]) for change in site.get("/changefeed").json()]


def test_the_new_content_is_shown_everywhere(tmp_path: Path, each_database: str) -> None:
    with running(tmp_path, settings=REPLACE) as site:
        other = instance(SOPInstanceUID="1.2.3.1.2", InstanceNumber=2)
        assert site.store(content(1), other).status_code == 200
        paths = [PATH, f"{PATH}/metadata", f"{PATH}/frames/1", f"{PATH}/rendered", f"{PATH}/thumbnail"]
        paths += ["/studies/1.2.3", "/studies/1.2.3/metadata", "/studies", "/studies/1.2.3/series"]
        before = {path: site.get(path) for path in paths}
        assert {answer.status_code for answer in before.values()} == {200}

        mended: dict[str, Any] = {"PatientName": "Corrected^Jane", "SeriesDescription": "THIN", "Rows": 6, "Columns": 8}
        new = content(2, **mended, PixelData=np.arange(48, dtype="<u2")[::-1].tobytes())
        # A study has the attributes of its first instance: both are corrected.
        assert site.store(new, instance(SOPInstanceUID="1.2.3.1.2", InstanceNumber=2, **mended)).status_code == 200
        after = {path: site.get(path, **{"If-None-Match": before[path].headers["ETag"]}) for path in paths}
        assert {path: answer.status_code for path, answer in after.items() if answer.status_code != 200} == {}, (
            "no tag of the former content holds"
        )
        assert all(after[path].content != before[path].content for path in paths)
        assert site.get(PATH, "application/dicom").content == new
        assert site.get(f"{PATH}/frames/1", 'multipart/related; type="application/octet-stream"').content.count(
            np.arange(48, dtype="<u2")[::-1].tobytes()
        )
        (study,), (series,) = site.get("/studies").json(), site.get("/studies/1.2.3/series").json()
        assert study["00100010"]["Value"] == [{"Alphabetic": "Corrected^Jane"}]
        assert site.get("/studies?PatientName=Doe*").json() == []
        assert (study["00201208"]["Value"], series["00201209"]["Value"]) == ([2], [2])
        assert series["0008103E"]["Value"] == ["THIN"]

        told = [("create", "replaced")] * 2 + [("update", "current")] * 2
        assert feed(site) == told
        with site.database.read() as tx:
            ((entry, _), _) = site.archive.audit_entries(tx, "default")
        assert (entry.action, entry.sop_uid, entry.outcome, entry.actor) == ("replace", UID, "done", "local")
        first, second = site.outbox.changes
        assert (second.new_instances, second.replaced_instances, second.transfer_end) == (0, 2, True)
        assert second.generation > first.generation

        assert site.store(new).status_code == 200, "the same again changes nothing"
        assert feed(site) == told
        said = everything(site)
        rebuild(site.database, site.archive, site.objects, site.ingest)
        assert everything(site) == said
        assert feed(site) == told
    with contextlib.ExitStack() as stack:
        (tmp_path / "lost").mkdir()
        (tmp_path / "lost/objects").symlink_to(tmp_path / "objects")
        again = stack.enter_context(running(tmp_path / "lost", settings=REPLACE))
        assert everything(again) == said, "the database was lost as a whole"
        assert feed(again) == told


def test_every_tenant_has_its_policy_and_the_deployment_the_others(tmp_path: Path) -> None:
    named = {"strict": TenantPolicy(duplicates="reject"), "first": TenantPolicy(duplicates="keep_first")}
    ingest = IngestSettings(duplicates="replace", tenants=Tenants(TenantFile(tenants=named)))
    with running(tmp_path, settings=GatewaySettings(ingest=ingest)) as site:

        def second(tenant: str) -> InstanceOutcome:
            site.ingest.store(tenant, [content(1)], source=Source())
            return site.ingest.store(tenant, [content(2)], source=Source()).outcomes[0]

        assert [second(tenant).failure_reason for tenant in ("strict", "first", "any")] == [45070, None, None]
        assert [second(tenant).warning_reason for tenant in ("first", "any")] == [0xB006, None]


def test_only_in_its_own_series_and_never_across_results_of_wetread(site: Parts) -> None:
    site.store(content(1))
    assert reasons(site.store(content(2, StudyInstanceUID="9.9"))) == [43264]
    assert reasons(site.store(content(2, SeriesInstanceUID="9.9"))) == [43264]
    own = {"SOPInstanceUID": "5.5", "SeriesInstanceUID": "5"}
    assert site.ingest.store("default", [instance(**own)], source=Source(), own_result=True).failed == 0
    assert reasons(site.store(instance(**own, PatientComments="forged"))) == [45070]
    rewritten = [instance(**own, PatientComments="again")]
    assert site.ingest.store("default", rewritten, source=Source(), own_result=True).failed == 0
    assert site.ingest.store("default", [content(3)], source=Source(), own_result=True).failed == 1
    assert site.get(PATH, "application/dicom").content == content(1)


def test_several_contents_in_one_request_follow_each_other(site: Parts) -> None:
    other = instance()
    assert site.store(content(1), other, content(2), content(2), content(3)).status_code == 200
    assert site.get(PATH, "application/dicom").content == content(3)
    assert len(site.get("/instances").json()) == 2
    assert [action for action, _ in feed(site)] == ["create", "create", "update", "update"]
    assert [change.transfer_end for change in site.outbox.changes] == [False, False, True]
    said = everything(site)
    rebuild(site.database, site.archive, site.objects, site.ingest)
    assert everything(site) == said


def test_deleted_after_replacement_stays_deleted(site: Parts) -> None:
    for number in (1, 2):
        site.store(content(number))
    assert site.client.delete(f"/dicom-web{PATH}").status_code == 204
    rebuild(site.database, site.archive, site.objects, site.ingest)
    assert site.get(PATH).status_code == 410
    assert site.store(content(1)).status_code == 200
    assert site.get(PATH, "application/dicom").content == content(1)


def test_concurrent_senders_of_two_contents(site: Parts) -> None:
    answers: list[int] = []
    bodies = [content(number) for number in range(4)]
    threads = [
        threading.Thread(target=lambda body=body: answers.append(site.store(body).status_code)) for body in bodies * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 12
    assert site.get(PATH, "application/dicom").content in bodies
    (study,) = site.get("/studies").json()
    assert study["00201208"]["Value"] == [1]
    assert sum(change.new_instances for change in site.outbox.changes) == 1
    said = everything(site)
    rebuild(site.database, site.archive, site.objects, site.ingest)
    assert everything(site) == said


@pytest.mark.server("dcmtk")
def test_c_store_replaces_too(tmp_path: Path) -> None:
    """The same ingest: success (0000), the change feed, and the sending AE in the audit log."""
    with edge(tmp_path, gateway=REPLACE) as running_edge:
        for number in (1, 2):
            (tmp_path / "one.dcm").write_bytes(content(number))
            assert running_edge.dcmtk("storescu", tmp_path / "one.dcm").returncode == 0
        assert running_edge.meter.requests == {("C-STORE", 0): 2}
        parts = running_edge.parts
        with parts.database.read() as tx:
            (found,) = parts.archive.instances(tx, "default", "1.2.3")
            assert [change.action for change in parts.archive.changes(tx, "default", limit=9)] == ["create", "update"]
            ((entry, _),) = parts.archive.audit_entries(tx, "default")
        assert (entry.action, entry.actor) == ("replace", "ae:CT1")
        assert b"content 2" in parts.objects.read(found.ref)


# --- several processes, and crashes -----------------------------------------------------------------------------------


class Cut(BaseException):
    """The process dies here."""


class Process:
    """One gateway process of several at the same folder; its clock runs with the others'."""

    clocks = itertools.count(1_700_000_000)

    def __init__(self, folder: Path, shard: str, policy: DuplicatePolicy) -> None:
        self.database, self.archive, self.outbox = database_at(folder / "index.db"), SqlArchive(), RecordingOutbox()
        if not (folder / "index.db").exists():
            self.database.create_schema()

        def clock() -> float:
            return float(next(Process.clocks))

        self.objects = SegmentStore(folder / "objects", shard=shard, clock=clock)
        settings = IngestSettings(duplicates=policy)
        self.ingest = GroupIngest(
            self.database, self.archive, self.objects, self.outbox, settings=settings, clock=clock
        )

    def store(self, part: bytes) -> int | None:
        (outcome,) = self.ingest.store("default", [part], source=Source()).outcomes
        return outcome.failure_reason

    def recover(self) -> None:
        recover(self.database, self.archive, self.objects, self.ingest)

    def stands(self) -> bytes:
        with self.database.read() as tx:
            (found,) = self.archive.instances(tx, "default", "1.2.3")
        return self.objects.read(found.ref)

    def after_append(self, then: Callable[[], object]) -> None:
        """Do something between the next group's bytes and its transaction."""
        append = self.objects.append

        def once(tenant: str, records: Any) -> Any:
            refs = append(tenant, records)
            self.objects.append = append  # type: ignore[method-assign]
            then()
            return refs

        self.objects.append = once  # type: ignore[method-assign]


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Callable[[str, DuplicatePolicy], Process]]:
    started: list[Process] = []

    def start(shard: str, policy: DuplicatePolicy) -> Process:
        started.append(Process(tmp_path, shard, policy))
        return started[-1]

    yield start
    for one in started:
        one.objects.close()
        one.database.close()


def check_rebuilt(one: Process, folder: Path) -> None:
    """The same content stands when the index is rebuilt, and when the database is lost as a whole."""
    stands = one.stands()
    rebuild(one.database, one.archive, one.objects, one.ingest)
    assert one.stands() == stands
    with one.database.write() as tx:
        one.archive.clear(tx)
        connection_of(tx).execute(dead_records.delete())
    recover(one.database, one.archive, one.objects, one.ingest)
    assert one.stands() == stands, f"without the notes of the database, {folder}"
    with one.database.read() as tx:
        assert len(connection_of(tx).execute(rows.select()).all()) == 1


@pytest.mark.parametrize(
    ("policy", "there"), [("reject", False), ("keep_first", False), ("replace", False), ("replace", True)]
)
def test_another_process_is_faster(crew: Any, tmp_path: Path, policy: DuplicatePolicy, there: bool) -> None:
    one, two = crew("a", policy), crew("b", policy)
    if there:
        assert one.store(content(0)) is None
    answers: list[int | None] = []
    one.after_append(lambda: answers.append(two.store(content(2))))
    mine = one.store(content(1))
    assert answers == [None]
    assert mine == {"reject": 45070}.get(policy)
    assert one.stands() == content(1 if policy == "replace" else 2)
    check_rebuilt(one, tmp_path)


def test_the_same_content_by_two_processes_is_one_record_for_good(crew: Any, tmp_path: Path) -> None:
    one, two = crew("a", "replace"), crew("b", "replace")
    one.after_append(lambda: two.store(content(1)))
    assert one.store(content(1)) is None
    assert two.store(content(2)) is None
    assert one.stands() == content(2)
    check_rebuilt(one, tmp_path)


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_neighbour_starts_between_bytes_and_index(crew: Any, tmp_path: Path, overtaken: bool) -> None:
    """It finds the record and finishes the replacement; or puts it aside where another content came first."""
    one, two, third = crew("a", "replace"), crew("b", "replace"), crew("c", "replace")
    assert one.store(content(0)) is None

    def meanwhile() -> None:
        if overtaken:
            assert two.store(content(2)) is None
        third.recover()

    one.after_append(meanwhile)
    assert one.store(content(1)) == (45071 if overtaken else None)
    assert one.stands() == content(2 if overtaken else 1)
    assert one.store(content(1)) is None, "the sender tries again"
    check_rebuilt(one, tmp_path)


@pytest.mark.parametrize("policy", ["reject", "replace"])
def test_killed_between_bytes_and_index(crew: Any, tmp_path: Path, policy: DuplicatePolicy) -> None:
    """What was acknowledged stands; a replacement that nobody was told of may be finished at the start."""
    one, two = crew("a", policy), crew("b", policy)
    assert two.store(content(0)) is None

    def die() -> None:
        raise Cut

    one.after_append(die)
    with pytest.raises(Cut):
        one.store(content(1))
    assert two.stands() == content(0)
    one.objects.close()
    again = crew("a", policy)
    again.recover()
    assert again.stands() == content(1 if policy == "replace" else 0)
    changes = [(change.new_instances, change.replaced_instances) for change in again.outbox.changes]
    assert changes == ([(0, 1)] if policy == "replace" else [])
    assert two.store(again.stands()) is None, "the sender repeats: an identical duplicate"
    check_rebuilt(again, tmp_path)


@pytest.mark.slow
def test_killed_while_the_loss_of_a_race_is_written_down(crew: Any, tmp_path: Path) -> None:
    one, two = crew("a", "replace"), crew("b", "replace")
    assert one.store(content(0)) is None

    def meanwhile() -> None:
        assert two.store(content(2)) is None

        def die() -> None:
            raise Cut

        one.after_append(die)  # the note about content 2 is stored, the transaction is not

    one.after_append(meanwhile)
    with pytest.raises(Cut):
        one.store(content(1))
    assert two.stands() == content(2)
    one.objects.close()
    again = crew("a", "replace")
    again.recover()
    assert again.stands() in (content(1), content(2))
    check_rebuilt(again, tmp_path)


def test_what_was_answered_with_a_failure_never_stands_in_the_way(crew: Any, tmp_path: Path) -> None:
    one = crew("a", "reject")
    one.outbox.fail = Unavailable("the queue is down")
    assert one.store(content(1)) == 0x0110
    assert one.store(content(2)) is None
    assert one.store(content(1)) == 45070
    check_rebuilt(one, tmp_path)
    assert one.stands() == content(2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_while_contents_are_replaced(tmp_path: Path) -> None:
    """Each sender replaces its own instance again and again: the last acknowledged content stands, or a later one."""
    acknowledged: dict[int, int] = {}
    sent: dict[int, int] = {}

    def body(number: int, round_: int) -> bytes:
        uids = {
            "SOPInstanceUID": f"2.{number}.1.1",
            "StudyInstanceUID": f"2.{number}",
            "SeriesInstanceUID": f"2.{number}.1",
        }
        return instance(**uids, PatientComments=f"content {round_}")

    def sender(base: str, number: int) -> None:
        with httpx.Client(timeout=20) as client:
            while True:
                sent[number] = round_ = sent.get(number, 0) + 1
                try:
                    answer = client.post(
                        f"{base}/studies", content=multipart([body(number, round_)]), headers=stow_headers()
                    )
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged[number] = round_

    for _ in range(12):
        with process(tmp_path, "0", "replace") as (base, child):
            threads = [threading.Thread(target=sender, args=(base, number)) for number in range(8)]
            for thread in threads:
                thread.start()
            goal, until = sum(acknowledged.values()) + 60, time.monotonic() + 30
            while sum(acknowledged.values()) < goal and time.monotonic() < until:
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            child.wait()
            for thread in threads:
                thread.join()
    with running(tmp_path, settings=REPLACE) as site:
        for number, round_ in acknowledged.items():
            path = f"/studies/2.{number}/series/2.{number}.1/instances/2.{number}.1.1"
            found = site.get(path, "application/dicom").content
            assert found in [body(number, later) for later in range(round_, sent[number] + 1)]
        said = everything(site)
        rebuild(site.database, site.archive, site.objects, site.ingest)
        assert everything(site) == said
