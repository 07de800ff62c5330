"""A real KServe model server for one ONNX network: ``python -m wetread.testing.kserve_server`` with KServe's own flags.

``WETREAD_KSERVE_MODEL``: path of the weights; its name is that of the folder two above (``models/NAME/1/model.onnx``).
Imported by nobody: kserve reads the command line when it is imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

_KINDS = {"tensor(float)": "FP32", "tensor(float16)": "FP16", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8"}


class OnnxModel(Model):  # type: ignore[misc]
    """One network."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent.parent.name)
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """Return the metadata of the inputs."""
        return [_described(entry) for entry in self._session.get_inputs()]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """Return the metadata of the outputs."""
        return [_described(entry) for entry in self._session.get_outputs()]

    async def predict(self, payload: InferRequest, *_headers: Any, **_more: Any) -> InferResponse:
        """Run a batch."""
        names = [entry.name for entry in self._session.get_outputs()]
        found = self._session.run(names, {entry.name: entry.as_numpy() for entry in payload.inputs})
        outputs = []
        for entry, array in zip(self._session.get_outputs(), found, strict=True):
            output = InferOutput(entry.name, list(array.shape), _KINDS[entry.type])
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or uuid4().hex,
            model_name=self.name,
            infer_outputs=outputs,
            from_grpc=payload.from_grpc,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def _described(entry: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in entry.shape]
    return {"name": entry.name, "datatype": _KINDS[entry.type], "shape": shape}


if __name__ == "__main__":
    ModelServer().start([OnnxModel(Path(os.environ["WETREAD_KSERVE_MODEL"]))])
