"""ratiopath's documented pipeline on one slide, for ``make bench BENCH=pathology ARGS='--only peer --peer PYTHON'``.

Runs under the interpreter of an environment of its own (docs/pathology.md says how to make it), not under ours. Reads
jobs from standard input, one JSON object per line, and answers each with one: the seconds it took.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import ray
from ratiopath.ray import read_slides
from ratiopath.tiling import grid_tiles, read_slide_tiles
from ray.data.expressions import col

COLUMNS = ("path", "tile_x", "tile_y", "tile_extent_x", "tile_extent_y", "level")


def places(slide: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per tile of the grid."""
    grid = grid_tiles(
        (slide["extent_x"], slide["extent_y"]),
        (slide["tile_extent_x"], slide["tile_extent_y"]),
        (slide["stride_x"], slide["stride_y"]),
        last="drop",
    )
    return [{**slide, "tile_x": int(x), "tile_y": int(y)} for x, y in grid]


def embed(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the embedding of ``pathology_work``: means of 8 x 8 blocks, every fourth pixel."""
    tiles = np.stack(list(batch["tile"]))[..., :3]
    count, edge = tiles.shape[0], tiles.shape[1]
    blocks = tiles.reshape(count, 8, edge // 8, 8, edge // 8, 3)
    means = blocks[:, :, ::4, :, ::4].mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    return {"x": batch["tile_x"], "y": batch["tile_y"], "embedding": means}


def run(job: dict[str, Any]) -> None:
    """Read, embed and write one slide."""
    slides = read_slides(job["slide"], tile_extent=job["tile"], stride=job["stride"], level=0)
    tiles = slides.flat_map(places).repartition(target_num_rows_per_block=128)
    read = read_slide_tiles(*(col(name) for name in COLUMNS))
    tiles.with_column("tile", read, num_cpus=job["num_cpus"]).map_batches(embed).write_parquet(job["out"])


def main() -> None:
    """Answer jobs until standard input ends."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    print(json.dumps({"ratiopath": version("ratiopath")}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began = time.perf_counter()
        run(job)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
