"""What a weight file would load, read without loading it: a pickle is a program (``pickletools``, no execution)."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wetread.detection.importing.errors import ImportRefused

_TORCH: Final = frozenset(
    f"torch {kind}Storage"
    for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped")
)
_HARMLESS: Final = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch Size",
        "torch device",
        *_TORCH,
        *(name.replace("torch ", "torch.cuda ") for name in _TORCH),
    }
)
_MAX_PICKLE: Final = 64 << 20
_LEGACY_PICKLES: Final = 5
"""A file of torch before 1.6: magic number, protocol, system, the object, storage keys; then raw numbers."""
_BUILDERS: Final = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"})
"""Operations that torch never writes. STACK_GLOBAL takes its name from the stack, where it can be hidden."""


def check(path: Path) -> None:
    """Refuse a state dict whose pickle names anything but tensors. Raises ImportRefused."""
    for stream in _streams(path):
        _check(stream)


def _streams(path: Path) -> Iterator[bytes]:
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith(".pkl"):
                        with archive.open(entry) as file:
                            data = file.read(_MAX_PICKLE + 1)
                        if len(data) > _MAX_PICKLE:
                            raise ImportRefused("too_large", "a pickle larger than any list of tensors")
                        yield data
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise ImportRefused("weights_damaged") from error
        return
    data = path.read_bytes()
    with io.BytesIO(data) as file:
        for _ in range(_LEGACY_PICKLES):
            start = file.tell()
            if start >= len(data):
                return
            end = _end(data, start)
            yield data[start:end]
            file.seek(end)


def _end(data: bytes, start: int) -> int:
    with io.BytesIO(data[start : start + _MAX_PICKLE]) as part:
        try:
            for _ in pickletools.genops(part):
                pass
        except (ValueError, EOFError, IndexError) as error:
            raise ImportRefused("weights_damaged") from error
        return start + part.tell()


def _check(data: bytes) -> None:
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name == "GLOBAL":
                _allow(str(argument))
            elif operation.name in _BUILDERS:
                raise ImportRefused("code_in_weights", f"the pickle builds an object ({operation.name})")
    except (ValueError, EOFError, IndexError) as error:
        raise ImportRefused("weights_damaged") from error


def _allow(name: str) -> None:
    if name not in _HARMLESS:
        raise ImportRefused("code_in_weights", f"the pickle names {name.replace(' ', '.')[:80]}")
