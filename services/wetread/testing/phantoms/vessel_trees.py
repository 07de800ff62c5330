"""Random coronary-like vessel trees from a seed, as ``wetread.ffr.tree/1`` documents: for tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

GENERATOR_VERSION: Final = "1"
DEPTH: Final = 4
SAMPLES: Final = 64
_TURN: Final = 0.6


@dataclass(frozen=True)
class _Slot:
    """Where the next vessel starts."""

    name: str
    parent: str | None
    start: FloatArray
    direction: FloatArray
    radius: float
    depth: int


def vessel_tree(seed: int) -> dict[str, Any]:
    """One tree: root radius 1.55 to 2.3 mm, binary to depth 4, tapered, a third of the vessels diseased.

    Healthy radii are in the document, so that a test knows the severity of every lesion.
    """
    rng = np.random.default_rng(seed)
    root = float(rng.uniform(1.55, 2.3))
    map_mmhg = float(rng.uniform(80.0, 110.0))
    q_hyp = float(rng.uniform(2.0, 4.5)) * (root / 1.9) ** 2.5 * 60.0
    queue = [_Slot("v1", None, np.zeros(3), np.array([1.0, 0.0, 0.0]), root, 1)]
    vessels: list[dict[str, Any]] = []
    while queue:
        slot = queue.pop(0)
        vessel, end, end_radius = _vessel(rng, slot)
        vessels.append(vessel)
        splits = slot.depth < DEPTH and (slot.parent is None or (end_radius > 0.75 and float(rng.random()) < 0.75))
        if splits:
            queue += _daughters(rng, slot, end, end_radius)
    return {
        "schema": "wetread.ffr.tree/1",
        "vessels": vessels,
        "patient": {"q_hyp_ml_min": q_hyp},
        "bc": {"inlet": {"kind": "pressure", "mmhg": map_mmhg}, "outlets": "murray"},
    }


def _vessel(rng: np.random.Generator, slot: _Slot) -> tuple[dict[str, Any], FloatArray, float]:
    length = float(rng.uniform(12.0, 45.0))
    s = np.linspace(0.0, length, SAMPLES)
    healthy = slot.radius * (1.0 - float(rng.uniform(0.0, 0.15)) * s / length)
    radius = healthy.copy()
    if float(rng.random()) < 0.35:
        stenosis = float(rng.uniform(0.3, 0.8))
        extent = min(float(rng.uniform(4.0, 25.0)), 0.7 * length)
        z = np.clip((s - float(rng.uniform(0.4, 0.6)) * length) / (0.5 * extent), -1.0, 1.0)
        radius = healthy * (1.0 - 0.5 * stenosis * (1.0 + np.cos(np.pi * z)))
    points = slot.start + s[:, None] * slot.direction
    document = {
        "id": slot.name,
        "parent": slot.parent,
        "points_mm": points.tolist(),
        "radius_mm": radius.tolist(),
        "healthy_radius_mm": healthy.tolist(),
    }
    return document, points[-1], float(healthy[-1])


def _daughters(rng: np.random.Generator, slot: _Slot, end: FloatArray, radius: float) -> list[_Slot]:
    area_ratio, exponent = float(rng.uniform(0.35, 1.0)), float(rng.uniform(2.3, 3.0))
    ratio = np.sqrt(area_ratio)
    large = radius / (1.0 + ratio**exponent) ** (1.0 / exponent)
    side = rng.normal(size=3)
    side -= slot.direction * float(side @ slot.direction)
    side /= float(np.linalg.norm(side))
    slots = []
    for number, (own, sign) in enumerate(((large, 1.0), (large * ratio, -1.0)), start=1):
        direction = np.cos(_TURN) * slot.direction + sign * np.sin(_TURN) * side
        slots.append(_Slot(f"{slot.name}.{number}", slot.name, end, direction, 0.94 * float(own), slot.depth + 1))
    return slots
