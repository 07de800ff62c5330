"""The cluster profile as processes: PostgreSQL, S3 with signatures, a real Triton, and one process per service.

``make test-slow``. ``WETREAD_CLUSTER_STUDIES`` makes the arrival under fire shorter or longer; the one who prints the
figures is ``make bench BENCH=cluster``.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import PhantomStudies
from tests.pathology_world import written
from typer.testing import CliRunner

from wetread.cli import app
from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.core.states import READ
from wetread.testing.cluster import GATEWAYS, SERVICES
from wetread.testing.cluster_site import Site, cluster_site
from wetread.testing.phantoms import BleedType
from wetread.testing.small_studies import small_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.stores("cluster", reason="processes that share a database, a bucket and a Triton, and no folder"),
    pytest.mark.timeout(1800),
    pytest.mark.server("postgres"),
    pytest.mark.server("moto"),
    pytest.mark.server("triton"),
    pytest.mark.server("openslide"),
]
STUDIES = int(os.environ.get("WETREAD_CLUSTER_STUDIES", "60"))
REAL = (
    "head-ct/GE-HiSpeed-head-gantry-tilt",
    "head-ct-nc/intraparenchymal__CQ500_CT_427",
    "head-ct-nc/subarachnoid__CQ500_CT_342",
    "chest-ct/LIDC-IDRI-0314-every2nd",
    "brain-mri/PGBM-001-T1post",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with cluster_site(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> FileStudy:
    """A synthetic slide as its DICOM pyramid."""
    folder = tmp_path_factory.mktemp("slide")
    done = CliRunner().invoke(app, ["pathology", "convert", str(written(folder)), "--out", str(folder / "dicom")])
    assert done.exit_code == 0, done.output
    [study] = scan_folder(folder / "dicom").studies
    return study


def test_phantoms_are_read_by_processes_that_share_only_database_store_and_triton(
    site: Site, bleed: FileStudy, quiet: FileStudy, slide: FileStudy
) -> None:
    for study in (bleed, quiet, slide):
        site.deliver(study)
    for study in (bleed, quiet, slide):
        site.wait_settled(study.study_uid)
    assert [(r["state"], r.get("reason")) for r in site.read(slide.study_uid)] == [("measured", None)]
    [found] = site.read(bleed.study_uid)
    assert (found["detector"], found["state"]) == ("ich", "positive")
    items = site.cluster.ask("/api/v1/worklist", params={"limit": 200}).json()["items"]
    assert {item["study_uid"]: item["priority"] for item in items}[bleed.study_uid] == "stat"
    series = site.cluster.ask(f"/dicom-web/studies/{bleed.study_uid}/series").json()
    assert {"CT", "SR", "SEG"} <= {entry["00080060"]["Value"][0] for entry in series}
    assert {step["00741000"]["Value"][0] for step in site.workitems(bleed.study_uid)} == {"COMPLETED"}
    instance = bleed.instances[0]
    for gateway in GATEWAYS:
        found_bytes = site.instance(gateway, bleed.study_uid, instance.sop_instance_uid)
        assert found_bytes == instance.path.read_bytes(), f"{gateway} gives back the bytes, whoever took them"
    took = site.executors()
    assert took["evaluate_study"] == took["compose_results"] == {"orchestration"}
    assert took["run_task"] <= {"stat", "detection", "slides"}
    assert "slides" in took["run_task"]
    [found] = site.read(bleed.study_uid)
    assert site.engine_of(found["detector"]) == "triton", "its network did not run in a worker"


def test_real_studies_end_in_a_typed_state(
    site: Site, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies: dict[str, FileStudy] = {}
    for name in REAL:
        with tarfile.open(shared / f"{name}.tar.xz", "r:xz") as archive:
            archive.extractall(tmp_path / name, filter="data")
        for study in scan_folder(tmp_path / name).studies:
            studies[name] = study
    assert set(studies) == set(REAL)
    for study in studies.values():
        site.deliver(study)
    lines = []
    for name, study in studies.items():
        site.wait_settled(study.study_uid)
        site.check(study.study_uid, instances=len(study.instances))
        results = site.results(study.study_uid)
        lines.append(f"{name}: " + ", ".join(f"{r['detector']} {r['state']} {r['reason'] or ''}" for r in results))
        if name.startswith("head-ct"):
            assert [r["detector"] for r in site.read(study.study_uid)] == ["ich"]
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def test_each_process_killed_in_turn_while_studies_arrive_loses_nothing(
    site: Site, phantoms: PhantomStudies, capsys: pytest.CaptureFixture[str]
) -> None:
    victims = [*SERVICES, "detector process", "triton"]
    heads = [phantoms.study(2_800_010 + n, bleeds=(BleedType.IPH,) * (n % 2), volume_ml=60.0) for n in range(4)]
    small = [
        small_study(7_000_000 + n, bright=n % 2 == 0, description=("alpha", "beta", "gamma")[n % 3])
        for n in range(STUDIES)
    ]
    report = site.under_fire(small, heads, victims)
    assert set(report.killed) == set(victims)
    assert report.acknowledged == {s.study_uid for s in small} | {h.study_uid for h in heads}
    states: Counter[str] = Counter()
    for number, study in enumerate(small):
        site.wait_settled(study.study_uid)
        results = {r["detector"]: r for r in site.check(study.study_uid, instances=len(study.sop_uids))}
        result = results[("alpha", "beta", "gamma")[number % 3]]
        states[result["state"]] += 1
        if result["state"] in READ:  # a run whose detector process was killed fails with its reason, never as negative
            assert result["state"] == ("positive" if number % 2 == 0 else "negative")
    for head in heads:
        site.wait_settled(head.study_uid)
        states.update(result["state"] for result in site.check(head.study_uid, instances=len(head.instances)))
    assert sum(states[state] for state in READ) >= len(small)
    site.check_events()
    site.wait_queue_empty()
    with capsys.disabled():
        print(f"\n{report}: {dict(states)}")
