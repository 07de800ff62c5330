"""Short work beside the event loop: a look into the index, a read from a segment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_THREADS: Final = ThreadPoolExecutor(40, thread_name_prefix="gateway")


async def beside(
    work: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Return what *work* returns, run in a thread; an awaiting request that is cancelled does not wait for its end.

    anyio's ``run_sync`` does so, with limits and scopes that cost more than the work: it is for what has to be waited
    for, or limited.
    """
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(context.run, work, *arguments, **named))
