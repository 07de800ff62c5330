"""Cases with truth: what a folder's ``cases.py`` makes, so that one evaluation serves every detector.

``cases.py`` beside ``detector.py`` defines ``case(split, seed, **options) -> Case``; seeds of one split never
serve another (``wetread.testing.phantoms.require_split``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from wetread.core.detector import LabelArray, Volume
from wetread.detection.evaluation.localisation import Lesion


@dataclass(frozen=True, slots=True)
class CaseTruth:
    """What is known of a case. Empty fields are not judged."""

    positive: bool | None = None
    mask: LabelArray | None = None
    """[plane, row, column] on the planes of the volume, labels as the detector's own."""
    lesions: tuple[Lesion, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    """True values by ``<observation code>[.<site or side>].<measure name>``, as ``measured_values`` names them."""


@dataclass(frozen=True, slots=True)
class Case:
    """One generated input with its truth."""

    split: str
    seed: int
    volume: Volume
    truth: CaseTruth
    facts: Mapping[str, str | float | int | bool] = field(default_factory=dict)
    """What subgroups are made of: sex, age, scanner, kernel, dose, noise, thickness, size."""
    modality: str = "CT"
    body_part: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Further attributes of its DICOM headers by keyword, such as ``ContrastBolusAgent``."""


class CaseMaker(Protocol):
    """The evaluation hook of a detector folder."""

    def __call__(self, split: str, seed: int, **options: Any) -> Case:
        """Make the case of a seed. Raises PhantomSeedError for a seed of another split."""
