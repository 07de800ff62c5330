"""``wetread models``: list, make and pin detector folders, and render the networks as a model repository."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.core.errors import ConfigurationError, Unavailable, WetreadError
from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.adapters.inference.inference_service import Serving
    from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
    from wetread.core.ports.inference import NetworkFile


def engine(networks: Sequence[NetworkFile]) -> OnnxRuntimeClient:
    """Return the engine of the authors' commands: ONNX Runtime in this process."""
    from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient

    return OnnxRuntimeClient(networks, threads=Settings().inference_threads)


def run_list(*, as_json: bool) -> int:
    """Print the installed detectors. Returns the exit code."""
    from wetread.detection.registry import discover

    try:
        found = discover(Settings().detectors)
    except ConfigurationError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    for name, installed in found.items():
        card = installed.info.card
        row = {
            "name": name,
            "version": installed.info.version,
            "title": installed.info.manifest.title,
            "networks": [network.name for network in installed.networks],
            "shadow": card.shadow,
            "phantom_evidence_id": card.phantom_evidence_id,
            "model_digest": installed.info.model_digest,
        }
        if as_json:
            print(json.dumps(row))
        else:
            shadow = " (shadow)" if card.shadow else ""
            print(f"{name} {installed.info.version}{shadow}: {installed.info.manifest.title}")
    return 0


def run_new(name: str, *, kind: str, into: Path | None, modality: str, body_part: str, finding: str, title: str) -> int:
    """Make a detector folder. Returns the exit code."""
    from wetread.detection.authoring.scaffold import KINDS, Wanted, create
    from wetread.detection.registry import bundled_folder

    chosen = next((known for known in KINDS if known == kind), None)
    if chosen is None:
        print(f"wetread: unknown kind {kind}; known: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    place = (into or bundled_folder()).resolve()
    third_party = place != bundled_folder().resolve()
    wanted = Wanted(name, chosen, modality, body_part, finding, title)
    try:
        folder = create(wanted, place, engine, pin=third_party)
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    print(f"{folder}: made, tuned, measured; test it by: wetread models test {name}")
    if third_party:
        print(f"Serve it with WETREAD_DETECTORS={place}; after a change of its code: wetread models pin {folder}")
    return 0


def run_pin(folder: Path) -> int:
    """Pin the code of a detector folder. Returns the exit code."""
    from wetread.detection.authoring.scaffold import pin_code
    from wetread.detection.registry import read_folder

    try:
        read_folder(folder.resolve())
    except ConfigurationError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    pin_code(folder.resolve())
    print(f"{folder.name}: pinned")
    return 0


def run_render(*, target: str, out: Path, only: list[str], gpu: bool | None, instances: int, threads: int) -> int:
    """Write a model repository. Returns the exit code."""
    from wetread.adapters.inference.triton_repository import TARGETS, render
    from wetread.bootstrap.networks import installed_networks

    chosen = next((known for known in TARGETS if known == target), None)
    if chosen is None:
        print(f"wetread: unknown target {target}; known: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    try:
        networks = installed_networks(Settings().detectors)
        missing = set(only) - {network.name for network in networks}
        if missing:
            print(f"wetread: no network is called {min(missing)}", file=sys.stderr)
            return 2
        wanted = [network for network in networks if not only or network.name in only]
        names = render(wanted, out, chosen, gpu=gpu, instances=instances, threads=threads)
    except (ValueError, ConfigurationError) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {', '.join(names)} for {chosen}")
    return 0


def run_test(name: str, *, update_golden: bool, seed: int | None, reason: str) -> int:
    """Run the contract suite and a folder's own tests, or write its golden case anew. Returns the exit code."""
    import os
    import subprocess

    from wetread.detection.authoring import golden
    from wetread.detection.registry import discover

    try:
        installed = discover(Settings().detectors).get(name)
        if installed is None:
            print(f"wetread: no detector is called {name!r}", file=sys.stderr)
            return 2
        if update_golden:
            given = golden.renew(installed, engine(installed.networks), seed=seed, reason=reason)
            print(f"{name}: golden case written, seed {given['seed']} of {given['split']}")
            return 0
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    from importlib.util import find_spec

    if find_spec("pytest") is None:
        print("wetread: testing a detector needs pytest: pip install 'wetread[dev]'", file=sys.stderr)
        return 2
    from wetread.testing.contracts import folder_suite

    own = installed.folder / "test_detector.py"
    suites = [str(folder_suite.__file__), *([str(own)] if own.is_file() else [])]
    # No configuration of whatever folder this is called in, and no caches inside a model folder.
    options = ["-q", "-c", os.devnull, "--rootdir", str(installed.folder), "--import-mode=importlib"]
    environment = os.environ | {folder_suite.FOLDER_VARIABLE: str(installed.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", *suites]
    return 1 if subprocess.run(command, env=environment, check=False).returncode else 0  # noqa: S603 - our own suite


def run_deploy(
    serving: Serving, *, kubeconfig: Path | None, context: str | None, dry_run: bool, wait_seconds: float
) -> int:
    """Create or update the InferenceService of one model. Returns the exit code."""
    from dataclasses import replace

    from wetread.adapters.inference.inference_service import KserveDeployments, inference_service
    from wetread.detection.registry import discover

    try:
        networks = {n.name: n for found in discover(Settings().detectors).values() for n in found.networks}
        known = networks.get(serving.model)
        wanted = inference_service(serving if known is None else replace(serving, model_sha256=known.sha256))
        if dry_run:
            print(json.dumps(wanted, indent=2))
            return 0
        cluster = KserveDeployments(kubeconfig, context)
        done = cluster.apply(wanted)
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        print(f"inferenceservice {namespace}/{name}: {done}")
        if wait_seconds:
            print(f"ready: {cluster.wait_ready(namespace, name, wait_seconds)}")
    except Unavailable as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 3
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    return 0
