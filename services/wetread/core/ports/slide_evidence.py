"""From a slide's result to standard DICOM objects: what the encoder needs, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from wetread.core.findings import Run
from wetread.core.ports.evidence import EncodedObject


@dataclass(frozen=True, slots=True)
class SlideRegion:
    """A region of the target class. Level-0 pixels; square millimetres."""

    box: tuple[int, int, int, int]
    """x, y, width, height."""
    area_mm2: float
    score: float


@dataclass(frozen=True, slots=True)
class SlideEvidence:
    """One slide's result. ``headers``: the levels' headers without pixels, finest first."""

    run: Run
    headers: Sequence[Dataset]
    state: str
    reason: str
    classes: tuple[str, ...]
    target: str
    map_level: int | None = None
    """Which of ``headers`` the map lies on."""
    grid: npt.NDArray[np.float32] | None = None
    """[row, column, class] 0..1 of the cells of the map; 0 where nothing was analysed."""
    map_rows: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Which row of ``grid`` each pixel row of that level lies in."""
    map_columns: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Which column of ``grid`` each pixel column of that level lies in."""
    boxes: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """[n, 4] x, y, width, height of tiles above the threshold, in level-0 pixels."""
    scores: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    points: npt.NDArray[np.float32] | None = None
    """[n, 2] nuclei in level-0 pixels; None: not asked for."""
    facts: tuple[tuple[str, float, str, str], ...] = ()
    """(concept key, value, UCUM unit, class or empty) of the whole slide."""
    regions: tuple[SlideRegion, ...] = ()
    flags: tuple[str, ...] = ()


class SlideEvidenceEncoder(Protocol):
    """Deterministic: the same input gives the same bytes."""

    @property
    def version(self) -> str:
        """Version of the encodings."""

    def encode(self, evidence: SlideEvidence) -> list[EncodedObject]:
        """Return the SR (always), the SEG (a map exists) and the ANN (tiles above the threshold exist)."""
