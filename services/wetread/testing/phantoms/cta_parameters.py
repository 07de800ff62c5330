"""What a head CTA phantom is made of: every parameter, drawn from a seed or given by name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np

from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.seeds import require_split

GENERATOR_VERSION: Final = "cta-head/1"
Site = Literal["ICA", "M1", "M2"]
SITES: Final[tuple[Site, ...]] = ("ICA", "M1", "M2")


@dataclass(frozen=True, slots=True)
class CtaSpec:
    """Every choice of one phantom. mm, HU and fractions.

    ``occlusion``: site, or None. ``collateral``: enhancement of vessels behind it as a share of the lumen's.
    ``stenosis``: diameter stenosis of an open M1 (a hard negative), 0 for none. ``calcium``: plaques in the siphons.
    ``veins``: enhancement of veins as a share of the arteries'.
    """

    seed: int
    split: str = "s0"
    voxel_mm: tuple[float, float] = (1.0, 0.9)
    """Between planes and within them."""
    lumen_hu: float = 350.0
    noise_hu: float = 12.0
    blur_mm: float = 0.5
    half_width_mm: float = 66.0
    half_length_mm: float = 84.0
    height_mm: float = 78.0
    """From the circle of Willis to the top of the brain."""
    below_mm: float = 24.0
    turn_deg: float = 0.0
    roll_deg: float = 0.0
    shift_mm: float = 0.0
    side: Literal["left", "right"] = "left"
    occlusion: Site | None = None
    at: float = 0.4
    """Where along its segment the occlusion begins."""
    collateral: float = 0.2
    stenosis: float = 0.0
    asymmetry: float = 0.1
    """Standard deviation of the size of paired vessels."""
    wobble_mm: float = 2.0
    hypoplastic_a1: bool = False
    fetal_pca: bool = False
    trifurcation: bool = False
    calcium: bool = False
    veins: float = 0.3


def draw_cta(seed: int, *, split: str = "s0", **overrides: Any) -> CtaSpec:
    """Draw the parameters of a seed of *split*; *overrides* replace fields by name and change no others.

    Half of the phantoms have an occlusion. s1: acquisition (noise, weak contrast, thick planes). s2: anatomy (size,
    rotation, asymmetry, variants). s3: confounders (stenosis, calcium, bright veins, good collaterals).
    Raises PhantomSeedError and PhantomSpecError.
    """
    require_split(seed, split)
    unknown = sorted(set(overrides) - {f.name for f in fields(CtaSpec)} - {"seed", "split"})
    if unknown:
        raise PhantomSpecError(f"no such parameter: {', '.join(unknown)}")
    rng = np.random.default_rng([seed, 91])

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    occluded = rng.random() < 0.5
    spec = CtaSpec(
        seed=seed,
        split=split,
        lumen_hu=uniform(280.0, 450.0),
        noise_hu=uniform(8.0, 18.0),
        blur_mm=uniform(0.4, 0.7),
        half_width_mm=uniform(61.0, 71.0),
        half_length_mm=uniform(78.0, 90.0),
        turn_deg=uniform(-6.0, 6.0),
        roll_deg=uniform(-4.0, 4.0),
        shift_mm=uniform(-6.0, 6.0),
        side="left" if rng.random() < 0.5 else "right",
        occlusion=SITES[int(rng.integers(0, 3))] if occluded else None,
        at=uniform(0.15, 0.75),
        collateral=uniform(0.0, 0.45),
        stenosis=uniform(0.4, 0.7) if not occluded and rng.random() < 0.2 else 0.0,
        asymmetry=uniform(0.05, 0.13),
        wobble_mm=uniform(1.0, 3.0),
        hypoplastic_a1=rng.random() < 0.1,
        fetal_pca=rng.random() < 0.15,
        trifurcation=rng.random() < 0.25,
        calcium=rng.random() < 0.3,
        veins=uniform(0.1, 0.5),
    )
    if split == "s1":
        spec = replace(
            spec, noise_hu=uniform(18.0, 28.0), lumen_hu=uniform(200.0, 280.0), voxel_mm=(uniform(1.2, 2.0), 0.9)
        )
    elif split == "s2":
        spec = replace(
            spec,
            half_width_mm=uniform(56.0, 76.0),
            half_length_mm=uniform(72.0, 96.0),
            turn_deg=uniform(-14.0, 14.0),
            roll_deg=uniform(-9.0, 9.0),
            asymmetry=uniform(0.12, 0.2),
            hypoplastic_a1=rng.random() < 0.3,
            fetal_pca=rng.random() < 0.4,
        )
    elif split == "s3":
        spec = replace(
            spec,
            stenosis=uniform(0.55, 0.8) if not occluded else 0.0,
            calcium=True,
            veins=uniform(0.5, 0.9),
            collateral=uniform(0.4, 0.8),
        )
    spec = replace(spec, **overrides)
    if min(spec.voxel_mm) <= 0 or spec.noise_hu < 0 or not 0.0 <= spec.stenosis < 1.0:
        raise PhantomSpecError("sizes are positive, noise is not negative, and a stenosis leaves a lumen")
    return spec
