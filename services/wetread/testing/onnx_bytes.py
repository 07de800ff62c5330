"""A tiny ONNX model as bytes, written by hand: tests of engines need no ``onnx`` package.

Only what one elementwise graph needs of the ONNX protobuf (onnx.proto3, IR version 8).
"""

from __future__ import annotations

from collections.abc import Sequence

_FLOAT = 1


def elementwise_model(
    operator: str, *, input_name: str, output_name: str, shape: Sequence[int], opset: int = 17
) -> bytes:
    """Return a model that applies *operator* (such as ``Sigmoid``) to one float tensor; -1 in *shape* is free."""
    node = _bytes(1, input_name.encode()) + _bytes(2, output_name.encode()) + _bytes(4, operator.encode())
    graph = (
        _bytes(1, node)
        + _bytes(2, b"graph")
        + _bytes(11, _value_info(input_name, shape))
        + _bytes(12, _value_info(output_name, shape))
    )
    opset_import = _bytes(1, b"") + _integer(2, opset)
    return _integer(1, 8) + _bytes(7, graph) + _bytes(8, opset_import)


def _value_info(name: str, shape: Sequence[int]) -> bytes:
    dimensions = b"".join(_bytes(1, _bytes(2, b"N") if size == -1 else _integer(1, size)) for size in shape)
    tensor_type = _integer(1, _FLOAT) + _bytes(2, dimensions)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor_type))


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
