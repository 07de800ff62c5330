"""Distributions behind the head-CT phantoms, as data, and the digest that names them.

Every entry is one of: [low, high] uniform; {log: [low, high]} log-uniform; {p: x} a coin;
{normal: [mean, sd, low, high]} clipped normal; {choice: {value: weight}}. A shift set overrides
entries by name. `models/ich/phantom.yaml` is this table written out.
HU values follow common radiology teaching (grey 37-41, white 25-32, CSF 0-15, clotted blood
50-90) and are widened on purpose: domain randomisation is to carry training to real scans.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from wetread.testing import parameter_tables

GENERATOR_VERSION = "head-ct/2"
_HEADING = """\
# Distributions behind the training and evaluation phantoms, written by
#   python -m wetread.testing.phantoms.parameters
# The digest of this table is the phantom-evidence id of the card. Forms: [low, high] uniform, log, p (coin),
# normal [mean, sd, low, high], choice {value: weight}. Sets override entries of base.
"""

BASE: dict[str, Any] = {
    # head shape and pose
    "shape.half_width_mm": {"normal": [67, 4, 56, 80]},
    "shape.half_length_mm": {"normal": [85, 5, 70, 100]},
    "shape.half_height_mm": {"normal": [74, 4, 62, 86]},
    "shape.deform": [0.005, 0.03],
    "shape.floor_shift_mm": {"normal": [0, 4, -10, 10]},
    "pose.roll_deg": {"normal": [0, 5, -18, 18]},
    "pose.pitch_deg": {"normal": [0, 8, -25, 25]},
    "pose.yaw_deg": {"normal": [0, 5, -18, 18]},
    "pose.offset_mm": {"normal": [0, 8, -40, 40]},
    # bone, scalp
    "bone.thickness_mm": {"log": [3.0, 11.0]},
    "bone.table_hu": [1000, 2100],
    "bone.diploe_ratio": [0.25, 0.85],
    "scalp.thickness_mm": [3, 12],
    "scalp.swelling": {"p": 0.2},
    "bone.hyperostosis": {"p": 0.08},
    "sinus.opacified": {"p": 0.2},
    "mastoid.opacified": {"p": 0.1},
    # tissue
    "tissue.white_hu": {"normal": [28, 2.5, 20, 36]},
    "tissue.grey_minus_white_hu": {"normal": [9, 2.5, 3, 15]},
    "tissue.csf_hu": {"normal": [7, 4, -5, 18]},
    "tissue.dura_hu": {"normal": [52, 8, 35, 80]},
    "tissue.vein_hu": {"normal": [54, 8, 35, 78]},
    "tissue.vessel_hu": {"normal": [42, 6, 30, 65]},
    "tissue.vessel_calcified": {"p": 0.35},
    "tissue.brainstem_minus_white_hu": {"normal": [2, 2, -4, 7]},
    "tissue.texture_hu": [0.3, 3.0],
    "tissue.mottle_hu": {"log": [0.5, 5.0]},
    "tissue.shading_hu": [0.0, 4.0],
    "atrophy": {"log": [0.25, 3.2]},
    "ventricle.scale": {"normal": [1.1, 0.4, 0.4, 2.8]},
    "ventricle.asymmetry": {"normal": [0, 0.16, -0.5, 0.5]},
    "cortex.wavelength_mm": [5.5, 9.5],
    "cortex.depth_mm": [9, 22],
    "cortex.thickness_mm": [2.4, 5.0],
    "falx.thickness_mm": [0.6, 2.6],
    "tentorium.thickness_mm": [0.6, 2.8],
    "sinus.radius_mm": [2.0, 5.5],
    # confounders
    "white_matter_disease": {"p": 0.35},
    "infarct": {"p": 0.15},
    "infarct.drop_hu": [3, 16],
    "infarct.petechial": {"p": 0.15},
    "tumour": {"p": 0.05},
    "tumour.hu": [30, 58],
    "calcified.choroid": {"p": 0.55},
    "calcified.pineal": {"p": 0.5},
    "calcified.basal_ganglia": {"p": 0.18},
    "calcified.falx": {"p": 0.3},
    "calcified.speck": {"p": 0.12},
    "craniotomy": {"p": 0.05},
    "shunt": {"p": 0.04},
    "cavum": {"p": 0.06},
    # bleeds
    "bleed": {"p": 0.55},
    "bleed.second": {"p": 0.35},
    "bleed.kind": {"choice": {"EDH": 0.12, "SDH": 0.26, "IPH": 0.32, "IVH": 0.1, "SAH": 0.2}},
    "bleed.volume_ml": {"log": [0.2, 100]},
    "bleed.hu": {"normal": [64, 9, 42, 88]},
    "bleed.subacute": {"p": 0.12},
    "bleed.subacute_hu": [34, 50],
    "bleed.mixed": {"p": 0.25},
    "bleed.fluid_level": {"p": 0.1},
    "bleed.oedema_mm": [0, 9],
    "bleed.oedema_drop_hu": [4, 14],
    "bleed.mass_effect": [0.2, 1.0],
    "bleed.edge_mm": [0.5, 2.5],
    # acquisition
    "scan.thickness_mm": {"choice": {0.625: 0.08, 1.25: 0.08, 2.5: 0.14, 3.0: 0.1, 4.0: 0.1, 5.0: 0.42, 7.5: 0.08}},
    "scan.field_mm": {"normal": [232, 12, 200, 256]},
    "scan.bottom_mm": {"normal": [-62, 12, -95, -35]},
    "scan.top_mm": {"normal": [84, 7, 62, 105]},
    "scan.tilt": {"p": 0.45},
    "scan.tilt_deg": [-25, 25],
    "scan.kvp": {"choice": {80: 0.05, 100: 0.15, 120: 0.65, 140: 0.15}},
    "scan.kernel": {"choice": {"soft": 0.45, "standard": 0.4, "sharp": 0.15}},
    "noise.at_5mm_hu": {"log": [1.5, 8.0]},
    "noise.streak_share": [0.0, 0.5],
    "hardening.rim_hu": {"normal": [7, 4, 0, 20]},
    "hardening.rim_mm": [3, 10],
    "hardening.cupping_hu": {"normal": [0, 3, -8, 8]},
    "hardening.petrous_hu": [2, 24],
    "scatter.flatten": [0.0, 0.08],
    "calibration.offset_hu": {"normal": [0, 2, -7, 7]},
    "calibration.gain": {"normal": [1.0, 0.02, 0.93, 1.07]},
    "stack.irregular": {"p": 0.12},
    "stack.hole": {"p": 0.08},
    "stack.double": {"p": 0.04},
    "motion": {"p": 0.12},
    "motion.shift_mm": [0.5, 4.0],
    "ring": {"p": 0.06},
    "metal": {"p": 0.06},
    "holder": {"p": 0.8},
    "truncated": {"p": 0.05},
    "beyond": {"p": 0.1},
}

SETS: dict[str, dict[str, Any]] = {
    # wider than what is measured: dura, sinuses, calcium, noise and anatomy are drawn evenly over what heads may have
    # instead of around their mean, so that rare heads are not rare. "smooth" kernels and the slabs of s1 stay unseen,
    # and what s3 draws all at once is drawn here one by one
    "train": {
        "shape.half_width_mm": {"normal": [67, 6, 54, 83]},
        "shape.deform": [0.005, 0.045],
        "bone.thickness_mm": {"log": [2.6, 12.0]},
        "tissue.dura_hu": [36, 80],
        "tissue.vein_hu": [36, 78],
        "tissue.vessel_hu": [30, 66],
        "atrophy": {"log": [0.2, 3.6]},
        "ventricle.scale": {"normal": [1.2, 0.65, 0.35, 3.0]},
        "ventricle.asymmetry": {"normal": [0, 0.25, -0.6, 0.6]},
        "sinus.radius_mm": [2.0, 6.2],
        "tentorium.thickness_mm": [0.6, 3.2],
        "falx.thickness_mm": [0.6, 3.0],
        "infarct": {"p": 0.25},
        "tumour": {"p": 0.1},
        "calcified.choroid": {"p": 0.7},
        "calcified.pineal": {"p": 0.65},
        "calcified.basal_ganglia": {"p": 0.4},
        "calcified.falx": {"p": 0.5},
        "calcified.speck": {"p": 0.25},
        "craniotomy": {"p": 0.1},
        "shunt": {"p": 0.07},
        "cavum": {"p": 0.12},
        "bleed": {"p": 0.5},
        "bleed.volume_ml": {"log": [0.4, 100]},
        "scan.kernel": {"choice": {"soft": 0.35, "standard": 0.35, "sharp": 0.3}},
        "scan.kvp": {"choice": {80: 0.15, 100: 0.2, 120: 0.45, 140: 0.2}},
        "noise.at_5mm_hu": {"log": [1.5, 9.0]},
        "noise.streak_share": [0.0, 0.7],
        "hardening.rim_hu": [0, 18],
        "hardening.petrous_hu": [2, 30],
        "hardening.cupping_hu": {"normal": [0, 4, -10, 10]},
        "motion": {"p": 0.25},
        "motion.shift_mm": [0.5, 5.0],
        "ring": {"p": 0.12},
        "metal": {"p": 0.15},
    },
    "tune": {},
    "s0": {},
    # acquisition the training draws rarely or never: other kernels, dose, slab widths, tilt
    "s1": {
        "scan.thickness_mm": {"choice": {0.6: 0.25, 1.0: 0.2, 2.0: 0.2, 6.0: 0.15, 7.2: 0.2}},
        "noise.at_5mm_hu": {"log": [3.5, 9.0]},
        "scan.kernel": {"choice": {"sharp": 0.5, "smooth": 0.5}},
        "scan.tilt": {"p": 0.8},
        "scan.kvp": {"choice": {80: 0.3, 90: 0.2, 110: 0.2, 140: 0.3}},
        "scan.field_mm": [195, 280],
    },
    # anatomy: sizes, atrophy, thick or thin skulls at and beyond the edge of training
    "s2": {
        "shape.half_width_mm": {"choice": {55: 0.3, 58: 0.2, 78: 0.3, 82: 0.2}},
        "shape.deform": [0.025, 0.05],
        "atrophy": {"choice": {0.2: 0.4, 2.8: 0.3, 4.0: 0.3}},
        "ventricle.scale": {"choice": {0.35: 0.35, 2.2: 0.35, 3.2: 0.3}},
        "bone.thickness_mm": {"choice": {2.5: 0.4, 10.0: 0.3, 13.0: 0.3}},
        "ventricle.asymmetry": [-0.6, 0.6],
        "craniotomy": {"p": 0.2},
        "cavum": {"p": 0.3},
    },
    # confounders everywhere; two thirds carry no blood
    "s3": {
        "bleed": {"p": 0.33},
        "tissue.dura_hu": [55, 85],
        "tissue.vein_hu": [58, 82],
        "sinus.radius_mm": [4.0, 6.5],
        "tentorium.thickness_mm": [1.8, 3.5],
        "falx.thickness_mm": [1.6, 3.2],
        "calcified.choroid": {"p": 0.95},
        "calcified.pineal": {"p": 0.9},
        "calcified.basal_ganglia": {"p": 0.7},
        "calcified.falx": {"p": 0.8},
        "calcified.speck": {"p": 0.4},
        "infarct": {"p": 0.5},
        "infarct.petechial": {"p": 0.0},
        "tumour": {"p": 0.15},
        "hardening.rim_hu": [8, 22],
        "hardening.petrous_hu": [12, 30],
        "tissue.vessel_hu": [45, 68],
        "shunt": {"p": 0.12},
    },
    # artefacts
    "s4": {
        "motion": {"p": 0.6},
        "motion.shift_mm": [1.5, 6.0],
        "ring": {"p": 0.35},
        "metal": {"p": 0.4},
        "truncated": {"p": 0.2},
        "stack.irregular": {"p": 0.35},
        "stack.hole": {"p": 0.3},
        "stack.double": {"p": 0.2},
        "noise.streak_share": [0.4, 0.9],
        "hardening.petrous_hu": [12, 34],
        "hardening.cupping_hu": [-10, 10],
    },
    # another shape model and another simulator: see variant.py
    "s5": {},
}


class Draw:
    """Draw named parameters from one set's table; every draw is remembered under its name."""

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self.rng = rng
        self.table = BASE | SETS[split]
        self.drawn: dict[str, Any] = {}

    def __call__(self, name: str) -> Any:
        """Draw `name` (again, if it was drawn before)."""
        value = sample(self.rng, self.table[name])
        self.drawn[name] = value
        return value

    def num(self, name: str) -> float:
        """Draw a number."""
        return float(self(name))

    def coin(self, name: str) -> bool:
        """Draw a yes or no."""
        return bool(self(name))


def sample(rng: np.random.Generator, entry: Any) -> Any:
    """Draw one value from a table entry (forms: see the module text)."""
    if isinstance(entry, list):
        return float(rng.uniform(entry[0], entry[1]))
    ((form, arguments),) = entry.items()
    if form == "log":
        return float(np.exp(rng.uniform(np.log(arguments[0]), np.log(arguments[1]))))
    if form == "p":
        return bool(rng.random() < arguments)
    if form == "normal":
        mean, deviation, low, high = arguments
        return float(np.clip(rng.normal(mean, deviation), low, high))
    values = list(arguments)
    weights = np.asarray([arguments[value] for value in values], dtype=np.float64)
    return values[int(rng.choice(len(values), p=weights / weights.sum()))]


def as_mapping() -> dict[str, Any]:
    """Give the whole table in the form of `phantom.yaml`."""
    return {"generator": GENERATOR_VERSION, "base": BASE, "sets": SETS}


def evidence_id(table: Mapping[str, Any] | None = None) -> str:
    """Name a table by content, this one unless another is given: see ``parameter_tables.evidence_id``."""
    return parameter_tables.evidence_id(as_mapping() if table is None else table)


def as_yaml() -> str:
    """Give `phantom.yaml`: the table with a heading that says what it is."""
    return parameter_tables.as_yaml(as_mapping(), _HEADING)


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
