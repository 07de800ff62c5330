"""What a head-CT phantom is asked for and what it is: request, truth and the finished study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
MaskArray = NDArray[np.uint8]


class BleedType(IntEnum):
    """Codes of the truth mask and of the channels of a segmentation network (0 = no blood)."""

    EDH = 1
    SDH = 2
    IPH = 3
    IVH = 4
    SAH = 5


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What to render. `None` means: drawn from the split's distribution.

    matrix: pixels per side of a slice. thickness_mm / step_mm: slab width and slice distance.
    bleeds: types that must be present (empty tuple: a bleed-free head). volume_ml: target of the
    first bleed. tier: "fast" adds noise and blur in the image, "physics" projects and
    reconstructs each slice. regular: no holes, no doubles, no irregular steps.
    """

    split: str = "train"
    matrix: int = 256
    tier: Literal["fast", "physics"] = "fast"
    bleeds: tuple[BleedType, ...] | None = None
    volume_ml: float | None = None
    thickness_mm: float | None = None
    step_mm: float | None = None
    coverage_mm: float | None = None
    tilt_deg: float | None = None
    regular: bool = False


@dataclass(frozen=True, slots=True)
class BleedTruth:
    """One bleed as rendered. volume_ml counts partial volume, within the scanned range only."""

    type: BleedType
    volume_ml: float
    mean_hu: float
    side: Literal["left", "right", "midline"]
    centre_lps_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Phantom:
    """A rendered head.

    volume: HU, float32 [z, y, x]. affine: 4x4, (x, y, z index) -> LPS mm of the pixel centre,
    nominal for irregular stacks. positions_lps_mm: [z, 3], true centre of the first pixel of each
    slice. mask: BleedType codes, uint8 [z, y, x]. tags: drawn facts for subgroup tables and the
    DICOM header.
    """

    seed: int
    spec: HeadSpec
    volume: FloatArray
    affine: NDArray[np.float64]
    positions_lps_mm: NDArray[np.float64]
    mask: MaskArray
    bleeds: tuple[BleedTruth, ...]
    midline_shift_mm: float
    tags: Mapping[str, str | float | int | bool] = field(default_factory=dict)

    @property
    def positive(self) -> bool:
        """True when any blood was rendered inside the scanned range."""
        return bool(self.bleeds)

    @property
    def volume_ml(self) -> float:
        """All blood, mL."""
        return float(sum(bleed.volume_ml for bleed in self.bleeds))
