"""``wetread detect``: one detector on a folder, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.errors import WetreadError
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState
from wetread.detection.commands import detect
from wetread.settings import Settings


def run_detect(name: str, folder: Path, *, out: Path | None, as_json: bool) -> int:
    """Print one result per study. Returns the exit code of ``wetread.cli``."""
    settings = Settings()
    threads = settings.inference_threads
    try:
        results = detect(
            name,
            folder,
            decoder=PydicomFrameDecoder(),
            inference=lambda networks: OnnxRuntimeClient(networks, threads=threads),
            threads=threads,
            detectors=settings.detectors,
            out=out,
        )
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    for result in results:
        if as_json:
            print(json.dumps(result))
            continue
        state = result["state"] + (f" ({result['reason']})" if result["reason"] else "")
        volumes = [finding["volume_ml"] for finding in result["findings"] if finding["volume_ml"] is not None]
        score = "" if result["score"] is None else f", score {result['score']:.2f} vs {result['threshold']:.2f}"
        volume = f", {sum(volumes):.1f} mL" if volumes else ""
        print(f"...{result['study_uid'][-8:]}: {state}{score}{volume}, {result['seconds']:.1f} s")
    if not as_json:
        print(RUO_STATEMENT)
    return 1 if any(result["state"] == AiState.FAILED for result in results) else 0
