"""Several web processes at one port: this process accepts connections and hands each to whoever has least to do.

The kernel's own ways of sharing a port know nothing of that: one listening socket in several processes gives a
connection to whichever wakes first, ``SO_REUSEPORT`` to whichever the hash of its address says (ADR 0208). A process
that dies is forked anew; this one does nothing else, so that it has nothing to die of.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from wetread.bootstrap.crew import READY, Page, Place
from wetread.commands.listening import listen
from wetread.commands.processes import BACKOFF_SECONDS, STEADY_SECONDS
from wetread.core.errors import ConfigurationError
from wetread.core.lifeline import die_with_parent
from wetread.registry import SERVICES
from wetread.settings import Settings

logger = logging.getLogger("wetread.web")

_GRACE_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 0.05
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_UNUSABLE: Final = 2
"""Exit status of a process that cannot work with this configuration: starting it again changes nothing."""


@dataclass(slots=True)
class _Member:
    """One process. ``given``: connections handed to it. ``door``: None while it does not run."""

    number: int
    pid: int = 0
    door: socket.socket | None = None
    ready: bool = False
    leaving: bool = False
    given: int = 0
    started: float = 0.0
    deaths: int = 0
    restart_at: float | None = 0.0


class Crew:
    """The parent. ``serve`` is what a process does at its place, and returns its exit status."""

    def __init__(self, listener: socket.socket, size: int, serve: Callable[[Place], int], *, metrics: str) -> None:
        self._listener = listener
        self._serve = serve
        self._metrics = metrics
        self._page = Page(size)
        self._members = [_Member(number) for number in range(size)]
        self._turn = 0
        self._selector = selectors.DefaultSelector()
        self._accepting = False
        self._unplaced: list[socket.socket] = []
        self._settled = False
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT."""
        self._listener.setblocking(False)
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        # Signals that come while the selector waits end the wait.
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(wake, selectors.EVENT_READ)
        try:
            while not self._stopping:
                pause = _PAUSE_SECONDS if self._unplaced else self._start_some()
                for key, _ in self._selector.select(pause):
                    if key.fileobj is wake:
                        with contextlib.suppress(BlockingIOError):
                            wake.recv(4096)
                        self._reap()
                    elif key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._hear(key.data)
                self._open_or_close()
        finally:
            self._end()
        return self._status

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start_some(self) -> float | None:
        """Start whoever is due; return the seconds until somebody else is (None: nobody)."""
        if any(member.pid and not member.ready and not member.leaving for member in self._members):
            return None  # one at a time: the first makes the tables, and all share the cores
        waiting = [member for member in self._members if member.restart_at is not None]
        if not waiting:
            return None
        first = min(waiting, key=lambda member: member.restart_at or 0.0)
        pause = (first.restart_at or 0.0) - time.monotonic()
        if pause > 0:
            return pause
        self._start(first)
        return None

    def _start(self, member: _Member) -> None:
        ours, theirs = socket.socketpair()
        self._page.leave(member.number)
        member.given, member.ready, member.leaving = 0, False, False
        member.restart_at, member.started = None, time.monotonic()
        parent = os.getpid()
        # A signal that comes while the child still has this process's handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        member.pid = os.fork()
        if member.pid == 0:
            self._become(Place(member.number, self._page, theirs, self._metrics), parent, ours)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.setblocking(False)
        member.door = ours
        self._selector.register(ours, selectors.EVENT_READ, member)

    def _become(self, place: Place, parent: int, ours: socket.socket) -> None:
        """Be a process of the crew; never returns."""
        status = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in (*_SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._selector.close()
            self._listener.close()
            for door in (ours, *(member.door for member in self._members)):
                if door is not None:
                    door.close()
            status = self._serve(place)
        except SystemExit as leaving:  # it has said why, for example that the database is away
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 - nothing of the parent may run in here
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _hear(self, member: _Member) -> None:
        if member.door is None:
            return
        try:
            told = member.door.recv(1)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if told == READY:
            member.ready = self._settled = True
        else:
            self._shut(member)

    def _shut(self, member: _Member) -> None:
        """Give a process no more connections."""
        member.ready, member.leaving = False, True
        if member.door is not None:
            self._selector.unregister(member.door)
            member.door.close()
            member.door = None

    def _reap(self) -> None:
        now = time.monotonic()
        for member in self._members:
            if member.restart_at is not None or not member.pid:
                continue
            pid, status = os.waitpid(member.pid, os.WNOHANG)
            if pid == 0:
                continue
            self._shut(member)
            member.pid = 0
            self._page.leave(member.number)
            member.deaths = 0 if now - member.started > STEADY_SECONDS else member.deaths + 1
            member.restart_at = now + BACKOFF_SECONDS[min(member.deaths, len(BACKOFF_SECONDS) - 1)]
            code = os.waitstatus_to_exitcode(status)
            if not self._settled or code == _UNUSABLE:
                # The server has not started at all: whoever started it has to know.
                self._status, self._stopping = code if code > 0 else 1, True

    def _open_or_close(self) -> None:
        """Accept while there is somebody to hand a connection to; until then they wait in the backlog."""
        self._unplaced = [connection for connection in self._unplaced if not self._place(connection)]
        wanted = not self._unplaced and any(member.ready for member in self._members)
        if wanted and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._accepting and not wanted:
            self._selector.unregister(self._listener)
        self._accepting = wanted

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        except OSError:
            time.sleep(_PAUSE_SECONDS)  # there are no descriptors left: what waits stays in the backlog
            return
        if not self._place(connection):
            self._unplaced.append(connection)

    def _place(self, connection: socket.socket) -> bool:
        """Hand a connection over; False when nobody can take it now."""
        for member in self._by_load():
            if member.door is None:
                continue
            try:
                socket.send_fds(member.door, [b"c"], [connection.fileno()])
            except BlockingIOError:
                continue
            except OSError:
                self._shut(member)
                continue
            connection.close()
            member.given += 1
            self._turn = member.number
            return True
        return False

    def _by_load(self) -> list[_Member]:
        """Return who can take a connection: fewest requests first, then fewest connections, then whose turn it is.

        What is on its way to a process counts as a request and a connection.
        """

        def load(member: _Member) -> tuple[int, int, int]:
            coming = max(member.given - self._page.taken(member.number), 0)
            after = (member.number - self._turn - 1) % len(self._members)
            number = member.number
            return self._page.requests(number) + coming, self._page.connections(number) + coming, after

        return sorted((member for member in self._members if member.ready), key=load)

    def _end(self) -> None:
        """End the processes: politely, then not."""
        alive = [member for member in self._members if member.pid and member.restart_at is None]
        for member in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while alive and time.monotonic() < deadline:
            alive = [member for member in alive if os.waitpid(member.pid, os.WNOHANG)[0] == 0]
            time.sleep(0.02)
        for member in alive:
            os.kill(member.pid, signal.SIGKILL)
            os.waitpid(member.pid, 0)
        for member in self._members:
            self._shut(member)
        for connection in self._unplaced:
            connection.close()
        signal.set_wakeup_fd(-1)
        self._selector.close()


def run_crew(names: Sequence[str], settings: Settings, size: int, *, fd: int | None) -> int:
    """Serve *names* in *size* processes at one port."""
    try:
        listener = listen(settings) if fd is None else socket.socket(fileno=fd)
    except OSError as error:
        print(f"wetread: cannot listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)
        return 3
    # What every process needs is imported once: they share its memory, and one that died is back at once.
    for name in names:
        import_module(SERVICES[name].partition(":")[0])
    for module in ("house", "inputs", "server", "web"):
        import_module(f"wetread.bootstrap.{module}")
    gc.collect()
    gc.freeze()
    # Of this server alone, and made anew: what a killed one has left is neither counted on nor kept.
    metrics = settings.data / "metrics" / "-".join([settings.instance or "web", *names])
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    logger.info("listening", extra={"address": "{}:{}".format(*listener.getsockname()[:2]), "processes": size})
    try:
        return Crew(listener, size, lambda place: _serve(names, settings, place), metrics=str(metrics)).run()
    finally:
        listener.close()
        shutil.rmtree(metrics, ignore_errors=True)


def _serve(names: Sequence[str], settings: Settings, place: Place) -> int:
    from wetread.bootstrap.house import open_house
    from wetread.bootstrap.server import run_web

    with open_house(settings, names, place) as house:
        try:
            services = house.services(names)
        except ConfigurationError as error:
            print(f"wetread: {error.detail}", file=sys.stderr)
            return _UNUSABLE
        run_web(house.application(services), settings, house.stopping, place=place)
    return 0
