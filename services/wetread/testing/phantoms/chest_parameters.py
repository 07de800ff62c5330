"""Distributions behind the chest-CT phantoms, as data, and the digest that names them.

Forms of an entry: ``parameters.sample``. A shift set overrides entries by name. ``models/lung-nodule/phantom.yaml`` is
this table written out. HU values and sizes are those of radiology teaching, widened on purpose (domain randomisation).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from wetread.testing import parameter_tables
from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.parameters import Draw

GENERATOR_VERSION: Final = "chest-ct/1"
_HEADING: Final = """\
# Distributions behind the training and evaluation phantoms, written by
#   python -m wetread.testing.phantoms.chest_parameters
# The digest of this table is the phantom-evidence id of the card. Forms: [low, high] uniform, log, p (coin),
# normal [mean, sd, low, high], choice {value: weight}. Sets override entries of base.
"""

BASE: Final[dict[str, Any]] = {
    # body
    "body.scale": {"normal": [1.0, 0.07, 0.85, 1.15]},
    "body.depth": {"normal": [1.0, 0.07, 0.85, 1.2]},
    "body.wall_mm": {"log": [14, 42]},
    "body.soft_hu": {"normal": [45, 8, 25, 70]},
    "body.fat_hu": {"normal": [-100, 8, -125, -80]},
    "body.rib_hu": [250, 700],
    "body.deform_mm": [1.0, 4.0],
    "body.diaphragm_mm": [18, 50],
    "heart.mm": {"normal": [48, 6, 36, 64]},
    # lung
    "lung.hu": {"normal": [-845, 30, -910, -760]},
    "lung.gravity_hu": [0, 60],
    "lung.texture_hu": [4, 25],
    "lung.fissure_hu": [80, 380],
    "lung.contrast": {"p": 0.3},
    "lung.vessel_hu": {"normal": [40, 10, 15, 70]},
    "lung.enhanced_hu": [110, 320],
    "tree.spacing_mm": [6.5, 10.0],
    "tree.leaf_mm": [0.32, 0.55],
    "tree.exponent": [2.5, 3.0],
    "tree.wander": [0.05, 0.35],
    # nodules
    "nodule": {"p": 0.7},
    "nodule.count": {"choice": {1: 0.5, 2: 0.25, 3: 0.15, 4: 0.1}},
    "nodule.diameter_mm": {"log": [3.0, 30.0]},
    "nodule.solidity": {"choice": {"solid": 0.6, "part_solid": 0.2, "ground_glass": 0.2}},
    "nodule.place": {"choice": {"free": 0.4, "pleural": 0.3, "vascular": 0.3}},
    "nodule.solid_hu": {"normal": [35, 20, -20, 90]},
    "nodule.ground_glass_hu": {"normal": [-560, 70, -680, -400]},
    "nodule.core_share": [0.3, 0.75],
    "nodule.flatness": [0.7, 1.0],
    "nodule.lobulation": [0.0, 0.16],
    "nodule.spiculated": {"p": 0.25},
    "nodule.edge_mm": [0.7, 2.0],
    # confounders: how many of each
    "confounder.granuloma": {"choice": {0: 0.6, 1: 0.25, 2: 0.15}},
    "confounder.scar": {"choice": {0: 0.6, 1: 0.25, 2: 0.15}},
    "confounder.rib_end": {"choice": {0: 0.4, 1: 0.3, 2: 0.3}},
    "confounder.plaque": {"choice": {0: 0.8, 1: 0.1, 2: 0.1}},
    "confounder.mucus": {"choice": {0: 0.7, 1: 0.2, 2: 0.1}},
    "confounder.atelectasis": {"choice": {0: 0.7, 1: 0.2, 2: 0.1}},
    "confounder.bullae": {"choice": {0: 0.65, 15: 0.15, 50: 0.12, 120: 0.08}},
    # acquisition
    "scan.thickness_mm": {"choice": {0.6: 0.06, 1.0: 0.24, 1.25: 0.2, 2.0: 0.2, 2.5: 0.16, 3.0: 0.08, 5.0: 0.06}},
    "scan.overlap": {"p": 0.2},
    "scan.pixel_mm": [0.75, 1.1],
    "scan.kernel": {"choice": {"soft": 0.3, "standard": 0.4, "sharp": 0.3}},
    "scan.noise_at_2mm_hu": {"log": [6, 40]},
    "scan.streak_share": [0.0, 0.5],
    "scan.offset_hu": {"normal": [0, 5, -15, 15]},
    "scan.gain": {"normal": [1.0, 0.01, 0.97, 1.03]},
    "scan.table": {"p": 0.8},
    "motion": {"p": 0.1},
    "motion.shift_mm": [0.5, 3.0],
}

SETS: Final[dict[str, dict[str, Any]]] = {
    "train": {"nodule": {"p": 1.0}, "nodule.count": {"choice": {8: 0.5, 12: 0.5}}},
    "tune": {},
    "s0": {},
    # acquisition that training draws rarely or never
    "s1": {
        "scan.thickness_mm": {"choice": {0.75: 0.25, 1.5: 0.2, 3.75: 0.25, 4.5: 0.3}},
        "scan.noise_at_2mm_hu": {"log": [25, 65]},
        "scan.kernel": {"choice": {"smooth": 0.5, "sharp": 0.5}},
        "scan.pixel_mm": [0.6, 1.3],
    },
    # bodies and lungs at and beyond the edge of training
    "s2": {
        "body.scale": {"choice": {0.8: 0.4, 1.2: 0.4, 1.28: 0.2}},
        "body.wall_mm": {"choice": {10: 0.4, 50: 0.6}},
        "body.diaphragm_mm": [40, 70],
        "body.deform_mm": [4.0, 8.0],
        "lung.hu": {"choice": {-930: 0.5, -730: 0.5}},
        "lung.gravity_hu": [50, 120],
        "heart.mm": [58, 72],
        "tree.spacing_mm": [5.8, 6.8],
        "tree.wander": [0.3, 0.6],
    },
    # rich in what looks like a nodule; two thirds have none
    "s3": {
        "nodule": {"p": 0.33},
        "confounder.granuloma": {"choice": {1: 0.3, 2: 0.4, 4: 0.3}},
        "confounder.scar": {"choice": {1: 0.3, 2: 0.4, 4: 0.3}},
        "confounder.rib_end": {"choice": {2: 0.5, 4: 0.5}},
        "confounder.plaque": {"choice": {1: 0.5, 3: 0.5}},
        "confounder.mucus": {"choice": {1: 0.4, 2: 0.3, 4: 0.3}},
        "confounder.atelectasis": {"choice": {1: 0.5, 2: 0.5}},
        "confounder.bullae": {"choice": {0: 0.3, 50: 0.3, 150: 0.4}},
        "tree.wander": [0.25, 0.5],
    },
    # artefacts: breathing between slices, streaks, wrong calibration
    "s4": {
        "motion": {"p": 0.8},
        "motion.shift_mm": [2.0, 6.0],
        "scan.streak_share": [0.6, 1.5],
        "scan.offset_hu": {"normal": [0, 25, -45, 45]},
        "scan.gain": {"normal": [1.0, 0.04, 0.92, 1.08]},
    },
    # another shape model, tree and simulator: see chest_variant.py
    "s5": {},
}


class ChestDraw(Draw):
    """Draw named parameters of one set of the chest table; values that are *given* are not drawn.

    Raises PhantomSpecError for a given name that the table does not hold.
    """

    def __init__(self, rng: np.random.Generator, split: str, given: Mapping[str, Any] | None = None) -> None:
        super().__init__(rng, split)
        self.table = BASE | SETS[split]
        self.given = dict(given or {})
        unknown = sorted(set(self.given) - set(self.table))
        if unknown:
            raise PhantomSpecError(f"the chest table holds no {', '.join(unknown)}")

    def __call__(self, name: str) -> Any:
        """Draw *name*, or return what was given for it."""
        if name not in self.given:
            return super().__call__(name)
        self.drawn[name] = self.given[name]
        return self.given[name]


def as_mapping() -> dict[str, Any]:
    """Give the whole table in the form of ``phantom.yaml``."""
    return {"generator": GENERATOR_VERSION, "base": BASE, "sets": SETS}


def as_yaml() -> str:
    """Give ``phantom.yaml``: the table with a heading that says what it is."""
    return parameter_tables.as_yaml(as_mapping(), _HEADING)


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
