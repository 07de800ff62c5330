"""Synthetic coronary CT angiograms with analytic truth: a DICOM series and the tree that it was made from.

``make_phantom(seed)`` draws everything from the seed; ``tiny`` (one vessel), ``ci`` and ``full`` are sizes. NumPy and
SciPy only. Pictures of it look like a CT of a heart only roughly: it is made to measure errors, not to train on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from wetread.core.ruo import RUO_STATEMENT
from wetread.testing.phantoms.coronary_dicom import series
from wetread.testing.phantoms.coronary_parameters import GENERATOR_VERSION, CoronarySpec, draw_spec
from wetread.testing.phantoms.coronary_render import Grid, Image, grid_of, render
from wetread.testing.phantoms.coronary_tree import TrueTree, build_tree

MAP_MMHG = 93.0
FLOW_ML_MIN_PER_OSTIUM = 198.0
"""Hyperaemic flow of an ostium of 1.9 mm radius; it grows with the radius to the power 2.5."""


@dataclass(frozen=True, slots=True)
class CoronaryPhantom:
    """A finished phantom: HU [plane, row, column], where its voxels are, and what is true."""

    spec: CoronarySpec
    tree: TrueTree
    grid: Grid
    image: Image

    @property
    def slices(self) -> list[Dataset]:
        """The CT series."""
        return series(self.spec, self.grid, self.image)

    @property
    def truth(self) -> dict[str, Any]:
        """What is true, as JSON: see ``truth_document``."""
        return truth_document(self.spec, self.tree)


def make_phantom(seed: int, **overrides: Any) -> tuple[list[Dataset], dict[str, Any]]:
    """Make one phantom: its CT slices and its truth. Raises PhantomSpecError and PhantomSeedError."""
    phantom = coronary_phantom(seed, **overrides)
    return phantom.slices, phantom.truth


def coronary_phantom(seed: int, **overrides: Any) -> CoronaryPhantom:
    """Make one phantom without DICOM. Raises PhantomSpecError and PhantomSeedError."""
    spec = draw_spec(seed, **overrides)
    tree = build_tree(spec)
    return CoronaryPhantom(spec, tree, grid_of(spec), render(spec, tree))


def write_phantom(seed: int, folder: Path, **overrides: Any) -> dict[str, Any]:
    """Write the series (``CT0001.dcm`` ...) and ``truth.json`` into *folder*; returns the truth."""
    slices, truth = make_phantom(seed, **overrides)
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(slices, start=1):
        dataset.save_as(folder / f"CT{number:04d}.dcm", enforce_file_format=True)
    (folder / "truth.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")
    return truth


def truth_document(spec: CoronarySpec, tree: TrueTree) -> dict[str, Any]:
    """Return what is true: ``tree`` (``wetread.ffr.tree/1`` with healthy radii and borders), lesions, parameters."""
    flow = FLOW_ML_MIN_PER_OSTIUM * sum((float(v.healthy[0]) / 1.9) ** 2.5 for v in tree.vessels if v.parent is None)
    vessels = [
        {
            "id": vessel.id,
            "parent": vessel.parent,
            "label": vessel.label,
            "points_mm": vessel.points[::2].round(4).tolist(),
            "radius_mm": vessel.radius[::2].round(5).tolist(),
            "healthy_radius_mm": vessel.healthy[::2].round(5).tolist(),
        }
        for vessel in tree.vessels
    ]
    return {
        "schema": "wetread.coronary-phantom/1",
        "disclaimer": RUO_STATEMENT,
        "generator": GENERATOR_VERSION,
        "seed": spec.seed,
        "parameters": asdict(spec),
        "tree": {
            "schema": "wetread.ffr.tree/1",
            "vessels": vessels,
            "patient": {"q_hyp_ml_min": round(flow, 4)},
            "bc": {"inlet": {"kind": "pressure", "mmhg": MAP_MMHG}, "outlets": "murray"},
        },
        "lesions": [asdict(lesion) for lesion in tree.lesions],
    }
