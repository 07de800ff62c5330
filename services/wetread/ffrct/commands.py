"""``wetread ffr``: CT-derived FFR on the command line. Science is imported when a command runs."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="ffr",
    no_args_is_help=True,
    help="CT-derived FFR from a vessel tree. Research use only. Not for diagnosis or patient care.",
)


@app.callback()
def _group() -> None:
    """CT-derived FFR from a vessel tree. Research use only. Not for diagnosis or patient care."""


@app.command()
def solve(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Tree JSON, svZeroDSolver JSON or VTP.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    tier: Annotated[
        Literal["auto", "analytic", "calibrated", "rnsp"] | None,
        typer.Option(help="Lesion model (default: the file's, else auto)."),
    ] = None,
    uq_draws: Annotated[int | None, typer.Option(min=0, max=5000, help="Uncertainty draws; 0 for none.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result document.")] = False,
) -> None:
    """Compute pressure, flow and FFR along every vessel of FILE."""
    from wetread.core.errors import WetreadError

    from .solving import solve_file
    from .summary import summary_lines

    try:
        answer = solve_file(file, out, tier=tier, uq_draws=uq_draws)
    except WetreadError as error:
        typer.echo(dumps(error.problem()) if json else f"error: {error.detail}", err=not json)
        raise typer.Exit(2) from error
    if json:
        typer.echo(dumps(answer.result))
        return
    for line in summary_lines(answer.result):
        typer.echo(line)
    for path in answer.written:
        typer.echo(f"wrote {path}")
