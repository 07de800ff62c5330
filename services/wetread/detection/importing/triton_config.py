"""A Triton ``config.pbtxt`` read as data: which backend, which tensors. Protobuf text format, no protobuf library.

A repository is a program too: the python backend is refused (its ``model.py`` would run), and so is every backend that
is neither ONNX nor TorchScript.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from wetread.detection.importing.errors import ImportRefused

_MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 16
_TOKEN: Final = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<word>[\w.+-]+)|(?P<mark>[{}\[\]:,;<>])"""
)
_KINDS: Final[dict[str, Literal["onnx", "torchscript"]]] = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torchscript",
    "pytorch_libtorch": "torchscript",
}
Tensor = tuple[str, tuple[int, ...]]
Message = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """What a configuration says of a model; a tensor is its name and the sizes of one item, -1 is free."""

    backend: str
    kind: Literal["onnx", "torchscript"]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read(data: bytes) -> TritonConfig:
    """Read a configuration. Raises ImportRefused: unknown_format, code_in_weights, unknown_architecture."""
    if len(data) > _MAX_BYTES:
        raise ImportRefused("too_large", "a configuration larger than any")
    tokens = list(_tokens(data.decode("utf-8", "replace")))
    message, end = _message(tokens, 0, 0)
    if end != len(tokens):
        raise _damaged()
    backend = str(next(iter([*message.get("backend", []), *message.get("platform", [])]), ""))
    if backend == "python":
        raise ImportRefused("code_in_weights", "the python backend of a repository is a program")
    if backend not in _KINDS:
        raise ImportRefused("unknown_architecture", f"the backend {backend[:60]!r} is not read here")
    batched = any(_whole(v) > 0 for v in message.get("max_batch_size", []))
    return TritonConfig(
        backend,
        _KINDS[backend],
        _tensors(message, "input", batched=batched),
        _tensors(message, "output", batched=batched),
    )


def _tensors(message: Message, side: str, *, batched: bool) -> tuple[Tensor, ...]:
    """Read tensors; ``dims`` of a model without batching hold the batch axis, those of others do not."""
    found = []
    for item in message.get(side, []):
        if not isinstance(item, dict):
            raise _damaged()
        sizes = tuple(_whole(v) for v in item.get("dims", []))
        found.append((str(next(iter(item.get("name", [])), "")), sizes if batched else sizes[1:]))
    return tuple(found)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _damaged()
        place = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match.group()


def _message(tokens: list[tuple[str, str]], place: int, depth: int) -> tuple[Message, int]:
    """Read fields up to a closing brace or the end; every field is a list, repeated or not."""
    if depth > _MAX_DEPTH:
        raise _damaged()
    out: Message = {}
    while place < len(tokens):
        kind, text = tokens[place]
        if text in {"}", ">"} and kind == "mark":
            return out, place
        if kind == "mark" and text in {",", ";"}:
            place += 1
            continue
        if kind != "word":
            raise _damaged()
        values, place = _values(tokens, place + 1, depth)
        out.setdefault(text, []).extend(values)
    return out, place


def _values(tokens: list[tuple[str, str]], place: int, depth: int) -> tuple[list[Any], int]:
    if _mark(tokens, place) == ":":
        place += 1
    if _mark(tokens, place) != "[":
        value, place = _value(tokens, place, depth)
        return [value], place
    values, place = [], place + 1
    while _mark(tokens, place) != "]":
        if _mark(tokens, place) == ",":
            place += 1
            continue
        value, place = _value(tokens, place, depth)
        values.append(value)
    return values, place + 1


def _value(tokens: list[tuple[str, str]], place: int, depth: int) -> tuple[Any, int]:
    if place >= len(tokens):
        raise _damaged()
    kind, text = tokens[place]
    if kind == "mark":
        if text not in {"{", "<"}:
            raise _damaged()
        message, end = _message(tokens, place + 1, depth + 1)
        if _mark(tokens, end) not in {"}", ">"}:
            raise _damaged()
        return message, end + 1
    return (text[1:-1] if kind == "text" else text), place + 1


def _mark(tokens: list[tuple[str, str]], place: int) -> str:
    return tokens[place][1] if place < len(tokens) and tokens[place][0] == "mark" else ""


def _whole(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise _damaged() from None


def _damaged() -> ImportRefused:
    return ImportRefused("unknown_format", "config.pbtxt cannot be read")
