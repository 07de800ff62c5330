"""``wetread models``: the installed networks as a model repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.core.errors import ConfigurationError, Unavailable, WetreadError
from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.adapters.inference.inference_service import Serving


def run_render(*, target: str, out: Path, only: list[str], gpu: bool | None, instances: int, threads: int) -> int:
    """Write a model repository. Returns the exit code."""
    from wetread.adapters.inference.triton_repository import TARGETS, render
    from wetread.detection.registry import discover

    chosen = next((known for known in TARGETS if known == target), None)
    if chosen is None:
        print(f"wetread: unknown target {target}; known: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    try:
        networks = [network for found in discover(Settings().detectors).values() for network in found.networks]
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
