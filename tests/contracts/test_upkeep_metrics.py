"""What the database tells the metrics of a whole deployment: tenants, backups; on SQLite and PostgreSQL."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import insert
from tests.databases import database_at
from typer.testing import CliRunner

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.tables import instances, studies
from wetread.adapters.telemetry.metrics import DatabaseCollector
from wetread.cli import app
from wetread.testing.servers.postgres import postgres

STUDY = {"received_at": 0.0, "last_received_at": 0.0, "attributes_json": b"{}"}
INSTANCE = {
    "study_uid": "1", "series_uid": "1", "sop_class_uid": "1", "transfer_syntax_uid": "1", "content_hash": "",
    "locator": "", "received_at": 0.0, "facts_json": "{}", "attributes_json": b"{}", "metadata_json": b"",
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> SqlDatabase:
    made = database_at(tmp_path / "wetread.db")
    made.create_schema()
    return made


def told(database: SqlDatabase, name: str) -> dict[str, float]:
    """Return the samples of a gauge by the value of its label, if it has one."""
    family = next(each for each in DatabaseCollector(database).collect() if each.name == name)
    return {next(iter(sample.labels.values()), ""): sample.value for sample in family.samples}


def test_tenants_have_labels_of_their_own_until_there_are_too_many(database: SqlDatabase) -> None:
    assert told(database, "wetread_tenant_stored_bytes") == {}
    assert told(database, "wetread_stored_bytes") == {"": 0}
    with database.write() as tx:
        for number in range(53):
            name = f"t{number:02d}"
            tx.connection.execute(insert(studies).values(tenant=name, study_uid="1", **STUDY))
            tx.connection.execute(insert(instances).values(tenant=name, sop_uid="1", length=number + 1, **INSTANCE))
    stored = told(database, "wetread_tenant_stored_bytes")
    assert len(stored) == 51
    assert (stored["t52"], stored["other"]) == (53, 1 + 2 + 3)
    assert {"t00", "t01", "t02"}.isdisjoint(stored)
    assert told(database, "wetread_stored_bytes") == {"": sum(range(1, 54))}
    assert sum(told(database, "wetread_tenant_studies").values()) == 53
    assert told(database, "wetread_tenant_results") == {}


def test_a_backup_is_noted_by_the_last_step_of_its_job(
    database: SqlDatabase, each_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(database, "wetread_backup_timestamp_seconds") == {}
    if each_database == "sqlite":
        monkeypatch.setenv("WETREAD_DATA", str(tmp_path))
    else:
        monkeypatch.setenv("WETREAD_DATABASE_URL", (tmp_path / "wetread.url").read_text("utf-8"))
    for _ in range(2):
        before = time.time()
        done = CliRunner().invoke(app, ["db", "backup-done"])
        assert (done.exit_code, done.output) == (0, "the backup is noted\n")
        assert before <= told(database, "wetread_backup_timestamp_seconds")[""] <= time.time()


def test_no_backup_is_noted_in_a_database_without_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WETREAD_DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["db", "backup-done"])
    assert done.exit_code == 1
    assert "wetread db migrate" in done.output


@pytest.mark.slow  # a server of its own: archiving is switched on at start
@pytest.mark.server("postgres")
def test_the_archiver_of_postgres_is_seen() -> None:
    with postgres(settings=("archive_mode=on", "archive_command=/bin/true")) as server:
        database = SqlDatabase(server.fresh())
        database.create_schema()
        assert told(database, "wetread_database_archived_timestamp_seconds") == {}
        before = time.time()
        server.run("SELECT pg_switch_wal()")
        while not (seen := told(database, "wetread_database_archived_timestamp_seconds")):
            time.sleep(0.1)
        assert before - 1 <= seen[""] <= time.time()
        database.close()
