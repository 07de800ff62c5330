"""The main job on PostgreSQL, S3 and Triton, switched on by settings alone: nothing of a study stays on the machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from tests.e2e.conftest import Wetread

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.tables import results
from wetread.adapters.objectstore.s3 import S3ObjectStore
from wetread.adapters.objectstore.s3_bucket import Bucket
from wetread.bootstrap.stores import bucket_address
from wetread.commands.db import run_verify
from wetread.commands.dicom_folder import FileStudy
from wetread.commands.index import run_rebuild
from wetread.commands.local_server import local_server
from wetread.commands.send import Sender
from wetread.commands.storage import run_prefetch
from wetread.settings import Settings

pytestmark = [
    pytest.mark.stores("cluster", reason="what a machine of a cluster keeps, and what its commands say of it"),
    pytest.mark.server("postgres"),
    pytest.mark.server("moto"),
    pytest.mark.server("triton"),
]


@pytest.mark.timeout(300)  # three servers and a demo beside a busy machine
@pytest.mark.usefixtures("stores")
def test_a_study_is_read_on_postgres_and_s3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bleed: FileStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WETREAD_MIGRATE", "false")
    monkeypatch.setenv("WETREAD_DATA", str(tmp_path / "data"))
    _main_job(tmp_path / "data", bleed)
    left = {path.relative_to(tmp_path / "data").parts[0] for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert left <= {"lock", "cache"}, "no instance and no row is on this machine"
    address = bucket_address(Settings())
    assert address is not None
    assert len(list(S3ObjectStore(Bucket(address), writer="look").scan())) >= len(bleed.instances) + 3

    database = SqlDatabase(os.environ["WETREAD_DATABASE_URL"])
    with database.read() as tx:
        stored = json.loads(tx.connection.execute(select(results.c.result_json)).scalars().first())
    database.close()
    assert stored["run"]["engine"].startswith("triton "), "the engine is part of the result"
    assert run_rebuild(data=None, verify=True) == 0
    assert " 0 differ" in capsys.readouterr().out
    assert run_prefetch([bleed.study_uid], tenant="default", priors=False) == 0
    assert "0 objects moved" in capsys.readouterr().out
    assert run_verify() == 0


def _main_job(data: Path, bleed: FileStudy) -> None:
    with local_server(data) as supervisor:
        wetread = Wetread(supervisor)
        sender = Sender(wetread.url)
        report = sender.send(bleed)
        sender.close()
        assert (report.sent, report.failures) == (len(bleed.instances), {})
        [result] = [r for r in wetread.final_results(bleed.study_uid) if r["detector"] == "ich"]
        assert result["state"] == "positive"
        item = wetread.worklist_item(bleed.study_uid)
        assert item is not None
        assert item["priority"] == "stat"
        series = httpx.get(f"{wetread.url}/dicom-web/studies/{bleed.study_uid}/series").json()
        assert {"CT", "SR", "SEG"} <= {entry["00080060"]["Value"][0] for entry in series}
        source = bleed.instances[0]
        answer = httpx.get(
            f"{wetread.url}/dicom-web/studies/{bleed.study_uid}",
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
        )
        assert source.path.read_bytes() in answer.content, "byte for byte"
