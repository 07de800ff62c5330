"""Builds the stored Navier-Stokes set: a factorial base grid, a Latin-hypercube extension and check cases.

Run as ``python -m wetread.ffrct.science.reference.build_set OUT.json`` with the extra ``dev``; cases that
do not converge are left out and counted. The stored file is the build's own output, never edited.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.stats import qmc

from .shapes import Family, Shape

SCHEMA: Final = "wetread.ffr.ns/1"
SEED: Final = 20260
EXTENSION_PER_FAMILY: Final = 32
CHECKS_PER_FAMILY: Final = 6
FAMILIES: Final[tuple[Family, ...]] = ("cosine", "blunt", "skewed", "serial")
LARGEST_THROAT_RE: Final = 700.0
_CODE: Final = ("ns_axisym.py", "shapes.py")


@dataclass(frozen=True)
class Case:
    """One planned case; ``role`` is ``fit`` or ``check`` (never seen by a fit)."""

    id: str
    shape: Shape
    re: float
    role: str


def base_grid() -> Iterator[Case]:
    """Sixty concentric cosine lesions: severity x length x Reynolds number."""
    for severity in (0.3, 0.4, 0.5, 0.6, 0.7):
        for length in (1.0, 2.0, 4.0, 7.0):
            for re in (60.0, 150.0, 220.0 if severity == 0.7 else 300.0):
                name = f"base-{severity:.1f}-{length:.0f}-{re:.0f}"
                yield Case(name, Shape("cosine", severity, length), re, "fit")


def extension(seed: int = SEED) -> Iterator[Case]:
    """Other shapes and places in the box, by Latin hypercube, with check cases of their own draw."""
    for order, family in enumerate(FAMILIES):
        for role, count in (("fit", EXTENSION_PER_FAMILY), ("check", CHECKS_PER_FAMILY)):
            draw = qmc.LatinHypercube(8, rng=np.random.default_rng([seed, order, count]))
            for number, u in enumerate(draw.random(count)):
                shape = _shape(family, u)
                worst = max(shape.severity, shape.second)
                highest = min(450.0, LARGEST_THROAT_RE * (1.0 - worst))
                re = float(round(30.0 * (highest / 30.0) ** u[7], 1))
                yield Case(f"{family}-{role}-{number:02d}", shape, re, role)


def _shape(family: Family, u: np.ndarray[Any, np.dtype[np.float64]]) -> Shape:
    def span(which: int, low: float, high: float) -> float:
        return float(round(low + (high - low) * u[which], 4))

    return Shape(
        family,
        severity=span(0, 0.25, 0.75),
        length=span(1, 1.0, 7.0),
        plateau=span(2, 0.1, 0.8) if family == "blunt" else 0.0,
        throat=span(3, 0.25, 0.75) if family == "skewed" else 0.5,
        gap=span(4, 0.5, 8.0) if family == "serial" else 0.0,
        second=span(5, 0.25, 0.6) if family == "serial" else 0.0,
        taper=span(6, 0.0, 0.15),
    )


def code_sha256() -> str:
    """Hash of the generator's own source."""
    digest = hashlib.sha256()
    folder = files("wetread.ffrct.science.reference")
    for name in _CODE:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def solve_case(case: Case, code: str) -> dict[str, Any] | None:
    """Solve one case into its record, or None when Newton does not converge."""
    from .ns_axisym import INLET, RADIAL_CELLS, NotConvergedError, solve_reference

    try:
        solved = solve_reference(case.shape, case.re)
    except NotConvergedError:
        return None
    params = {k: v for k, v in asdict(case.shape).items() if k != "family"}
    return {
        "id": case.id,
        "family": case.shape.family,
        "params": params,
        "re": case.re,
        "dp": float(f"{solved.dp:.5g}"),
        "length": float(f"{solved.length:.6g}"),
        "inlet": INLET,
        "outlet": float(f"{solved.outlet:.6g}"),
        "ndof": solved.ndof,
        "newton": solved.newton,
        "nr": RADIAL_CELLS,
        "role": case.role,
        "code_sha256": code[:16],
    }


def main(target: Path) -> None:
    """Solve every case and write the set."""
    code = code_sha256()
    cases = [*base_grid(), *extension()]
    records, lost = [], []
    for number, case in enumerate(cases, start=1):
        record = solve_case(case, code)
        if record is None:
            lost.append(case.id)
        else:
            records.append(record)
        sys.stderr.write(f"\r{number}/{len(cases)}, not converged {len(lost)}")
        sys.stderr.flush()
    header = {
        "schema": SCHEMA,
        "seed": SEED,
        "code_sha256": code,
        "scikit_fem": version("scikit-fem"),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "not_converged": lost,
    }
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    target.write_text(f'{{"header":{json.dumps(header)},\n"records":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
