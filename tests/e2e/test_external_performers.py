"""External performers against a real server: two processes race for one task, and a vendor's finding moves the list."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Wetread, wait_for
from tests.foreign_sr import COMPREHENSIVE_3D_SR, foreign_sr

from wetread.client import Client, Code, Performed, References
from wetread.commands.local_server import local_server
from wetread.core.identifiers import derived_uid
from wetread.testing.small_studies import STOW_HEADERS, SmallStudy, small_study, write_house

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "examples" / "ups_performer.py"
VENDOR = """workflow: vendor
version: 1
on: {event: study.changed, when: "like(study.description, '*lvo*')"}
tasks:
  lvo: {uses: detector/lvo@^1, performer: external, label: sample}
triage:
  - if: "result('lvo').state == 'positive'"
    then: {raise_to: stat, reason: vendor flag}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stores: None) -> Iterator[Wetread]:
    for name, value in write_house(tmp_path / "house", {}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "house" / "workflows" / "vendor.yaml").write_text(VENDOR, "utf-8")
    with local_server(tmp_path / "data") as supervisor:
        yield Wetread(supervisor)


def offered(site: Wetread, study: SmallStudy) -> str:
    """Store a study and return the workitem that is offered for it."""
    site.post("/dicom-web/studies", content=study.body(), headers=STOW_HEADERS).raise_for_status()
    query = {"StudyInstanceUID": study.study_uid, "InputReadinessState": "READY"}
    found = wait_for(lambda: site.get("/dicom-web/workitems", params=query).json(), bool)
    return str(found[0]["00080018"]["Value"][0])


def final(site: Wetread, study: SmallStudy) -> dict[str, object]:
    answer = site.get(f"/api/v1/studies/{study.study_uid}/findings", params={"wait": "30s"}).json()
    [result] = [r for r in answer["results"] if r["detector"] == "lvo"]
    return result


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_of_two_racing_performers_one_wins_and_a_vendors_finding_moves_the_list(site: Wetread) -> None:
    raced = small_study(1, description="lvo")
    offered(site, raced)
    command = [sys.executable, str(SCRIPT), f"{site.url}/dicom-web", "--label", "sample"]
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].strip().split()[0] for process in pair)
    assert said == ["nothing", "performed"], "exactly one wins"
    result = final(site, raced)
    assert result["state"] == "measured", "free text is no call"
    assert [s["modality"] for s in result["stored"]] == ["SR"]

    flagged = small_study(2, description="lvo")
    uid = offered(site, flagged)
    sop, series = derived_uid("vendor", "sop"), derived_uid("vendor", "series")
    with Client(site.url) as client:
        claim = client.workitems.claim(uid)
        report = foreign_sr(flagged.study_uid, series, sop, patient="S2")
        body = b"\r\n--small\r\nContent-Type: application/dicom\r\n\r\n" + report + b"\r\n--small--\r\n"
        httpx.post(f"{site.url}/dicom-web/studies", content=body, headers=STOW_HEADERS).raise_for_status()
        outputs = (References(flagged.study_uid, series, ((COMPREHENSIVE_3D_SR, sop),)),)
        station = Code("vendor", "99VENDOR", "Vendor")
        begun = datetime.now(UTC)
        client.workitems.complete(claim, Performed(begun, begun, station, station, outputs))
    result = final(site, flagged)
    assert (result["state"], result["findings"][0]["code"]) == ("positive", "1386000")
    item = site.worklist_item(flagged.study_uid)
    assert item is not None
    assert item["priority"] == "stat"
    assert "vendor flag" in [reason["text"] for reason in item["reasons"]]
