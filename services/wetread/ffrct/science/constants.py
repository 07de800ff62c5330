"""The constants of the model as one frozen value, with the hash that names them in a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

from .units import M3_S_PER_ML_S, M_PER_MM, PA_PER_MMHG

Status = Literal["confirmed", "unconfirmed", "design"]

_SI: Final[dict[str, float]] = {
    "1": 1.0,
    "kg/m3": 1.0,
    "Pa s": 1.0,
    "mmHg": PA_PER_MMHG,
    "mm": M_PER_MM,
    "mL/s": M3_S_PER_ML_S,
    "mL/min/g": 1e-6 / 60.0,
}
"""SI size of each unit that the file may use; mL/min/g becomes m3/s per gram."""


@dataclass(frozen=True)
class Constant:
    """One entry of ``physiology.yaml``: ``value`` and ``range`` in ``unit``."""

    value: float
    unit: str
    range: tuple[float, float]
    status: Status
    source_title: str
    source_doi: str | None
    note: str

    @property
    def si(self) -> float:
        """The value in SI units."""
        return self.value * _SI[self.unit]


@dataclass(frozen=True)
class Physiology:
    """All constants by key. ``sha256`` is taken over the canonical form (sorted keys, no spaces)."""

    entries: Mapping[str, Constant]

    def si(self, key: str) -> float:
        """Value of ``key`` in SI units."""
        return self.entries[key].si

    @property
    def sha256(self) -> str:
        """Hash of the canonical form: the same numbers and sources give the same hash."""
        canonical = json.dumps(
            {key: asdict(entry) for key, entry in self.entries.items()},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
        )
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def unconfirmed(self, used: frozenset[str]) -> tuple[str, ...]:
        """Keys among ``used`` whose value no primary source confirms, sorted."""
        return tuple(sorted(key for key in used if self.entries[key].status == "unconfirmed"))


def known_units() -> frozenset[str]:
    """Units that an entry may carry."""
    return frozenset(_SI)
