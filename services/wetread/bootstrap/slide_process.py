"""The process that analyses one slide of the archive: ``python -m wetread.bootstrap.slide_process --pipe N``.

Gets an order through the pipe, tells its progress and its answer through it, and ends with its parent.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings

from wetread.core.errors import ComputationFailed, StorageFull, WetreadError
from wetread.core.lifeline import PARENT_VARIABLE, die_with_parent

logger = logging.getLogger("wetread.pathology.process")
_REPORT_SECONDS: Final = 1.0
_TRANSIENT: Final = frozenset({"unavailable", "slide_changed"})
"""Reasons of a stopped run that asking again may cure: it goes on from its parts."""


def carry_out(order: Mapping[str, Any], pipe: Connection) -> dict[str, Any]:
    """Return the answer to *order*: ``{"result": ...}`` or ``{"failed": reason, "detail": ..., "transient": ...}``."""
    from wetread.bootstrap.pathology import missing_packages

    missing = missing_packages(("simplejpeg", "pyarrow"))
    if missing:
        detail = f"slides need packages that are not installed ({', '.join(missing)}): pip install 'wetread[pathology]'"
        return {"failed": "model_unavailable", "detail": detail, "transient": False}
    try:
        return {"result": _analyse(order, pipe)}
    except ComputationFailed as error:
        return _failed(error, error.reason, transient=error.reason in _TRANSIENT)
    except StorageFull as error:
        return _failed(error, "storage_full", transient=False)
    except MemoryError as error:
        return _failed(error, "out_of_memory", transient=False)
    except WetreadError as error:
        return _failed(error, "crashed", transient=error.transient)
    except Exception as error:  # noqa: BLE001 - whatever happens, the parent gets an answer
        return _failed(error, "crashed", transient=False)


def _analyse(order: Mapping[str, Any], pipe: Connection) -> dict[str, Any]:
    from wetread.bootstrap.cores import usable_cores
    from wetread.bootstrap.pathology import WORKER, pool_maker
    from wetread.bootstrap.slides import SlideLocation, stored_location
    from wetread.bootstrap.stores import artifact_store
    from wetread.core.findings import Run
    from wetread.pathology.task import Bench, SlideOrder, analyse
    from wetread.pathology.tile_model import load_tile_model
    from wetread.settings import Settings

    settings = Settings()
    run = Run.model_validate(order["run"])
    # One core stays free: what is dangerous comes in while a slide is read.
    workers = settings.slide_workers or max(usable_cores() - 1, 1)
    bench = Bench(load_tile_model(run.detector), WORKER, pool_maker("process", workers), artifact_store(settings))
    with SlideLocation(stored_location(order["levels"])) as place:
        told = _Teller(pipe)
        result = analyse(SlideOrder(run, order["parameters"], Path(order["folder"])), place, bench, told.tell)
        told.last()
    return result.model_dump(mode="json", by_alias=True)


class _Teller:
    """Sends counts to the parent, once a second at most."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._sent, self._latest = pipe, 0.0, dict[str, float]()

    def tell(self, progress: Any) -> None:
        """Take the counts after a chunk."""
        self._latest = {
            "total": progress.total,
            "finished": progress.finished,
            "resumed": progress.resumed,
            "done": progress.done,
            "failed": progress.failed,
            "recomputed": progress.recomputed,
            "quarantined": len(progress.quarantined),
            **dict(zip(("read", "infer", "measure", "write"), progress.seconds, strict=True)),
        }
        if time.monotonic() - self._sent >= _REPORT_SECONDS:
            self.last()

    def last(self) -> None:
        """Send what is known."""
        if self._latest:
            self._sent = time.monotonic()
            self._pipe.send_bytes(json.dumps({"progress": self._latest}).encode())


def _failed(error: BaseException, reason: str, *, transient: bool) -> dict[str, Any]:
    """Return the answer of a failed run. Messages of libraries may hold header values: only ours are passed on."""
    logger.error("slide run failed with %s", type(error).__name__)
    detail = error.detail if isinstance(error, WetreadError) else f"the run failed with {type(error).__name__}"
    return {"failed": reason, "detail": detail, "transient": transient}


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one order. Exit code 0 once an answer is sent."""
    parser = argparse.ArgumentParser(prog="wetread-slide-process")
    parser.add_argument("--pipe", type=int, required=True)
    given = parser.parse_args(arguments)
    parent = os.environ.pop(PARENT_VARIABLE, "")
    die_with_parent(int(parent) if parent else None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pydicom_settings.reading_validation_mode = IGNORE
    pipe = Connection(given.pipe)
    order = json.loads(pipe.recv_bytes())
    pipe.send_bytes(json.dumps(carry_out(order, pipe)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
