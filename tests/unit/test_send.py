"""``wetread send``: batches, retries, resume and exit codes, against a small HTTP server of our own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from wetread.commands import send
from wetread.commands.dicom_folder import FileInstance, scan_folder
from wetread.commands.send import Sender, ServerUnreachableError, batches, multipart_body, run_send
from wetread.core.dicomweb.multipart import MultipartSplitter, PartBegin, PartData


class StowDouble:
    """Answers like a STOW-RS server; ``busy`` requests are refused first, ``refuse`` UIDs fail, ``held`` are known."""

    def __init__(self) -> None:
        self.busy = 0
        self.refuse: dict[str, int] = {}
        self.held: list[str] = []
        self.stored: list[str] = []
        self.manifests: list[Any] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data

            def do_POST(self) -> None:
                data = self.body()
                if self.path.endswith("/manifest"):
                    double.manifests.append(json.loads(data))
                    self.answer(202, {})
                elif double.busy:
                    double.busy -= 1
                    self.answer(503, {})
                else:
                    self.answer(*double.store(data))

            def do_GET(self) -> None:
                offset = int(self.path.partition("offset=")[2])
                page = double.held[offset : offset + 2]
                self.answer(200, [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in page])

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def store(self, data: bytes) -> tuple[int, Any]:
        uids = [uid for uid in self.known if uid.encode() in data]
        good, bad = [u for u in uids if u not in self.refuse], [u for u in uids if u in self.refuse]
        self.stored += good
        answer: dict[str, Any] = {}
        if good:
            answer["00081199"] = {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [u]}} for u in good]}
        if bad:
            answer["00081198"] = {
                "vr": "SQ",
                "Value": [
                    {"00081155": {"vr": "UI", "Value": [u]}, "00081197": {"vr": "US", "Value": [self.refuse[u]]}}
                    for u in bad
                ],
            }
        return (200 if not bad else 202 if good else 409), answer

    known: tuple[str, ...] = ()


@pytest.fixture
def double() -> Iterator[StowDouble]:
    server = StowDouble()
    thread = threading.Thread(target=server.server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.server.shutdown()
    server.server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path, double: StowDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(send, "_FIRST_PAUSE_SECONDS", 0.01)
    study = generate_uid()
    for number in range(5):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, generate_uid(), "CT"
        (tmp_path / f"in/{number}").mkdir(parents=True)
        data.save_as(tmp_path / f"in/{number}/image", enforce_file_format=True)
    (tmp_path / "in/readme.txt").write_text("not DICOM", encoding="utf-8")
    scan = scan_folder(tmp_path / "in")
    assert len(scan.skipped) == 1
    double.known = tuple(i.sop_instance_uid for i in scan.studies[0].instances)
    return tmp_path / "in"


def test_batches_bound_count_and_bytes(tmp_path: Path) -> None:
    instances = [FileInstance(tmp_path, str(n), 10 * 2**20) for n in range(8)]
    sizes = [len(batch) for batch in batches(instances)]
    assert sizes == [3, 3, 2]
    assert [len(b) for b in batches([FileInstance(tmp_path, str(n), 1) for n in range(250)])] == [100, 100, 50]
    assert list(batches([])) == []


def test_the_body_is_what_our_own_parser_reads(folder: Path) -> None:
    [study] = scan_folder(folder).studies
    splitter = MultipartSplitter("b0")
    parts: list[bytes] = []
    for chunk in multipart_body(study.instances, "b0"):
        for event in splitter.feed(chunk):
            if isinstance(event, PartBegin):
                parts.append(b"")
            elif isinstance(event, PartData):
                parts[-1] += bytes(event.data)
    assert parts == [i.path.read_bytes() for i in study.instances]


def test_a_busy_server_is_asked_again_and_the_study_declared_complete(folder: Path, double: StowDouble) -> None:
    double.busy = 2
    [study] = scan_folder(folder).studies
    sender = Sender(double.url)
    seen: list[int] = []
    report = sender.send(study, on_bytes=seen.append)
    sender.close()
    assert (report.sent, report.already_there, report.failures) == (5, 0, {})
    assert sum(seen) == study.size
    assert report.last_byte_at > 0
    assert set(double.manifests[0]["sop_instance_uids"]) == set(double.known)


def test_resume_sends_only_what_is_missing(folder: Path, double: StowDouble) -> None:
    [study] = scan_folder(folder).studies
    double.held = list(double.known[:3])
    sender = Sender(double.url)
    report = sender.send(study)
    sender.close()
    assert (report.sent, report.already_there) == (2, 3)
    assert set(double.stored) == set(double.known[3:])


def test_exit_codes(
    folder: Path,
    double: StowDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(where: Path, url: str) -> int:
        return run_send(where, url=url, connections=2, api_key=None, as_json=True)

    assert run(folder, double.url) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 5
    double.refuse = {double.known[0]: 0xA700}
    assert run(folder, double.url) == 1
    assert json.loads(capsys.readouterr().out)["failures"] == {double.known[0]: "A700"}
    assert run(tmp_path / "nowhere", double.url) == 2
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", double.url) == 2
    monkeypatch.setattr(send, "ATTEMPTS", 2)
    assert run(folder, "http://127.0.0.1:9") == 3


def test_an_unreachable_server_is_a_typed_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "ATTEMPTS", 2)
    [study] = scan_folder(folder).studies
    sender = Sender("http://127.0.0.1:9")
    with pytest.raises(ServerUnreachableError):
        sender.send(study)
    sender.close()
