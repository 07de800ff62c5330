"""Write a trained network into its folder as ONNX and pin its hash in the manifest (extra ``torch``)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

OPSET: Final = 17


def write_onnx(network: Any, manifest: Path, inputs: Mapping[str, Any], outputs: Sequence[str]) -> str:
    """Write ``1/model.onnx`` beside *manifest* from a torch module, its SHA-256 into *manifest*, and return that.

    *inputs*: a tensor for every input by its name, of any batch; the first axis of all inputs and outputs becomes free.
    """
    import torch

    target = manifest.parent / "1" / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    torch.onnx.export(
        network.eval(),
        tuple(inputs.values()),
        str(target),
        dynamo=False,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
    )
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    text = manifest.read_text("utf-8")
    manifest.write_text(re.sub(r'sha256: "[0-9a-f]*"', f'sha256: "{digest}"', text), "utf-8")
    return digest
