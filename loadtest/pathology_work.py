"""What pool workers of the pathology benchmark do: read a chunk of tiles, return a cheap embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wetread.pathology.chunk import Chunk
from wetread.pathology.slide.open import local_sources, open_native


def build(arguments: Mapping[str, Any]) -> Callable[[Chunk], Any]:
    """Open the slide once per worker; 8 x 8 block means stand for an embedding. ``out``: a Parquet part per chunk."""
    slide = open_native(local_sources(Path(arguments["slide"])))
    tile = arguments["tile"]
    batch = np.empty((256, tile, tile, 3), np.uint8)

    def run(chunk: Chunk) -> Any:
        for at, (x, y) in enumerate(chunk.corners.tolist()):
            slide.read_into(batch[at], 0, x, y)
        blocks = batch[: chunk.count].reshape(chunk.count, 8, tile // 8, 8, tile // 8, 3)
        means = blocks[:, :, ::4, :, ::4].mean(axis=(2, 4), dtype=np.float32).reshape(chunk.count, -1)
        if "out" not in arguments:
            return means.astype(np.float16)
        x, y = chunk.corners.T
        vectors = pa.FixedSizeListArray.from_arrays(means.ravel(), means.shape[1])
        pq.write_table(pa.table({"x": x, "y": y, "embedding": vectors}), f"{arguments['out']}/{chunk.first}.parquet")
        return chunk.count

    return run
