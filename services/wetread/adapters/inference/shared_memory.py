"""System shared memory between a worker and the inference server of its machine: tensors never cross a socket.

One region for inputs and one for outputs, kept as long as the client and replaced when a request needs more:
unregistering right after a large request fails on Triton, so it is done at the end and repeated.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np

from wetread.core.detector import Array

_PREFIX: Final = "wetread"
_ALIGN: Final = 64
_PLACE: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux


class _Region:
    """A file in shared memory, mapped here and registered with the server."""

    def __init__(self, client: Any, size: int) -> None:
        self.size = size
        self.name = f"{_PREFIX}-{os.getpid()}-{uuid4().hex[:12]}"
        self._client = client
        path = _PLACE / self.name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
            client.register_system_shared_memory(self.name, f"/{self.name}", size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def write(self, array: Array, offset: int) -> None:
        """Copy an array in."""
        np.frombuffer(self._memory, array.dtype, array.size, offset)[:] = array.reshape(-1)

    def read(self, kind: type[np.generic], shape: tuple[int, ...], offset: int) -> Array:
        """Copy an array out."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._memory, kind, count, offset).reshape(shape).copy()

    def close(self) -> None:
        """Unregister and remove."""
        (_PLACE / self.name).unlink(missing_ok=True)
        _unregister(self._client, self.name)
        self._memory.close()


class Regions:
    """The regions of one client. Outputs are copied before a region is used again."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._regions: dict[str, _Region] = {}
        self._old: list[_Region] = []
        remove_orphans(client)

    def attach(
        self,
        inputs: Sequence[Any],
        arrays: Sequence[Array],
        outputs: Sequence[Any],
        shapes: Sequence[tuple[int, ...]],
        kinds: Sequence[type[np.generic]],
    ) -> Callable[[Any], list[Array]]:
        """Write *arrays*, point the request's inputs and outputs to regions; return what takes the answer."""
        offsets, size = _layout([array.nbytes for array in arrays])
        region = self._region("in", size)
        for entry, array, offset in zip(inputs, arrays, offsets, strict=True):
            region.write(array, offset)
            entry.set_shared_memory(region.name, array.nbytes, offset=offset)
        lengths = [
            int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
            for shape, kind in zip(shapes, kinds, strict=True)
        ]
        places, room = _layout(lengths)
        answer = self._region("out", room)
        for wanted, length, place in zip(outputs, lengths, places, strict=True):
            wanted.set_shared_memory(answer.name, length, offset=place)

        def take(_result: Any) -> list[Array]:
            return [answer.read(kind, shape, place) for kind, shape, place in zip(kinds, shapes, places, strict=True)]

        return take

    def close(self) -> None:
        """Unregister and remove all regions. May be called twice."""
        while self._regions:
            self._old.append(self._regions.popitem()[1])
        while self._old:
            self._old.pop().close()

    def _region(self, use: str, size: int) -> _Region:
        known = self._regions.get(use)
        if known is not None and known.size >= size:
            return known
        if known is not None:
            self._old.append(self._regions.pop(use))
        self._regions[use] = made = _Region(self._client, 1 << max(size - 1, 1).bit_length())
        return made


def remove_orphans(client: Any) -> None:
    """Remove regions whose worker was killed: nobody else will."""
    for path in _PLACE.glob(f"{_PREFIX}-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            _unregister(client, path.name)
            path.unlink(missing_ok=True)


def _unregister(client: Any, name: str) -> None:
    from tritonclient.utils import InferenceServerException

    for pause in (0.0, 0.05, 0.2, 0.5):
        time.sleep(pause)
        try:
            client.unregister_system_shared_memory(name, client_timeout=5)
        except InferenceServerException as error:
            if "UNAVAILABLE" in str(error.status()):
                return  # the server is gone, and its mappings with it
        else:
            return


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return aligned offsets, and the size of all."""
    offsets, position = [], 0
    for size in sizes:
        offsets.append(position)
        position += -(-size // _ALIGN) * _ALIGN
    return offsets, max(position, _ALIGN)
