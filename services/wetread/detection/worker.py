"""The worker process of ``detection``: warm detectors and sessions behind one pipe, one run at a time.

Started by ``runner.WorkerProcess`` as ``python -m wetread.detection.worker``; ends when its parent ends, however
that happens. Speaks JSON messages over the inherited pipe: a hello with the engine's identity, then one answer per
order.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from wetread.core import tracing
from wetread.core.detector import BaseDetector
from wetread.core.errors import ComputationFailed, ConfigurationError, WetreadError
from wetread.core.findings import Run
from wetread.core.ports.objects import ObjectRef
from wetread.core.priors import Priors
from wetread.detection import registry
from wetread.detection.artifact import explanation_bytes, maps_bytes, maps_key, mask_bytes, mask_key
from wetread.detection.execution import Engines, execute
from wetread.detection.spans import SpanRecorder
from wetread.detection.worker_ports import WorkerPorts

logger = logging.getLogger("wetread.detection.worker")

_PR_SET_PDEATHSIG: Final = 1
NICENESS: Final = 5
"""Below everything else that the deployment runs: images are retrieved and stored first, detectors take what is left.

``make bench BENCH=isolation`` measures what a saturated worker pool costs a reader.
"""
_ADDRESS_SPACE_SLACK: Final = 1 << 30
"""Reserved but untouched memory (thread stacks, allocator arenas) counts as data too."""


class Worker:
    """Warm state of the process. Building it opens and warms everything."""

    def __init__(self, ports: WorkerPorts, detectors: Mapping[str, registry.InstalledDetector]) -> None:
        self._ports = ports
        self._detectors: dict[str, BaseDetector] = {name: registry.load(found) for name, found in detectors.items()}
        networks = [network for found in detectors.values() for network in found.networks]
        inference = ports.inference(networks)
        inference.warm_up()
        self._engines = Engines(inference, ports.decoder, ports.threads)

    @property
    def engine(self) -> str:
        """Identity of the engine."""
        return self._engines.inference.engine

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one order and return the answer. Raises WetreadError."""
        run = Run.model_validate(order["run"])
        detector = self._detectors.get(run.detector)
        if detector is None:
            raise ComputationFailed("model_unavailable", f"no detector is called {run.detector!r}")
        with _memory_limit(detector.manifest.resources.memory_mb):
            began = time.perf_counter()
            with tracing.span("read instances", attributes={"wetread.instances": len(order["refs"])}):
                objects = self._read(order["refs"])
            read = time.perf_counter() - began
            key = mask_key(run.result_key)
            execution = execute(
                detector,
                objects,
                run,
                self._engines,
                parameters=order["parameters"],
                preliminary=order["preliminary"],
                mask_key=key,
                priors=None if order["priors"] is None else Priors.model_validate(order["priors"]),
            )
            del objects
            if execution.mask is not None:
                self._ports.artifacts.put(run.tenant, key, mask_bytes(execution.mask))
            if execution.maps:
                self._ports.artifacts.put(run.tenant, maps_key(run.result_key), maps_bytes(execution.maps))
            if execution.explanation is not None and execution.result.explanation is not None:
                key = execution.result.explanation.key
                self._ports.artifacts.put(run.tenant, key, explanation_bytes(execution.explanation))
            for item, stored in zip(execution.attachments, execution.result.attachments, strict=True):
                self._ports.artifacts.put(run.tenant, stored.key, item.data)
        timings = {"read": round(read, 6), **execution.result.timings}
        result = execution.result.model_copy(update={"timings": timings})
        return {"result": result.model_dump(mode="json", by_alias=True)}

    def _read(self, refs: Sequence[tuple[str, int]]) -> list[bytes]:
        try:
            return [self._ports.objects.read(ObjectRef(locator, length)) for locator, length in refs]
        except MemoryError as error:
            raise ComputationFailed("out_of_memory", "the input needed more memory than the run may use") from error


def serve(pipe: Connection, worker: Worker) -> None:
    """Answer orders until the pipe closes."""
    pipe.send_bytes(json.dumps({"engine": worker.engine, "pid": os.getpid()}).encode())
    while True:
        try:
            order = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        pipe.send_bytes(json.dumps(_traced_answer(worker, order)).encode())


def _traced_answer(worker: Worker, order: Mapping[str, Any]) -> dict[str, Any]:
    """Answer an order; one that comes with a trace gets the spans of its run back."""
    trace = tracing.parse(order.get("trace"))
    if trace is None:
        return _answer(worker, order)
    recorder = SpanRecorder()
    tracing.install(recorder)
    try:
        with tracing.span(
            "detector run", kind="consumer", parent=trace, attributes={"process.pid": os.getpid()}
        ) as span:
            answer = _answer(worker, order)
            if "failed" in answer:
                span.fail(answer["failed"])
    finally:
        tracing.install(None)
    return answer | {"spans": recorder.take()}


def _answer(worker: Worker, order: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return worker.run(order)
    except ComputationFailed as error:
        _log(error)
        return {"failed": error.reason, "detail": error.detail}
    except MemoryError as error:
        _log(error)
        return {"failed": "out_of_memory", "detail": "the run needed more memory than it may use"}
    except WetreadError as error:
        _log(error)
        return {"failed": "crashed", "detail": error.detail, "transient": error.transient}
    except Exception as error:  # noqa: BLE001 - whatever happens, the parent gets an answer
        _log(error)
        return {"failed": "crashed", "detail": f"the run failed with {type(error).__name__}"}


def _log(error: BaseException) -> None:
    """Log where a run failed, never what the exception says: messages of libraries may hold header values."""
    cause: BaseException = error.__cause__ or error
    trace, places = cause.__traceback__, []
    while trace is not None:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    logger.error("run failed with %s at %s", type(cause).__name__, " > ".join(places[-6:]))


@contextmanager
def _memory_limit(memory_mb: int) -> Iterator[None]:
    """Let the process grow by the manifest's memory and no further: one run never takes the machine along."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = _data_bytes()
    if used is None:
        yield
        return
    limit = used + (memory_mb << 20) + _ADDRESS_SPACE_SLACK
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:")), None)


def _die_with_parent(lifeline: int) -> None:
    """End this process when its parent ends: by signal where the kernel offers it, and by the pipe's end of file."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while True:
            try:
                if not os.read(lifeline, 1):
                    break
            except OSError:
                break
        os._exit(0)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _yield_processor() -> None:
    """Lower the priority of this process: on Linux of each thread, those that imports have started included.

    Where Linux shares the processor between sessions first (autogroup), niceness counts only within one: so the
    process gets a session of its own, which yields as a whole.
    """
    os.nice(NICENESS)
    with suppress(OSError):  # no Linux, no autogroups, or a session of its own already
        os.setsid()
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")
    level = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are enough
            os.setpriority(os.PRIO_PROCESS, int(thread), level)


def _ports(factory: str) -> WorkerPorts:
    module, _, name = factory.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"worker ports cannot be made by {factory!r}") from error
    if not isinstance(made, WorkerPorts):
        raise ConfigurationError(f"{factory!r} makes no worker ports")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker process. Exit code 0: asked to end; 2: could not start (the hello says why)."""
    parser = argparse.ArgumentParser(prog="wetread-detection-worker")
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--ports", required=True)
    parser.add_argument("--detectors", default="")
    parser.add_argument("--bundled", type=Path, default=None)
    given = parser.parse_args(arguments)
    _die_with_parent(given.lifeline)
    _yield_processor()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(given.pipe)
    try:
        ports = _ports(given.ports)
        worker = Worker(ports, registry.discover(given.detectors, bundled=given.bundled))
    except WetreadError as error:
        pipe.send_bytes(json.dumps({"error": error.detail}).encode())
        return 2
    serve(pipe, worker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
