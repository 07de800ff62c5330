"""What a perfusion phantom is made of: every parameter, drawn from a seed or given by name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np

from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.seeds import require_split
from wetread.testing.phantoms.tracer import RESIDUES, Residue

GENERATOR_VERSION: Final = "perfusion/1"
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class PerfusionSpec:
    """Every choice of one phantom. mm, s, HU (CT) or per cent of the baseline (MR), mL/100 g/min, mL/100 g.

    Defects are off unless given: ``motion_mm`` (head moves from half time on, back and forth), ``jump_mm`` (one large
    move), ``bolus`` False (no contrast), ``cut_after_s`` (scan ends early), ``lost_points`` (a run of time points
    missing), ``start_late_s`` (the scan starts when the bolus is already there).
    """

    seed: int
    split: str = "s0"
    modality: Literal["CT", "MR"] = "CT"
    matrix: int = 128
    field_mm: float = 225.0
    planes: int = 8
    step_mm: float = 8.0
    interval_s: float = 1.5
    duration_s: float = 60.0
    shuttle: bool = False
    """Planes are imaged one after the other within an interval, not all at once."""
    noise: float = 4.0
    # bolus
    arrival_s: float = 8.0
    alpha: float = 3.0
    beta_s: float = 1.5
    peak: float = 320.0
    recirculation: float = 0.25
    vein_delay_s: float = 6.0
    # anatomy
    half_width_mm: float = 66.0
    half_length_mm: float = 84.0
    turn_deg: float = 0.0
    shift_mm: tuple[float, float] = (0.0, 0.0)
    asymmetry: float = 0.05
    artery_radius_mm: float = 1.5
    # tissue
    residue: Residue = "exponential"
    grey: tuple[float, float] = (60.0, 4.0)
    """CBF and CBV of healthy grey matter."""
    white: tuple[float, float] = (25.0, 2.0)
    delay_s: float = 1.0
    """Largest delay in healthy tissue."""
    # lesion
    side: Side | None = "left"
    half_angle_deg: float = 45.0
    core_share: float = 0.5
    """Angle and depth of the core as a share of the lesion's; 0: no core."""
    lesion_delay_s: float = 8.0
    lesion_dispersion_s: float = 0.0
    penumbra_flow: float = 0.5
    core_flow: float = 0.15
    core_volume: float = 0.4
    # defects
    motion_mm: float = 0.0
    jump_mm: float = 0.0
    bolus: bool = True
    cut_after_s: float | None = None
    lost_points: int = 0
    start_late_s: float = 0.0


def draw_perfusion(seed: int, *, split: str = "s0", **overrides: Any) -> PerfusionSpec:
    """Draw the parameters of a seed of *split*; *overrides* replace fields by name and change no others.

    s0: exponential and gamma residues, noise and sampling of practice. s1: acquisition (noise, sampling, shuttle, thin
    or thick planes). s2: anatomy (size, rotation, asymmetry). s3: hard perfusion (delays up to 4 s in healthy tissue,
    dispersion, box residues, low output). s4: head motion. Raises PhantomSeedError and PhantomSpecError.
    """
    require_split(seed, split)
    unknown = sorted(set(overrides) - {f.name for f in fields(PerfusionSpec)} - {"seed", "split"})
    if unknown:
        raise PhantomSpecError(f"no such parameter: {', '.join(unknown)}")
    rng = np.random.default_rng([seed, 83])
    drawn = _typical(rng, seed, split)
    changes: dict[str, Any] = {}
    if split == "s1":
        changes = {
            "noise": float(rng.uniform(5.0, 8.0)),
            "interval_s": float(rng.choice([2.0, 2.5, 3.0])),
            "shuttle": bool(rng.integers(0, 2)),
            "planes": int(rng.integers(4, 17)),
            "step_mm": float(rng.choice([5.0, 10.0])),
        }
    elif split == "s2":
        changes = {
            "half_width_mm": float(rng.uniform(54.0, 76.0)),
            "half_length_mm": float(rng.uniform(72.0, 96.0)),
            "turn_deg": float(rng.uniform(-15.0, 15.0)),
            "shift_mm": (float(rng.uniform(-12, 12)), float(rng.uniform(-12, 12))),
            "asymmetry": float(rng.uniform(0.05, 0.2)),
            "artery_radius_mm": float(rng.uniform(1.0, 1.4)),
        }
    elif split == "s3":
        changes = {
            "delay_s": float(rng.uniform(2.0, 4.0)),
            "residue": str(rng.choice(RESIDUES)),
            "lesion_dispersion_s": float(rng.uniform(0.5, 2.5)),
            "alpha": float(rng.uniform(3.0, 5.0)),
            "beta_s": float(rng.uniform(1.8, 2.4)),
            "peak": float(rng.uniform(160.0, 260.0)),
        }
    elif split == "s4":
        changes = {"motion_mm": float(rng.uniform(1.0, 5.0))}
    spec = replace(drawn, **changes)
    spec = replace(spec, **overrides)
    if min(spec.planes, spec.matrix, spec.interval_s, spec.duration_s) <= 0 or spec.noise < 0:
        raise PhantomSpecError("sizes and times are positive, and noise is not negative")
    return spec


def _typical(rng: np.random.Generator, seed: int, split: str) -> PerfusionSpec:
    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    lesion = rng.random() < 0.85
    return PerfusionSpec(
        seed=seed,
        split=split,
        interval_s=float(rng.choice([1.0, 1.5, 2.0])),
        duration_s=uniform(58.0, 70.0),
        noise=uniform(2.5, 5.0),
        arrival_s=uniform(6.0, 12.0),
        alpha=uniform(2.5, 3.5),
        beta_s=uniform(1.3, 1.8),
        peak=uniform(250.0, 450.0),
        recirculation=uniform(0.15, 0.35),
        vein_delay_s=uniform(5.0, 8.0),
        half_width_mm=uniform(62.0, 71.0),
        half_length_mm=uniform(80.0, 90.0),
        turn_deg=uniform(-6.0, 6.0),
        shift_mm=(uniform(-5.0, 5.0), uniform(-5.0, 5.0)),
        asymmetry=uniform(0.02, 0.1),
        artery_radius_mm=uniform(1.3, 1.9),
        residue=RESIDUES[int(rng.integers(0, 2))],
        grey=(uniform(50.0, 70.0), uniform(3.5, 4.8)),
        white=(uniform(20.0, 28.0), uniform(1.7, 2.4)),
        delay_s=uniform(0.5, 2.0),
        side=("left" if rng.random() < 0.5 else "right") if lesion else None,
        half_angle_deg=uniform(22.0, 60.0),
        core_share=uniform(0.3, 0.75) if rng.random() < 0.8 else 0.0,
        lesion_delay_s=uniform(7.5, 10.0),
        lesion_dispersion_s=uniform(0.0, 0.5),
        penumbra_flow=uniform(0.4, 0.65),
        core_flow=uniform(0.1, 0.22),
        core_volume=uniform(0.25, 0.45),
    )
