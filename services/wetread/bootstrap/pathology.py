"""Slide analysis put together: where slides lie, who infers, which pool runs the chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.adapters.taskpool.inline import InlinePool
from wetread.adapters.taskpool.process import ProcessPool
from wetread.bootstrap.engines import inference_client
from wetread.bootstrap.slides import SlideLocation
from wetread.core.errors import ConfigurationError
from wetread.core.ports.inference import InferenceClient, NetworkFile
from wetread.core.ports.taskpool import TaskPool, WorkerSetup
from wetread.pathology.chunk import ChunkWorker, TileModel, TileReading
from wetread.pathology.parts import PartStore
from wetread.pathology.slide.fallback import OpenSlideReader
from wetread.pathology.slide.slide import Reader, local_path
from wetread.pathology.tile_model import load_tile_model
from wetread.settings import Settings

Executor = Literal["process", "inline", "ray"]
WORKER: Final = "wetread.bootstrap.pathology:chunk_worker"


def chunk_worker(arguments: Mapping[str, Any]) -> ChunkWorker:
    """Build the chunk function of one worker from names and numbers (``pathology.job.worker_arguments``)."""
    (location,) = arguments["location"]
    reader: Reader
    if arguments["native"]:
        reader = SlideLocation(location).open_native()
    else:
        path = local_path(location)
        if path is None:
            raise ConfigurationError("OpenSlide reads local files only")
        reader = OpenSlideReader(path)
    folder = Path(arguments["model"])
    installed = load_tile_model(folder.name, folder.parent)
    client = _client(installed.network)
    model = TileModel(client, installed.network.name, installed.manifest.classes, arguments["embeddings"])
    reading: TileReading = TileReading(**arguments["reading"])
    return ChunkWorker(reader, reading, model, PartStore(Path(arguments["parts"])))


def _client(network: NetworkFile) -> InferenceClient:
    """Return the engine of a worker: the configured server, or ONNX Runtime with the one thread that it owns."""
    settings = Settings()
    if settings.inference_url is None:
        return OnnxRuntimeClient([network], threads=1)
    return inference_client(settings, [network])


def pool_maker(executor: Executor, workers: int | None = None) -> Callable[[WorkerSetup], TaskPool]:
    """Return what makes the pool: *workers* processes or actors, as many as there are cores by default."""
    count = workers or available_cores()

    def make(setup: WorkerSetup) -> TaskPool:
        if executor == "inline":
            return InlinePool(setup)
        if executor == "ray":
            from wetread.adapters.taskpool.ray import RayPool

            return RayPool(setup, count)
        return ProcessPool(setup, count)

    return make


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def missing_packages(names: Sequence[str] = ("simplejpeg", "openslide", "pyarrow")) -> list[str]:
    """Return which packages of the extra ``pathology`` are not installed."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]
