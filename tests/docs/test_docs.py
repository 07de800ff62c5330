"""Documentation tests: what is claimed is there, and what is there is documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wetread.adapters.telemetry.metrics import _QUERIES
from wetread.core.events import EventType
from wetread.core.ruo import RUO_STATEMENT
from wetread.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    assert f"`WETREAD_{name.upper()}`" in read("docs/settings.md")


@pytest.mark.parametrize(
    "name",
    [q[0] for q in _QUERIES]
    + ["wetread_http_requests_total", "wetread_http_request_seconds"]
    + ["wetread_turnaround_seconds", "wetread_telemetry_items_total", "wetread_stored_bytes"]
    + ["wetread_read_cache_blocks_total"],
)
def test_every_metric_is_documented(name: str) -> None:
    assert f"`{name}`" in read("docs/operations/metrics.md")


@pytest.mark.parametrize("event", list(EventType))
def test_every_event_is_documented(event: EventType) -> None:
    assert f"`{event}`" in read("docs/events.md")


def test_readme_says_the_statement_and_comes_to_the_command_quickly() -> None:
    readme = read("README.md")
    assert RUO_STATEMENT in " ".join(readme.replace("> ", "").split())
    before = readme[: readme.index("make demo")]
    assert before.count("\n") < 80, "more than two screens before the first command"


def test_readme_targets_and_commands_exist() -> None:
    makefile, readme = read("Makefile"), read("README.md")
    for target in set(re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    from wetread.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    for command in set(re.findall(r"^(?:\.venv/bin/)?wetread ([a-z]+)", readme, re.MULTILINE)):
        assert command in known, command


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_help_is_light() -> None:
    code = (
        "import sys; from wetread.cli import app; "
        "print(sorted({'fastapi','torch','dbos','highdicom','onnxruntime','numpy','sqlalchemy'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "services")},
    )
    assert output.stdout.strip() == "[]"


def test_base_install_names_no_heavy_package() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    heavy = {"torch", "ray", "kserve", "tritonclient", "kubernetes", "boto3"}
    names = {re.split(r"[<>=\[; ]", line)[0].lower() for line in project["dependencies"]}
    assert not names & heavy


def test_version_is_said_once() -> None:
    import wetread

    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == wetread.__version__


def test_every_dependency_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in read("constraints.txt").splitlines() if "==" in line
    }
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=\[; ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert not names - pinned


def test_generated_documents_are_fresh() -> None:
    from wetread.commands.documents import generated

    stale = [path.name for path, text in generated().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run: make schemas"


def test_openapi_names_the_contract() -> None:
    paths = json.loads(read("docs/openapi.json"))["paths"]
    assert {
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/worklist",
        "/api/v1/studies/{study_uid}/findings",
        "/api/v1/events/stream",
        "/api/v1/subscriptions",
        "/dicom-web/workitems",
    } <= set(paths)
