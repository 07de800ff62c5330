"""The listening socket of the embedded profile, as the web process gets it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import uvloop

from wetread.commands.processes import Child, Processes
from wetread.commands.up import Supervisor
from wetread.settings import Settings


class _NoProcesses(Processes):
    def add(self, names: Sequence[str], start: Callable[[], subprocess.Popen[bytes]]) -> Child:
        return cast("Child", None)


def test_the_last_packet_of_an_answer_does_not_wait_for_an_acknowledgement(tmp_path: Path) -> None:
    """uvicorn makes a socket of the inherited descriptor that does not say TCP, so the event loop sets no option."""
    supervisor = Supervisor(Settings(data=tmp_path, port=0), processes=_NoProcesses())
    supervisor.open()

    async def accepted() -> int:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[int] = loop.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken = transport.get_extra_info("socket")
                found.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        listening = supervisor._socket
        assert listening is not None
        inherited = socket.fromfd(listening.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
        async with await loop.create_server(Protocol, sock=inherited):
            with socket.create_connection(listening.getsockname()):
                return await asyncio.wait_for(found, 10)

    try:
        assert uvloop.run(accepted())
    finally:
        supervisor.close()
