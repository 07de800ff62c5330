"""The gateway on PostgreSQL and S3 against the embedded profile, in one run; and two gateways against one.

``make bench BENCH=profiles ARGS="--studies 6 --slices 40"``. Real processes (``wetread serve gateway``), a real
PostgreSQL with durable commits, moto as the S3 server. moto is one Python process: rates with it are the double's as
much as ours; the CPU time of the gateways per instance is ours alone.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import boto3
import httpx
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from wetread.commands.local_server import wait_ready
from wetread.core.lifeline import PARENT_VARIABLE
from wetread.testing.servers.moto import S3Server, moto
from wetread.testing.servers.postgres import postgres
from wetread.testing.servers.process import free_port

SEED = 20_260_302
BOUNDARY = "wetread-bench"
HEADERS = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
ACCEPT = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


@dataclass
class Figures:
    """Per instance or request: rates in 1/s, times in ms."""

    stored: float
    cpu_ms: float
    first_read: float
    second_read: float
    search_ms: float


@dataclass
class Gateway:
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="profiles")
    parser.add_argument("--studies", type=int, default=6)
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4)
    given = parser.parse_args(arguments)
    print(
        f"{given.rounds} interleaved rounds of {given.studies} studies x {given.slices} CT slices of 512 KB, "
        f"{given.connections} connections, seed {SEED}"
    )
    found: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        database = stack.enter_context(postgres(durable=True))
        s3 = stack.enter_context(moto())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wetread-profiles-")))
        for round_ in range(given.rounds):
            for name in ("embedded", "postgres", "s3", "postgres+s3", "postgres+s3 x2"):
                place = folder / f"{round_}-{name.replace('+', '-').replace(' ', '-')}"
                environment = _environment(name, place, database.fresh(), s3)
                with _gateways(environment, place, 2 if name.endswith("x2") else 1) as gateways:
                    studies = [_study(round_ * 1000 + number, given.slices) for number in range(given.studies)]
                    found.setdefault(name, []).append(_measure(gateways, studies, given.slices, given.connections))
    _print(found)
    return 0


def _print(found: Mapping[str, list[Figures]]) -> None:
    print(
        "profile: stored/s, gateway CPU ms per instance, first read/s, second read/s, search ms"
        " (medians; in brackets the ratio to embedded)"
    )
    base = _medians(found["embedded"])
    for name, rounds in found.items():
        row = _medians(rounds)
        cells = [f"{value:8.1f} ({value / reference:4.2f})" for value, reference in zip(row, base, strict=True)]
        print(f"{name:15s} " + "  ".join(cells))
    one, two = (median(f.stored for f in found[name]) for name in ("postgres+s3", "postgres+s3 x2"))
    print(
        f"two gateways over one: {two / one:.2f} (goal >= 1.6 where cores allow; here {os.cpu_count()} cores for all)"
    )


def _medians(rounds: Sequence[Figures]) -> list[float]:
    names = ("stored", "cpu_ms", "first_read", "second_read", "search_ms")
    return [median(getattr(figures, name) for figures in rounds) for name in names]


def _environment(name: str, place: Path, database: str, s3: S3Server) -> dict[str, str]:
    values = {"WETREAD_DATA": str(place), "WETREAD_LOG_LEVEL": "error", PARENT_VARIABLE: str(os.getpid())}
    if "postgres" in name:
        values["WETREAD_DATABASE_URL"] = database
    if "s3" in name:
        bucket = "wetread-bench-" + place.name.replace("+", "-")
        access = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret, "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=s3.endpoint, **access).create_bucket(Bucket=bucket)
        values |= {"WETREAD_OBJECT_STORE_URL": f"s3://{bucket}", "WETREAD_OBJECT_STORE_ENDPOINT": s3.endpoint}
        values |= s3.environment
    return values


@contextmanager
def _gateways(environment: Mapping[str, str], place: Path, count: int) -> Iterator[list[Gateway]]:
    processes, gateways = [], []
    migrate = {**os.environ, **environment}
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "wetread", "db", "migrate"], env=migrate, check=True, capture_output=True)
    try:
        for number in range(count):
            port = free_port()
            own = {"WETREAD_PORT": str(port), "WETREAD_INSTANCE": f"gateway{number}", "WETREAD_MIGRATE": "false"}
            processes.append(
                subprocess.Popen([sys.executable, "-m", "wetread", "serve", "gateway"], env={**migrate, **own})
            )
            gateways.append(Gateway(f"http://127.0.0.1:{port}", processes[-1].pid))
        for gateway in gateways:
            _wait(gateway.url)
        yield gateways
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def _wait(url: str) -> None:
    """Wait for the gateway alone: without a worker the embedded profile never says that it is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/livez", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    wait_ready(url, timeout=1)


def _measure(
    gateways: Sequence[Gateway], studies: Sequence[tuple[str, list[bytes]]], slices: int, connections: int
) -> Figures:
    before = sum(gateway.cpu_seconds() for gateway in gateways)
    bodies = [_multipart(files) for _, files in studies]
    clients = [httpx.Client(base_url=gateway.url, timeout=120) for gateway in gateways]

    def store(number: int) -> None:
        answer = clients[number % len(clients)].post("/dicom-web/studies", content=bodies[number], headers=HEADERS)
        assert answer.status_code == 200, answer.text

    total = len(studies) * slices
    seconds = _spread(store, len(studies), connections)
    cpu = sum(gateway.cpu_seconds() for gateway in gateways) - before

    def read(number: int) -> None:
        answer = clients[number % len(clients)].get(f"/dicom-web/studies/{studies[number][0]}", headers=ACCEPT)
        assert answer.status_code == 200
        assert len(answer.content) > slices * 512 * 1024

    first, second = (_spread(read, len(studies), connections) for _ in range(2))
    times = []
    for number in range(20):
        began = time.perf_counter()
        answer = clients[0].get("/dicom-web/studies", params={"StudyInstanceUID": studies[number % len(studies)][0]})
        assert len(answer.json()) == 1
        times.append(time.perf_counter() - began)
    for client in clients:
        client.close()
    return Figures(total / seconds, cpu / total * 1e3, total / first, total / second, median(times) * 1e3)


def _spread(work, count: int, connections: int) -> float:  # noqa: ANN001 - a function of a number
    numbers, lock, failures = iter(range(count)), threading.Lock(), []

    def run() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                work(number)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                return

    threads = [threading.Thread(target=run) for _ in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - began


def _study(number: int, slices: int) -> tuple[str, list[bytes]]:
    random = np.random.default_rng([SEED, number])
    study, series = generate_uid(), generate_uid()
    pixels = random.integers(0, 4096, 512 * 512, dtype=np.uint16).tobytes()
    files = []
    for position in range(slices):
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.PatientName, data.PatientID, data.Modality = "Bench^Profile", f"B{number}", "CT"
        data.StudyDate, data.StudyTime, data.SeriesNumber, data.InstanceNumber = "20260301", "1200", 1, position + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, position], [1, 0, 0, 0, 1, 0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns, data.PixelSpacing = 512, 512, [0.5, 0.5]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.PixelData = pixels
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        target = io.BytesIO()
        data.save_as(target, enforce_file_format=True)
        files.append(target.getvalue())
    return study, files


def _multipart(files: Sequence[bytes]) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()
