"""A service: one frozen value that the composition root can run alone or with all others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Service:
    """``http``: an ASGI router to include (None: no HTTP face). ``queues``: what it takes work from.

    Building a service opens nothing; ``lifespan`` opens on enter and closes on exit.
    """

    name: str
    http: Any | None = None
    queues: tuple[str, ...] = ()
    lifespan: Lifespan = nullcontext
