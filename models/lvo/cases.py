"""Head CT angiograms with a known occlusion or none, for evaluation, the golden case and the contract suite."""

from __future__ import annotations

from typing import Any

from wetread.detection.evaluation.cases import Case, CaseTruth
from wetread.testing.phantoms.cta_head import CONTRAST_AGENT, cta_phantom

FACTS = ("step_mm", "noise_hu", "lumen_hu", "half_width_mm", "veins", "wobble_mm")
FLAGS = ("hypoplastic_a1", "fetal_pca", "trifurcation", "calcium", "old_infarct")
CONTRACT_OPTIONS = {
    "step_mm": 2.0,
    "pixel_mm": 1.5,
    "below_mm": 20.0,
    "half_width_mm": 60.0,
    "half_length_mm": 76.0,
    "height_mm": 66.0,
    "occlusion": "M1",
    "collateral": 0.1,
    "noise_hu": 8.0,
    "lumen_hu": 400.0,
}
"""A head that is quick to render and to read."""


def case(split: str, seed: int, **options: Any) -> Case:
    """Make the angiogram of a seed; options replace fields of `CtaSpec`."""
    phantom = cta_phantom(seed, split=split, **options)
    spec = phantom.spec
    facts: dict[str, str | float | int | bool] = {name: round(float(getattr(spec, name)), 3) for name in FACTS}
    facts |= {name: bool(getattr(spec, name)) for name in FLAGS}
    facts |= {
        "segment": spec.occlusion or "",
        "carotid_stenosis": spec.carotid_share < 1.0,
        "low_output": spec.fade > 0.0,
        "m1_stenosis": spec.stenosis > 0.0,
    }
    return Case(
        split,
        seed,
        phantom.to_volume(),
        CaseTruth(spec.occlusion is not None),
        facts,
        body_part="HEAD",
        attributes={"ContrastBolusAgent": CONTRAST_AGENT},
    )
