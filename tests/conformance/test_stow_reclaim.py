"""``wetread index reclaim``: bytes of deleted and replaced instances go; what lives stays, and so does the index."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.test_stow_crash import everything
from tests.gateway_support import Parts, dataset, encoded, instance, running
from typer.testing import CliRunner

from wetread.adapters.audit.trail import SqlAccessTrail
from wetread.adapters.objectstore.erasure import erase_in
from wetread.adapters.objectstore.recovery import records_of, sound_length
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.bootstrap.house import open_house
from wetread.cli import app
from wetread.commands.up import lock_folder
from wetread.core.facts import Source
from wetread.core.ports.access import AccessFilter
from wetread.gateway.reclaim import reclaim
from wetread.gateway.replay import rebuild
from wetread.gateway.settings import GatewaySettings, IngestSettings
from wetread.settings import Settings

SETTINGS = GatewaySettings(ingest=IngestSettings(duplicates="replace"))
FORMER, DELETED = b"the former content", b"the deleted content"


@pytest.fixture
def site(
    tmp_path: Path, each_database: str
) -> Iterator[Parts]:  # erasable records are found by a query of each dialect
    with running(tmp_path, settings=SETTINGS) as parts:
        yield parts


def kept(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*.seg")))


def test_what_is_dead_goes_and_what_lives_stays(site: Parts, tmp_path: Path) -> None:
    marked = {"SOPInstanceUID": "1.2.3.1.1"}
    site.store(instance(**marked, PatientComments=FORMER.decode()), instance())
    site.store(instance(StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1", PatientComments=DELETED.decode()))
    new = instance(**marked, PatientComments="new")
    site.store(new)
    site.client.delete("/dicom-web/studies/9.9")
    said = everything(site)
    trail = SqlAccessTrail()

    def run(age: float) -> tuple[int, int]:
        now = time.time()
        done = reclaim(site.database, site.archive, site.objects, trail, until=now - age, now=now)
        assert (done.freed_bytes > 0) == (done.erased > 0)
        return done.erased, done.kept

    assert run(60) == (0, 0), "readers may still be at it"
    assert FORMER in kept(tmp_path)
    assert run(-1) == (2, 0)
    assert FORMER not in kept(tmp_path)
    assert DELETED not in kept(tmp_path)
    assert run(-1) == (0, 0)
    with site.database.read() as tx:
        [told] = trail.entries(tx, None, AccessFilter(actor="operator"), limit=10)
    assert (told.access.tenant, told.access.action, told.count) == ("default", "wetread index reclaim", 2)
    assert everything(site) == said
    assert site.get("/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1", "application/dicom").content == new
    report = rebuild(site.database, site.archive, site.objects, site.ingest)
    assert (report.records, report.indexed, report.removals) == (2, 2, 1)
    assert everything(site) == said
    assert site.get("/studies/9.9").status_code == 410
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost/objects").symlink_to(tmp_path / "objects")
    with running(tmp_path / "lost", settings=SETTINGS) as again:
        assert everything(again) == said, "without the database"
        assert again.get("/studies/9.9").status_code == 410


def test_a_crash_between_the_mark_and_the_erasure(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    refs = store.append("t", [(b"{}", [b"x" * 9000]), (b"{}", [b"y" * 9000])])
    store.close()
    (path,) = tmp_path.rglob("*.seg")
    size = path.stat().st_size
    offset = int(refs[0].locator.rpartition(":")[2])

    def crash(_descriptor: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase_in(path, [offset], crash)
    assert [found.payload_length for found in records_of(path)] == [9000], "it is stepped over"
    assert sound_length(path) == size, "and no damage: writing goes on in this file"
    again = SegmentStore(tmp_path)
    assert again.erase([refs[0].locator]).locators == (refs[0].locator,)
    assert b"xx" not in path.read_bytes()
    assert again.read(refs[1]) == b"y" * 9000
    again.append("t", [(b"{}", [b"z"])])
    again.close()
    assert list(tmp_path.rglob("*.seg")) == [path]


def test_the_command_leaves_a_running_server_an_hour(tmp_path: Path) -> None:
    with open_house(Settings(data=tmp_path), ["gateway"]) as house:
        part = encoded(dataset(SOPInstanceUID="1.2.3.1.1"))
        assert house.ingest.store("default", [part], source=Source()).failed == 0

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["index", "reclaim", "--data", str(tmp_path), *arguments])
        return result.exit_code, result.output

    assert run("--older-than", "soon")[0] == 2
    with lock_folder(tmp_path):
        code, output = run("--older-than", "10m")
        assert (code, "leave at least 1h" in output) == (3, True)
        assert run() == (0, "0 records erased, 0 bytes freed, 0 kept beside what lives\n")
    assert run("--older-than", "0s")[0] == 0
    assert CliRunner().invoke(app, ["index", "reclaim", "--data", str(tmp_path / "none")]).exit_code == 2
