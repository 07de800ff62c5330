"""The database port on SQLite and PostgreSQL: turns of writers, snapshots, typed failures, versions of the schema."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from tests.databases import database_at

from wetread.adapters.index import migrations
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.engines import PostgresDriver, driver_for
from wetread.adapters.index.migrations import Step
from wetread.adapters.index.tables import change_counters, executors, metadata, studies
from wetread.adapters.telemetry.metrics import DatabaseCollector
from wetread.core.errors import ConfigurationError, StorageFull, Unavailable
from wetread.testing.servers.postgres import Postgres, postgres
from wetread.testing.servers.process import ServerFailedError, free_port

STUDY = {"received_at": 0.0, "last_received_at": 0.0, "attributes_json": b"{}"}


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> SqlDatabase:
    made = database_at(tmp_path / "t.db")
    made.create_schema()
    return made


@pytest.fixture
def empty(tmp_path: Path, each_database: str, request: pytest.FixtureRequest) -> Iterator[SqlDatabase]:
    """A database without tables."""
    path = tmp_path / "empty.db"
    made = SqlDatabase(path if each_database == "sqlite" else request.getfixturevalue("postgres_server").fresh())
    yield made
    made.close()


def test_writers_take_turns_so_that_what_was_read_is_still_true(database: SqlDatabase) -> None:
    with database.write() as tx:
        tx.connection.execute(insert(change_counters).values(tenant="t", last=0))

    def add_one(_number: int) -> None:
        with database.write() as tx:
            last = tx.connection.execute(select(change_counters.c.last)).scalar_one()
            tx.connection.execute(update(change_counters).values(last=last + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(80)))
    with database.read() as tx:
        assert tx.connection.execute(select(change_counters.c.last)).scalar_one() == 80


def test_a_reader_sees_one_moment_and_waits_for_nobody(database: SqlDatabase) -> None:
    with database.read() as reading:
        count = select(executors.c.id)
        assert reading.connection.execute(count).all() == []
        with database.write() as tx:
            tx.connection.execute(insert(executors).values(id="a", service="x", started_at=0, lease_until=0))
        assert reading.connection.execute(count).all() == []
    with database.read() as tx:
        assert len(tx.connection.execute(count).all()) == 1


def test_a_failed_write_leaves_nothing(database: SqlDatabase) -> None:
    def fail() -> None:
        with database.write() as tx:
            tx.connection.execute(insert(change_counters).values(tenant="t", last=1))
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    with database.read() as tx:
        assert tx.connection.execute(select(change_counters)).all() == []


def test_values_mean_the_same_everywhere(database: SqlDatabase) -> None:
    """64-bit integers, text in code-point order, bytes as they were."""
    names = ["a", "B", "Z", "_", "ä", "Ω", "10", "9"]
    with database.write() as tx:
        for name in names:
            row = {"tenant": "t", "study_uid": name, "instance_count": 2**40, **STUDY, "attributes_json": b"\x00\xff"}
            tx.connection.execute(insert(studies).values(**row))
    with database.read() as tx:
        rows = tx.connection.execute(select(studies).order_by(studies.c.study_uid)).all()
        prefix = tx.connection.execute(
            select(studies.c.study_uid).where(studies.c.study_uid >= "1", studies.c.study_uid < "2")
        ).scalars()
        assert list(prefix) == ["10"]
    assert [row.study_uid for row in rows] == sorted(names)
    assert {row.instance_count for row in rows} == {2**40}
    assert {bytes(row.attributes_json) for row in rows} == {b"\x00\xff"}


def test_padding_with_nul_does_not_refuse_a_study(database: SqlDatabase) -> None:
    with database.write() as tx:
        tx.connection.execute(insert(studies).values(tenant="t", study_uid="1", patient_id="A\x00", **STUDY))
    with database.read() as tx:
        assert tx.connection.execute(select(studies.c.patient_id)).scalar_one().rstrip("\x00") == "A"


def test_a_defect_of_ours_keeps_its_error(database: SqlDatabase) -> None:
    with pytest.raises(DBAPIError), database.write() as tx:
        tx.connection.execute(text("select nonsense"))


def test_the_share_of_connections_in_use_is_told(database: SqlDatabase, each_database: str) -> None:
    found = next(f for f in DatabaseCollector(database).collect() if f.name == "wetread_database_connections")
    values = {sample.labels["kind"]: sample.value for sample in found.samples}
    if each_database == "sqlite":
        assert values == {}
    else:
        assert 1 <= values["used"] <= values["limit"] == 200


# --- the schema -----------------------------------------------------------------------------------------------------


def tables_of(database: SqlDatabase) -> dict[str, set[str]]:
    found = inspect(database.engine)
    return {name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()}


def test_an_empty_database_is_refused_until_it_is_migrated(empty: SqlDatabase) -> None:
    with pytest.raises(ConfigurationError, match=r"version 0.*wetread db migrate"):
        empty.verify_schema()
    empty.create_schema()
    empty.verify_schema()
    assert tables_of(empty) == {name: {c.name for c in table.columns} for name, table in metadata.tables.items()}


def test_threads_that_begin_together_share_one_pool(empty: SqlDatabase) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({id(engine) for engine in pool.map(lambda _: empty.engine, range(8))}) == 1


def test_many_processes_may_migrate_at_once(empty: SqlDatabase) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: empty.create_schema(), range(4)))
    with empty.read() as tx:
        versions = tx.connection.execute(select(migrations.schema_versions.c.version)).scalars().all()
    assert versions == [migrations.newest()]


STEPS = (
    Step(2, {"any": ("alter table executors add column host text",)}),
    Step(3, {"sqlite": ("update executors set host = 's'",), "postgresql": ("update executors set host = 'p'",)}),
)


def nobody(_connection: object) -> None:
    return


def test_an_older_schema_is_led_to_the_newest_step_by_step_and_only_once(
    database: SqlDatabase, each_database: str
) -> None:
    with database.write() as tx:
        tx.connection.execute(text("drop index studies_name"))
        tx.connection.execute(insert(executors).values(id="a", service="x", started_at=0, lease_until=0))
    with pytest.raises(ConfigurationError, match=r"at version 1.*needs 3"):
        migrations.verify(database.engine, STEPS)
    for _ in range(2):
        migrations.migrate(database.engine, nobody, STEPS)
    migrations.verify(database.engine, STEPS)
    with database.read() as tx:
        assert tx.connection.execute(text("select host from executors")).scalar() == each_database[0]
    assert "studies_name" in {index["name"] for index in inspect(database.engine).get_indexes("studies")}
    database.verify_schema()  # the release before still runs on it


def test_a_database_from_before_versions_were_written_down_is_version_one(database: SqlDatabase) -> None:
    with database.write() as tx:
        tx.connection.execute(text("drop table schema_versions"))
        tx.connection.execute(text("drop table quiet_watches"))
    with pytest.raises(ConfigurationError, match="version 1, with tables missing"):
        database.verify_schema()
    database.create_schema()
    database.verify_schema()


def test_a_step_that_fails_leaves_the_version_before(database: SqlDatabase) -> None:
    broken = (*STEPS, Step(4, {"any": ("alter table nowhere add column x text",)}))
    with pytest.raises(DBAPIError):
        migrations.migrate(database.engine, nobody, broken)
    assert "host" not in tables_of(database)["executors"]
    database.verify_schema()


# --- URLs and failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["mysql://host/x", "wetread.db", "", "postgresql://host:port/x"])
def test_an_address_without_adapter_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        SqlDatabase(address)


def test_urls_of_both_kinds(tmp_path: Path) -> None:
    assert SqlDatabase(f"sqlite:///{tmp_path}/x.db").url == SqlDatabase(tmp_path / "x.db").url
    assert driver_for("postgres://u:p%40@h:1/d", full_sync=True).url == "postgresql://u:p%40@h:1/d"


def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = SqlDatabase("postgresql://nobody@127.0.0.1:1/x")
    with pytest.raises(Unavailable), database.read():
        pass


class _Failed(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "typed"),
    [("53100", StorageFull), ("53300", Unavailable), ("57P01", Unavailable), ("55P03", Unavailable),
     ("40P01", Unavailable), ("25P03", Unavailable), ("08006", Unavailable), ("23505", type(None)),
     ("42P01", type(None))],
)  # fmt: skip
def test_states_of_postgres_are_typed(sqlstate: str, typed: type) -> None:
    error = DBAPIError("select 1", {}, _Failed(sqlstate))
    assert type(PostgresDriver("postgresql://h/d").translated(error)) is typed


@pytest.mark.server("postgres")
def test_a_frozen_writer_does_not_hold_the_others_for_ever(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer whose machine froze in the middle of a transaction is cut off; its transaction leaves nothing."""
    monkeypatch.setattr("wetread.adapters.index.engines._FROZEN_MILLISECONDS", 300)
    url = postgres_server.prepared()
    frozen, other = SqlDatabase(url), SqlDatabase(url)
    holds, finish = threading.Event(), threading.Event()

    def freeze() -> None:
        with frozen.write() as tx:
            tx.connection.execute(insert(change_counters).values(tenant="frozen", last=1))
            holds.set()
            finish.wait(20)
            tx.connection.execute(select(change_counters))

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(freeze)
        assert holds.wait(10)
        began = time.monotonic()
        with other.write() as tx:
            assert tx.connection.execute(select(change_counters)).all() == []
        assert time.monotonic() - began < 5
        finish.set()
        with pytest.raises(Unavailable):
            result.result(10)
    frozen.close()
    other.close()


@pytest.mark.server("postgres")
def test_after_a_restart_of_the_server_the_next_transaction_works() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)  # readable by the system user that the server runs as
        with postgres(data=data, durable=True) as server:
            port = int(server.root.rpartition(":")[2])
            database = SqlDatabase(server.fresh())
            database.create_schema()
            with database.write() as tx:
                tx.connection.execute(insert(change_counters).values(tenant="t", last=1))
        with pytest.raises(Unavailable), database.read() as tx:
            tx.connection.execute(select(change_counters))
        with postgres(data=data, port=port, durable=True), database.read() as tx:
            assert len(tx.connection.execute(select(change_counters)).all()) == 1
            database.close()


@pytest.mark.slow
@pytest.mark.server("postgres")
def test_what_a_writer_has_finished_survives_a_database_that_is_killed_at_once(tmp_path: Path) -> None:
    """The lock is given up before the disk has the commit; the writer goes on only after (ADR 1201)."""
    folder = Path(tempfile.mkdtemp(prefix="wetread-durable-"))  # its owner must be able to reach it
    folder.chmod(0o755)
    port, name = free_port(), ""
    try:
        for number in range(4):
            with (
                suppress(ServerFailedError, ProcessLookupError),
                postgres(durable=True, port=port, data=folder / "data") as server,
            ):
                name = name or server.prepared().rpartition("/")[2]
                database = SqlDatabase(f"{server.root}/{name}")
                with database.read() as tx:
                    held = set(tx.connection.execute(text("SELECT stream FROM object_marks")).scalars())
                assert held == {str(n) for n in range(number)}, "finished writes are there after a kill -9"
                with database.write() as tx:
                    tx.connection.execute(text("INSERT INTO object_marks VALUES (:n, 'x')"), {"n": str(number)})
                os.kill(server.pid, signal.SIGKILL)
                database.close()
            (folder / "data" / "postmaster.pid").unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
