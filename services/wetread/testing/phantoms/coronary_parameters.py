"""What a coronary CT phantom is made of: every parameter, drawn from a seed or given by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError

GENERATOR_VERSION: Final = "1"
Size = Literal["tiny", "short", "ci", "full"]
Profile = Literal["cosine", "blunt", "eccentric", "serial", "diffuse"]
PROFILES: Final[tuple[Profile, ...]] = ("cosine", "blunt", "eccentric", "serial", "diffuse")

SIZES: Final[Mapping[Size, tuple[int, int]]] = MappingProxyType(
    {"tiny": (96, 96), "short": (120, 66), "ci": (256, 160), "full": (512, 280)}
)
"""Size -> (rows and columns, slices). ``short``: the upper half of the heart, as coarse and as short as is accepted."""

SEEDS: Final[Mapping[str, range]] = MappingProxyType(
    {"tune": range(10_000), "report": range(10_000, 20_000), "test": range(20_000, 30_000)}
)
"""Seeds used for tuning, for figures and for tests; they share no phantom."""


@dataclass(frozen=True, slots=True)
class CoronarySpec:
    """Every choice of one phantom. HU, mm, and fractions; see ``draw_spec`` for the ranges.

    ``stenoses``: how many lesions; ``severity``: the range of their diameter stenosis. ``wall_calcium``: share of every
    artery's length, from its origin, that lies beside an arc of calcium. Defects are off unless given:
    ``motion_mm`` (blur within a slice), ``step_mm`` (shift between slabs), ``missing_slices`` (a run of slices left
    out), ``pericardium`` False leaves the heart and everything else out but soft tissue (another body region).
    """

    seed: int
    size: Size = "ci"
    ostium_mm: tuple[float, float] = (4.0, 3.6)
    junction_exponent: float = 2.7
    taper: float = 0.1
    tortuosity: float = 0.5
    side_branches: int = 3
    stenoses: int = 2
    severity: tuple[float, float] = (0.2, 0.7)
    profiles: tuple[Profile, ...] = PROFILES
    calcium: bool = False
    wall_calcium: float = 0.0
    lumen_hu: float = 400.0
    gradient: float = 0.05
    fat_hu: float = -80.0
    myocardium_hu: float = 100.0
    ventricle_hu: float = 350.0
    noise_hu: float = 25.0
    psf_mm: float = 0.75
    pixel_mm: float = 0.5
    spacing_mm: float = 0.7
    thickness_mm: float | None = None
    motion_mm: float = 0.0
    step_mm: float = 0.0
    missing_slices: int = 0
    coronaries: bool = True
    pericardium: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        matrix, slices = SIZES[self.size]
        return slices, matrix, matrix


_GRIDS: Final[Mapping[Size, tuple[tuple[float, float], tuple[float, float]]]] = MappingProxyType(
    {
        "tiny": ((0.45, 0.5), (0.45, 0.5)),
        "short": ((0.85, 0.9), (0.95, 0.98)),
        "ci": ((0.46, 0.5), (0.7, 0.75)),
        "full": ((0.37, 0.43), (0.45, 0.5)),
    }
)


def draw_spec(seed: int, **overrides: Any) -> CoronarySpec:
    """Draw a phantom's parameters from its seed; *overrides* replace fields by name.

    A parameter that is overridden changes no other. Raises PhantomSpecError for an unknown name or an impossible
    value, PhantomSeedError for a negative seed.
    """
    if seed < 0:
        raise PhantomSeedError(f"seed {seed} is negative")
    unknown = sorted(set(overrides) - {field.name for field in fields(CoronarySpec)} | ({"seed"} & set(overrides)))
    if unknown:
        raise PhantomSpecError(f"no such parameter: {', '.join(unknown)}")
    size: Size = overrides.get("size", "ci")
    if size not in SIZES:
        raise PhantomSpecError(f"size is one of {', '.join(SIZES)}")
    rng = np.random.default_rng([seed, 61])

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    pixel, spacing = _GRIDS[size]
    lumen = uniform(320.0, 500.0)
    drawn = CoronarySpec(
        seed=seed,
        size=size,
        ostium_mm=(uniform(3.6, 4.5), uniform(3.0, 4.2)),
        junction_exponent=uniform(2.3, 3.0),
        taper=uniform(0.0, 0.15),
        tortuosity=uniform(0.0, 1.0),
        side_branches=int(rng.integers(2, 5)),
        stenoses=int(rng.integers(1, 4)),
        lumen_hu=lumen,
        gradient=uniform(0.0, 0.15),
        fat_hu=uniform(-95.0, -65.0),
        myocardium_hu=uniform(85.0, 120.0),
        ventricle_hu=lumen * uniform(0.85, 1.0),
        psf_mm=uniform(0.6, 0.9),
        pixel_mm=uniform(*pixel),
        spacing_mm=uniform(*spacing),
    )
    spec = replace(drawn, **overrides)
    _check(spec)
    return spec


def _check(spec: CoronarySpec) -> None:
    low, high = spec.severity
    if not 0.0 <= low <= high <= 1.0:
        raise PhantomSpecError("severity is a range within 0 and 1")
    if not 0 <= spec.missing_slices < spec.shape[0] // 2:
        raise PhantomSpecError("fewer than half of the slices can be missing")
    if not 0.0 <= spec.wall_calcium <= 1.0:
        raise PhantomSpecError("the share of calcified wall lies within 0 and 1")
    if min(spec.pixel_mm, spec.spacing_mm, spec.psf_mm) <= 0.0 or spec.noise_hu < 0.0:
        raise PhantomSpecError("sizes are positive and noise is not negative")
    if not spec.profiles or set(spec.profiles) - set(PROFILES):
        raise PhantomSpecError(f"profiles are of {', '.join(PROFILES)}")
