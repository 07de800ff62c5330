"""``wetread pathology``: options only; the work is imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from wetread.pathology.plan import PlanOptions

app = typer.Typer(
    name="pathology",
    no_args_is_help=True,
    help="Whole slides: look, plan, analyse, convert. Research use only. Not for diagnosis or patient care.",
    epilog=(
        "Exit codes: 0 complete (also no tissue); 2 wrong usage or missing extra; 3 partial; 4 input refused; "
        "5 stopped, run again to resume; 6 a conversion would have changed pixels."
    ),
)

Slide = Annotated[str, typer.Argument(help="File, folder of DICOM files, or s3://bucket/key.")]
Out = Annotated[Path, typer.Option(help="Folder of the results; the same one again resumes.")]
Mpp = Annotated[float, typer.Option(help="Micrometres per pixel of the analysis.")]
Tile = Annotated[int, typer.Option(help="Pixels of a tile, square.")]
Overlap = Annotated[int, typer.Option(help="Pixels shared by neighbouring tiles.")]
MinTissue = Annotated[float, typer.Option(help="Smallest share of tissue of a tile, 0-1.")]
MppOverride = Annotated[float | None, typer.Option(help="Resolution of the slide, when it does not say or lies.")]
Upsample = Annotated[bool, typer.Option("--allow-upsample", help="Analyse a slide coarser than --mpp all the same.")]
Model = Annotated[str, typer.Option(help="Tile model.")]
ReaderChoice = Annotated[Literal["auto", "native", "openslide"], typer.Option(help="Force a reader.")]
Run = Annotated[Literal["process", "inline", "ray"], typer.Option(help="What runs the chunks.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Workers (default: as many as cores).")]
NoDicom = Annotated[bool, typer.Option("--no-dicom", help="Neither convert nor write DICOM results.")]
Stow = Annotated[str | None, typer.Option(help="Base URL of a server that gets the DICOM objects.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


@app.callback()
def _group() -> None:
    """Whole slides: look, plan, analyse, convert. Research use only. Not for diagnosis or patient care."""


@app.command()
def info(slide: Slide, json: Json = False) -> None:
    """Show levels, resolution, which reader the slide gets, and how much tissue there is."""
    from wetread.commands.pathology import run_info

    raise typer.Exit(run_info(slide, as_json=json))


@app.command()
def plan(
    slide: Slide,
    out: Out,
    mpp: Mpp = 0.5,
    tile: Tile = 256,
    overlap: Overlap = 0,
    min_tissue: MinTissue = 0.25,
    mpp_override: MppOverride = None,
    allow_upsample: Upsample = False,
    model: Model = "he-tile",
    reader: ReaderChoice = "auto",
    json: Json = False,
) -> None:
    """Find the tissue and lay the grid; write plan.json and mask.png."""
    from wetread.commands.pathology import run_plan

    options = _options(mpp, tile, overlap, min_tissue, mpp_override, allow_upsample=allow_upsample)
    raise typer.Exit(run_plan(slide, out, options, model=model, reader=reader, as_json=json))


@app.command()
def run(
    slide: Slide,
    out: Out,
    mpp: Mpp = 0.5,
    tile: Tile = 256,
    overlap: Overlap = 0,
    min_tissue: MinTissue = 0.25,
    mpp_override: MppOverride = None,
    allow_upsample: Upsample = False,
    model: Model = "he-tile",
    reader: ReaderChoice = "auto",
    executor: Run = "process",
    workers: Workers = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget finished parts.")] = False,
    no_dicom: NoDicom = False,
    stow: Stow = None,
    nuclei: Annotated[bool, typer.Option("--nuclei", help="Write every nucleus as an annotation.")] = False,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Keep the embedding of every tile.")] = False,
    json: Json = False,
) -> None:
    """Analyse a slide: table, overlay and DICOM results. Interrupted? The same command goes on."""
    from wetread.commands.pathology import run_slide

    options = _options(mpp, tile, overlap, min_tissue, mpp_override, allow_upsample=allow_upsample)
    more: dict[str, Any] = {"fresh": fresh, "dicom": not no_dicom, "stow": stow, "nuclei": nuclei}
    code = run_slide(
        slide, out, options, model=model, reader=reader, executor=executor, workers=workers, embeddings=embeddings,
        as_json=json, **more,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def batch(
    listing: Annotated[Path, typer.Argument(metavar="LIST", help="Text file, one slide per line.")],
    out: Annotated[str, typer.Option(help="Folder or s3://bucket/prefix of the results; the same one again resumes.")],
    mpp: Mpp = 0.5,
    tile: Tile = 256,
    overlap: Overlap = 0,
    min_tissue: MinTissue = 0.25,
    model: Model = "he-tile",
    executor: Run = "process",
    workers: Workers = None,
    no_dicom: NoDicom = False,
    stow: Stow = None,
) -> None:
    """Analyse many slides, each into its own folder; one that fails stops no other. Exit code: the worst."""
    from wetread.commands.pathology import run_batch, run_slide

    options = _options(mpp, tile, overlap, min_tissue, None, allow_upsample=False)

    def analyse(slide: str, folder: Path, mirror: str) -> int:
        return run_slide(
            slide, folder, options, model=model, reader="auto", executor=executor, workers=workers, fresh=False,
            dicom=not no_dicom, stow=stow, nuclei=False, embeddings=False, as_json=True, mirror=mirror,
        )  # fmt: skip

    raise typer.Exit(run_batch(listing, out, analyse))


@app.command()
def convert(
    slide: Slide,
    out: Out,
    stow: Stow = None,
    allow_reencode: Annotated[
        bool, typer.Option("--allow-reencode", help="Encode anew what cannot be passed through.")
    ] = False,
    mpp_override: MppOverride = None,
    patient: Annotated[str, typer.Option(help="Patient ID of the order; default: a research id.")] = "",
    accession: Annotated[str, typer.Option(help="Accession number of the order.")] = "",
    json: Json = False,
) -> None:
    """Write a vendor slide as a DICOM pyramid whose frames are the slide's own tiles. Labels are never written."""
    from wetread.commands.pathology import run_convert

    code = run_convert(
        slide, out, stow=stow, allow_reencode=allow_reencode, mpp_override=mpp_override, patient=patient,
        accession=accession, as_json=json,
    )  # fmt: skip
    raise typer.Exit(code)


def _options(
    mpp: float, tile: int, overlap: int, min_tissue: float, override: float | None, *, allow_upsample: bool
) -> PlanOptions:
    from wetread.pathology.plan import PlanOptions

    return PlanOptions(
        mpp=mpp,
        tile=tile,
        overlap=overlap,
        min_tissue=min_tissue,
        mpp_override=override,
        allow_upsample=allow_upsample,
    )
