"""What an ONNX file says, read as protobuf (onnx.proto3) without loading it: no engine sees a hostile file first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from wetread.detection.importing.errors import ImportRefused

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_TENSOR_BYTES: Final = 2 << 30
_MAX_DEPTH: Final = 16
_EXTERNAL: Final = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a checked file: the opset of the default domain, operators and number of weights."""

    opset: int
    operators: frozenset[str]
    parameters: int


def check(data: bytes) -> Summary:
    """Check *data* and summarise it.

    Raises ImportRefused: weights_damaged, path_outside or external_data, unknown_operator, tensor_too_large.
    """
    opset, operators, parameters = 0, set[str](), 0
    seen_graph = False
    for field, value in _fields(data):
        if field == 8 and isinstance(value, bytes):
            domain, version = _opset(value)
            if domain not in DOMAINS:
                raise ImportRefused("unknown_operator", f"operators of {domain[:60]!r}")
            opset = version if domain in {"", "ai.onnx"} else opset
        elif field == 7 and isinstance(value, bytes):
            seen_graph = True
            found, count = _graph(value, 0)
            operators |= found
            parameters += count
        elif field == 25:
            raise ImportRefused("unknown_operator", "local functions are not read")
    if not seen_graph or not opset:
        raise ImportRefused("weights_damaged", "not an ONNX model")
    return Summary(opset, frozenset(operators), parameters)


def _graph(data: bytes, depth: int) -> tuple[set[str], int]:
    if depth > _MAX_DEPTH:
        raise ImportRefused("weights_damaged", "graphs nested too deeply")
    operators, parameters = set[str](), 0
    for field, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if field == 5:
            parameters += _tensor(value)
        elif field == 1:
            found, count = _node(value, depth)
            operators |= found
            parameters += count
        elif field == 15:
            raise ImportRefused("unknown_operator", "sparse tensors are not read")
    return operators, parameters


def _node(data: bytes, depth: int) -> tuple[set[str], int]:
    operator, domain, found, count = "", "", set[str](), 0
    for field, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if field == 4:
            operator = value.decode("utf-8", "replace")
        elif field == 7:
            domain = value.decode("utf-8", "replace")
        elif field == 5:
            for part, inner in _fields(value):
                if isinstance(inner, bytes) and part in {5, 10}:
                    count += _tensor(inner)
                elif isinstance(inner, bytes) and part in {6, 11}:
                    nested, more = _graph(inner, depth + 1)
                    found |= nested
                    count += more
    if domain not in DOMAINS:
        raise ImportRefused("unknown_operator", f"operator {operator[:40]} of {domain[:60]!r}")
    return found | {operator}, count


def _tensor(data: bytes) -> int:
    sizes: list[int] = []
    for field, value in _fields(data):
        if field == 1:
            sizes += [value] if isinstance(value, int) else list(_packed(value))
        elif field == 13 and isinstance(value, bytes):
            _external(value)
        elif field == 14 and value == _EXTERNAL:
            raise ImportRefused("external_data")
    count = math.prod(sizes)
    if any(size < 0 or size > MAX_TENSOR_BYTES for size in sizes) or count * 4 > MAX_TENSOR_BYTES:
        raise ImportRefused("tensor_too_large")
    return count


def _external(data: bytes) -> None:
    pair = {field: value.decode("utf-8", "replace") for field, value in _fields(data) if isinstance(value, bytes)}
    if pair.get(1) == "location":
        path = PurePosixPath(pair.get(2, "").replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts
        raise ImportRefused("path_outside" if outside else "external_data")


def _opset(data: bytes) -> tuple[str, int]:
    domain, version = "", 0
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            domain = value.decode("utf-8", "replace")
        elif field == 2 and isinstance(value, int):
            version = value
    return domain, version


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a message as (number, varint or bytes); fixed-width numbers as bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(data, place)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise ImportRefused("weights_damaged", "not an ONNX model")
        if size > len(data) - place:
            raise ImportRefused("weights_damaged", "the file ends early")
        yield key >> 3, data[place : place + size]
        place += size


def _packed(data: bytes) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ImportRefused("weights_damaged", "not an ONNX model")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value - (1 << 64) if value >> 63 else value), place
        shift += 7
