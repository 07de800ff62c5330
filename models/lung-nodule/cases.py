"""Chests with known nodules, for evaluation, the golden case and the contract suite."""

from __future__ import annotations

from typing import Any

import numpy as np

from wetread.detection.evaluation.cases import Case, CaseTruth
from wetread.detection.evaluation.localisation import Lesion
from wetread.testing.phantoms.chest import ChestPhantom, ChestSpec, make_chest

FACTS = ("sex", "age", "kernel", "thickness_mm", "pixel_mm", "noise_hu", "scale", "contrast", "motion", "bullae")
CONTRACT_OPTIONS = {
    "shrink": 0.42,
    "given": {
        "nodule": True,
        "nodule.count": 1,
        "nodule.diameter_mm": 12.0,
        "nodule.solidity": "solid",
        "nodule.place": "free",
        "nodule.spiculated": False,
        **{
            f"confounder.{kind}": 0
            for kind in ("granuloma", "scar", "rib_end", "plaque", "mucus", "atelectasis", "bullae")
        },
        "tree.spacing_mm": 14.0,
        "tree.leaf_mm": 0.3,
        "tree.exponent": 3.0,
        "lung.contrast": False,
        "scan.thickness_mm": 2.5,
        "scan.overlap": False,
        "scan.noise_at_2mm_hu": 8.0,
        "scan.pixel_mm": 1.3,
        "scan.kernel": "standard",
        "motion": False,
    },
}
"""A small chest that is quick to render and to read."""


def case(split: str, seed: int, **options: Any) -> Case:
    """Make the chest of a seed; options are those of `ChestSpec`."""
    return case_of(make_chest(seed, ChestSpec(split=split, **options)))


def case_of(phantom: ChestPhantom) -> Case:
    """The phantom as a case with its truth."""
    lesions = tuple(Lesion(n.centre_lps_mm, n.truth.diameter_mm / 2) for n in phantom.nodules)
    truth = CaseTruth(phantom.positive, (phantom.mask > 0).astype(np.uint8), lesions)
    facts = {name: phantom.tags[name] for name in FACTS}
    return Case(phantom.spec.split, phantom.seed, phantom.volume, truth, facts, modality="CT", body_part="CHEST")
