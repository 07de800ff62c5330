"""A result as curves per vessel in arrays, and the way from an ostium to the end of a vessel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One vessel of a result: points (n, 3) LPS mm and values (n,), NaN where null."""

    id: str
    parent: str | None
    label: str
    points: FloatArray
    radius: FloatArray
    ffr: FloatArray
    p5: FloatArray
    p95: FloatArray
    calcium: npt.NDArray[np.bool_]


def curves_of(tree: dict[str, Any], result: dict[str, Any]) -> tuple[Curve, ...]:
    """Join a tree document with its result."""
    out = []
    for vessel, answer in zip(tree["vessels"], result["vessels"], strict=True):
        count = len(vessel["points_mm"])
        values = {name: _values(answer[name], count) for name in ("ffr", "ffr_p5", "ffr_p95")}
        out.append(
            Curve(
                vessel["id"],
                vessel.get("parent"),
                vessel.get("label") or vessel["id"],
                np.array(vessel["points_mm"], dtype=np.float64),
                np.array(vessel["radius_mm"], dtype=np.float64),
                values["ffr"],
                values["ffr_p5"],
                values["ffr_p95"],
                np.array(vessel.get("calcium") or [False] * count),
            )
        )
    return tuple(out)


def from_ostium(curves: tuple[Curve, ...], name: str) -> Curve:
    """The way from the ostium to the end of a vessel, through its parents, as one curve."""
    by_id = {curve.id: curve for curve in curves}
    parts = [(by_id[name], len(by_id[name].points))]
    while parts[0][0].parent is not None:
        child = parts[0][0]
        parent = by_id[parts[0][0].parent]
        nearest = int(np.argmin(np.linalg.norm(parent.points - child.points[0], axis=1)))
        parts.insert(0, (parent, nearest + 1))
    last = parts[-1][0]

    def joined(field: str) -> Any:
        return np.concatenate([getattr(curve, field)[:stop] for curve, stop in parts])

    return Curve(
        last.id,
        None,
        last.label,
        joined("points"),
        joined("radius"),
        joined("ffr"),
        joined("p5"),
        joined("p95"),
        joined("calcium"),
    )


def _values(values: list[float | None] | None, count: int) -> FloatArray:
    if values is None:
        return np.full(count, np.nan)
    return np.array([np.nan if value is None else value for value in values])
