"""Gateways of a profile as processes: told apart by settings alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx

from wetread.bootstrap.crew import crew_size
from wetread.commands.local_server import wait_ready
from wetread.core.lifeline import PARENT_VARIABLE
from wetread.registry import WEB
from wetread.settings import Settings
from wetread.testing.servers.moto import S3Server
from wetread.testing.servers.postgres import Postgres
from wetread.testing.servers.process import free_port


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway. ``processes``: of them that answer requests."""

    port: int
    pid: int
    processes: int = 1


def environment(name: str, place: Path, database: Postgres, s3: S3Server) -> dict[str, str]:
    """Return the settings of a profile, with a database or bucket of its own where it has one."""
    values = {"WETREAD_DATA": str(place), "WETREAD_LOG_LEVEL": "error", PARENT_VARIABLE: str(os.getpid())}
    if not name.endswith("default"):
        values["WETREAD_WEB_PROCESSES"] = "1"
    if "postgres" in name:
        values["WETREAD_DATABASE_URL"] = database.fresh()
    if "s3" in name:
        bucket = f"wetread-bench-{place.name}"
        access = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret, "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=s3.endpoint, **access).create_bucket(Bucket=bucket)
        values |= {"WETREAD_OBJECT_STORE_URL": f"s3://{bucket}", "WETREAD_OBJECT_STORE_ENDPOINT": s3.endpoint}
        values |= s3.environment
    return values


@contextmanager
def gateways(settings: Mapping[str, str], place: Path, count: int) -> Iterator[list[Gateway]]:
    """Run *count* gateways that share database, store and folder."""
    shared = {**os.environ, **settings}
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "wetread", "db", "migrate"], env=shared, check=True, capture_output=True)
    web = int(settings.get("WETREAD_WEB_PROCESSES") or crew_size(Settings(), WEB))
    processes: list[subprocess.Popen[bytes]] = []
    running = []
    try:
        for number in range(count):
            port = free_port()
            own = {"WETREAD_PORT": str(port), "WETREAD_INSTANCE": f"gateway{number}", "WETREAD_MIGRATE": "false"}
            command = [sys.executable, "-m", "wetread", "serve", "gateway"]
            processes.append(subprocess.Popen(command, env={**shared, **own}))
            running.append(Gateway(port, processes[-1].pid, web))
        for gateway in running:
            _wait(gateway.port)
        yield running
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def _wait(port: int) -> None:
    """Wait for the gateway alone: without a worker the embedded profile never says that it is ready."""
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/livez", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    wait_ready(url, timeout=1)
