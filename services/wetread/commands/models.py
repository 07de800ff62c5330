"""``wetread models``: the installed networks as a model repository."""

from __future__ import annotations

import sys
from pathlib import Path

from wetread.core.errors import ConfigurationError
from wetread.settings import Settings


def run_render(*, target: str, out: Path, only: list[str], gpu: bool | None, instances: int, threads: int) -> int:
    """Write a model repository. Returns the exit code."""
    from wetread.adapters.inference.triton_repository import TARGETS, render
    from wetread.detection.registry import discover
    from wetread.pathology.tile_model import installed_tile_models

    chosen = next((known for known in TARGETS if known == target), None)
    if chosen is None:
        print(f"wetread: unknown target {target}; known: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    try:
        networks = [network for found in discover(Settings().detectors).values() for network in found.networks]
        networks += [model.network for model in installed_tile_models().values()]
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
