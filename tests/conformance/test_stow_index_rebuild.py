"""``wetread index rebuild``: the same index from the stored instances alone; deletions stay, a running server too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from tests.gateway_support import instance
from typer.testing import CliRunner

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import instances, series, studies
from wetread.bootstrap.house import open_house
from wetread.cli import app
from wetread.commands.up import lock_folder
from wetread.core.facts import Source
from wetread.core.ports.changes import Removal, RemovedInstance
from wetread.settings import Settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two studies, one of them deleted, and two instances in the other."""
    with open_house(Settings(data=tmp_path), ["gateway"]) as house:
        parts = [instance(InstanceNumber=1), instance(InstanceNumber=2), instance(StudyInstanceUID="9.9")]
        assert house.ingest.store("default", parts, source=Source()).failed == 0

        def choose(tx: Any) -> Removal:
            members = tuple(
                RemovedInstance(item.series_uid, item.sop_uid, item.ref.locator)
                for item in house.archive.instances(tx, "default", "9.9")
            )
            return Removal("9.9", None, None, members, at=1.0, by="test", request_id="r")

        house.ingest.remove("default", choose)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["index", "rebuild", *arguments])
    return result.exit_code, result.output


def counts(data: Path) -> list[tuple[str, int, int]]:
    with open_house(Settings(data=data), ["gateway"]) as house, house.database.read() as tx:
        rows = connection_of(tx).execute(studies.select())
        return [(row.study_uid, row.series_count, row.instance_count) for row in rows]


def test_rebuild_brings_a_lost_index_back(data: Path) -> None:
    with open_house(Settings(data=data), ["gateway"]) as house, house.database.write() as tx:
        for table in (studies, series, instances):
            connection_of(tx).execute(delete(table))
    assert counts(data) == []
    code, output = run("--data", str(data))
    assert (code, output.strip()) == (0, "3 stored instances, 2 indexed, 1 deletions, 0 not readable")
    assert counts(data) == [("1.2.3", 1, 2)]


def test_verify_changes_nothing_and_sees_a_difference(data: Path) -> None:
    before = sorted(path.name for path in data.iterdir())
    code, output = run("--data", str(data), "--verify")
    assert (code, output.strip()) == (0, "2 instances in the index, 2 when rebuilt, 0 differ")
    with open_house(Settings(data=data), ["gateway"]) as house, house.database.write() as tx:
        connection_of(tx).execute(update(instances).where(instances.c.instance_number == 1).values(content_hash="x"))
    code, output = run("--data", str(data), "--verify")
    assert (code, output.strip()) == (1, "2 instances in the index, 2 when rebuilt, 1 differ")
    assert sorted(path.name for path in data.iterdir() if path.name != "lock") == [n for n in before if n != "lock"]
    assert run("--data", str(data))[0] == 0
    assert run("--data", str(data), "--verify")[0] == 0


def test_a_running_server_is_left_alone(data: Path) -> None:
    with lock_folder(data):
        code, output = run("--data", str(data))
    assert code == 3
    assert "stop it first" in output


def test_a_folder_without_instances_is_wrong_usage(tmp_path: Path) -> None:
    assert run("--data", str(tmp_path))[0] == 2
