"""Driving chunks to their end: retries, bisection, deadlines; parts, resume, and a whole slide."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tests.pathology_world import bigger, written

from wetread.adapters.taskpool.inline import InlinePool
from wetread.adapters.taskpool.process import ProcessPool
from wetread.bootstrap.pathology import WORKER, chunk_worker, pool_maker
from wetread.bootstrap.slides import SlideLocation
from wetread.core.errors import ComputationFailed, ConfigurationError, NotFound, StorageFull
from wetread.core.ports.taskpool import TaskOutcome, WorkerSetup
from wetread.pathology import measures
from wetread.pathology.chunk import Chunk, failed_rows
from wetread.pathology.drive import Driver, Progress, chunks_of
from wetread.pathology.errors import PlanTooLarge, RunStopped
from wetread.pathology.job import JobOptions, execute, finish, prepare, worker_arguments
from wetread.pathology.parts import PartStore
from wetread.pathology.plan import PlanOptions
from wetread.pathology.tile_model import load_tile_model
from wetread.testing.phantoms.slide_files import TiffOptions

pytestmark = pytest.mark.server("openslide")
CORNERS = np.stack([np.arange(64), np.arange(64)], axis=1)


def behaviour(guilty):
    return WorkerSetup("tests.taskpool_work:ChunkBehaviour", {"guilty": guilty})


def drive(pool, chunks, **options):
    lost = []
    progress = Progress(total=64)
    pool.start()
    try:
        Driver(pool, lambda chunk, reason: lost.append((chunk.first, reason)), **options).run(chunks, progress)
    finally:
        pool.close()
    return progress, lost


def test_a_tile_that_always_fails_is_found_by_bisection():
    progress, lost = drive(InlinePool(behaviour({19: "error", 40: "error"})), chunks_of(CORNERS, range(64), 16))
    assert lost == [(19, "bad tile"), (40, "bad tile")]
    assert (progress.done, progress.failed, progress.finished) == (62, 2, 64)


@pytest.mark.slow
def test_a_tile_that_kills_workers_is_quarantined_and_its_neighbours_kept():
    progress, lost = drive(ProcessPool(behaviour({5: "die"}), 2), chunks_of(CORNERS[:16], range(16), 8))
    assert lost == [(5, "the worker died on this tile twice")]
    assert (progress.done, progress.failed, progress.quarantined) == (15, 1, [5])
    assert progress.deaths >= 2


def test_what_no_worker_would_do_better_stops_the_run():
    with pytest.raises(RunStopped, match="other bytes") as stopped:
        drive(InlinePool(behaviour({3: "stop"})), chunks_of(CORNERS, range(64), 16))
    assert stopped.value.reason == "slide_changed"
    with pytest.raises(RunStopped, match="no network is called") as stopped:
        drive(InlinePool(behaviour({3: "no model"})), chunks_of(CORNERS, range(64), 16))
    assert stopped.value.reason == "model_unavailable"
    with pytest.raises(RunStopped, match="could not be computed, the last: bad tile"):
        drive(InlinePool(behaviour(dict.fromkeys(range(30), "error"))), chunks_of(CORNERS, range(64), 16))


class Silent:
    workers = 2

    def __init__(self):
        self.out = []

    def start(self):
        pass

    def submit(self, task_id, payload):
        self.out.append(task_id)

    def wait(self, timeout_s):
        return []

    def describe(self):
        return "two workers, both asleep"

    def close(self):
        pass


def test_a_run_that_stands_still_says_what_it_waits_for():
    ticks = iter(range(0, 100_000, 50))
    pool = Silent()
    with pytest.raises(RunStopped, match="both asleep") as stopped:
        drive(pool, chunks_of(CORNERS, range(64), 4), clock=lambda: next(ticks), window=3)
    assert stopped.value.reason == "no_progress"
    assert len(pool.out) == 6  # the window: three chunks per worker and no more
    with pytest.raises(RunStopped, match="cancelled"):
        drive(Silent(), chunks_of(CORNERS, range(64), 4), cancelled=lambda: True)


def test_chunks_are_runs_of_missing_tiles():
    chunks = chunks_of(CORNERS, [0, 1, 2, 3, 4, 9, 10], 3)
    assert [(c.first, c.count) for c in chunks] == [(0, 3), (3, 2), (9, 2)]
    assert chunks[1].corners.tolist() == [[3, 3], [4, 4]]
    assert [(c.first, c.count) for c in chunks[0].halves()] == [(0, 1), (1, 2)]
    assert TaskOutcome(1).ok


def rows(first, count, reason="bad"):
    return failed_rows(Chunk(first, CORNERS[:count].astype(np.int32)), reason, ["a", "b"], 4, points=True)


def test_parts_resume_and_broken_ones_are_computed_again(tmp_path):
    store = PartStore(tmp_path / "parts")
    store.prepare(20)
    store.write(rows(0, 5))
    store.write(rows(5, 5))
    store.write(rows(12, 3))
    (tmp_path / "parts" / "part-00000005-00005.parquet").write_bytes(b"half a file")
    (tmp_path / "parts" / "part-00000001-00001.parquet.77.tmp").write_bytes(b"stray")
    store.prepare(20)
    assert np.flatnonzero(store.finished(20)).tolist() == [*range(5), 12, 13, 14]
    assert [p.name for p in sorted((tmp_path / "parts").iterdir())] == [
        "part-00000000-00005.parquet",
        "part-00000012-00003.parquet",
    ]
    store.prepare(20, fresh=True)
    assert not store.finished(20).any()


def test_overlapping_parts_count_once(tmp_path):
    store = PartStore(tmp_path)
    store.write(rows(0, 8))
    store.write(rows(4, 8, "again"))
    assert store.merge(tmp_path / "t.parquet", {"x0": np.arange(64)}, {}) == 12
    assert [t.column("tile").to_pylist() for t in store.read()] == [list(range(8)), [8, 9, 10, 11]]


def test_a_plan_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=300 << 20))
    with pytest.raises(PlanTooLarge, match="1000000 tiles need about 369 MiB"):
        PartStore(tmp_path).prepare(1_000_000)


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    store = PartStore(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(StorageFull):
        store.write(rows(0, 4))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def options():
    return JobOptions(load_tile_model("he-tile"), WORKER, PlanOptions(), chunk=8)


def opened(path):
    place = SlideLocation(str(path))
    return place.open(), place.sources


def run(path, out, options, executor="inline"):
    out.mkdir(exist_ok=True)
    prepared = prepare(*opened(path), options)
    try:
        progress = execute(prepared, [str(path)], out, options, pool_maker(executor, 1))
        return finish(prepared, out, options, progress), progress, prepared
    finally:
        prepared.chosen.reader.close()


def table(out):
    import pyarrow.parquet as pq

    return pq.read_table(out / "tiles.parquet")


def test_planted_square_is_found_and_a_resumed_run_is_the_same(tmp_path, options):
    spec = bigger()
    path = written(tmp_path, spec=spec)
    finished, progress, prepared = run(path, tmp_path / "a", options)
    result = finished.result
    assert (result.state, result.reader.name, result.tiles.failed) == ("complete", "native/1", 0)
    region = result.regions[0]
    assert abs(region.x - 1280) < 256
    assert abs(region.y - 1024) < 256
    assert region.area_mm2 == pytest.approx(0.256**2, rel=0.3)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["schema"] == "wetread.slide-result/1"
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {"plan.json", "mask.png", "overlay.png", "tiles.parquet"}
    whole = table(tmp_path / "a")
    assert len(whole) == progress.total == len(prepared.plan)
    # Half of the parts vanish: only those are computed again, and the table is the same to the byte.
    before = (tmp_path / "a" / "tiles.parquet").read_bytes()
    parts = sorted((tmp_path / "a" / "parts" / result.plan_hash).iterdir())
    for part in parts[::2]:
        part.unlink()
    again, progress, _ = run(path, tmp_path / "a", options, "process")
    assert progress.resumed + progress.done == progress.total
    assert progress.chunks == len(parts[::2])
    assert again.result.regions == result.regions
    assert table(tmp_path / "a").equals(whole)
    assert (tmp_path / "a" / "tiles.parquet").read_bytes() == before


@pytest.mark.slow
def test_nuclei_are_where_the_generator_put_them(tmp_path, options):
    from scipy.spatial import cKDTree

    spec = bigger()
    run(written(tmp_path, spec=spec), tmp_path / "o", options)
    found = np.concatenate([np.reshape(p, (-1, 2)) for p in table(tmp_path / "o").column("nuclei_xy").to_pylist() if p])
    truth = spec.nuclei()
    inside = truth[(np.abs(truth - [1280, 1024]) < 220).all(axis=1)]
    distance, _ = cKDTree(found).query(inside)
    assert len(inside) > 200
    assert (distance <= 6).mean() > 0.9


def test_no_tissue_is_an_answer(tmp_path, options):
    finished, progress, _ = run(written(tmp_path, spec=bigger(empty=True)), tmp_path / "o", options)
    assert (finished.result.state, finished.result.reason, progress.total) == ("no_tissue", "no_tissue", 0)
    assert len(table(tmp_path / "o")) == 0


def test_a_corrupt_native_tile_fails_its_tiles_only(tmp_path, options):
    path = written(tmp_path, TiffOptions(share=False), spec=bigger())
    prepared = prepare(*opened(path), options)
    raw = prepared.chosen.reader.raw_tiles(0, [3 * 8 + 4])[0]
    prepared.chosen.reader.close()
    data = bytearray(path.read_bytes())
    at = data.find(raw)
    data[at + 700 : at + 760] = b"\xff\xd9" * 30
    path.write_bytes(data)
    finished, _, prepared = run(path, tmp_path / "o", options)
    assert (finished.result.state, finished.result.tiles.failed) == ("partial", 1)
    assert finished.result.failed_tiles[0].startswith("L0_1024_768: a JPEG tile is corrupt")
    assert finished.result.tiles.done == finished.result.tiles.planned - 1


@pytest.mark.slow
def test_resampled_reading_finds_the_same_square(tmp_path, options):
    from dataclasses import replace

    path = written(tmp_path, spec=bigger(mpp=0.25))
    fine = replace(options, plan=PlanOptions(mpp=0.5, tile=256, min_tissue=0.1))
    finished, _, prepared = run(path, tmp_path / "o", fine)
    assert prepared.plan.geometry.read == (512, 512)
    assert finished.result.tiles.planned <= 16


def test_worker_is_built_from_names_only(tmp_path, options):
    path = written(tmp_path, spec=bigger())
    prepared = prepare(*opened(path), options)
    arguments = worker_arguments(prepared, [str(path)], options, tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    worker = chunk_worker(json.loads(json.dumps(arguments)))
    result = worker(Chunk(0, prepared.plan.corners[:3].astype(np.int32)))
    assert (result.done, result.failed) == (3, 0)
    worker.close()
    prepared.chosen.reader.close()
    assert len(measures.NAMES) == 8


def test_tile_model_is_checked(tmp_path):
    import shutil

    from wetread.pathology.tile_model import models_folder

    with pytest.raises(NotFound):
        load_tile_model("../he-tile")
    shutil.copytree(models_folder() / "he-tile", tmp_path / "he-tile")
    (tmp_path / "he-tile" / "1" / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(ConfigurationError, match="weights"):
        load_tile_model("he-tile", tmp_path)


def test_golden_tiles_keep_their_scores(options):
    from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient

    golden = np.load(options.model.network.path.parent.parent / "golden.npz")
    out = OnnxRuntimeClient([options.model.network], threads=1).infer("he-tile", {"image": golden["image"]})
    assert np.abs(out["probability"] - golden["probability"]).max() < options.model.manifest.model.tolerance
    assert np.abs(out["embedding"] - golden["embedding"]).max() < options.model.manifest.model.tolerance
    with pytest.raises(ComputationFailed):
        OnnxRuntimeClient([options.model.network]).infer("he-tile", {"image": golden["image"].astype(np.float32)})


@pytest.mark.slow
@pytest.mark.server("ray")
def test_ray_gives_the_rows_of_a_loop(tmp_path, options):
    path = written(tmp_path, spec=bigger())
    run(path, tmp_path / "loop", options)
    run(path, tmp_path / "ray", options, "ray")
    assert table(tmp_path / "ray").equals(table(tmp_path / "loop"))


def test_importing_the_service_loads_no_heavy_package():
    import subprocess
    import sys

    code = (
        "import sys, wetread.pathology.job, wetread.pathology.convert, wetread.commands.pathology_app;"
        "print(sorted({'ray', 'torch', 'openslide', 'simplejpeg', 'pyarrow', 'obstore'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_paths())
    assert told.stdout.strip() == "[]"


def _paths():
    import os
    import sys

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
