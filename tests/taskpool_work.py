"""What pool workers do in tests: sums, errors, deaths."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from wetread.core.errors import StorageFull


def build(arguments):
    offset = arguments["offset"]
    if offset == "broken":
        raise StorageFull("no room to start")

    def run(payload):
        match payload:
            case {"die": marker}:
                if marker is True or not Path(marker).exists():
                    if marker is not True:
                        Path(marker).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            case {"sleep": seconds}:
                time.sleep(seconds)
            case {"raise": "ours"}:
                raise StorageFull("disk")
            case {"raise": _}:
                raise KeyError("patient name")
        return payload.get("value", 0) + offset

    return run


class ChunkBehaviour:
    """Chunks that end as told by their first tile: ``{tile: "die" | "error" | "stop" | "no model"}``."""

    def __init__(self, arguments):
        self.guilty = {int(k): v for k, v in arguments["guilty"].items()}

    def __call__(self, chunk):
        from wetread.core.errors import ComputationFailed
        from wetread.pathology.chunk import ChunkResult
        from wetread.pathology.errors import SlideChanged

        for tile in range(chunk.first, chunk.first + chunk.count):
            what = self.guilty.get(tile)
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "error":
                raise ComputationFailed("crashed", "bad tile")
            if what == "stop":
                raise SlideChanged("other bytes")
            if what == "no model":
                raise ComputationFailed("model_unavailable", "no network is called he-tile")
        return ChunkResult(chunk.first, chunk.count, 0, (0.0, 0.0, 0.0, 0.0))
