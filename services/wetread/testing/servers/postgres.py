"""A real PostgreSQL from the installed binaries, with one fresh database per test copied from a template."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wetread.testing.servers.process import free_port, server_process

_SPEED = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=64MB")
"""A test database is thrown away; nothing that a test can see depends on these."""


def binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``, the newest where there are several; None: not installed."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_number, reverse=True):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found and shutil.which("postgres") else None


def _number(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


@dataclass
class Postgres:
    """A running server. ``root``: URL without a database name."""

    root: str
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _templates: dict[str, str] = field(default_factory=dict)

    def fresh(self, *, template: str = "template0") -> str:
        """Create a database and return its URL; ``template``: name of one that is copied (nobody connected)."""
        name = f"t{next(self._numbers)}"
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return f"{self.root}/{name}"

    def prepared(self) -> str:
        """Create a database that holds the tables of wetread and of DBOS already, and return its URL."""
        if "wetread" not in self._templates:
            from wetread.adapters.index.database import SqlDatabase
            from wetread.adapters.workqueue.dbos import create_queue_schema

            url = self.fresh()
            database = SqlDatabase(url)
            database.create_schema()
            database.close()
            create_queue_schema(url)
            self._templates["wetread"] = url.rpartition("/")[2]
        return self.fresh(template=self._templates["wetread"])

    def run(self, statement: str, *, database: str = "postgres") -> None:
        """Run one statement as the superuser, outside a transaction."""
        import psycopg

        with psycopg.connect(f"{self.root}/{database}", autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def postgres(
    *, durable: bool = False, port: int | None = None, data: Path | None = None, settings: Sequence[str] = ()
) -> Iterator[Postgres]:
    """Run a server on a free loopback port. ``durable``: with fsync, as in production (crash tests, benchmarks).

    ``data``: a data folder that is kept, initialised when empty; ``port``: keep the same address over a restart.
    ``settings``: more of them, ``name=value``.
    PostgreSQL refuses to run as root: then it runs as the system user ``postgres``.
    """
    tools = binaries()
    if tools is None:
        msg = "PostgreSQL is not installed"
        raise FileNotFoundError(msg)
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    port = port or free_port()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="wetread-pg-", dir=memory if memory.is_dir() and not durable else None, ignore_cleanup_errors=True
    ) as folder:
        home = Path(folder)
        place = data or home / "data"
        place.mkdir(parents=True, exist_ok=True)
        if account is not None:
            for path in (home, place):
                os.chown(path, account.pw_uid, account.pw_gid)
        owner = (account.pw_uid, account.pw_gid) if account else (None, None)
        if not (place / "PG_VERSION").exists():
            subprocess.run(
                [tools / "initdb", "-D", place, "-U", "wetread", "-A", "trust", "-E", "UTF8", "--no-sync",
                 "--locale=C.UTF-8"],
                check=True, capture_output=True, cwd=home, user=owner[0], group=owner[1],
                extra_groups=[] if account else None,
            )  # fmt: skip
        command = [str(tools / "postgres"), "-D", str(place), "-p", str(port), "-k", str(home)]
        for setting in ("listen_addresses=127.0.0.1", *(() if durable else _SPEED), *settings):
            command += ["-c", setting]
        with server_process(
            command, log=home / "log", ready=lambda: _accepts(port), user=owner[0], group=owner[1], stop=signal.SIGQUIT
        ) as process:
            yield Postgres(f"postgresql://wetread@127.0.0.1:{port}", process.pid)


def _accepts(port: int) -> bool:
    import psycopg

    with socket.create_connection(("127.0.0.1", port), 1):
        pass
    try:
        psycopg.connect(f"postgresql://wetread@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
