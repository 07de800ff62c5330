"""The chunk function: read, infer, measure, write the part, return counts. The same in every kind of pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.errors import ComputationFailed
from wetread.core.ports.inference import InferenceClient
from wetread.pathology import measures
from wetread.pathology.errors import TileUnreadable
from wetread.pathology.parts import DONE, FAILED, PartStore, Rows
from wetread.pathology.slide.slide import Reader

POISON: Final = "the worker died on this tile twice"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tiles of a plan. Corners in pixels of the level that is read."""

    first: int
    corners: npt.NDArray[np.int32]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.corners)

    def halves(self) -> tuple[Chunk, Chunk]:
        """Return both halves of a chunk of at least two tiles."""
        middle = self.count // 2
        return Chunk(self.first, self.corners[:middle]), Chunk(self.first + middle, self.corners[middle:])


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What travels back: counts and CPU-wall seconds per stage, never pixels."""

    first: int
    done: int
    failed: int
    seconds: tuple[float, float, float, float]
    """read (with decoding), infer, measure, write."""


@dataclass(frozen=True, slots=True)
class TileModel:
    """A network over tiles. ``classes`` name the probability columns."""

    client: InferenceClient
    network: str
    classes: tuple[str, ...]
    embeddings: bool = False
    """Keep the 64 numbers before the last layer."""
    release: Callable[[], None] = lambda: None
    """Gives up what the client holds."""


@dataclass(frozen=True, slots=True)
class TileReading:
    """How tiles are read. ``read`` (width, height) at ``level`` becomes ``tile`` pixels square of ``mpp``."""

    level: int
    read: tuple[int, int]
    tile: int
    mpp: float
    to_base: tuple[float, float]
    """Level-0 pixels per tile pixel along x and y."""
    level_to_base: tuple[float, float]


class ChunkWorker:
    """Holds what is opened once per worker: slide, cache, model client, the batch buffer."""

    def __init__(self, reader: Reader, reading: TileReading, model: TileModel | None, parts: PartStore) -> None:
        self._reader, self._reading, self._model, self._parts = reader, reading, model, parts
        self._batch = np.empty((0, reading.tile, reading.tile, 3), dtype=np.uint8)
        width, height = reading.read
        self._raw = None if width == height == reading.tile else np.empty((height, width, 3), dtype=np.uint8)

    def __call__(self, chunk: Chunk) -> ChunkResult:
        """Compute one chunk. Raises SlideChanged, StorageFull, Unavailable, ComputationFailed; tiles fail alone."""
        began = time.perf_counter()
        error = self._read(chunk)
        good = np.array([not text for text in error], dtype=bool)
        read = time.perf_counter()
        outputs = self._infer(good)
        inferred = time.perf_counter()
        columns, points = self._measure(chunk, good)
        measured = time.perf_counter()
        embedding = None
        if self._model is not None:
            for number, name in enumerate(self._model.classes):
                columns[f"p_{name}"] = outputs[0][:, number]
            embedding = outputs[1] if self._model.embeddings else None
        status = [DONE if ok else FAILED for ok in good]
        self._parts.write(Rows(chunk.first, status, error, columns, embedding, points))
        written = time.perf_counter()
        return ChunkResult(
            chunk.first,
            int(good.sum()),
            int((~good).sum()),
            (read - began, inferred - read, measured - inferred, written - measured),
        )

    def close(self) -> None:
        """Close the slide and give up what the network's client holds."""
        self._reader.close()
        if self._model is not None:
            self._model.release()

    def _read(self, chunk: Chunk) -> list[str]:
        reading, count = self._reading, chunk.count
        if len(self._batch) < count:
            self._batch = np.empty((count, reading.tile, reading.tile, 3), dtype=np.uint8)
        self._reader.prefetch(reading.level, chunk.corners.astype(np.int64), reading.read)
        error = [""] * count
        for at, (x, y) in enumerate(chunk.corners.tolist()):
            slot = self._batch[at]
            try:
                if self._raw is None:
                    self._reader.read_into(slot, reading.level, x, y)
                else:
                    self._reader.read_into(self._raw, reading.level, x, y)
                    slot[...] = measures.resample(self._raw, reading.tile)
            except TileUnreadable as broken:
                error[at] = broken.detail
                slot[...] = 255
        self._batch_count = count
        return error

    def _infer(self, good: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float16]]:
        model = self._model
        if model is None:
            return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float16)
        outputs = model.client.infer(model.network, {"image": self._batch[: self._batch_count]})
        probability = np.array(outputs["probability"], dtype=np.float32)
        if probability.shape != (len(good), len(model.classes)) or not np.isfinite(probability[good]).all():
            raise ComputationFailed("crashed", "the tile model answered with other numbers than it promised")
        probability[~good] = np.nan
        embedding = outputs["embedding"].astype(np.float16)
        embedding[~good] = np.nan
        return probability, embedding

    def _measure(
        self, chunk: Chunk, good: npt.NDArray[np.bool_]
    ) -> tuple[dict[str, npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
        reading = self._reading
        table = np.full((chunk.count, len(measures.NAMES)), np.nan, dtype=np.float32)
        points: list[npt.NDArray[np.float32]] = []
        for at, ok in enumerate(good):
            if not ok:
                points.append(np.zeros((0, 2), dtype=np.float32))
                continue
            found = measures.measure(self._batch[at], reading.mpp)
            table[at] = found.values
            corner = chunk.corners[at] * np.array(reading.level_to_base)
            points.append((found.nuclei * np.array(reading.to_base) + corner).astype(np.float32))
        return {name: table[:, number] for number, name in enumerate(measures.NAMES)}, points


def failed_rows(chunk: Chunk, reason: str, columns: Sequence[str], embedding: int, *, points: bool) -> Rows:
    """Return the rows of tiles that no worker could finish."""
    count = chunk.count
    return Rows(
        chunk.first,
        [FAILED] * count,
        [reason] * count,
        {name: np.full(count, np.nan, dtype=np.float32) for name in columns},
        np.full((count, embedding), np.nan, dtype=np.float16) if embedding else None,
        [np.zeros((0, 2), dtype=np.float32)] * count if points else [],
    )
