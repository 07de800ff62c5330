"""Fixtures shared by all tests: where real data lie, and what a missing server means."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, settings

from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.testing.servers.moto import S3Server
    from wetread.testing.servers.postgres import Postgres

# A server that a test starts is one web process: starting more costs each test a second. What several do is tested on
# its own (test_web_crew, test_web_processes).
os.environ.setdefault("WETREAD_WEB_PROCESSES", "1")

# How fast examples are made says how busy the machine is, and nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
END_TO_END: Final = "tests/e2e/"
PROCESSES: Final = ("models/", "tests/charts/", "tests/conformance/", "tests/contracts/", "tests/terraform/")
"""Where tests start processes and run networks: a file of few tests may take long there."""

# Every real server, tool or folder that a test may need, with how to see whether it is there. One list for all tests:
# WETREAD_REQUIRE names those whose absence is a failure instead of a loud skip.
REAL: dict[str, Callable[[], bool]] = {
    "shared": lambda: shared_folder().is_dir(),
    "dicom3tools": lambda: shutil.which("dciodvfy") is not None,
    "dcmtk": lambda: shutil.which("dcmdump") is not None,
    "chromium": lambda: shutil.which("chromium") is not None,
    "ohif": (Settings().viewer / "index.html").is_file,
    "orthanc": lambda: (orthanc_folder() / "orthanc").is_file(),  # noqa: PLW0108 - defined below
    "torch": lambda: _importable("torch"),
    "moto": lambda: _is_there("moto", "installed"),
    "triton": lambda: _is_there("triton", "home"),
    "kserve": lambda: _is_there("kserve", "packages"),
    "postgres": lambda: _is_there("postgres", "binaries"),
    "openslide": lambda: all(_importable(name) for name in ("openslide", "simplejpeg", "pyarrow")),
    "ray": lambda: _importable("ray"),
    "helm": lambda: all(_importable(name) for name in ("helm_python", "kubernetes_validate")),
    "crds": lambda: (shared_folder().parent / "crds").is_dir(),  # noqa: PLW0108 - defined below
    "promtool": lambda: shutil.which("promtool") is not None,
    "terraform": lambda: shutil.which("terraform") is not None and terraform_plugins().is_dir(),
    "hadolint": lambda: (lint_tools() / "hadolint").is_file(),  # noqa: PLW0108 - defined below
    "checkov": lambda: (lint_tools() / "checkov").is_file(),  # noqa: PLW0108 - defined below
}


def shared_folder() -> Path:
    """Return the folder of real data (``WETREAD_SHARED``, default ``../shared``)."""
    return Path(os.environ.get("WETREAD_SHARED", ROOT.parent / "shared")) / "data"


def orthanc_folder() -> Path:
    """Return the folder of ``.ci/install-orthanc`` (``WETREAD_ORTHANC``, default ``.peers/orthanc``)."""
    return Path(os.environ.get("WETREAD_ORTHANC", ROOT / ".peers" / "orthanc"))


def terraform_plugins() -> Path:
    """Return the mirror of Terraform providers (``WETREAD_TF_MIRROR``, default ``/opt/tf-plugins``)."""
    return Path(os.environ.get("WETREAD_TF_MIRROR", "/opt/tf-plugins"))


def lint_tools() -> Path:
    """Return the programs of ``.ci/install-lint-tools`` (``WETREAD_LINT_TOOLS``, default ``.peers/lint/bin``)."""
    return Path(os.environ.get("WETREAD_LINT_TOOLS", ROOT / ".peers" / "lint" / "bin"))


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _is_there(server: str, question: str) -> bool:
    """Ask ``wetread.testing.servers`` whether it can start a real server."""
    import importlib

    answer = getattr(importlib.import_module(f"wetread.testing.servers.{server}"), question)()
    return answer is not None and answer is not False


def need(name: str) -> None:
    """Skip loudly when the real thing *name* is absent; fail when ``WETREAD_REQUIRE`` lists it."""
    if REAL[name]():
        return
    required = {part.strip() for part in os.environ.get("WETREAD_REQUIRE", "").split(",")}
    message = f"real {name} is not on this machine"
    if name in required:
        pytest.fail(f"{message}, and WETREAD_REQUIRE demands it")
    pytest.skip(f"NOT RUN: {message}")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one worker, and all of ``tests/e2e`` to one: what they share is started once.

    They take longest, so they go first; then what starts processes; the files of few short tests last, so that the
    workers end together.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByServers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            return END_TO_END if scope.startswith(END_TO_END) else scope

        def _assign_work_unit(self, node: Any) -> None:
            """Take the longest: of one kind the file of most tests, which xdist has put before the others."""
            longest = min(self.workqueue, key=lambda scope: (scope != END_TO_END, not scope.startswith(PROCESSES)))
            self.workqueue.move_to_end(longest, last=False)
            super()._assign_work_unit(node)

    return ByServers(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("server"):
        for name in mark.args:
            need(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests ran on which real servers."""
    counts: dict[str, int] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name in getattr(report, "wetread_servers", ()):
            counts[name] = counts.get(name, 0) + 1
    terminalreporter.section("real servers, tools and data")
    for name in sorted(REAL):
        state = f"{counts.get(name, 0)} tests passed" if REAL[name]() else "ABSENT"
        terminalreporter.write_line(f"{name:12s} {state}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    names = {name for mark in item.iter_markers("server") for name in mark.args}
    if "shared" in item.fixturenames:
        names.add("shared")
    if report.when == "call":
        report.wetread_servers = sorted(names)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real, licensed data; tests that need it skip loudly elsewhere."""
    need("shared")
    return shared_folder()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One real PostgreSQL per run; each test gets databases of its own in it."""
    need("postgres")
    from wetread.testing.servers.postgres import postgres

    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One real S3 server per run, signatures checked; each test makes buckets named ``wetread-*`` of its own."""
    need("moto")
    from wetread.testing.servers.moto import moto

    with moto() as server:
        yield server


_DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.server("postgres"))]


@pytest.fixture(params=_DATABASES)
def each_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on SQLite and on PostgreSQL: what it builds by ``tests.databases`` goes there."""
    yield from _built_on(request)


@pytest.fixture(scope="module", params=_DATABASES)
def each_database_of_module(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the tests of a module on SQLite and on PostgreSQL."""
    yield from _built_on(request)


def _built_on(request: pytest.FixtureRequest) -> Iterator[str]:
    from tests.databases import close_databases, on_postgres

    if request.param == "sqlite":
        yield "sqlite"
        close_databases()
        return
    with on_postgres(request.getfixturevalue("postgres_server")):
        yield "postgres"
