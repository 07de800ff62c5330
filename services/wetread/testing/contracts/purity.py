"""Catching what a pure function must not do: open files or sockets, start processes, look at the clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

_FORBIDDEN: Final = ("open", "socket.", "subprocess.", "os.", "shutil.", "tempfile.", "ctypes.dlopen")
_CLOCKS: Final = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "process_time",
    "sleep",
)
_watching: list[list[str]] = []


def _audit(event: str, _arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(_FORBIDDEN):
        _watching[-1].append(event)


_installed = False


@contextmanager
def impurities() -> Iterator[list[str]]:
    """Record forbidden deeds of the enclosed code: audit events (PEP 578) and calls of clocks.

    Run the code once before, so that lazy imports are over.
    """
    global _installed  # noqa: PLW0603 - an audit hook cannot be taken away again, so it is installed once
    if not _installed:
        sys.addaudithook(_audit)
        _installed = True
    seen: list[str] = []

    def clock(name: str) -> Callable[..., Any]:
        def called(*_arguments: Any) -> float:
            seen.append(f"time.{name}")
            return 0.0

        return called

    with ExitStack() as patches:
        for name in _CLOCKS:
            patches.enter_context(mock.patch.object(time, name, clock(name)))
        _watching.append(seen)
        try:
            yield seen
        finally:
            _watching.pop()
