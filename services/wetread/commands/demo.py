"""``wetread demo``: the main job end to end on this machine, over real HTTP, with a real webhook receiver."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.commands.local_server import ServerNotReadyError, local_server
from wetread.commands.receiver import WebhookReceiver
from wetread.commands.send import Sender, SendReport, ServerUnreachableError
from wetread.core.priority import Priority, most_urgent
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import FINAL, AiState

STUDY_TIMEOUT_SECONDS: Final = 240.0
_NOTIFIES: Final = frozenset({"finding.positive"})
_READY: Final = frozenset({"result.ready"})


@dataclass(frozen=True, slots=True)
class Truth:
    """What a phantom holds."""

    kind: str
    volume_ml: float


def run_demo(*, folder: Path | None, as_json: bool, data: Path | None, keep: bool) -> int:
    """Run the demo. Returns the exit code of ``wetread.cli``."""
    console = Console(stderr=as_json)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wetread-demo-")))
        truths: dict[str, Truth] = {}
        if folder is None:
            with console.status("rendering phantom head CTs"):
                folder = scratch / "phantoms"
                truths = render_phantoms(folder)
        elif not folder.is_dir():
            print(f"wetread: {folder} is not a folder", file=sys.stderr)
            return 2
        scan = scan_folder(folder)
        if not scan.studies:
            print(f"wetread: no DICOM files in {folder}", file=sys.stderr)
            return 2
        try:
            with console.status("starting the server"):
                server = stack.enter_context(local_server(data or scratch / "data"))
            receiver = stack.enter_context(WebhookReceiver())
            demo = Demo(server.url, receiver)
            demo.subscribe()
            rows = [demo.read(study, console) for study in scan.studies]
        except (ServerNotReadyError, ServerUnreachableError) as error:
            print(f"wetread: {error}", file=sys.stderr)
            return 3
        except KeyboardInterrupt:
            return 4
        if as_json:
            for row in rows:
                print(json.dumps(row), flush=True)
        else:
            _print_reads(console, rows, truths, server.url, skipped=len(scan.skipped))
        if keep:
            _wait_for_interrupt(console, server.url)
    return 0 if all(_ended_well(row) for row in rows) else 1


def render_phantoms(folder: Path) -> dict[str, Truth]:
    """Write the demo's phantom studies and return their truth by Study Instance UID."""
    from wetread.testing.phantoms import demo_studies

    return {
        study.study_instance_uid: Truth(study.title, sum(study.volume_ml.values())) for study in demo_studies(folder)
    }


class Demo:
    """Sends studies to a running server and reads what came back."""

    def __init__(self, url: str, receiver: WebhookReceiver) -> None:
        self.url = url
        self._receiver = receiver
        self._client = httpx.Client(base_url=url, timeout=60)

    def subscribe(self) -> None:
        """Subscribe the receiver to what people are told about."""
        answer = self._client.post(
            "/api/v1/subscriptions",
            json={"url": self._receiver.url, "types": sorted(_NOTIFIES | _READY)},
        )
        answer.raise_for_status()
        self._receiver.secret = answer.json()["secrets"][0]

    def read(self, study: FileStudy, console: Console) -> dict[str, Any]:
        """Send one study and wait for its read. Returns the object that ``--json`` prints."""
        sender = Sender(self.url)
        try:
            with console.status(f"sending {len(study.instances)} instances"):
                report = sender.send(study)
        finally:
            sender.close()
        with console.status("waiting for the read"):
            results = self._wait_final(study.study_uid)
            turnaround = self._turnaround(study.study_uid, results, report)
        item = self._worklist_item(study.study_uid)
        reasons: Sequence[Mapping[str, Any]] = item.get("reasons", [])
        return {
            "study_uid": study.study_uid,
            "modality": study.modality,
            "instances": len(study.instances),
            "refused": len(report.failures),
            "results": results,
            "priority_before": _before_ai(reasons),
            "priority_after": item.get("priority"),
            "turnaround_s": turnaround,
            "stored": [series for result in results for series in result.get("stored", [])],
            "ruo": RUO_STATEMENT,
        }

    def _wait_final(self, study_uid: str) -> list[dict[str, Any]]:
        def ended(results: Sequence[Mapping[str, Any]]) -> bool:
            # What the rules exclude writes no report; every run of a detector does.
            return bool(results) and all(
                result["state"] in FINAL and (result["stored"] or result["state"] == AiState.NOT_APPLICABLE)
                for result in results
            )

        return _poll(lambda: self._results(study_uid), ended)

    def _results(self, study_uid: str) -> list[dict[str, Any]]:
        answer = self._client.get(f"/api/v1/studies/{study_uid}/findings")
        return list(answer.json()["results"]) if answer.status_code == 200 else []

    def _turnaround(self, study_uid: str, results: Sequence[Mapping[str, Any]], report: SendReport) -> float | None:
        told = [result for result in results if not result["shadow"]]
        if not told:
            return None
        positive = any(result["state"] == AiState.POSITIVE for result in told)
        delivery = self._receiver.first(study_uid, _NOTIFIES if positive else _READY, timeout=15)
        return round(delivery.at - report.last_byte_at, 2) if delivery and report.last_byte_at else None

    def _worklist_item(self, study_uid: str) -> dict[str, Any]:
        cursor: str | None = None
        while True:
            answer = self._client.get("/api/v1/worklist", params={"cursor": cursor} if cursor else {})
            answer.raise_for_status()
            page = answer.json()
            for item in page["items"]:
                if item["study_uid"] == study_uid:
                    return dict(item)
            cursor = page["next"]
            if cursor is None:
                return {}


def _poll(
    read: Callable[[], list[dict[str, Any]]], done: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    deadline = time.monotonic() + STUDY_TIMEOUT_SECONDS
    while True:
        value = read()
        if done(value) or time.monotonic() > deadline:
            return value
        time.sleep(0.1)


def _before_ai(reasons: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the class that order and rules gave the study: what it would have without AI."""
    classes = [Priority(reason["priority"]) for reason in reasons if reason["source"] != "ai"]
    return str(most_urgent(*classes)) if classes else None


def _ended_well(row: Mapping[str, Any]) -> bool:
    states = [result["state"] for result in row["results"]]
    return bool(states) and all(state in FINAL and state != AiState.FAILED for state in states)


def _print_reads(
    console: Console, rows: Sequence[Mapping[str, Any]], truths: Mapping[str, Truth], url: str, *, skipped: int
) -> None:
    for row in rows:
        truth = truths.get(row["study_uid"])
        console.print(f"\n[bold]{truth.kind if truth else 'study'}[/bold]  ...{row['study_uid'][-12:]}")
        told = (
            "nobody had to be told"
            if row["turnaround_s"] is None
            else f"told {row['turnaround_s']:.1f} s after last byte"
        )
        console.print(
            f"  {row['instances']} slices, {row['instances'] - row['refused']} received; "
            f"{row['priority_before']} -> [bold]{row['priority_after']}[/bold]; {told}"
        )
        # A detector for another organ says so in --json; here it would only be in the way.
        read = [result for result in row["results"] if result["state"] != "not_applicable"] or row["results"]
        for result in read:
            console.print(f"  {_read_line(result)}" + (f"; truth {truth.volume_ml:.1f} mL" if truth else ""))
    console.print(f"\n{RUO_STATEMENT}\n")
    if skipped:
        console.print(f"{skipped} files are not DICOM instances and were left out")
    console.print("Where to look (wetread demo --keep, or wetread up and wetread send FOLDER --url URL):")
    for what, path in (("worklist", "/"), ("DICOM", "/dicom-web/studies"), ("API", "/api/v1/worklist")):
        console.print(f"  {what:9}{url}{path}")


def _read_line(result: Mapping[str, Any]) -> str:
    colour = {"positive": "red", "negative": "green"}.get(result["state"], "yellow")
    line = f"{result['detector']} {result['version']}: [{colour}]{result['state']}[/{colour}]"
    if result.get("reason"):
        line += f" ({result['reason']})"
    if result.get("shadow"):
        line += " (shadow)"
    if result.get("score") is not None:
        line += f", score {result['score']:.2f} against {result['threshold']:.2f}"
    volumes = [finding["volume_ml"] for finding in result["findings"] if finding.get("volume_ml") is not None]
    return line + (f", {sum(volumes):.1f} mL" if volumes else "")


def _wait_for_interrupt(console: Console, url: str) -> None:
    console.print(f"The server keeps running at {url}/ until you press Ctrl-C.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
