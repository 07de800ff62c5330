"""Why a model may not come in: typed, so that scripts and tests can tell."""

from __future__ import annotations

from typing import Final

from wetread.core.errors import Unprocessable

REASONS: Final[dict[str, str]] = {
    "not_found": "there is no such file or folder",
    "link": "links are not followed: bring the file itself",
    "path_outside": "a path leads out of the model's own folder",
    "too_many_files": "more files than a model has",
    "too_large": "larger than a model may be",
    "archive_damaged": "the archive cannot be unpacked",
    "unknown_format": "neither MONAI bundle, ONNX, TorchScript, state dict nor Triton repository",
    "code_in_weights": "the pickle names something that is no tensor: it would run code",
    "weights_damaged": "the weights cannot be read",
    "external_data": "the ONNX file keeps its weights in other files",
    "unknown_operator": "an operator of an unknown domain",
    "tensor_too_large": "a tensor claims to be larger than a model may be",
    "unknown_transform": "a step of the bundle that has no counterpart here",
    "unknown_architecture": "weights without a network that is known here",
    "shape_unknown": "the sizes of the input are not in the file",
    "not_equivalent": "the exported network gives other numbers than the original",
    "conversion_failed": "the isolated conversion ended with an error",
    "resources": "the isolated conversion needed more memory or time than it may use",
    "changed": "the source is not what was accepted: its digest differs",
    "not_accepted": "an operator has to accept digest and licence",
    "name_taken": "a detector or network of that name is there already",
    "torch_missing": "converting needs the extra torch",
}


class ImportRefused(Unprocessable):
    """A model was refused. ``code`` is a key of ``REASONS``."""

    slug, title = "model-refused", "Model refused"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail or REASONS[reason])
