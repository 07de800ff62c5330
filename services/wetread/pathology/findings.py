"""A finished run as evidence: the map on its level, tiles above the threshold, facts of the slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

import wetread
from wetread.core.findings import Run
from wetread.core.identifiers import DEFAULT_TENANT, digest
from wetread.core.ports.slide_evidence import SlideEvidence, SlideRegion
from wetread.pathology.errors import ResultsNotDicom
from wetread.pathology.heatmap import cells_of_pixels
from wetread.pathology.job import Finished
from wetread.pathology.parts import PartStore
from wetread.pathology.tile_model import TileModelManifest

THRESHOLD = 0.5


def slide_evidence(
    finished: Finished,
    manifest: TileModelManifest,
    run: Run,
    parts: Path,
    *,
    headers: Sequence[Dataset] = (),
    nuclei: bool = False,
) -> SlideEvidence:
    """Return what the encoder writes. ``headers``: of the levels, finest first; they may be given later."""
    result, geometry = finished.result, finished.plan.geometry
    target = manifest.classes.index(manifest.target)
    grid, columns, rows = None, np.zeros(0, np.int32), np.zeros(0, np.int32)
    if finished.level is not None and result.tiles.done:
        columns, rows = (axis.astype(np.int32) for axis in cells_of_pixels(geometry, finished.level))
        grid = np.nan_to_num(finished.grid)
    boxes, scores, points = [], [], []
    side = geometry.tile * np.array([geometry.target_mpp / mpp for mpp in geometry.base_mpp])
    for table in PartStore(parts).read():
        values = table.column(f"p_{manifest.target}").to_numpy()
        above = np.flatnonzero(np.nan_to_num(values) >= THRESHOLD)
        corners = finished.plan.zero[table.column("tile").to_numpy()[above]]
        boxes.append(np.concatenate([corners, np.broadcast_to(side, corners.shape)], axis=1))
        scores.append(values[above])
        if nuclei:
            points += [np.reshape(found, (-1, 2)) for found in table.column("nuclei_xy").to_pylist() if found]
    facts: list[tuple[str, float, str, str]] = [
        ("tissue_area", result.tissue_area_mm2, "mm2", ""),
        ("tiles_planned", result.tiles.planned, "1", ""),
        ("tiles_done", result.tiles.done, "1", ""),
        ("tiles_failed", result.tiles.failed, "1", ""),
    ]
    if result.nuclei_per_mm2 is not None:
        facts.append(("nuclei_density", result.nuclei_per_mm2, "/mm2", ""))
    facts += [("class_share", share, "1", name) for name, share in result.class_share.items()]
    return SlideEvidence(
        run=run,
        headers=headers,
        state=result.state,
        reason=result.reason,
        classes=manifest.classes,
        target=manifest.classes[target],
        map_level=finished.level.number if finished.level is not None else None,
        grid=grid,
        map_rows=rows,
        map_columns=columns,
        boxes=np.concatenate(boxes).astype(np.float32) if boxes else np.zeros((0, 4), np.float32),
        scores=np.concatenate(scores).astype(np.float32) if scores else np.zeros(0, np.float32),
        points=(np.concatenate(points).astype(np.float32) if points else np.zeros((0, 2), np.float32))
        if nuclei
        else None,
        facts=tuple(facts),
        regions=tuple(SlideRegion(r.box, r.area_mm2, r.score) for r in result.regions),
        flags=(*result.flags, *(("no_map_level",) if finished.level is None else ())),
    )


def command_run(
    finished: Finished,
    manifest: TileModelManifest,
    headers: Sequence[Dataset],
    *,
    encoder_version: str,
    engine: str,
    tenant: str = DEFAULT_TENANT,
) -> Run:
    """Return the record of a run from the command line.

    Its start is the slide's acquisition day: a repeated run writes the same bytes. Raises ResultsNotDicom.
    """
    from datetime import UTC, datetime

    if not headers:
        raise ResultsNotDicom("the slide is no DICOM series: convert it first, or use --no-dicom")
    first = headers[0]
    stated = str(first.get("ContentDate", "") or "")
    try:
        started = datetime.strptime(stated, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        started = 0.0
    result = finished.result
    study = str(first.StudyInstanceUID)
    key = digest("slide-result/1", tenant, study, result.plan_hash, manifest.model.sha256, engine, encoder_version)
    return Run(
        result_key=key,
        tenant=tenant,
        study_uid=study,
        series_uid=str(first.SeriesInstanceUID),
        detector=manifest.name,
        version=manifest.version,
        title=manifest.title,
        model_digest=manifest.model.sha256,
        params_digest=result.plan_hash,
        input_digest=result.slide_digest,
        rules_digest=digest("none"),
        software=f"wetread {wetread.__version__}",
        engine=engine,
        phantom_evidence_id="synthetic-texture",
        started_at=started,
    )
