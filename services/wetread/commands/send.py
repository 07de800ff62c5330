"""``wetread send``: STOW-RS with several connections, retries, and resume by asking the server what it holds."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from wetread.commands.dicom_folder import FileInstance, FileStudy, scan_folder

BATCH_BYTES: Final = 32 * 2**20
BATCH_INSTANCES: Final = 100
ATTEMPTS: Final = 6
_FIRST_PAUSE_SECONDS: Final = 0.5
_READ_BYTES: Final = 256 * 1024


@dataclass
class SendReport:
    """What happened to one study. Times in Unix seconds."""

    study_uid: str
    files: int
    sent: int = 0
    already_there: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """SOP Instance UID -> failure reason (0008,1197)."""
    last_byte_at: float = 0.0
    """When the last byte of the study had been handed to the network."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "study_uid": self.study_uid,
            "files": self.files,
            "sent": self.sent,
            "already_there": self.already_there,
            "failures": {uid: f"{reason:04X}" for uid, reason in self.failures.items()},
        }


class ServerUnreachableError(Exception):
    """The server did not answer after all attempts."""


class Sender:
    """Sends studies to one server. ``on_bytes`` is told how many bytes of a batch were acknowledged."""

    def __init__(self, url: str, *, connections: int = 2, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers=headers,
            timeout=httpx.Timeout(60.0, connect=10.0),
            limits=httpx.Limits(max_connections=connections + 1),
        )
        self._connections = connections

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(
        self, study: FileStudy, *, resume: bool = True, on_bytes: Callable[[int], None] = lambda _count: None
    ) -> SendReport:
        """Send one study, then say that it is complete. Raises ServerUnreachableError."""
        report = SendReport(study.study_uid, len(study.instances))
        held = self._held(study.study_uid) if resume else set()
        missing = [instance for instance in study.instances if instance.sop_instance_uid not in held]
        report.already_there = len(study.instances) - len(missing)
        on_bytes(study.size - sum(instance.size for instance in missing))
        with ThreadPoolExecutor(self._connections) as pool:
            for answer, batch, ended in pool.map(self._store, batches(missing)):
                report.last_byte_at = max(report.last_byte_at, ended)
                self._count(report, answer, batch)
                on_bytes(sum(instance.size for instance in batch))
        self._declare_complete(study)
        return report

    def _store(self, batch: Sequence[FileInstance]) -> tuple[httpx.Response, Sequence[FileInstance], float]:
        boundary = secrets.token_hex(16)
        ended = 0.0

        def body() -> Iterator[bytes]:
            nonlocal ended
            yield from multipart_body(batch, boundary)
            ended = time.time()

        answer = self._retried(
            lambda: self._client.post(
                "/dicom-web/studies",
                content=body(),
                headers={
                    "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                    "Accept": "application/dicom+json",
                },
            )
        )
        return answer, batch, ended

    def _held(self, study_uid: str) -> set[str]:
        held: set[str] = set()
        while new := self._held_page(study_uid, len(held)) - held:
            held |= new
        return held

    def _held_page(self, study_uid: str, offset: int) -> set[str]:
        answer = self._retried(
            lambda: self._client.get(
                f"/dicom-web/studies/{study_uid}/instances",
                params={"limit": 5000, "offset": offset},
                headers={"Accept": "application/dicom+json"},
            )
        )
        page = answer.json() if answer.status_code == 200 and answer.content else []
        return {item["00080018"]["Value"][0] for item in page}

    def _declare_complete(self, study: FileStudy) -> None:
        # Only wetread knows this call: another STOW server answers 404, and that is fine.
        self._retried(
            lambda: self._client.post(
                f"/api/v1/studies/{study.study_uid}/manifest",
                json={"sop_instance_uids": [instance.sop_instance_uid for instance in study.instances]},
            )
        )

    def _retried(self, call: Callable[[], httpx.Response]) -> httpx.Response:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause)
                pause *= 2
            try:
                answer = call()
            except httpx.TransportError:
                continue
            if answer.status_code not in {429, 500, 502, 503, 504}:
                return answer
        msg = f"no answer after {ATTEMPTS} attempts"
        raise ServerUnreachableError(msg)

    @staticmethod
    def _count(report: SendReport, answer: httpx.Response, batch: Sequence[FileInstance]) -> None:
        if answer.status_code not in {200, 202, 409}:
            report.failures.update({instance.sop_instance_uid: 0x0110 for instance in batch})
            return
        module = answer.json()
        failed = module.get("00081198", {}).get("Value", [])
        for item in failed:
            uid = item.get("00081155", {}).get("Value", ["unknown"])[0]
            report.failures[uid] = int(item.get("00081197", {}).get("Value", [0x0110])[0])
        report.sent += len(module.get("00081199", {}).get("Value", []))


def batches(instances: Sequence[FileInstance]) -> Iterator[list[FileInstance]]:
    """Split into requests of at most BATCH_INSTANCES files and about BATCH_BYTES bytes."""
    batch: list[FileInstance] = []
    size = 0
    for instance in instances:
        if batch and (len(batch) >= BATCH_INSTANCES or size + instance.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(instance)
        size += instance.size
    if batch:
        yield batch


def multipart_body(batch: Sequence[FileInstance], boundary: str) -> Iterator[bytes]:
    """Yield a multipart/related body of PS3.10 files (PS3.18 8.6.1), file by file."""
    for instance in batch:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\nContent-Length: {instance.size}\r\n\r\n".encode()
        with instance.path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def run_send(folder: Path, *, url: str, connections: int, api_key: str | None, as_json: bool) -> int:
    """Send a folder with a progress bar. Returns the exit code."""
    if not folder.is_dir():
        print(f"wetread: {folder} is not a folder", file=sys.stderr)
        return 2
    console = Console(stderr=True)
    with console.status("reading headers"):
        scan = scan_folder(folder)
    if not scan.studies:
        print(f"wetread: no DICOM files in {folder}", file=sys.stderr)
        return 2
    sender = Sender(url, connections=connections, api_key=api_key)
    bad = False
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as progress:
            bar = progress.add_task("sending", total=sum(study.size for study in scan.studies))
            for number, study in enumerate(scan.studies, 1):
                progress.update(bar, description=f"study {number}/{len(scan.studies)}")
                report = sender.send(study, on_bytes=lambda count: progress.advance(bar, count))
                bad = bad or bool(report.failures)
                if as_json:
                    print(json.dumps(report.as_json()), flush=True)
                else:
                    progress.console.print(
                        f"study {number}: {report.sent} sent, {report.already_there} already there, "
                        f"{len(report.failures)} refused"
                    )
    except ServerUnreachableError:
        print("wetread: the server does not answer; run the same command again to resume", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("wetread: interrupted; run the same command again to resume", file=sys.stderr)
        return 4
    finally:
        sender.close()
    if scan.skipped:
        console.print(f"{len(scan.skipped)} files are not DICOM instances and were left out")
    return 1 if bad else 0
