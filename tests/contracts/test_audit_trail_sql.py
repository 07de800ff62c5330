"""The audit trail: batches, counts, chains, retention, a database that is gone; nothing lost unsaid."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from tests.databases import database_at
from tests.worklist_world import SetClock
from typer.testing import CliRunner

from wetread.adapters.audit import journal as journal_module
from wetread.adapters.audit.chain import EVERY_SECONDS, ChainWatch, broken_links
from wetread.adapters.audit.journal import AccessJournal
from wetread.adapters.audit.trail import SqlAccessTrail
from wetread.adapters.index.audit import SqlAuditLog
from wetread.adapters.index.database import SqlDatabase, connection_of
from wetread.adapters.index.tables import access_log, audit_log
from wetread.adapters.telemetry.metrics import DatabaseCollector
from wetread.cli import app
from wetread.core.errors import Unavailable
from wetread.core.ports.access import Access, AccessEntry, AccessFilter, Link
from wetread.core.ports.changes import AuditEntry

TRAIL = SqlAccessTrail()
DELETIONS = SqlAuditLog()


def access(tenant: str = "north", study: str = "1.2.3", outcome: str = "200", actor: str = "ct-1") -> Access:
    return Access(tenant, actor, "GET /dicom-web/studies/{study}", study, outcome, "127.0.0.1")


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> SqlDatabase:
    made = database_at(tmp_path / "wetread.db")
    made.create_schema()
    return made


def entries(database: SqlDatabase, tenant: str | None = None, limit: int = 100, **wanted: Any) -> list[AccessEntry]:
    with database.read() as tx:
        return TRAIL.entries(tx, tenant, AccessFilter(**wanted), limit=limit)


def broken(database: SqlDatabase) -> list[tuple[str, int]]:
    (found,) = {tuple(broken_links(database, TRAIL, page=page)) for page in (1, 3, 5000)}
    return list(found)


def test_equal_accesses_of_a_batch_are_one_entry_with_a_count(database: SqlDatabase) -> None:
    journal = AccessJournal(database, TRAIL)
    for at in (10.0, 10.1, 10.2):
        journal.note(access(), at=at, request_id=f"r{at}")
    journal.note(access(outcome="404"), at=10.3)
    journal.flush()
    journal.note(access(), at=11.0)
    journal.flush()
    found = [(e.access.outcome, e.at, e.until, e.count, e.request_id) for e in entries(database)]
    assert found == [("200", 10.0, 10.2, 3, "r10.0"), ("404", 10.3, 10.3, 1, ""), ("200", 11.0, 11.0, 1, "")]


def test_entries_are_filtered_and_paged(database: SqlDatabase) -> None:
    journal = AccessJournal(database, TRAIL)
    for number in range(6):
        tenant, actor = ("north", "a") if number % 2 else ("south", "b")
        journal.note(access(tenant, f"1.2.{number}", actor=actor), at=float(number))
    journal.flush()

    def numbers(tenant: str | None = None, **wanted: Any) -> list[float]:
        return [entry.at for entry in entries(database, tenant, **wanted)]

    assert numbers() == [0, 1, 2, 3, 4, 5]
    assert numbers("north") == [1, 3, 5]
    assert numbers(since=2.0, until=4.0) == [2, 3]
    assert numbers("south", study_uid="1.2.4") == [4]
    assert numbers("south", study_uid="1.2.3") == []
    assert numbers(actor="a", limit=2) == [1, 3]
    third = entries(database)[2].number
    assert numbers(after=third) == [3, 4, 5]


@pytest.mark.parametrize("damage", ["change", "remove", "swap"])
def test_the_chain_shows_what_was_done_to_it(database: SqlDatabase, damage: str) -> None:
    journal = AccessJournal(database, TRAIL)
    for number in range(4):
        for tenant in ("north", "south"):
            journal.note(access(tenant, f"1.2.{number}"), at=float(number))
        journal.flush()
    assert broken(database) == []
    columns = access_log.c
    numbers = [entry.number for entry in entries(database, "north")]
    with database.write() as tx:
        connection = connection_of(tx)
        if damage == "remove":
            connection.execute(delete(access_log).where(columns.number == numbers[1]))
        elif damage == "change":
            connection.execute(update(access_log).where(columns.number == numbers[1]).values(outcome="404"))
        else:
            connection.execute(update(access_log).where(columns.number == numbers[1]).values(study_uid="1.2.2"))
            connection.execute(update(access_log).where(columns.number == numbers[2]).values(study_uid="1.2.1"))
    found = broken(database)
    assert found
    assert {tenant for tenant, _ in found} == {"north"}
    assert found[0][1] in numbers[1:3]


def deleted(database: SqlDatabase, *tenants: str) -> None:
    """Note four deletions of each tenant."""
    for number in range(4):
        for tenant in tenants:
            entry = AuditEntry(0.1 + number, "pacs", "delete", f"1.2.{number}", "", "", "deleted", f"r{number}")
            with database.write() as tx:
                DELETIONS.audit(tx, tenant, entry)


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_the_chain_of_deletions_is_followed_too(database: SqlDatabase, damage: str) -> None:
    deleted(database, "north", "south")
    assert [broken_links(database, DELETIONS, page=page) for page in (1, 3, 5000)] == [[], [], []]
    of_north = (audit_log.c.tenant == "north") & (audit_log.c.study_uid == "1.2.1")
    undone = update(audit_log).values(actor="nobody") if damage == "change" else delete(audit_log)
    with database.write() as tx:
        connection_of(tx).execute(undone.where(of_north))
    (found,) = {tuple(broken_links(database, DELETIONS, page=page)) for page in (1, 3, 5000)}
    assert found, damage
    assert {tenant for tenant, _ in found} == {"north"}
    assert broken(database) == [], "accesses have a chain of their own"


def test_old_entries_expire_and_what_is_left_is_one_chain(database: SqlDatabase) -> None:
    journal = AccessJournal(database, TRAIL)
    for at in (1.0, 2.0, 50.0, 60.0):
        for tenant in ("north", "south"):
            journal.note(access(tenant), at=at)
        journal.flush()
    with database.write() as tx:
        assert TRAIL.expire(tx, 40.0, limit=3) == 3
        assert TRAIL.expire(tx, 40.0, limit=3) == 1
        assert TRAIL.expire(tx, 40.0, limit=3) == 0
    assert [entry.at for entry in entries(database, "north")] == [50.0, 60.0]
    assert broken(database) == []
    with database.write() as tx:
        assert TRAIL.expire(tx, 1000.0, limit=100) == 4
    assert entries(database) == []


def test_entries_that_expire_while_the_chain_is_followed_break_nothing(database: SqlDatabase) -> None:
    journal = AccessJournal(database, TRAIL)
    for at in range(6):
        journal.note(access(study=f"1.2.{at}"), at=float(at))
        journal.flush()

    class Expiring:
        """A trail whose oldest four entries go after the first page."""

        def audit_links(self, tx: Any, after: int, *, limit: int) -> list[Link]:
            found = TRAIL.audit_links(tx, after, limit=limit)
            with database.write() as writing:
                TRAIL.expire(writing, 4.0, limit=100)
            return found

    assert broken_links(database, Expiring(), page=2) == []
    assert [entry.at for entry in entries(database)] == [4.0, 5.0]


def test_the_watch_looks_once_a_day_for_all_and_tells_the_metrics(database: SqlDatabase) -> None:
    clock = SetClock()
    watches = [ChainWatch(database, (TRAIL, DELETIONS), clock) for _ in range(2)]

    def told(name: str) -> list[float]:
        family = next(f for f in DatabaseCollector(database).collect() if f.name == f"wetread_audit_{name}")
        return [sample.value for sample in family.samples]

    assert told("broken_links") == told("checked_timestamp_seconds") == []
    journal = AccessJournal(database, TRAIL)
    for number in range(3):
        journal.note(access(study=f"1.2.{number}"), at=float(number))
    journal.flush()
    deleted(database, "north")
    watches[0].look()
    assert (told("broken_links"), told("checked_timestamp_seconds")) == ([0.0], [clock.at])
    with database.write() as tx:
        connection_of(tx).execute(update(access_log).where(access_log.c.at == 1.0).values(actor="nobody"))
        connection_of(tx).execute(delete(audit_log).where(audit_log.c.at == 1.1))
    clock.at += EVERY_SECONDS - 1
    for watch in watches:
        watch.look()
    assert told("broken_links") == [0.0], "not yet due"
    clock.at += 1
    watches[1].look()
    assert (told("broken_links"), told("checked_timestamp_seconds")) == ([2.0], [clock.at])


class Flaky:
    """A database that does not answer for a while."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database
        self.down = True
        self.tried = threading.Event()

    def write(self) -> Any:
        self.tried.set()
        if self.down:
            raise Unavailable("gone")
        return self.database.write()


def test_what_cannot_be_written_waits_and_is_counted_once(database: SqlDatabase) -> None:
    flaky = Flaky(database)
    journal = AccessJournal(flaky, TRAIL)  # type: ignore[arg-type]
    journal.note(access(), at=1.0, request_id="first")
    journal.flush()
    journal.note(access(), at=2.0)
    journal.note(access(study="1.2.4"), at=3.0)
    journal.flush()
    assert entries(database) == []
    flaky.down = False
    journal.flush()
    journal.flush()
    assert [(e.access.study_uid, e.at, e.until, e.count) for e in entries(database)] == [
        ("1.2.3", 1.0, 2.0, 2),
        ("1.2.4", 3.0, 3.0, 1),
    ]


def test_memory_is_bounded_and_what_is_lost_is_told(database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_OPEN_ENTRIES", 3)
    lost: list[int] = []
    flaky = Flaky(database)
    journal = AccessJournal(flaky, TRAIL, lost=lost.append)  # type: ignore[arg-type]
    for number in range(5):
        journal.note(access(study=f"1.2.{number}"), at=1.0)
    assert sum(lost) == 2
    journal.note(access(study="1.2.0"), at=2.0)
    assert sum(lost) == 2, "a known one only counts up"
    journal.flush()
    journal.note(access(study="1.2.9"), at=3.0)
    assert sum(lost) == 3
    flaky.down = False
    journal.flush()
    assert len(entries(database)) == 3


def test_the_writer_writes_by_itself_and_goes_on_after_a_fault(database: SqlDatabase) -> None:
    flaky = Flaky(database)
    journal = AccessJournal(flaky, TRAIL, flush_seconds=0.01, retention_seconds=100, clock=lambda: 1000.0)  # type: ignore[arg-type]
    journal.open()
    try:
        journal.note(access(), at=999.0)
        journal.note(access(study="1.9"), at=10.0)
        assert flaky.tried.wait(5)
        flaky.down = False
        seen = threading.Event()
        for _ in range(500):
            found = entries(database)
            if found:
                break
            seen.wait(0.01)
        assert found[0].at == 999.0
    finally:
        journal.note(access("south"), at=1000.0)
        journal.close()
    assert "south" in {entry.access.tenant for entry in entries(database)}, "closing writes what is left"


def test_the_command_prints_and_verifies(tmp_path: Path) -> None:
    database = SqlDatabase(tmp_path / "wetread.db", full_sync=False)
    database.create_schema()
    journal = AccessJournal(database, TRAIL)
    for number in range(3):
        journal.note(access(study=f"1.2.{number}"), at=1_790_000_000.0 + number, request_id="abc")
    journal.note(Access("", "", "GET unmatched", "", "401", "192.0.2.1"), at=1_790_000_005.0)
    journal.flush()
    run = CliRunner().invoke
    data = ["--data", str(tmp_path)]
    printed = run(app, ["audit", *data])
    assert printed.exit_code == 0, printed.output
    assert len(printed.output.splitlines()) == 4
    assert "north/ct-1 127.0.0.1 GET /dicom-web/studies/{study} 1.2.1 200" in printed.output
    assert "-/- 192.0.2.1 GET unmatched - 401" in printed.output
    one = run(app, ["audit", *data, "--study", "1.2.2", "--tenant", "north", "--actor", "ct-1", "--json"])
    (line,) = [json.loads(text) for text in one.output.splitlines()]
    assert (line["tenant"], line["study_uid"], line["count"], line["request_id"]) == ("north", "1.2.2", 1, "abc")
    assert "whole" in run(app, ["audit", "verify", *data]).output
    with database.write() as tx:
        connection_of(tx).execute(update(access_log).where(access_log.c.number == 2).values(actor="nobody"))
    damaged = run(app, ["audit", "verify", *data])
    assert damaged.exit_code == 1
    assert "access_log: entry 2 of tenant north" in damaged.output
    assert "audit_log" not in damaged.output
    deleted(database, "north")
    with database.write() as tx:
        connection_of(tx).execute(update(audit_log).where(audit_log.c.study_uid == "1.2.2").values(actor="nobody"))
    assert "audit_log: entry 3 of tenant north" in run(app, ["audit", "verify", *data]).output
    assert run(app, ["audit", "--data", str(tmp_path / "none")]).exit_code == 2
