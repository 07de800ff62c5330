"""STOW, QIDO and WADO alone and at the same time: what each verb costs the others."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomweb.connection import Answer, Connection
from dicomweb.instances import Place, Template
from dicomweb.load import STOW_TYPE, multipart
from stress_hour.images import body_ct
from stress_hour.running import READY_SECONDS
from stress_hour.summary import percentile

from wetread.commands.local_server import local_server

_RUN: Final = 700
_JSON: Final = "Accept: application/dicom+json\r\nAccept-Encoding: gzip\r\n"
_FRAMES: Final = 'Accept: multipart/related; type="application/octet-stream"; transfer-syntax=*\r\n'
_RESIDENT: Final = 40
"""Studies that are searched, of which the first is read."""
_SLICES: Final = 16
_BATCH: Final = 16

Verb = Callable[[Connection, int], Answer]


@dataclass(slots=True)
class Cell:
    """One verb in one setting. ``bad``: answers that were no success."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    bad: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True, slots=True)
class Mix:
    """Verb -> cell, alone and together."""

    alone: dict[str, Cell]
    together: dict[str, Cell]

    @property
    def bad(self) -> int:
        """Answers that were no success."""
        return sum(cell.bad for cells in (self.alone, self.together) for cell in cells.values())

    def lines(self) -> list[str]:
        """Return the table."""
        found = [
            "| verb | alone /s | p50 / p95 ms | together /s | p50 / p95 ms |",
            "|---|---|---|---|---|",
        ]
        for name, alone in self.alone.items():
            beside = self.together[name]
            found.append(f"| {name} | {alone.rate:.1f} | {_ms(alone)} | {beside.rate:.1f} | {_ms(beside)} |")
        return [*found, f"answers that were no success: {self.bad}"]


def measure(folder: Path, *, seconds: float) -> Mix:
    """Run each verb alone for *seconds*, then all at once, one connection each, as fast as answers come."""
    template = Template(body_ct())
    resident = [[Place(_RUN, study, 1, number + 1) for number in range(_SLICES)] for study in range(_RESIDENT)]
    with (
        tempfile.TemporaryDirectory(prefix="wetread-report-", dir=folder) as scratch,
        local_server(Path(scratch), ready_seconds=READY_SECONDS) as server,
    ):
        port = int(server.url.rpartition(":")[2])
        with Connection(port) as connection:
            for places in resident:
                connection.post("/dicom-web/studies", STOW_TYPE, *multipart([template] * len(places), places))
        time.sleep(12.0)  # the resident studies become complete
        verbs = _verbs(template, resident)
        alone = {name: _run(port, {name: verb}, seconds, at)[name] for at, (name, verb) in enumerate(verbs.items())}
        return Mix(alone, _run(port, verbs, seconds, len(verbs)))


def _verbs(template: Template, resident: Sequence[Sequence[Place]]) -> dict[str, Verb]:
    def stow(connection: Connection, number: int) -> Answer:
        places = [Place(_RUN + 1, number, 1, at + 1) for at in range(_BATCH)]
        return connection.post("/dicom-web/studies", STOW_TYPE, *multipart([template] * _BATCH, places))

    def qido(connection: Connection, number: int) -> Answer:
        place = resident[number * 7 % len(resident)][0]
        return connection.get(f"/dicom-web/studies?PatientID={place.patient_id}", _JSON)

    def wado(connection: Connection, number: int) -> Answer:
        place = resident[0][number * 5 % _SLICES]
        path = f"/dicom-web/studies/{place.study_uid}/series/{place.series_uid}/instances/{place.sop_uid}"
        return connection.get(f"{path}/frames/1", _FRAMES)

    return {f"STOW, {_BATCH} slices of 0.53 MB": stow, "QIDO by patient": qido, "WADO, one frame of 0.52 MB": wado}


def _run(port: int, verbs: dict[str, Verb], seconds: float, part: int) -> dict[str, Cell]:
    cells = {name: Cell(seconds) for name in verbs}
    failures: list[BaseException] = []

    def work(name: str, verb: Verb) -> None:
        cell = cells[name]
        try:
            with Connection(port) as connection:
                end = time.perf_counter() + seconds
                number = part * 1_000_000
                while time.perf_counter() < end:
                    answer = verb(connection, number)
                    cell.latencies.append(answer.seconds)
                    cell.bad += answer.status != 200
                    number += 1
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=item) for item in verbs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return cells


def _ms(cell: Cell) -> str:
    return f"{percentile(cell.latencies, 0.5) * 1000:.1f} / {percentile(cell.latencies, 0.95) * 1000:.1f}"
