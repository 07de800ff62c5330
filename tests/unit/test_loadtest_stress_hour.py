"""The stress hour: its mix is the published one, and what is lost or silent is reported as lost or silent."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "loadtest"))

from dicomweb.connection import Answer
from dicomweb.instances import Place
from dicomweb.load import multipart
from stress_hour import images, mix, running, sending
from stress_hour.checking import compare, spans_of
from stress_hour.following import Course, judge, note
from stress_hour.reclaiming import reclaim
from stress_hour.running import Outcome, Study
from stress_hour.sending import Sent, outcome
from stress_hour.summary import lines, lost_of, silence_of, summarize
from stress_hour.watching import Usage, Watch

from wetread.client.models import Event, Findings
from wetread.core.ups import UpsState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def transaction(number: int = 3, kind: str = "MR", instances: int = 5) -> mix.Transaction:
    return mix.Transaction(0.0, number, kind[:2], kind, instances)


def test_an_hour_is_the_published_table() -> None:
    hour = mix.schedule()
    assert Counter(one.modality for one in hour) == {"RF": 180, "US": 75, "CT": 45, "MR": 37}
    assert len(hour) == 337
    assert {one.modality: one.instances for one in hour} == {"RF": 1, "US": 7, "CT": 324, "MR": 5}
    assert sum(one.kind == "CT head" for one in hour) == 31
    assert [one.at for one in hour] == sorted(one.at for one in hour)
    assert 3000 < hour[-1].at <= 3600
    assert [one.number for one in hour] == list(range(337))


def test_scale_shortens_nothing_and_compression_sends_the_same_sooner() -> None:
    ten = mix.schedule(scale=10, minutes=30)
    assert Counter(one.modality for one in ten) == {"RF": 900, "US": 375, "CT": 225, "MR": 187}
    assert ten[-1].at > 1750
    fast, slow = mix.schedule(compress=20), mix.schedule()
    assert [one.kind for one in fast] == [one.kind for one in slow]
    assert fast[-1].at == pytest.approx(slow[-1].at / 20)


def test_a_study_has_the_published_size_and_every_instance_its_own_identifiers() -> None:
    made = images.build([transaction(kind="MR"), transaction(kind="US", instances=7), transaction(kind="RF")])
    for kind, count, megabytes in (("RF", 1, 1.0), ("US", 7, 17.0), ("MR", 5, 1.0)):
        one = transaction(kind=kind, instances=count)
        places = images.places(one, run=9)
        pieces, size = multipart(made.of(one), places)
        assert size / 1e6 == pytest.approx(megabytes, rel=0.06)
        assert size == sum(map(len, pieces))
        assert len({place.sop_uid for place in places}) == count
        template = made.of(one)[0]
        data = pydicom.dcmread(io.BytesIO(template.head(places[0]) + bytes(template.pixels)))
        assert (data.Modality, data.StudyInstanceUID) == (kind, places[0].study_uid)
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID == places[0].sop_uid


def answer_of(files: list[bytes]) -> Answer:
    body = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
    headers = {"content-type": 'multipart/related; type="application/dicom"; boundary=edge'}
    return Answer(200, len(body), 0.1, headers, body + b"--edge--\r\n")


@pytest.fixture(scope="module")
def study() -> tuple[list[Place], list[images.Template], list[bytes]]:
    one = transaction()
    places, templates = images.places(one, run=1), images.build([one]).of(one)
    return places, list(templates), [t.head(p) + bytes(t.pixels) for p, t in zip(places, templates, strict=True)]


def test_what_comes_back_as_sent_is_sound_in_any_order_beside_results(
    study: tuple[list[Place], list[images.Template], list[bytes]],
) -> None:
    places, templates, files = study
    answer = answer_of([*reversed(files), b"a result object"])
    found = compare(answer.body, spans_of(answer), places, templates)
    assert (found.sound, found.lost, found.others) == (5, 0, 1)


def test_a_dropped_instance_and_a_changed_bit_are_lost(
    study: tuple[list[Place], list[images.Template], list[bytes]],
) -> None:
    places, templates, files = study
    changed = bytearray(files[1])
    changed[-1] ^= 1
    answer = answer_of([bytes(changed), *files[2:4], files[4][:-2]])
    found = compare(answer.body, spans_of(answer), places, templates)
    assert found.missing == [places[0].sop_uid]
    assert found.damaged == [places[1].sop_uid, places[4].sop_uid]
    sent = Sent(transaction(), places, templates, accepted={place.sop_uid for place in places})
    sent.due_at, sent.first_byte_at, sent.last_byte_at = 10.0, 12.0, 15.0
    course = Course(0.0, ended_at=21.0, silent="")
    summary = summarize(Outcome([Study(sent, course, found)], Usage(seconds=1.0), 1.0, 1.0, 0, 0))
    assert summary.lost == 3
    assert (summary.turnaround, summary.delayed) == ({"MR": [6.0]}, {"MR": [8.0]})
    assert not summary.passed
    assert any(line.startswith("LOST 3 ") for line in lines(summary))
    assert "no detector ran" in lines(summary)


def test_an_instance_that_the_answer_does_not_mention_is_lost_and_one_that_was_refused_is_turned_away(
    study: tuple[list[Place], list[images.Template], list[bytes]],
) -> None:
    places, templates, _ = study
    taken = {place.sop_uid for place in places[:4]}
    checked = compare(b"", (), places[:4], templates[:4])
    assert lost_of(Study(Sent(transaction(), places, templates, accepted=taken), checked=checked)) == 5
    refused = Sent(transaction(), places, templates, refusals=["503"], gave_up=True)
    assert lost_of(Study(refused)) == 0
    assert silence_of(Study(refused)) == ""
    summary = summarize(Outcome([Study(refused)], Usage(seconds=1.0), 1.0, 1.0, 0, 0))
    assert (summary.turned_away, summary.refused) == (1, Counter({"503": 1}))
    assert not summary.passed


def test_answers_name_what_is_stored_and_why_not() -> None:
    body = (
        b'{"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]},'
        b' "00081198": {"vr": "SQ", "Value": [{"00081155": {"Value": ["1.3"]}, "00081197": {"Value": [42752]}}]}}'
    )
    assert outcome(Answer(202, len(body), 0.1, {}, body)) == ({"1.2"}, ["A700"])


def findings(**states: tuple[str, str | None]) -> Findings:
    results = [
        {
            "detector": name, "version": "1", "state": state, "reason": reason, "detail": "", "score": None,
            "threshold": None, "shadow": False, "preliminary": False, "model_digest": None, "quality": [],
            "findings": [], "stored": [], "ruo": "", "attempt": 1, "progress": 0, "updated_at": None,
        }
        for name, (state, reason) in states.items()
    ]  # fmt: skip
    return Findings.model_validate({"study_uid": "1.2", "state": "pending", "results": results, "ruo": ""})


@pytest.mark.parametrize(
    ("standing", "steps", "silent"),
    [
        ({"ich": ("negative", None), "ffr": ("not_applicable", "modality")}, [UpsState.COMPLETED], ""),
        ({"ich": ("failed", "timeout")}, [UpsState.CANCELED], ""),
        ({"ich": ("failed", None)}, [UpsState.CANCELED], "ich is failed without a reason"),
        ({"ich": ("running", None)}, [], "ich is still running"),
        ({"ich": ("positive", None)}, [UpsState.IN_PROGRESS], "a workitem is still IN PROGRESS"),
        ({}, [], "no detector has a standing"),
    ],
)
def test_only_a_result_or_a_typed_reason_ends_a_study(
    standing: dict[str, tuple[str, str | None]], steps: list[UpsState], silent: str
) -> None:
    course = Course(0.0)
    assert judge(findings(**standing), steps, course) is (not silent)
    assert course.silent == silent


def test_events_give_start_and_end_of_a_study() -> None:
    course = Course(0.0)

    def event(kind: str, **data: object) -> Event:
        return Event(id="1", type=kind, source="/", subject="1.2", time=NOW, cursor=1, data=data)

    stamps = {"committed": "2026-01-01T00:00:00.000Z", "started": "2026-01-01T00:00:00.080Z"}
    note(course, event("task.started", detector="ich", stamps=stamps))
    note(course, event("result.ready", detector="ich", stamps=stamps | {"inferred": "2026-01-01T00:00:03.080Z"}))
    assert course.starts == {"ich": pytest.approx(0.08)}
    assert course.inferred == [pytest.approx(3.0)]
    assert course.outcome_at == NOW.timestamp()


def test_only_finished_segments_older_than_every_open_study_are_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    for number in (1, 2, 3):
        path = folder / f"web-{number:08d}.seg"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    assert reclaim(tmp_path, [2.0]) == 0
    assert reclaim(tmp_path, [2.5]) == 100
    assert [(folder / f"web-{n:08d}.seg").stat().st_size for n in (1, 2, 3)] == [0, 100, 100]
    assert reclaim(tmp_path, [3.0]) == 0
    assert reclaim(tmp_path, []) == 100
    assert (folder / "web-00000003.seg").stat().st_size == 100


def test_the_busiest_part_is_the_bottleneck() -> None:
    cpu, busiest = {"web event loop": 12.0, "detectors": 8.0}, {"web event loop": 9.0}
    usage = Usage(seconds=10.0, cpu=cpu, busiest=busiest, disk_seconds=1.0, machine_seconds=17.0)
    shares = usage.shares(cores=2)
    assert max(shares, key=lambda name: shares[name]) == "event loop", "of the busiest web process"
    assert shares["event loop"] == pytest.approx(0.9)
    assert shares["detector CPU"] == pytest.approx(0.4)
    assert shares["machine CPU"] == pytest.approx(0.85)


_TREE = """
import os, subprocess, sys, time
sys.stdin.readline()
for seconds in (0.06, 0.12):
    if os.fork() == 0:
        while time.process_time() < seconds: pass
        print("done", flush=True)
        sys.stdin.read()
        os._exit(0)
other = "import sys\\nfor _ in range(3 * 10**6): pass\\nprint('done', flush=True)\\nsys.stdin.read()"
subprocess.run([sys.executable, "-Sc", other])
"""


def test_all_processes_at_a_port_are_web_processes_and_the_busiest_one_is_told_apart(tmp_path: Path) -> None:
    """Forked ones run the parent's command line (ADR 0208), a codec process one of its own."""
    nobody = 0
    command = [sys.executable, "-Sc", _TREE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as web:
        assert web.stdin is not None
        assert web.stdout is not None
        with Watch([web.pid, nobody], tmp_path) as watch:
            web.stdin.write(b"begin\n")
            web.stdin.flush()
            for _ in range(3):
                assert web.stdout.readline() == b"done\n"
            usage = watch.now()
        web.stdin.close()
    # 0.06 and 0.12 s; the kernel tells user and system time apart in whole hundredths, so each process may lose two.
    assert usage.cpu["web event loop"] >= 0.14 - 1e-9
    assert usage.busiest["web event loop"] < usage.cpu["web event loop"]
    assert usage.cpu["codecs"] > 0


def test_a_study_that_is_being_sent_keeps_its_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the sending takes: on a busy machine that may be minutes."""
    one = transaction()
    kept: list[int] = []

    class Slow:
        def __init__(self, port: int) -> None:
            assert port == 1

        def post(self, path: str, kind: str, pieces: object, size: int) -> Answer:
            run = running._Run(1, tmp_path, running.Terms(), _senders=senders)
            (first,) = senders.open_since()
            os.utime(folder / "web-00000001.seg", (first + 10, first + 10))
            monkeypatch.setattr(running, "time", SimpleNamespace(time=lambda: first + 1000))
            run._reclaim()
            kept.append((folder / "web-00000001.seg").stat().st_size)
            return Answer(200, 2, 0.1, {}, b"{}", 5.0)

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(sending, "Connection", Slow)
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"web-{number:08d}.seg").write_bytes(b"x" * 100)
    made = images.build([one])
    done: list[Sent] = []
    senders = sending.Senders(1, made, run=1, associations=1, batch=64, announce=False, done=done.append)
    senders.send([one])
    assert kept == [100]
    assert senders.open_since() == []
    assert len(done) == 1
