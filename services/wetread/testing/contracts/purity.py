"""Catching what a pure function must not do: open files or sockets, start processes or threads, look at the clock."""

from __future__ import annotations

import sys
import threading
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
_watching: list[tuple[int, list[str]]] = []
"""Threads under watch, each with what was seen. What other threads do is their own affair."""


def _audit(event: str, _arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(_FORBIDDEN) and _watching[-1][0] == threading.get_ident():
        _watching[-1][1].append(event)


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
    watched = threading.get_ident()

    def clock(name: str) -> Callable[..., Any]:
        real = getattr(time, name)

        def called(*arguments: Any) -> Any:
            if threading.get_ident() != watched:
                return real(*arguments)
            seen.append(f"time.{name}")
            return 0.0

        return called

    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if threading.get_ident() == watched:
            seen.append("threading.Thread.start")
        start(thread)

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(threading.Thread, "start", started))
        for name in _CLOCKS:
            patches.enter_context(mock.patch.object(time, name, clock(name)))
        _watching.append((watched, seen))
        try:
            yield seen
        finally:
            _watching.pop()
