"""What a head CTA phantom is made of: every parameter, drawn from a seed or given by name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np

from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.seeds import require_split

GENERATOR_VERSION: Final = "cta-head/1"
Side = Literal["left", "right"]
Site = Literal["ICA", "M1", "M2"]
SITES: Final[tuple[Site, ...]] = ("ICA", "M1", "M2")

DISTRIBUTIONS: Final[dict[str, Any]] = {
    "generator": GENERATOR_VERSION,
    "base": {
        "step_mm": [0.9, 1.25],
        "pixel_mm": [0.8, 1.0],
        "tilt_deg": [0.0, 0.0],
        "lumen_hu": [250.0, 450.0],
        "noise_hu": [8.0, 20.0],
        "blur_mm": [0.4, 0.7],
        "half_width_mm": [61.0, 72.0],
        "half_length_mm": [78.0, 91.0],
        "height_mm": [72.0, 84.0],
        "below_mm": [26.0, 46.0],
        "turn_deg": [-6.0, 6.0],
        "roll_deg": [-4.0, 4.0],
        "nod_deg": [-8.0, 8.0],
        "shift_mm": [-8.0, 8.0],
        "at": [0.15, 0.75],
        "collateral": [0.0, 0.5],
        "clot_mm": [6.0, 16.0],
        "clot_hu": [45.0, 80.0],
        "asymmetry": [0.05, 0.13],
        "wobble_mm": [1.0, 3.0],
        "veins": [0.1, 0.5],
        "stenosis": [0.4, 0.75],
        "carotid_share": [0.6, 0.9],
        "early_fork_mm": [4.0, 12.0],
        "fade": [0.3, 0.8],
        "weak": [0.45, 0.7],
        "motion_mm": [0.0, 0.0],
        "streak_hu": [0.0, 0.0],
        "ring_hu": [0.0, 0.0],
        "cut_mm": [0.0, 0.0],
    },
    "chances": {
        "occluded": 0.5,
        "stenosed": 0.15,
        "carotid_stenosis": 0.12,
        "hypoplastic_a1": 0.12,
        "fetal_pca": 0.18,
        "posterior_communicating": 0.5,
        "trifurcation": 0.25,
        "early_fork": 0.15,
        "calcium": 0.4,
        "old_infarct": 0.08,
        "low_output": 0.08,
        "poor_bolus": 0.08,
    },
    "sets": {
        "train": {},
        "tune": {},
        "s0": {},
        "s1": {
            "step_mm": [1.5, 2.5],
            "noise_hu": [18.0, 32.0],
            "lumen_hu": [180.0, 280.0],
            "blur_mm": [0.7, 1.1],
            "tilt_deg": [-18.0, 18.0],
        },
        "s2": {
            "half_width_mm": [56.0, 78.0],
            "half_length_mm": [72.0, 97.0],
            "turn_deg": [-14.0, 14.0],
            "roll_deg": [-9.0, 9.0],
            "nod_deg": [-16.0, 16.0],
            "asymmetry": [0.12, 0.2],
            "wobble_mm": [2.0, 4.0],
            "hypoplastic_a1": 0.35,
            "fetal_pca": 0.4,
            "trifurcation": 0.4,
            "early_fork": 0.4,
        },
        "s3": {
            "stenosed": 0.4,
            "carotid_stenosis": 0.35,
            "calcium": 1.0,
            "old_infarct": 0.25,
            "low_output": 0.25,
            "poor_bolus": 0.25,
            "veins": [0.4, 0.9],
            "collateral": [0.3, 0.75],
        },
        "s4": {"motion_mm": [0.5, 4.0], "streak_hu": [0.0, 250.0], "ring_hu": [0.0, 25.0], "cut_mm": [0.0, 25.0]},
        "s5": {
            "step_mm": [1.2, 1.6],
            "pixel_mm": [0.95, 1.1],
            "half_width_mm": [74.0, 80.0],
            "half_length_mm": [94.0, 102.0],
            "height_mm": [82.0, 92.0],
        },
    },
}
"""Intervals, chances and what the shift sets change; its YAML is ``models/lvo/phantom.yaml``. s5 is
another generator, whose own skull the sizes only make room for."""


@dataclass(frozen=True, slots=True)
class CtaSpec:
    """Every choice of one phantom. mm, degrees, HU and fractions.

    ``occlusion``: segment, or None. ``collateral``: enhancement of what lies behind it as a share of the lumen's.
    Hard negatives: ``stenosis`` of an open M1 (share of the diameter, 0 none), ``carotid_share`` (enhancement behind a
    stenosed carotid in the neck, 1 none), ``fade`` (low output: enhancement lost along the way, 0 none).
    """

    seed: int
    split: str = "s0"
    step_mm: float = 1.0
    pixel_mm: float = 0.9
    tilt_deg: float = 0.0
    """Gantry tilt: planes lean, and follow one another along the table."""
    lumen_hu: float = 350.0
    noise_hu: float = 12.0
    blur_mm: float = 0.5
    half_width_mm: float = 66.0
    half_length_mm: float = 84.0
    height_mm: float = 78.0
    """From the circle of Willis to the top of the brain."""
    below_mm: float = 30.0
    turn_deg: float = 0.0
    roll_deg: float = 0.0
    nod_deg: float = 0.0
    shift_mm: float = 0.0
    side: Side = "left"
    other_side: Side = "left"
    """Side of the one-sided variants and confounders, drawn apart from the occlusion's."""
    occlusion: Site | None = None
    at: float = 0.4
    """Where along its segment the occlusion begins."""
    clot_mm: float = 10.0
    clot_hu: float = 60.0
    collateral: float = 0.2
    stenosis: float = 0.0
    carotid_share: float = 1.0
    fade: float = 0.0
    asymmetry: float = 0.1
    """Standard deviation of the size of paired vessels."""
    wobble_mm: float = 2.0
    early_fork_mm: float = 0.0
    """How much shorter the one M1 is."""
    hypoplastic_a1: bool = False
    fetal_pca: bool = False
    posterior_communicating: bool = True
    trifurcation: bool = False
    calcium: bool = False
    old_infarct: bool = False
    veins: float = 0.3
    """Enhancement of veins as a share of the arteries'."""
    motion_mm: float = 0.0
    streak_hu: float = 0.0
    ring_hu: float = 0.0
    cut_mm: float = 0.0


def draw_cta(seed: int, *, split: str = "s0", **overrides: Any) -> CtaSpec:
    """Draw the parameters of a seed of *split*; *overrides* replace fields by name and change no others.

    Raises PhantomSeedError and PhantomSpecError.
    """
    require_split(seed, split)
    unknown = sorted(set(overrides) - {f.name for f in fields(CtaSpec)} - {"seed", "split"})
    if unknown:
        raise PhantomSpecError(f"no such parameter: {', '.join(unknown)}")
    rng = np.random.default_rng([seed, 91])
    table = {**DISTRIBUTIONS["base"], **DISTRIBUTIONS["chances"], **DISTRIBUTIONS["sets"][split]}
    number: dict[str, Any] = {name: float(rng.uniform(*table[name])) for name in DISTRIBUTIONS["base"]}
    chance = {name: bool(rng.random() < table[name]) for name in DISTRIBUTIONS["chances"]}
    sides: tuple[Side, Side] = ("left", "right")
    site = SITES[int(rng.integers(0, len(SITES)))]
    side, other = sides[int(rng.integers(0, 2))], sides[int(rng.integers(0, 2))]
    occluded, weak = chance.pop("occluded"), number.pop("weak")
    stenosed = chance.pop("stenosed") and not occluded
    number["stenosis"] *= stenosed
    number["carotid_share"] = number["carotid_share"] if chance.pop("carotid_stenosis") else 1.0
    number["early_fork_mm"] *= chance.pop("early_fork")
    number["fade"] *= chance.pop("low_output")
    if chance.pop("poor_bolus"):  # too early or too late: weak arteries, and veins nearly as bright
        number["lumen_hu"] *= weak
        number["veins"] = max(number["veins"], 0.8)
    spec = CtaSpec(
        seed=seed,
        split=split,
        side=side,
        other_side=other,
        occlusion=site if occluded else None,
        **number,
        **chance,
    )
    spec = replace(spec, **overrides)
    if min(spec.step_mm, spec.pixel_mm) <= 0 or spec.noise_hu < 0 or not 0.0 <= spec.stenosis < 1.0:
        raise PhantomSpecError("sizes are positive, noise is not negative, and a stenosis leaves a lumen")
    return spec
