"""Computed once: whoever asks for what is being computed waits for it; results stay while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

_SHARE: Final = 4
"""One result may take this part of the room, so that a large one does not push everything else out."""


class SingleFlight:
    """A byte-bounded cache, least recently used out first. Thread-safe; failures are not kept.

    Keys carry the tenant and a digest of the content, so nothing in it ever becomes wrong.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[Any]] = {}
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.bytes = 0
        """Bytes of what is kept."""

    def get(self, key: Hashable, compute: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """Return the value of *key*, computing it when nobody has. Raises what *compute* raises."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                found: Value = self._kept[key][0]
                return found
            waiting = self._running.get(key)
            mine: Future[Any] = Future()
            if waiting is None:
                self._running[key] = mine
        if waiting is not None:
            shared: Value = waiting.result()
            return shared
        try:
            value = compute()
        except BaseException as error:
            with self._lock:
                del self._running[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._keep(key, value, size(value))
        mine.set_result(value)
        return value

    def _keep(self, key: Hashable, value: Any, size: int) -> None:
        if size > self._limit // _SHARE:
            return
        self._kept[key] = value, size
        self.bytes += size
        while self.bytes > self._limit:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.bytes -= dropped
