"""The FFR engine as a KServe model server: ``python -m wetread.bootstrap.ffr_model_server`` with KServe's own flags.

For clusters that reach all models through KServe; Triton cannot host a solver. Needs the extra ``kserve``. Imported by
nobody: kserve reads the command line when it is imported. The body of a request is that of ``POST /api/v1/ffr``:

- V1, ``POST /v1/models/ffr:predict``: ``{"instances": [request, ...]}`` gives ``{"predictions": [...]}``, in order.
- V2, HTTP or gRPC: tensor ``request`` (BYTES, JSON documents) gives the tensor ``result``.

Each answer is ``{"result": ...}`` or, for an item at fault, ``{"problem": ...}``: one bad tree fails no other.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput

from wetread.adapters.telemetry.logs import configure_logging
from wetread.core.errors import WetreadError
from wetread.ffrct.parsing import parse_json
from wetread.ffrct.solving import solve_request

MODEL = "ffr"
MAX_ITEMS = 1024


class FfrModel(Model):  # type: ignore[misc]
    """Pressure, flow and FFR along vessel trees."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """Return the metadata of the input."""
        return [{"name": "request", "datatype": "BYTES", "shape": [-1]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """Return the metadata of the output."""
        return [{"name": "result", "datatype": "BYTES", "shape": [-1]}]

    async def predict(
        self, payload: dict[str, Any] | InferRequest, *_headers: Any, **_more: Any
    ) -> dict[str, Any] | InferResponse:
        """Answer every item in order. Raises InvalidInput for a body without items."""
        if isinstance(payload, dict):
            items = payload.get("instances")
            if not isinstance(items, list):
                raise InvalidInput("instances: a list of requests is needed")
            return {"predictions": await _answers(items)}
        [tensor] = [entry for entry in payload.inputs if entry.name == "request"] or [None]
        if tensor is None or tensor.datatype != "BYTES":
            raise InvalidInput("the tensor request of type BYTES is needed")
        answers = await _answers([_parsed(entry) for entry in tensor.as_numpy().ravel()])
        output = InferOutput("result", [len(answers)], "BYTES", data=[json.dumps(answer) for answer in answers])
        return InferResponse(
            response_id=payload.id or uuid4().hex,
            model_name=self.name,
            infer_outputs=[output],
            from_grpc=payload.from_grpc,
            requested_outputs=payload.request_outputs,
        )


async def _answers(items: list[Any]) -> list[dict[str, Any]]:
    if len(items) > MAX_ITEMS:
        raise InvalidInput(f"{len(items)} items; one call takes {MAX_ITEMS}")
    return await asyncio.to_thread(lambda: [_answer(item) for item in items])


def _answer(item: Any) -> dict[str, Any]:
    try:
        if isinstance(item, WetreadError):
            raise item
        return {"result": solve_request(item)}
    except WetreadError as error:
        return {"problem": error.problem()}


def _parsed(entry: bytes | str) -> Any:
    try:
        return parse_json(entry.encode() if isinstance(entry, str) else entry)
    except WetreadError as error:
        return error


if __name__ == "__main__":
    configure_logging("info")
    ModelServer().start([FfrModel()])
