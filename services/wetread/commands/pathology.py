"""What ``wetread pathology`` does: look at a slide, plan, run, run many, convert."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings

from wetread.bootstrap.pathology import WORKER, Executor, ResultBucket, missing_packages, pool_maker
from wetread.bootstrap.slides import SlideLocation
from wetread.core.errors import WetreadError
from wetread.core.ruo import RUO_STATEMENT
from wetread.pathology.errors import PARTIAL, exit_code
from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.pathology.drive import Progress
    from wetread.pathology.job import Finished, JobOptions, Prepared
    from wetread.pathology.plan import PlanOptions
    from wetread.pathology.slide.open import Choice

USAGE = 2


def ready() -> int:
    """Return 0 when the extra is installed; else say the one line that installs it and return 2."""
    # Odd values in headers are quoted by pydicom's warnings: patient data must not reach a terminal or a log.
    pydicom_settings.reading_validation_mode = IGNORE
    missing = missing_packages()
    if missing:
        print(f"missing: {', '.join(missing)}. Install with: pip install 'wetread[pathology]'", file=sys.stderr)
        return USAGE
    return 0


def guarded(work: Callable[[], int], *, as_json: bool) -> int:
    """Run a command; a refusal becomes one line (or a problem object) and its exit code."""
    if code := ready():
        return code
    try:
        return work()
    except WetreadError as error:
        print(json.dumps(error.problem()) if as_json else f"error: {error.detail}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 5


def run_info(slide: str, *, as_json: bool) -> int:
    """Print levels, resolution, the reader's verdict and how much tissue there is."""

    def work() -> int:
        from wetread.pathology.overview import make_overview
        from wetread.pathology.tissue import find_tissue

        with SlideLocation(slide) as place:
            chosen = place.open()
            pyramid = chosen.reader.pyramid
            document: dict[str, Any] = {
                "vendor": pyramid.vendor,
                "reader": chosen.reader.name,
                "reader_reason": chosen.reason,
                "compared_regions": chosen.verdict.compared,
                "mpp": pyramid.mpp,
                "scanner": dict(pyramid.properties),
                "levels": [
                    {"width": v.width, "height": v.height, "tile": [v.tile_width, v.tile_height], "codec": v.codec}
                    for v in pyramid.levels
                ],
                "tissue_mm2": None,
                "ruo": RUO_STATEMENT,
            }
            if pyramid.mpp is not None:
                overview = make_overview(chosen.reader, pyramid.mpp)
                document["tissue_mm2"] = round(find_tissue(overview.pixels, overview.mpp).area_mm2, 3)
            chosen.reader.close()
        if as_json:
            print(json.dumps(document))
            return 0
        print(f"{document['vendor']}, read by {document['reader']} ({document['compared_regions']} regions compared)")
        for number, level in enumerate(document["levels"]):
            tile = "x".join(map(str, level["tile"]))
            print(f"  level {number}: {level['width']} x {level['height']}, tiles {tile}, {level['codec']}")
        mpp = "unknown" if pyramid.mpp is None else f"{pyramid.mpp[0]:.4g} x {pyramid.mpp[1]:.4g} um per pixel"
        print(f"  resolution {mpp}; tissue {document['tissue_mm2']} mm2")
        return 0

    return guarded(work, as_json=as_json)


def run_plan(slide: str, out: Path, options: PlanOptions, *, model: str, reader: Choice, as_json: bool) -> int:
    """Write plan.json and mask.png without reading a tile."""

    def work() -> int:
        from wetread.pathology.job import prepare, write_text
        from wetread.pathology.overlay import save_mask

        out.mkdir(parents=True, exist_ok=True)
        job = _job(options, model)
        with SlideLocation(slide) as place:
            prepared = prepare(place.open(reader), place.sources, job)
            plan = prepared.plan
            document = {**plan.document, "plan_hash": plan.plan_hash}
            write_text(out / "plan.json", json.dumps(document, indent=1))
            save_mask(prepared.tissue, out / "mask.png")
            prepared.chosen.reader.close()
        at = plan.geometry
        line = f"{len(plan)} tiles of level {at.level}, {prepared.tissue.area_mm2:.2f} mm2 of tissue"
        print(json.dumps(document) if as_json else f"{line}, plan {plan.plan_hash[:12]}")
        return 0

    return guarded(work, as_json=as_json)


def run_slide(
    slide: str,
    out: Path,
    options: PlanOptions,
    *,
    model: str,
    reader: Choice,
    executor: Executor,
    workers: int | None,
    fresh: bool,
    dicom: bool,
    stow: str | None,
    nuclei: bool,
    embeddings: bool,
    as_json: bool,
    mirror: str = "",
) -> int:
    """Analyse one slide; the same command again resumes. Returns the exit code.

    ``mirror``: ``s3://`` URL that finished parts go to as well.
    """

    def work() -> int:
        job = replace(_job(options, model), fresh=fresh, embeddings=embeddings)
        if mirror:
            job = replace(job, mirror=ResultBucket(mirror), mirror_url=mirror)
        out.mkdir(parents=True, exist_ok=True)
        source = slide
        if dicom:
            source = _as_dicom(slide, out, options)
        with SlideLocation(source) as place:
            if dicom and not place.remote:
                place.level_headers()  # kept: the reader closes the files that it read
            finished, progress = _analyse(place, reader, out, job, executor, workers, quiet=as_json)
            headers = place.level_headers() if dicom else []
        written: list[str] = []
        if dicom:
            written = _write_evidence(finished, job, headers, out, nuclei=nuclei)
            if stow:
                _send(out, stow)
        _tell(finished, progress, out, written, as_json=as_json)
        return PARTIAL if finished.result.state == "partial" else 0

    return guarded(work, as_json=as_json)


def run_batch(listing: Path, out: str, analyse: Callable[[str, Path, str], int]) -> int:
    """Analyse one slide per line, each into its own folder; one that fails stops no other. Returns the worst code.

    ``out``: a folder, or ``s3://bucket/prefix``; then the work lies in a temporary folder, and what was finished before
    comes from the bucket. *analyse* gets slide, folder and the URL of the slide's results ("" for a folder).
    """
    try:
        lines = [line.strip() for line in listing.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        print("error: the list of slides cannot be read", file=sys.stderr)
        return USAGE
    worst = 0
    for number, slide in enumerate(line for line in lines if line and not line.startswith("#")):
        name = f"slide-{number:05d}"
        if out.startswith("s3://"):
            code = _into_bucket(f"{out.rstrip('/')}/{name}", partial(analyse, slide))
        else:
            code = analyse(slide, Path(out) / name, "")
        print(json.dumps({"slide": number, "exit_code": code}))
        worst = max(worst, code)
    return worst


def _into_bucket(url: str, analyse: Callable[[Path, str], int]) -> int:
    """Run in a temporary folder and send what it holds, also what a run that stopped left behind."""
    with tempfile.TemporaryDirectory(prefix="wetread-slide-") as scratch:
        folder = Path(scratch)
        code = analyse(folder, url)

        def send() -> int:
            ResultBucket(url).send(folder)
            return code

        return max(code, guarded(send, as_json=True))


def run_convert(
    slide: str,
    out: Path,
    *,
    stow: str | None,
    allow_reencode: bool,
    mpp_override: float | None,
    patient: str,
    accession: str,
    as_json: bool,
) -> int:
    """Write a vendor slide as DICOM; every frame is compared with its tile."""

    def work() -> int:
        levels = _convert(slide, out, mpp_override, allow_reencode=allow_reencode, patient=patient, accession=accession)
        if stow:
            _send(out, stow)
        document = [{**asdict(level), "path": str(level.path)} for level in levels]
        if as_json:
            print(json.dumps(document))
            return 0
        for level in levels:
            note = "encoded anew" if level.reencoded else f"{level.identical} byte-identical"
            print(f"{level.path.name}: {level.width} x {level.height}, {level.frames} frames, {note}")
        return 0

    return guarded(work, as_json=as_json)


def _job(options: PlanOptions, model: str) -> JobOptions:
    from wetread.pathology.job import JobOptions
    from wetread.pathology.tile_model import load_tile_model

    return JobOptions(load_tile_model(model), WORKER, options.checked())


def _analyse(
    place: SlideLocation,
    reader: Choice,
    out: Path,
    job: JobOptions,
    executor: Executor,
    workers: int | None,
    *,
    quiet: bool,
) -> tuple[Finished, Progress]:
    from wetread.pathology.drive import Progress
    from wetread.pathology.job import execute, finish, prepare, stopped_report

    prepared: Prepared = prepare(place.open(reader), place.sources, job)
    if prepared.chosen.reason and not quiet:
        print(f"read by {prepared.chosen.reader.name}: {prepared.chosen.reason}", file=sys.stderr)
    latest = Progress(total=len(prepared.plan))
    bar = _Bar(quiet=quiet)

    def report(progress: Progress) -> None:
        nonlocal latest
        latest = progress
        bar.show(progress)

    try:
        progress = execute(prepared, [place.location], out, job, pool_maker(executor, workers), report=report)
        return finish(prepared, out, job, progress), progress
    except WetreadError as error:
        stopped_report(prepared, out, error, latest)
        raise
    finally:
        bar.close()
        prepared.chosen.reader.close()


class _Bar:
    """A progress bar that appears after two seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._began = quiet, time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def show(self, progress: Progress) -> None:
        """Show tiles per second, failed and resumed ones."""
        seconds = time.monotonic() - self._began
        if self._quiet or seconds < 2:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("tiles", total=progress.total)
        rate = progress.done / seconds
        text = f"{rate:.0f} tiles/s, {progress.failed} failed, {progress.resumed} resumed"
        self._bar.update(self._task, completed=progress.finished, description=text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


def _as_dicom(slide: str, out: Path, options: PlanOptions) -> str:
    """Return a DICOM form of *slide*: itself when it is one, else what conversion writes into ``out/dicom``."""
    with SlideLocation(slide) as place:
        if place.is_dicom:
            return slide
    folder = out / "dicom"
    if not any(folder.glob("level-*.dcm")):
        _convert(slide, folder, options.mpp_override, allow_reencode=False, patient="", accession="")
    return str(folder)


def _convert(
    slide: str, folder: Path, mpp_override: float | None, *, allow_reencode: bool, patient: str, accession: str
) -> list[Any]:
    from wetread.pathology.convert import ConvertOptions, convert
    from wetread.pathology.plan import base_mpp
    from wetread.pathology.slide.open import slide_digest
    from wetread.pathology.wsm import SlideIdentity

    with SlideLocation(slide) as place:
        chosen = place.open()
        path = place.sources[0].path if place.sources else None
        try:
            options = ConvertOptions(
                base_mpp=base_mpp(chosen.reader.pyramid, mpp_override),
                digest=slide_digest(chosen.reader, place.sources),
                acquired_at=path.stat().st_mtime if path is not None else 0.0,
                identity=SlideIdentity(patient, accession),
                allow_reencode=allow_reencode,
            )
            return list(convert(chosen.reader, folder, options))
        finally:
            chosen.reader.close()


def _write_evidence(
    finished: Finished, job: JobOptions, headers: Sequence[Dataset], out: Path, *, nuclei: bool
) -> list[str]:
    from wetread.adapters.evidence.slide import SlideEncoder
    from wetread.bootstrap.engines import engine_identity
    from wetread.pathology.findings import command_run, slide_evidence

    encoder, manifest = SlideEncoder(), job.model.manifest
    run = command_run(finished, manifest, headers, encoder_version=encoder.version, engine=engine_identity(Settings()))
    parts = out / "parts" / finished.result.plan_hash
    evidence = slide_evidence(finished, manifest, run, parts, headers=headers, nuclei=nuclei)
    folder = out / "evidence"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.dcm"):
        stale.unlink()
    names = []
    for made in encoder.encode(evidence):
        (folder / f"{made.role}.dcm").write_bytes(made.data)
        names.append(f"evidence/{made.role}.dcm")
    return names


def _send(folder: Path, url: str) -> None:
    """Send every DICOM file of *folder*, coarse levels and results first, so that viewers show something early."""
    from wetread.commands.send import run_send
    from wetread.core.errors import Unavailable

    if run_send(folder, url=url, connections=2, api_key=None, as_json=False):
        raise Unavailable("the server did not take all objects; run the same command again")


def _tell(finished: Finished, progress: Progress, out: Path, written: Sequence[str], *, as_json: bool) -> None:
    result = finished.result
    with suppress(FileNotFoundError):
        (out / "stopped.json").unlink()
    if as_json:
        print(result.model_dump_json(by_alias=True))
        return
    print(f"{result.state}: {result.tiles.done} of {result.tiles.planned} tiles, {progress.resumed} resumed")
    for name, share in result.class_share.items():
        print(f"  {name}: {share:.1%}")
    for region in result.regions:
        print(f"  {result.target} region at ({region.x:.0f}, {region.y:.0f}), {region.area_mm2:.3f} mm2")
    files = ["result.json", "tiles.parquet", "overlay.png", *written]
    print(f"  wrote {', '.join(files)}")
    print(RUO_STATEMENT)
