"""T1 heads with known tissue volumes, for evaluation, the golden case and the contract suite."""

from __future__ import annotations

from typing import Any

import numpy as np

from wetread.detection.evaluation.cases import Case, CaseTruth
from wetread.testing.phantoms.t1_brain import CLASSES, BrainSpec, make_brain

FACTS = ("sex", "age", "field_t", "noise", "bias", "atrophy", "thickness_mm", "motion", "scale", "lesions")
CONTRACT_OPTIONS = {"fine_mm": 1.8, "pixel_mm": 3.4, "thickness_mm": 3.4, "noise": 0.03}
"""A head that is quick to render and to read; a coarser anatomy has next to no cortex."""


def case(split: str, seed: int, **options: Any) -> Case:
    """Make the head of a seed; options are those of `BrainSpec`."""
    phantom = make_brain(seed, BrainSpec(split=split, **options))
    shares = phantom.fractions
    labels = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0).astype(np.uint8)
    measures = {f"{name}.volume": phantom.volumes_ml[name] for name in CLASSES}
    measures["intracranial_structure.volume"] = sum(phantom.volumes_ml.values())
    facts = {name: phantom.tags[name] for name in FACTS}
    return Case(
        split, seed, phantom.volume, CaseTruth(None, labels, (), measures), facts, modality="MR", body_part="BRAIN"
    )
