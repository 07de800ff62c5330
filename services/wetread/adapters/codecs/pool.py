"""Codec processes seen from the gateway: started when first needed, replaced when they die, killed when they hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any, Final

import orjson

from wetread.adapters.codecs.frames import targets
from wetread.core.errors import NotProcessable, Unavailable
from wetread.core.ports.pixels import FrameLayout, FrameSamples

_START_SECONDS: Final = 60.0
_THREAD_LIMITS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class CodecPool:
    """``FrameCodecs`` over at most ``processes`` codec processes.

    ``seconds``: an order that takes longer costs the process its life. ``memory_bytes``: address space of a process.
    ``decoded_bytes``: uncompressed pixel data of one transcoded instance. Building it starts nothing.
    """

    def __init__(
        self,
        processes: int = 2,
        *,
        seconds: float = 60.0,
        memory_bytes: int = 6 << 30,
        decoded_bytes: int = 1 << 30,
    ) -> None:
        self._seconds = seconds
        self._limits = ["--memory", str(memory_bytes), "--decoded", str(decoded_bytes)]
        self._turns = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._closed = False

    @cached_property
    def targets(self) -> frozenset[str]:
        """Compressed transfer syntaxes that there is an encoder for."""
        return targets()

    def unpack(self, frame: bytes, transfer_syntax_uid: str, layout: FrameLayout, *, rgb: bool) -> FrameSamples:
        """Return the values of a compressed frame."""
        order = {"do": "unpack", "syntax": transfer_syntax_uid, "layout": asdict(layout), "rgb": rgb}
        head, values = self._order(order, frame)
        return FrameSamples(values, head["dtype"], tuple(head["shape"]), head["photometric"])

    def pack(self, values: bytes, layout: FrameLayout, transfer_syntax_uid: str) -> bytes:
        """Return native values as one losslessly compressed frame."""
        return self._order({"do": "pack", "syntax": transfer_syntax_uid, "layout": asdict(layout)}, values)[1]

    def transcode(self, stored: bytes, transfer_syntax_uid: str) -> bytes:
        """Return a PS3.10 file in another transfer syntax."""
        return self._order({"do": "transcode", "syntax": transfer_syntax_uid}, stored)[1]

    def close(self) -> None:
        """End the processes; those at work end with their order. The pool can be used no more."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _order(self, order: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        with self._turns:
            process = self._take()
            try:
                head, answer = process.order(orjson.dumps(order), body, self._seconds)
            except BaseException:
                process.close()
                raise
            self._give_back(process)
        if "reason" in head:
            raise NotProcessable(head["reason"], head["detail"])
        return head, answer

    def _take(self) -> _Process:
        while True:
            with self._lock:
                if self._closed:
                    msg = "the server is stopping"
                    raise Unavailable(msg)
                process = self._idle.pop() if self._idle else None
            if process is None:
                return _Process(self._limits)
            if process.alive:
                return process
            process.close()

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        process.close()


class _Process:
    """One codec process; used by one thread at a time."""

    def __init__(self, limits: list[str]) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "wetread.adapters.codecs.worker", "--pipe", str(theirs.fileno()), *limits]
        path = os.pathsep.join(part for part in sys.path if part)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env={**os.environ, "PYTHONPATH": path, **dict.fromkeys(_THREAD_LIMITS, "1")},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pipe = Connection(ours.detach())
        self._greeted = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def order(self, head: bytes, body: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Have one order carried out. Raises NotProcessable("codec_lost")."""
        try:
            if not self._greeted:
                self._receive(_START_SECONDS)
                self._greeted = True
            deadline = time.monotonic() + seconds
            self._pipe.send_bytes(head)
            self._pipe.send_bytes(body)
            answer: dict[str, Any] = orjson.loads(self._receive(deadline - time.monotonic()))
            return answer, self._receive(max(deadline - time.monotonic(), 1.0))
        except (EOFError, OSError) as error:
            raise NotProcessable("codec_lost", "the stored pixel data cannot be processed") from error

    def close(self) -> None:
        """End the process and release everything."""
        with suppress(OSError):
            self._pipe.close()
        if self.alive:
            self._process.kill()
        self._process.wait()

    def _receive(self, seconds: float) -> bytes:
        if not self._pipe.poll(seconds):
            raise NotProcessable("codec_lost", "processing the stored pixel data takes too long")
        return self._pipe.recv_bytes()
