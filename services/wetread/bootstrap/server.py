"""The HTTP server of one web process: it listens itself, or takes the connections that its parent hands it."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from wetread.bootstrap.crew import READY, STOPPING, Place
from wetread.bootstrap.http_protocol import GuardedHttpProtocol
from wetread.settings import Settings

_AT_ONCE: Final = 16
"""Handed over connections that are taken in one go, before anything else is done."""


def run_web(
    app: ASGIApp, settings: Settings, stopping: threading.Event, *, fd: int | None = None, place: Place | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. ``fd``: a listening socket. ``place``: connections come by its door instead."""
    door = None if place is None else place.door
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        fd=fd,
        loop="uvloop",
        http=GuardedHttpProtocol if place is None else _noting(place),
        ws="websockets-sansio",
        ws_ping_interval=30,
        access_log=False,  # query strings hold patient data
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=10,
        proxy_headers=False,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config, stopping) if place is None or door is None else _CrewServer(config, stopping, place, door)
    server.run()


class _Server(uvicorn.Server):
    """Tells open event streams to end before the server waits for them, and ends by returning."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, gracefully at the first signal."""
        self._stopping.set()
        super().handle_exit(sig, frame)
        # Raised again at the end, it would kill the process before it has closed what it opened.
        self._captured_signals.clear()


class _CrewServer(_Server):
    """Takes connections that were accepted by the parent."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event, place: Place, door: socket.socket) -> None:
        super().__init__(config, stopping)
        self._place = place
        self._door = door
        self._opening: set[asyncio.Task[Any]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ask for no more connections; those on their way are taken while the loop ends."""
        self._tell(STOPPING)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Start the application, then tell the parent."""
        await super().startup(sockets=[])
        self._door.setblocking(False)
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._take)
        self._tell(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """End what is open."""
        asyncio.get_running_loop().remove_reader(self._door.fileno())
        self._door.close()
        await super().shutdown(sockets=[])

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                message, handed, _, _ = socket.recv_fds(self._door, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                message, handed = b"", []
            if not message:  # the parent has gone
                self.should_exit = True
                asyncio.get_running_loop().remove_reader(self._door.fileno())
                return
            for descriptor in handed:
                self._open(socket.socket(fileno=descriptor))

    def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        made: Any = self.config.http_protocol_class
        protocol = partial(
            made,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self._place.page.note_taken(self._place.number)
        task = loop.create_task(self._connect(loop, protocol, connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, loop: asyncio.AbstractEventLoop, protocol: Any, connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(protocol, connection)
        except OSError:
            connection.close()  # it broke meanwhile

    def _tell(self, what: bytes) -> None:
        try:
            self._door.send(what)
        except OSError:
            self.should_exit = True


def _noting(place: Place) -> type[GuardedHttpProtocol]:
    """Return the protocol that tells the crew how many connections its process has."""

    class NotingHttpProtocol(GuardedHttpProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            place.page.note_connections(place.number, len(self.connections))

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            place.page.note_connections(place.number, len(self.connections))

    return NotingHttpProtocol
