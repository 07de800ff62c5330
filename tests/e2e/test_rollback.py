"""Roll-back: the release before runs on the tables of this one, which goes on after it (ADR 1202).

The release before is the commit before the tables changed last, from the history of this repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.s3_buckets import fresh_bucket

from wetread.testing.cluster import cluster
from wetread.testing.cluster_site import Site
from wetread.testing.servers.moto import S3Server
from wetread.testing.servers.postgres import Postgres
from wetread.testing.small_studies import small_study, write_house

ROOT = Path(__file__).resolve().parents[2]
TABLES = "services/wetread/adapters/index/tables.py"
NAMES = ("gateway0", "worklist", "orchestration", "detection")
COLUMNS = """
import json
from wetread.adapters.index.migrations import metadata
print(json.dumps({
    name: {c.name: [str(c.type), c.nullable, c.server_default is not None] for c in table.columns}
    for name, table in metadata.tables.items()
}))
"""


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT RUN: no clone with its history: git {arguments[0]} says {done.stderr.strip()!r}")
    return done.stdout.strip()


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changed = git("log", "-1", "--format=%H", "--", TABLES)
    before = git("rev-parse", f"{changed}^")
    folder = tmp_path_factory.mktemp("before")
    git("archive", f"--output={folder / 'tree.tar'}", before, "services", "models", "workflows")
    with tarfile.open(folder / "tree.tar") as tree:
        tree.extractall(folder, filter="data")
    return folder


def of_release(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(folder / "services")}


def said_by(release: Path, program: str) -> str:
    command, environment = [sys.executable, "-c", program], os.environ | of_release(release)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def columns(release: Path) -> dict[str, dict[str, Any]]:
    return json.loads(said_by(release, COLUMNS))


def test_tables_only_grow(release_before: Path) -> None:
    before, now = columns(release_before), columns(ROOT)
    assert before != now, "the release before is the one whose tables were others"
    for table, there in before.items():
        for name, (kind, nullable, _) in there.items():
            assert name in now[table], f"{table}.{name} went"
            assert now[table][name][0] == kind, f"{table}.{name} changed its type"
            assert now[table][name][1] or not nullable, f"{table}.{name} takes no null any more"
        for name in now[table].keys() - there.keys():
            assert now[table][name][1] or now[table][name][2], f"the release before leaves {table}.{name} out"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.stores("cluster", reason="a roll-back of pods")
@pytest.mark.server("postgres")
@pytest.mark.server("moto")
def test_the_release_before_works_on_the_tables_of_this_one(
    release_before: Path,
    postgres_server: Postgres,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bucket = fresh_bucket(s3_server, monkeypatch, prefix="site")
    now = {
        **write_house(tmp_path / "house", {"alpha": "urgent"}),
        "WETREAD_OBJECT_STORE_URL": f"s3://{bucket.address.bucket}/site",
        "WETREAD_OBJECT_STORE_ENDPOINT": s3_server.endpoint,
        "WETREAD_DATABASE_URL": postgres_server.prepared(),
    }
    before = now | of_release(release_before)
    assert said_by(release_before, "import wetread; print(wetread.__file__)").startswith(str(release_before))
    studies = [small_study(7_400_000 + n, bright=True, description="alpha") for n in range(3)]
    for number, environment in enumerate((now, before, now)):
        with cluster(tmp_path / str(number), environment, names=NAMES) as running:
            site = Site(running, environment)
            site.deliver_small(studies[number])
            for study in studies[: number + 1]:
                site.wait_settled(study.study_uid)
                [found] = site.read(study.study_uid)
                assert (found["detector"], found["state"]) == ("alpha", "positive")
                given_back = [site.instance("gateway0", study.study_uid, uid) for uid in study.sop_uids]
                assert given_back == list(study.parts)
            site.check_events()
            site.wait_queue_empty()
