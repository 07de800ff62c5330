"""The trace on its way to an inference server: a gRPC server of our own reads the metadata of the request."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from wetread.adapters.inference.triton import OipClient
from wetread.core import tracing
from wetread.core.errors import Unavailable
from wetread.core.manifest import TensorSpec, TensorSpecs
from wetread.core.ports.inference import NetworkFile
from wetread.detection.spans import SpanRecorder, finished_spans

pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="NOT RUN: the extra triton is not installed")
stubs = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")

ORDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LINE = TensorSpecs(inputs=(TensorSpec(name="x", shape=(-1, 2)),), outputs=(TensorSpec(name="p", shape=(-1, 2)),))


class Echo(stubs.GRPCInferenceServiceServicer):
    """Answers with its input and keeps the metadata of each request; ``full``: its queue is."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []
        self.full = False

    def ServerMetadata(self, request: object, context: object) -> object:
        return pb.ServerMetadataResponse(name="echo", version="1")

    def ModelInfer(self, request: object, context: object) -> object:
        self.metadata.append(dict(context.invocation_metadata()))
        if self.full:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        answer = pb.ModelInferResponse(model_name=request.model_name, raw_output_contents=request.raw_input_contents)
        answer.outputs.add(name="p", datatype="FP32", shape=request.inputs[0].shape)
        return answer


@pytest.fixture
def echo() -> Iterator[tuple[Echo, OipClient]]:
    found, server = Echo(), grpc.server(ThreadPoolExecutor(1))
    stubs.add_GRPCInferenceServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = OipClient(f"grpc://127.0.0.1:{port}", [NetworkFile("net", Path("net.onnx"), "0" * 64, 4, LINE)])
    yield found, client
    client.close()
    server.stop(None).wait()
    tracing.install(None)


def test_the_request_carries_the_span_of_the_client(echo: tuple[Echo, OipClient]) -> None:
    server, client = echo
    batch = {"x": np.array([[1.0, 2.0]], np.float32)}
    client.infer("net", batch)
    tracing.install(recorder := SpanRecorder())
    with tracing.continued(ORDER):
        np.testing.assert_array_equal(client.infer("net", batch)["p"], batch["x"])
    server.full = True
    with tracing.continued(ORDER), pytest.raises(Unavailable):
        client.infer("net", batch)
    first, second = finished_spans({"spans": recorder.take()})
    assert "traceparent" not in server.metadata[0], "no trace, no header"
    assert [each["traceparent"] for each in server.metadata[1:]] == [first.traceparent, second.traceparent]
    assert (first.kind, first.parent, first.error) == ("client", ORDER, None)
    assert first.attributes["rpc.method"] == "ModelInfer"
    assert first.attributes["wetread.network"] == "net"
    assert second.error == "InferenceServerException"
