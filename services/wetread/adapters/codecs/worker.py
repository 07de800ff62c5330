"""The codec process: one order at a time over a socket pair; ends when its parent's end of the socket closes.

An order is two messages, a JSON head and the bytes it is about; so is the answer. Started by ``adapters.codecs.pool``
as ``python -m wetread.adapters.codecs.worker --pipe FD --memory BYTES --decoded BYTES``.
"""

from __future__ import annotations

import argparse
import resource
import signal
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import orjson
from pydicom.config import IGNORE, settings

from wetread.adapters.codecs import frames
from wetread.adapters.codecs.transcode import transcode
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout


def serve(pipe: Connection, decoded_bytes: int) -> None:
    """Answer orders until the other end closes."""
    pipe.send_bytes(orjson.dumps({"targets": sorted(frames.targets())}))
    while True:
        try:
            order, body = orjson.loads(pipe.recv_bytes()), pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            head, answer = _carry_out(order, body, decoded_bytes)
        except NotProcessable as error:
            head, answer = {"reason": error.reason, "detail": error.detail}, b""
        except MemoryError:
            head, answer = {"reason": "decode_error", "detail": "the pixel data need too much memory"}, b""
        try:
            pipe.send_bytes(orjson.dumps(head))
            pipe.send_bytes(answer)
        except OSError:
            return


def _carry_out(order: Mapping[str, Any], body: bytes, decoded_bytes: int) -> tuple[dict[str, Any], bytes]:
    if order["do"] == "transcode":
        return {}, transcode(body, order["syntax"], decoded_bytes=decoded_bytes)
    layout = FrameLayout(**order["layout"])
    if order["do"] == "pack":
        return {}, frames.encode_frame(body, layout, order["syntax"])
    samples = asdict(frames.decode_frame(body, order["syntax"], layout, rgb=order["rgb"]))
    values: bytes = samples.pop("values")
    return samples, values


def main() -> None:
    """Read the command line, limit the process, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--decoded", type=int, required=True)
    given = parser.parse_args()
    # The parent decides when to stop: an interrupt from the terminal goes to the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A code stream that makes a codec allocate without end fails here instead of taking the machine along.
    resource.setrlimit(resource.RLIMIT_AS, (given.memory, given.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # pydicom's warnings about odd values quote them: patient data must not reach a log.
    settings.reading_validation_mode = IGNORE
    settings.writing_validation_mode = IGNORE
    serve(Connection(given.pipe), given.decoded)


if __name__ == "__main__":
    main()
