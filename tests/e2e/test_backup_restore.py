"""Backups as docs/operations/backup.md says: what is there again after a restore, and that the checks say so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from tests.s3_buckets import fresh_bucket

from wetread.commands.local_server import local_server
from wetread.testing.cluster import cluster
from wetread.testing.cluster_site import Site
from wetread.testing.servers.moto import S3Server
from wetread.testing.servers.postgres import Postgres, binaries
from wetread.testing.small_studies import STOW_HEADERS, SmallStudy, small_study, write_house

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NAMES = ("gateway0", "worklist", "orchestration", "detection")


def wetread(environment: Mapping[str, str], *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wetread", *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])


def postgres_tool(name: str, url: str, *arguments: str) -> None:
    folder = binaries()
    assert folder is not None
    subprocess.run([folder / name, "--dbname", url, *arguments], check=True, capture_output=True)


def given_back(site: Site, study: SmallStudy) -> bool:
    found = [site.instance("gateway0", study.study_uid, uid) for uid in study.sop_uids]
    return found == list(study.parts)


@pytest.mark.stores("cluster", reason="a dump of PostgreSQL beside a bucket that is not touched")
@pytest.mark.server("postgres")
@pytest.mark.server("moto")
def test_a_database_restored_to_an_earlier_time_takes_up_what_came_after_it(
    postgres_server: Postgres, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The dump is taken while everything runs; the bucket is not touched."""
    bucket = fresh_bucket(s3_server, monkeypatch, prefix="site")
    common = {
        **write_house(tmp_path / "house", {"alpha": "urgent"}),
        "WETREAD_OBJECT_STORE_URL": f"s3://{bucket.address.bucket}/site",
        "WETREAD_OBJECT_STORE_ENDPOINT": s3_server.endpoint,
    }
    before, after = (small_study(7_300_000 + n, bright=True, description="alpha") for n in range(2))
    lost = common | {"WETREAD_DATABASE_URL": postgres_server.prepared()}
    dump = tmp_path / "dump"
    with cluster(tmp_path / "first", lost, names=NAMES) as running:
        site = Site(running, lost)
        site.deliver_small(before)
        site.wait_settled(before.study_uid)
        postgres_tool("pg_dump", lost["WETREAD_DATABASE_URL"], "--format=custom", f"--file={dump}")
        site.deliver_small(after)
        site.wait_settled(after.study_uid)
        [kept] = site.read(before.study_uid)

    restored = common | {"WETREAD_DATABASE_URL": postgres_server.fresh(), "WETREAD_DATA": str(tmp_path / "check")}
    postgres_tool("pg_restore", restored["WETREAD_DATABASE_URL"], "--exit-on-error", str(dump))
    wetread(restored, "db", "verify")
    wetread(restored, "audit", "verify")
    with cluster(tmp_path / "second", restored, names=NAMES) as running:
        site = Site(running, restored)
        assert site.read(before.study_uid) == [kept], "results are part of the backup"
        site.wait_settled(after.study_uid)
        [again] = site.read(after.study_uid)
        assert (again["detector"], again["state"]) == ("alpha", "positive"), "read again from its images alone"
        for study in (before, after):
            assert given_back(site, study)
        site.check_events()
        site.wait_queue_empty()
    wetread(restored, "index", "rebuild", "--verify")
    wetread(restored, "audit", "verify")


@pytest.mark.stores("embedded", reason="the folder is all there is")
def test_a_copied_data_folder_is_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in write_house(tmp_path / "house", {"alpha": "urgent"}).items():
        monkeypatch.setenv(name, value)
    study = small_study(7_300_002, description="alpha")
    with local_server(tmp_path / "data") as server:
        answer = httpx.post(f"{server.url}/dicom-web/studies", content=study.body(), headers=STOW_HEADERS, timeout=60)
        assert answer.status_code == 200
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    shutil.rmtree(tmp_path / "data")
    copy = {"WETREAD_DATA": str(tmp_path / "copy")}
    for command in (("db", "verify"), ("index", "rebuild", "--verify"), ("audit", "verify")):
        wetread(copy, *command)
    with local_server(tmp_path / "copy") as server:
        url = f"{server.url}/dicom-web/studies/{study.study_uid}"
        stored = httpx.get(url, headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'})
        assert stored.status_code == 200
        assert all(part in stored.content for part in study.parts)
