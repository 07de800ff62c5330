"""Slide analysis put together: where slides lie, who infers, which pool runs the chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.adapters.taskpool.inline import InlinePool
from wetread.adapters.taskpool.process import ProcessPool
from wetread.bootstrap.cores import usable_cores
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
    client, release = _client(installed.network)
    model = TileModel(client, installed.network.name, installed.manifest.classes, arguments["embeddings"], release)
    reading: TileReading = TileReading(**arguments["reading"])
    mirror = ResultBucket(arguments["mirror"]) if arguments.get("mirror") else None
    return ChunkWorker(reader, reading, model, PartStore(Path(arguments["parts"]), mirror))


class ResultBucket:
    """``PartMirror`` below ``s3://bucket/prefix``, where the results of a slide go too. Connects on first use."""

    def __init__(self, url: str) -> None:
        from wetread.adapters.objectstore.s3_bucket import Bucket, BucketAddress

        address = BucketAddress.of_url(
            url, endpoint=os.environ.get("AWS_ENDPOINT"), region=os.environ.get("AWS_REGION")
        )
        self._bucket = Bucket(address)

    def put(self, name: str, data: bytes) -> None:
        """Keep a part. Raises StorageFull, Unavailable."""
        self._bucket.replace(f"parts/{name}", data)

    def get(self, name: str) -> bytes:
        """Return a part. Raises NotFound, Unavailable."""
        return self._bucket.get(f"parts/{name}")

    def names(self, folder: str) -> list[str]:
        """Return the names of the parts kept below *folder*."""
        return [key.rpartition("/")[2] for key, _ in self._bucket.keys(f"parts/{folder}/")]

    def send(self, folder: Path) -> None:
        """Send the results that lie in *folder*: tables, pictures, reports; not the slide and not the parts."""
        for path in sorted([*folder.glob("*.*"), *folder.glob("evidence/*.dcm")]):
            if path.is_file():
                self._bucket.replace(str(path.relative_to(folder)), path.read_bytes())


def _client(network: NetworkFile) -> tuple[InferenceClient, Callable[[], None]]:
    """Return the engine of a worker and what closes it: the server, or ONNX Runtime with the one thread it owns."""
    settings = Settings()
    if settings.inference_url is None:
        return OnnxRuntimeClient([network], threads=1), lambda: None
    client = inference_client(settings, [network])
    return client, getattr(client, "close", lambda: None)


def pool_maker(executor: Executor, workers: int | None = None) -> Callable[[WorkerSetup], TaskPool]:
    """Return what makes the pool: *workers* processes or actors, as many as there are cores by default."""
    count = workers or usable_cores()

    def make(setup: WorkerSetup) -> TaskPool:
        if executor == "inline":
            return InlinePool(setup)
        if executor == "ray":
            from wetread.adapters.taskpool.ray import RayPool

            return RayPool(setup, count)
        return ProcessPool(setup, count)

    return make


def missing_packages(names: Sequence[str] = ("simplejpeg", "openslide", "pyarrow")) -> list[str]:
    """Return which packages of the extra ``pathology`` are not installed."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]
