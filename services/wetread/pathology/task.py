"""A slide of the archive as a task: from stored levels to a result set with its documents.

Runs in a process of its own (``runner``). Finished parts lie in the order's folder, so a task that was killed goes on
where it was; the folder is named by the result key, and no two tenants share one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from pydicom import Dataset

from wetread.core.codes import concept, unit_code
from wetread.core.errors import ConfigurationError, InvalidInput
from wetread.core.findings import Finding, Measurement, ResultSet, Run, StoredAttachment
from wetread.core.identifiers import derived_uid, digest
from wetread.core.ports.objects import ArtifactStore
from wetread.core.ports.slide_evidence import SlideEvidence
from wetread.core.run_identity import attachment_key
from wetread.core.slide_file import MEDIA_TYPE, SLIDE_EVIDENCE, pack
from wetread.core.states import AiState
from wetread.pathology.drive import Progress
from wetread.pathology.errors import SlideRefused
from wetread.pathology.findings import slide_evidence
from wetread.pathology.job import Finished, JobOptions, PoolMaker, execute, finish, prepare
from wetread.pathology.plan import PlanOptions
from wetread.pathology.slide.open import ChosenReader
from wetread.pathology.slide.source import RangeSource
from wetread.pathology.tile_model import InstalledTileModel

OVERLAY: Final = "overlay.png"
_DOCUMENTS: Final = {
    OVERLAY: "image/png",
    "mask.png": "image/png",
    "plan.json": "application/json",
    "result.json": "application/json",
    "tiles.parquet": "application/vnd.apache.parquet",
}


class Place(Protocol):
    """An opened slide of the archive; a context manager."""

    @property
    def location(self) -> str:
        """What a worker process opens it by."""

    @property
    def sources(self) -> Sequence[RangeSource]:
        """The bytes of its levels."""

    def open(self) -> ChosenReader:
        """Open it. Raises the refusals of ``pathology.errors``."""

    def level_headers(self) -> list[Dataset]:
        """Return the headers of the levels, finest first."""


@dataclass(frozen=True, slots=True)
class SlideOrder:
    """One task. ``parameters``: those of the tile model's manifest, complete; ``folder`` keeps the finished parts."""

    run: Run
    parameters: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True, slots=True)
class Bench:
    """What a task works with. ``worker``: import path of the function that builds a chunk worker."""

    model: InstalledTileModel
    worker: str
    make_pool: PoolMaker
    artifacts: ArtifactStore


def plan_options(parameters: Mapping[str, Any], model: InstalledTileModel) -> tuple[PlanOptions, bool]:
    """Return the plan's options, and whether nuclei are marked. Raises ConfigurationError for odd values."""
    given = dict(parameters)
    nuclei = bool(given.pop("nuclei", False))
    try:
        return replace(PlanOptions(tile=model.manifest.tile.size), **given).checked(), nuclei
    except (TypeError, InvalidInput) as error:
        detail = error.detail if isinstance(error, InvalidInput) else "a parameter is no number"
        raise ConfigurationError(f"the parameters of {model.manifest.name} make no plan: {detail}") from error


def analyse(order: SlideOrder, place: Place, bench: Bench, report: Callable[[Progress], None]) -> ResultSet:
    """Carry out one order; a refused slide is an answer.

    Raises RunStopped (resumable), StorageFull, Unavailable, ConfigurationError, ComputationFailed.
    """
    began = time.perf_counter()
    options, nuclei = plan_options(order.parameters, bench.model)
    job = JobOptions(bench.model, bench.worker, options)
    order.folder.mkdir(parents=True, exist_ok=True)
    try:
        headers = place.level_headers()
        prepared = prepare(place.open(), place.sources, job)
        try:
            progress = execute(prepared, [place.location], order.folder, job, bench.make_pool, report=report)
            finished = finish(prepared, order.folder, job, progress)
        finally:
            prepared.chosen.reader.close()
    except SlideRefused as refusal:
        return ResultSet(run=order.run, state=AiState.NOT_PROCESSABLE, reason=refusal.reason, detail=refusal.detail)
    run = order.run.model_copy(
        update={
            "model_digest": bench.model.manifest.model.sha256,
            "params_digest": finished.result.plan_hash,
            "input_digest": finished.result.slide_digest,
        }
    )
    parts = order.folder / "parts" / finished.result.plan_hash
    evidence = slide_evidence(finished, bench.model.manifest, run, parts, nuclei=nuclei)
    kept = _keep(order, bench.artifacts, evidence)
    stages = zip(("read", "infer", "measure", "write"), progress.seconds, strict=True)
    timings = {name: round(seconds, 6) for name, seconds in stages}
    return _result(order.run, finished, evidence, headers, kept, {**timings, "wall": time.perf_counter() - began})


def _keep(order: SlideOrder, artifacts: ArtifactStore, evidence: SlideEvidence) -> tuple[StoredAttachment, ...]:
    tenant, key = order.run.tenant, order.run.result_key
    documents = {name: (kind, (order.folder / name).read_bytes()) for name, kind in _DOCUMENTS.items()}
    documents[SLIDE_EVIDENCE] = (MEDIA_TYPE, pack(evidence))
    kept = []
    for name, (kind, data) in documents.items():
        stored = StoredAttachment(name=name, media_type=kind, key=attachment_key(key, name), capture=name == OVERLAY)
        artifacts.put(tenant, stored.key, data)
        kept.append(stored)
    return tuple(kept)


def _result(
    run: Run,
    finished: Finished,
    evidence: SlideEvidence,
    headers: Iterable[Dataset],
    attachments: tuple[StoredAttachment, ...],
    timings: Mapping[str, float],
) -> ResultSet:
    result = finished.result
    empty = result.state == "no_tissue"
    flags = tuple(dict.fromkeys((*(("partial",) if result.state == "partial" else ()), *evidence.flags)))
    return ResultSet(
        run=run,
        state=AiState.NOT_PROCESSABLE if empty else AiState.MEASURED,
        reason="no_tissue" if empty else None,
        detail="no tissue was found on the slide" if empty else "",
        findings=() if empty else (_finding(run, evidence, flags),),
        quality=flags,
        sop_instance_uids=tuple(str(header.SOPInstanceUID) for header in headers),
        attachments=attachments,
        timings={name: round(seconds, 6) for name, seconds in timings.items()},
    )


def _finding(run: Run, evidence: SlideEvidence, flags: tuple[str, ...]) -> Finding:
    """Return the slide's numbers as one measured finding."""
    measurements = []
    for key, value, unit, kind in evidence.facts:
        if key == "tiles_planned":
            continue
        code = concept(key).code
        named = code.model_copy(update={"meaning": f"{code.meaning}: {kind}"}) if kind else code
        measurements.append(Measurement(code=named, value=value, unit=unit_code(unit).value))
    return Finding(
        finding_id=digest(run.result_key, "finding", 0)[:32],
        tracking_uid=derived_uid(run.result_key, "finding", 0),
        code=concept("tissue").code,
        state="measured",
        measurements=tuple(measurements),
        quality=flags,
    )
