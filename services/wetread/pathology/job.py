"""One slide from file to result: open, check, plan, execute (or resume), stitch, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.errors import InvalidInput, WetreadError
from wetread.core.ports.taskpool import TaskPool, WorkerSetup
from wetread.pathology import measures
from wetread.pathology.chunk import Chunk, TileReading, failed_rows
from wetread.pathology.drive import WINDOW, Driver, Progress, chunks_of
from wetread.pathology.errors import RunStopped
from wetread.pathology.heatmap import ResultLevel, Stitcher, result_level
from wetread.pathology.overlay import save_mask, save_overlay
from wetread.pathology.overview import Overview, make_overview
from wetread.pathology.parts import FAILED, PartMirror, PartStore
from wetread.pathology.plan import Plan, PlanOptions, base_mpp, make_plan
from wetread.pathology.slide.index import Pyramid
from wetread.pathology.slide.open import ChosenReader, slide_digest
from wetread.pathology.slide.source import RangeSource
from wetread.pathology.summary import ReaderUsed, SlideResult, TileCounts, class_shares, regions_of
from wetread.pathology.tile_model import InstalledTileModel
from wetread.pathology.tissue import Tissue, find_tissue

DEFAULT_CHUNK: Final = 32
_LISTED_FAILURES: Final = 100
PoolMaker = Callable[[WorkerSetup], TaskPool]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a slide is analysed. ``worker``: import path of the function that builds a chunk worker."""

    model: InstalledTileModel
    worker: str
    plan: PlanOptions = field(default_factory=PlanOptions)
    chunk: int = DEFAULT_CHUNK
    window: int = WINDOW
    embeddings: bool = False
    fresh: bool = False
    mirror: PartMirror | None = None
    """Where finished parts go as well; ``mirror_url`` is what workers open it by."""
    mirror_url: str = ""


@dataclass(frozen=True)
class Prepared:
    """A slide that was opened, checked and planned. ``chosen`` is open: close it."""

    chosen: ChosenReader
    digest: str
    overview: Overview
    tissue: Tissue
    plan: Plan


@dataclass(frozen=True)
class Finished:
    """A run's result with what its encodings need."""

    result: SlideResult
    plan: Plan
    pyramid: Pyramid
    level: ResultLevel | None
    grid: npt.NDArray[np.float32]
    """float32[row, column, class]; NaN where nothing was analysed."""


def prepare(chosen: ChosenReader, sources: Sequence[RangeSource], options: JobOptions) -> Prepared:
    """Find tissue and plan on an opened slide, which is closed when that fails.

    *sources*: its bytes, as far as they can be had. Raises the refusals of ``pathology.errors``, InvalidInput.
    """
    try:
        _check_tile(options)
        reader = chosen.reader
        base = base_mpp(reader.pyramid, options.plan.mpp_override)
        digest = slide_digest(reader, sources)
        overview = make_overview(reader, base, options.plan.checked().mask_mpp)
        tissue = find_tissue(overview.pixels, overview.mpp)
        manifest = options.model.manifest
        plan = make_plan(
            reader.pyramid,
            tissue,
            options.plan,
            slide_digest=digest,
            reader=reader.name,
            analysis={
                "model": manifest.name,
                "version": manifest.version,
                "sha256": manifest.model.sha256,
                "measures": measures.VERSION,
                "embeddings": options.embeddings,
            },
        )
    except BaseException:
        chosen.reader.close()
        raise
    return Prepared(chosen, digest, overview, tissue, plan)


def _check_tile(options: JobOptions) -> None:
    manifest = options.model.manifest
    if options.plan.tile != manifest.tile.size:
        raise InvalidInput(f"{manifest.name} takes tiles of {manifest.tile.size} pixels, not {options.plan.tile}")


def reading_of(plan: Plan) -> TileReading:
    """Return how a plan's tiles are read."""
    at = plan.geometry
    return TileReading(
        level=at.level,
        read=at.read,
        tile=at.tile,
        mpp=at.target_mpp,
        to_base=(at.target_mpp / at.base_mpp[0], at.target_mpp / at.base_mpp[1]),
        level_to_base=(at.base_size[0] / at.level_size[0], at.base_size[1] / at.level_size[1]),
    )


def worker_arguments(prepared: Prepared, location: Sequence[str], options: JobOptions, parts: Path) -> dict[str, Any]:
    """Return what a worker needs to build its chunk function anywhere: names and numbers only."""
    return {
        "location": list(location),
        "native": prepared.chosen.native,
        "reading": asdict(reading_of(prepared.plan)),
        "model": str(options.model.network.path.parent.parent),
        "embeddings": options.embeddings,
        "parts": str(parts),
        "mirror": options.mirror_url,
    }


def execute(
    prepared: Prepared,
    location: Sequence[str],
    out: Path,
    options: JobOptions,
    make_pool: PoolMaker,
    *,
    report: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    quiet_seconds: float = 120.0,
) -> Progress:
    """Compute what is missing of the plan. Raises RunStopped (resumable), StorageFull, PlanTooLarge."""
    plan = prepared.plan
    folder = out / "parts" / plan.plan_hash
    parts = PartStore(folder, options.mirror)
    parts.prepare(len(plan), fresh=options.fresh)
    done = parts.finished(len(plan))
    progress = Progress(total=len(plan), resumed=int(done.sum()))
    missing = np.flatnonzero(~done)
    if not len(missing):
        return progress
    columns = [*measures.NAMES, *(f"p_{name}" for name in options.model.manifest.classes)]
    width = options.model.manifest.tensors.outputs[1].shape[1] if options.embeddings else 0

    def quarantine(chunk: Chunk, reason: str) -> None:
        parts.write(failed_rows(chunk, reason, columns, width, points=True))

    pool = make_pool(WorkerSetup(options.worker, worker_arguments(prepared, location, options, folder)))
    try:
        pool.start()
        driver = Driver(
            pool, quarantine, window=options.window, report=report, cancelled=cancelled, quiet_seconds=quiet_seconds
        )
        driver.run(chunks_of(plan.corners, missing.tolist(), options.chunk), progress)
    finally:
        pool.close()
    return progress


def finish(prepared: Prepared, out: Path, options: JobOptions, progress: Progress) -> Finished:
    """Stitch the parts, write tables and pictures, return the result."""
    plan, manifest = prepared.plan, options.model.manifest
    parts = PartStore(out / "parts" / plan.plan_hash)
    stitcher = Stitcher(plan.geometry, len(manifest.classes))
    scores, failures, failed = [], list[str](), 0
    totals = {name: [0.0, 0] for name in ("nuclei_per_mm2", "haematoxylin_density", "eosin_density")}
    for table in parts.read():
        at = table.column("tile").to_numpy()
        part = np.stack([table.column(f"p_{name}").to_numpy() for name in manifest.classes], axis=1)
        stitcher.add(plan.cells[at], part)
        scores.append(part)
        for name, total in totals.items():
            values = table.column(name).to_numpy()
            total[0] += float(np.nansum(values, dtype=np.float64))
            total[1] += int(np.isfinite(values).sum())
        for tile, status, error in zip(
            at.tolist(), table.column("status").to_pylist(), table.column("error").to_pylist(), strict=True
        ):
            if status == FAILED:
                failed += 1
                if len(failures) < _LISTED_FAILURES:
                    x, y = plan.zero[tile].tolist()
                    failures.append(f"L{plan.geometry.level}_{x}_{y}: {error}")
    grid = stitcher.grid()
    target = grid[..., manifest.classes.index(manifest.target)]
    level = result_level(prepared.chosen.reader.pyramid, plan.geometry)
    means = {name: round(total / count, 6) if count else None for name, (total, count) in totals.items()}
    no_tissue = not prepared.tissue.found or not len(plan)
    result = SlideResult(
        state="no_tissue" if no_tissue else "partial" if failed else "complete",
        reason="no_tissue" if no_tissue else "tiles_failed" if failed else "",
        plan_hash=plan.plan_hash,
        slide_digest=prepared.digest,
        reader=ReaderUsed(
            name=prepared.chosen.reader.name,
            reason=prepared.chosen.reason,
            compared=prepared.chosen.verdict.compared,
        ),
        model=f"{manifest.name} {manifest.version}",
        model_sha256=manifest.model.sha256,
        classes=manifest.classes,
        target=manifest.target,
        tiles=TileCounts(planned=len(plan), done=len(plan) - failed, failed=failed, resumed=progress.resumed),
        failed_tiles=tuple(failures),
        tissue_area_mm2=round(prepared.tissue.area_mm2, 6),
        class_share=class_shares(np.concatenate(scores) if scores else np.zeros((0, 1), np.float32), manifest.classes),
        nuclei_per_mm2=means["nuclei_per_mm2"],
        haematoxylin_density=means["haematoxylin_density"],
        eosin_density=means["eosin_density"],
        regions=regions_of(target, plan.geometry),
        result_level=level.number if level else None,
        flags=_flags(prepared, options),
    )
    _write(prepared, out, parts, result, target)
    return Finished(result, plan, prepared.chosen.reader.pyramid, level, grid)


def _flags(prepared: Prepared, options: JobOptions) -> tuple[str, ...]:
    flags = []
    if prepared.overview.unreadable:
        flags.append("overview_blocks_unreadable")
    if options.plan.mpp_override is not None:
        flags.append("mpp_override")
    if prepared.plan.geometry.level_mpp[0] > options.plan.mpp * 1.02:
        flags.append("upsampled")
    trained = options.model.manifest.tile.mpp
    if not 0.8 <= prepared.plan.geometry.target_mpp / trained <= 1.25:
        flags.append("resolution_not_of_model")
    if not prepared.chosen.native:
        flags.append("reader_fallback")
    return tuple(flags)


def _write(prepared: Prepared, out: Path, parts: PartStore, result: SlideResult, target: Any) -> None:
    plan = prepared.plan
    write_text(out / "plan.json", json.dumps({**plan.document, "plan_hash": plan.plan_hash}, indent=1))
    save_mask(prepared.tissue, out / "mask.png")
    columns = {
        "x0": plan.zero[:, 0].astype(np.int32),
        "y0": plan.zero[:, 1].astype(np.int32),
        "tissue_share": plan.fractions,
    }
    notes = {"plan_hash": plan.plan_hash, "plan": json.dumps(plan.document, sort_keys=True)}
    parts.merge(out / "tiles.parquet", columns, notes)
    save_overlay(prepared.overview, plan.geometry, target, f"{result.target} (score 0-1)", out / "overlay.png")
    write_text(out / "result.json", result.model_dump_json(by_alias=True, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text + "\n", "utf-8")
    temporary.replace(path)


def stopped_report(prepared: Prepared, out: Path, error: RunStopped | WetreadError, progress: Progress) -> None:
    """Write ``stopped.json``: why a run ended early, and how far it came."""
    document = {
        "schema": "wetread.slide-stopped/1",
        "reason": getattr(error, "reason", error.slug),
        "detail": error.detail,
        "plan_hash": prepared.plan.plan_hash,
        "finished": progress.finished,
        "total": progress.total,
    }
    write_text(out / "stopped.json", json.dumps(document, indent=1))
