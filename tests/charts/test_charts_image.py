"""The recipe of the image, looked at: there is no container engine here, so nothing says that it builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.charts.rendering import CHART, CI, ROOT, of_ci
from tests.conftest import lint_tools
from tests.gateway_support import serving

RECIPE = ROOT / "services" / "Dockerfile"
TEXT = RECIPE.read_text("utf-8").replace("\\\n", " ")
LINES = [line.strip() for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

WRITTEN_SKIPS = {
    "CKV_K8S_11": (
        lambda _file, _resource: True,
        "a CPU limit throttles the urgent path; requests and memory limits are set",
    ),
    "CKV_K8S_35": (
        lambda file, _resource: file in {"ha", "airgap"},
        "the object store's client reads its keys from the environment only; where pods have roles there is no key",
    ),
    "CKV_K8S_8": (lambda _file, resource: resource.endswith("-test"), "the pod of helm test ends by itself"),
    "CKV_K8S_9": (lambda _file, resource: resource.endswith("-test"), "the pod of helm test serves nobody"),
    "CKV_K8S_43": (
        lambda file, _resource: file in {"default", "minimal"},
        "no image is published yet, so no digest is known",
    ),
    "CKV_K8S_15": (lambda file, _resource: file in {"default", "minimal"}, "as above; tags of releases do not move"),
}


def test_the_recipe_copies_what_is_there_and_installs_extras_that_exist() -> None:
    for line in LINES:
        if line.startswith("COPY") and "--from" not in line:
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
    default = re.search(r"ARG EXTRAS=(\S+)", TEXT)
    assert default is not None
    assert set(default[1].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert PROJECT["scripts"]["wetread"], "the entry point"
    ignored = (RECIPE.parent / "Dockerfile.dockerignore").read_text("utf-8").split("\n")
    copied = {name for line in LINES if line.startswith("COPY") and "--from" not in line for name in line.split()[1:-1]}
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored


def test_the_recipe_runs_as_a_numeric_user_that_the_chart_uses_too() -> None:
    users = [line.split()[1] for line in LINES if line.startswith("USER")]
    assert users == ["10001:10001"]
    assert LINES.index("USER 10001:10001") > max(i for i, line in enumerate(LINES) if line.startswith(("RUN", "COPY")))
    assert [line for line in LINES if line.startswith("FROM")] == [
        "FROM python:3.11-slim-bookworm AS build",
        "FROM python:3.11-slim-bookworm",
    ]
    assert not [
        line for line in LINES if line.startswith("ADD") or re.match(r"(ARG|ENV).*(SECRET|PASSWORD|TOKEN|KEY)", line)
    ]
    assert 'ENTRYPOINT ["wetread"]' in LINES


@pytest.mark.server("hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([lint_tools() / "hadolint", RECIPE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def checkov(framework: str, *arguments: str | Path) -> list[dict[str, str]]:
    command = [
        lint_tools() / "checkov",
        *arguments,
        "--framework",
        framework,
        "--compact",
        "--quiet",
        "--skip-download",
    ]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    if isinstance(report, list):
        (report,) = [each for each in report if each["check_type"] == framework]
    assert report.get("passed", 0) or report["summary"]["passed"] > 20, done.stdout[-500:]
    return report.get("results", {}).get("failed_checks", [])


@pytest.mark.slow
@pytest.mark.server("checkov")
def test_checkov_accepts_the_recipe() -> None:
    assert [each["check_id"] for each in checkov("dockerfile", "-f", RECIPE)] == []


@pytest.mark.slow
@pytest.mark.server("checkov", "helm")
def test_checkov_accepts_what_the_chart_makes(tmp_path: Path) -> None:
    for name in CI:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(of_ci(name)))
    unexplained = []
    used = set()
    for each in checkov("kubernetes", "-d", tmp_path):
        name, resource = each["file_path"].removeprefix("/").removesuffix(".yaml"), each["resource"]
        check = each["check_id"]
        if check in WRITTEN_SKIPS and WRITTEN_SKIPS[check][0](name, resource):
            used.add(check)
        else:
            unexplained.append((check, name, resource))
    assert unexplained == []
    assert used == WRITTEN_SKIPS.keys(), "a skip that nothing needs"


def test_the_program_of_helm_test_passes_on_a_gateway(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("any\n")
    program = (CHART / "files" / "roundtrip.py").read_text("utf-8")
    with serving(tmp_path / "data") as (dicomweb, _parts):
        url = dicomweb.removesuffix("/dicom-web")
        done = subprocess.run(
            [sys.executable, "-c", program, url, str(tmp_path / "api-key")], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "STOW-RS, QIDO-RS, WADO-RS, delete: ok\n"), done.stderr
    gone = subprocess.run(
        [sys.executable, "-c", program, url, str(tmp_path / "api-key")], capture_output=True, text=True, check=False
    )
    assert gone.returncode != 0
