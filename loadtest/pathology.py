"""Slides: decoding against OpenSlide and the codec's floor, pools, bytes over ranges, memory, accuracy.

    make bench BENCH=pathology ARGS='--only decode pools ranges memory accuracy'
    make bench BENCH=pathology ARGS='--only peer --peer ENVIRONMENT/bin/python'

CPU per tile is the figure. Sides of a ratio run in interleaved rounds of one process; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wetread.adapters.taskpool.process import ProcessPool
from wetread.core.ports.taskpool import TaskPool, WorkerSetup
from wetread.pathology.drive import chunks_of
from wetread.pathology.slide.open import local_sources, open_native
from wetread.pathology.slide.source import LocalFile, merged
from wetread.testing.phantoms.slide import CELL, Planted, SlideSpec
from wetread.testing.phantoms.slide_files import TiffOptions, write_slide_tiff
from wetread.testing.phantoms.tissue_texture import DENSE, Stain

PARTS = ("decode", "pools", "ranges", "memory", "accuracy")
PEER = "peer"
_PEER_WORK = (("aligned", 256, 1.0), ("aligned, half a core per read", 256, 0.5), ("half stride", 128, 0.5))
"""Label, stride, cores that ratiopath asks for per reading task (1 is its documentation's)."""


def slide_of(folder: Path, size: int, *, share: bool) -> Path:
    """Write (once) a slide of *size* pixels square: 256-pixel tiles, YCbCr 4:2:2, Q80, levels 1/4/16."""
    path = folder / f"slide-{size}-{int(share)}.svs"
    if not path.exists():
        third = size // 3 // CELL * CELL
        spec = SlideSpec(size, size, seed=3, planted=(Planted(third, third, max(size // 10, 512) // CELL * CELL),))
        write_slide_tiff(spec, path, TiffOptions(share=share, big=size > 60_000))
    return path


def cpu_us(work: Callable[[], None], tiles: int) -> float:
    """Return CPU microseconds per tile of this process and its threads."""
    before = time.process_time()
    work()
    return (time.process_time() - before) / tiles * 1e6


def interleaved(sides: dict[str, Callable[[], None]], tiles: int, rounds: int) -> dict[str, float]:
    """Return the median CPU us/tile of each side."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            found[name].append(cpu_us(work, tiles))
    return {name: statistics.median(values) for name, values in found.items()}


def decode(folder: Path, rounds: int) -> dict[str, Any]:
    """Aligned 256-pixel tiles, then 512-pixel tiles at stride 448, into one NHWC batch of 32."""
    import openslide
    from simplejpeg import decode_jpeg

    path = slide_of(folder, 16_384, share=False)
    out: dict[str, Any] = {}
    for label, tile, stride, count in (("aligned 256", 256, 256, 1600), ("512 at 448", 512, 448, 600)):
        side = (16_384 - tile) // stride + 1
        places = [(k % side * stride, k // side * stride) for k in range(side * side)]
        start = max((len(places) - count) // 2, 0) if tile == 256 else 0
        places = places[start : start + count]
        batch = np.empty((32, tile, tile, 3), np.uint8)
        slide = open_native(local_sources(path))
        other = openslide.OpenSlide(os.fspath(path))
        source, level = LocalFile(path), slide.pyramid.levels[0]
        # The floor: the same compressed bytes, each native tile once, straight into slots.
        spans = slide._bytes._spans[0]  # noqa: SLF001 - a benchmark looks inside
        native = sorted(
            {b * level.columns + a for x, y in places for a in range(x // 256, (x + tile - 1) // 256 + 1)
             for b in range(y // 256, (y + tile - 1) // 256 + 1)}
        )  # fmt: skip
        slot = np.empty((256, 256, 3), np.uint8)

        def ours(places: Any = places, batch: Any = batch, slide: Any = slide) -> None:
            for at, (x, y) in enumerate(places):
                slide.read_into(batch[at % 32], 0, x, y)

        def theirs(places: Any = places, batch: Any = batch, other: Any = other, tile: int = tile) -> None:
            for at, (x, y) in enumerate(places):
                batch[at % 32] = np.asarray(other.read_region((x, y), 0, (tile, tile)))[..., :3]

        def floor(native: Any = native, slot: Any = slot, source: Any = source, spans: Any = spans) -> None:
            for at in native:
                data = source.read(int(spans[0][at]), int(spans[1][at]))
                decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False, buffer=slot)

        medians = interleaved({"openslide": theirs, "wetread": ours, "floor": floor}, len(places), rounds)
        equal = sum(
            np.array_equal(_region(slide, x, y, tile), np.asarray(other.read_region((x, y), 0, (tile, tile)))[..., :3])
            for x, y in places[:: max(len(places) // 50, 1)]
        )
        out[label] = {
            "tiles": len(places),
            "cpu_us_per_tile": {k: round(v) for k, v in medians.items()},
            "openslide_over_wetread": round(medians["openslide"] / medians["wetread"], 2),
            "wetread_over_floor": round(medians["wetread"] / medians["floor"], 3),
            "equal_of_50_sampled": equal,
        }
    return out


def _region(slide: Any, x: int, y: int, tile: int) -> Any:
    out = np.empty((tile, tile, 3), np.uint8)
    slide.read_into(out, 0, x, y)
    return out


def _drain(pool: TaskPool, chunks: Sequence[Any], window: int) -> float:
    """Return tiles per second through *pool*, with *window* chunks per worker in flight."""
    began, at, done, tiles = time.perf_counter(), 0, 0, sum(chunk.count for chunk in chunks)
    while done < len(chunks):
        while at < len(chunks) and at - done < window * pool.workers:
            pool.submit(at, chunks[at])
            at += 1
        for outcome in pool.wait(5.0):
            assert outcome.ok, outcome
            done += 1
    return tiles / (time.perf_counter() - began)


def pools(folder: Path, rounds: int) -> dict[str, Any]:
    """Ray actors against processes, same chunk function, workers warm; and two workers against one."""
    from wetread.adapters.taskpool.ray import RayPool

    path = slide_of(folder, 16_384, share=False)
    corners = np.array([(k % 64 * 256, k // 64 * 256) for k in range(4096)], np.int32)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    setup = WorkerSetup("pathology_work:build", {"slide": str(path), "tile": 256})
    made: dict[str, TaskPool] = {
        "process": ProcessPool(setup, 2),
        "ray": RayPool(setup, 2),
        "process, one worker": ProcessPool(setup, 1),
    }
    out: dict[str, Any] = {}
    try:
        for pool in made.values():
            pool.start()
            _drain(pool, chunks_of(corners, range(512), 32), 2)
        for size in (16, 32, 64):
            chunks = chunks_of(corners, range(len(corners)), size)
            rates: dict[str, list[float]] = {name: [] for name in made}
            for _ in range(rounds):
                for name, pool in made.items():
                    rates[name].append(_drain(pool, chunks, 3))
            median = {name: statistics.median(values) for name, values in rates.items()}
            out[f"chunk {size}"] = {
                "tiles_per_s": {name: round(value) for name, value in median.items()},
                "ray_over_process": round(median["ray"] / median["process"], 3),
                "two_over_one": round(median["process"] / median["process, one worker"], 2),
            }
    finally:
        for pool in made.values():
            pool.close()
    return out


def peer(folder: Path, rounds: int, python: Path) -> dict[str, Any]:
    """ratiopath's pipeline against two Ray actors of ours: same tiles and embedding, Parquet out, start included.

    Both sides have Ray running already. *python*: the interpreter of an environment with ratiopath.
    """
    import ray

    path = slide_of(folder, 16_384, share=False)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [os.fspath(python), os.fspath(Path(__file__).with_name("pathology_peer.py"))]
    theirs = subprocess.Popen(command, env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert theirs.stdin is not None
    assert theirs.stdout is not None
    out: dict[str, Any] = json.loads(theirs.stdout.readline())
    try:
        for label, stride, num_cpus in (
            ("aligned", 256, 1.0),
            ("aligned, read half a core", 256, 0.5),
            ("half stride", 128, 0.5),
        ):
            side = (16_384 - 256) // stride + 1
            corners = np.array([(k % side * stride, k // side * stride) for k in range(side * side)], np.int32)
            rates: dict[str, list[float]] = {"ratiopath": [], "wetread": []}
            for number in range(rounds):
                parts = [folder / f"{stride}-{num_cpus:g}-{number}-{name}" for name in rates]
                job = {"slide": str(path), "tile": 256, "stride": stride, "num_cpus": num_cpus, "out": str(parts[0])}
                theirs.stdin.write(json.dumps(job) + "\n")
                theirs.stdin.flush()
                rates["ratiopath"].append(len(corners) / json.loads(theirs.stdout.readline())["seconds"])
                rates["wetread"].append(len(corners) / _actors(path, corners, parts[1]))
            assert [_rows(part) for part in parts] == [len(corners)] * 2, "a side lost tiles"
            median = {name: statistics.median(values) for name, values in rates.items()}
            out[label] = {
                "tiles": len(corners),
                "tiles_per_s": {name: round(value) for name, value in median.items()},
                "wetread_over_ratiopath": round(median["wetread"] / median["ratiopath"], 2),
            }
    finally:
        theirs.stdin.close()
        theirs.wait(60)
        ray.shutdown()
    return out


def _actors(path: Path, corners: Any, out: Path) -> float:
    """Return the seconds that two actors take from their start to the last Parquet part."""
    from wetread.adapters.taskpool.ray import RayPool

    out.mkdir()
    began = time.perf_counter()
    pool = RayPool(WorkerSetup("pathology_work:build", {"slide": str(path), "tile": 256, "out": str(out)}), 2)
    try:
        pool.start()
        _drain(pool, chunks_of(corners, range(len(corners)), 32), 3)
        return time.perf_counter() - began
    finally:
        pool.close()


def _rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(part).num_rows for part in folder.glob("*.parquet"))


def ranges(folder: Path, rounds: int) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Bytes that range reads fetch over the bytes that a scattered tissue plan needs (no network: counted)."""
    slide = open_native(local_sources(slide_of(folder, 16_384, share=False)))
    offsets, lengths = slide._bytes._spans[0]  # noqa: SLF001
    rng = np.random.default_rng(5)
    island = rng.random((16, 16)) < 0.3
    tiles = [k for k in range(4096) if island[k // 64 // 4, k % 64 // 4]]
    needed = fetched = requests = 0
    for start in range(0, len(tiles), 32):
        spans = [(int(offsets[t]), int(lengths[t])) for t in tiles[start : start + 32]]
        asked = merged(spans)
        needed += sum(length for _, length in spans)
        fetched += sum(length for _, length in asked)
        requests += len(asked)
    return {"tiles": len(tiles), "requests": requests, "fetched_over_needed": round(fetched / needed, 3)}


def memory(folder: Path, rounds: int) -> dict[str, Any]:  # noqa: ARG001
    """VmHWM of one worker over 3000 tiles of slides of 10,240 and 81,920 pixels, full pipeline with the model."""
    out: dict[str, Any] = {}
    for size in (10_240, 81_920):
        path = slide_of(folder, size, share=True)
        code = f"import pathology; pathology.one_worker({str(path)!r})"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        answer = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        out[str(size)] = json.loads(answer.stdout.splitlines()[-1])
    out["worker_ratio"] = round(out["81920"]["worker_mb"] / out["10240"]["worker_mb"], 3)
    return out


def opened(path: Path | str) -> tuple[Any, Any]:
    """Return the reader of a slide and its sources."""
    from wetread.bootstrap.slides import SlideLocation

    place = SlideLocation(str(path))
    return place.open(), place.sources


def one_worker(path: str) -> None:
    """Plan in this process (driver side), then run chunks in it and print both high-water marks."""
    from wetread.bootstrap.pathology import WORKER, chunk_worker
    from wetread.pathology.chunk import Chunk
    from wetread.pathology.job import JobOptions, prepare, worker_arguments
    from wetread.pathology.plan import PlanOptions
    from wetread.pathology.tile_model import load_tile_model

    options = JobOptions(load_tile_model("he-tile"), WORKER, PlanOptions())
    with tempfile.TemporaryDirectory() as scratch:
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:  # the driver: plans, and tells the worker what to do
            prepared = prepare(*opened(path), options)
            arguments = worker_arguments(prepared, [path], options, Path(scratch))
            corners = prepared.plan.corners[:: max(len(prepared.plan) // 1500, 1)].tolist()
            message = {"arguments": arguments, "corners": corners, "driver_mb": _high_water_mb()}
            with os.fdopen(write_end, "w") as pipe:
                json.dump({**message, "tiles": len(prepared.plan)}, pipe)
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            told = json.load(pipe)
        os.waitpid(child, 0)
        worker = chunk_worker(told["arguments"])
        corners = np.array(told["corners"], np.int32)
        for start in range(0, len(corners), 32):
            worker(Chunk(start, corners[start : start + 32]))
        worker.close()
    mine = {"worker_mb": _high_water_mb(), "driver_mb": told["driver_mb"], "tiles_planned": told["tiles"]}
    print(json.dumps({**mine, "tiles_read": len(corners)}))


def _high_water_mb() -> int:
    status = Path("/proc/self/status").read_text("utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def accuracy(folder: Path, rounds: int) -> dict[str, Any]:  # noqa: ARG001
    """AUC of dense tiles and distance of the found region from the planted one, on slides of unseen stains."""
    from wetread.bootstrap.pathology import WORKER, pool_maker
    from wetread.pathology.job import JobOptions, execute, finish, prepare
    from wetread.pathology.tile_model import load_tile_model

    options = JobOptions(load_tile_model("he-tile"), WORKER)
    slides, distances = [], []
    for seed in range(20_000, 20_012):
        rng = np.random.default_rng(seed)
        x, y = (int(v) * CELL for v in rng.integers(14, 26, 2))
        spec = SlideSpec(3072, 3072, seed=seed, stain=Stain.drawn(rng), planted=(Planted(x, y, 768),), texture=512)
        path, out = folder / f"auc-{seed}.svs", folder / f"auc-{seed}"
        write_slide_tiff(spec, path)
        out.mkdir(exist_ok=True)
        prepared = prepare(*opened(path), replace(options, fresh=True))
        progress = execute(prepared, [str(path)], out, replace(options, fresh=True), pool_maker("inline"))
        finished = finish(prepared, out, options, progress)
        prepared.chosen.reader.close()
        scores = _scores(out, finished)
        cells = np.pad(spec.classes, ((0, 4), (0, 4)))
        share = np.array(
            [(cells[b // 64 : b // 64 + 4, a // 64 : a // 64 + 4] == DENSE).mean() for a, b in finished.plan.zero]
        )
        slides.append((scores, share >= 0.5))
        region = finished.result.regions[0]
        distances.append(max(abs(region.x - x - 384), abs(region.y - y - 384)) / 256)
    rng = np.random.default_rng(1)
    drawn = [_auc([slides[k] for k in rng.integers(0, len(slides), len(slides))]) for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "slides": len(slides),
        "tiles": sum(len(scores) for scores, _ in slides),
        "auc": round(_auc(slides), 4),
        "ci95": [round(float(low), 4), round(float(high), 4)],
        "centroid_off_tiles_max": round(max(distances), 3),
    }


def _scores(out: Path, finished: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(out / "tiles.parquet").column(f"p_{finished.result.target}").to_numpy()


def _auc(slides: Sequence[tuple[Any, Any]]) -> float:
    scores, dense = (np.concatenate([slide[k] for slide in slides]) for k in (0, 1))
    negative = np.sort(scores[~dense])
    ranks = np.searchsorted(negative, scores[dense], "left") + np.searchsorted(negative, scores[dense], "right")
    return float(ranks.mean() / (2 * len(negative)))


def main(arguments: Sequence[str]) -> int:
    """Run the named parts and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=(*PARTS, PEER), default=PARTS)
    parser.add_argument(
        "--peer", type=Path, help="interpreter of an environment with ratiopath, for the part of that name"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep slides here (default: a temporary folder)")
    given = parser.parse_args(arguments)
    if PEER in given.only and given.peer is None:
        parser.error("the part peer needs --peer PYTHON")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for part in given.only:
            more = {"python": given.peer} if part == PEER else {}
            found = globals()[part](folder, given.rounds, **more)
            print(json.dumps({"part": part, "seed": 3, **found, "load": round(os.getloadavg()[0], 1)}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
