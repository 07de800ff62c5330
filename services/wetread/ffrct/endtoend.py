"""How far the whole chain is from the truth of a phantom: FFR at the same places of the true and of the found tree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from scipy.spatial import cKDTree

REPORTABLE_RADIUS_MM: Final = 0.9
"""Healthy radius from which a place counts (1.8 mm diameter)."""
DISTAL_MM: Final = 20.0
MATCH_MM: Final = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """FFR at one place of a phantom.

    ``lumen``: solved on the true lumen as the service would see it (healthy radius fitted, not given); ``found``: on
    the lumen found in the image, None where the artery was missed.
    """

    vessel: str
    kind: str
    severity: float
    diameter_mm: float
    true: float
    lumen: float
    found: float | None
    p5: float | None
    p95: float | None


def places(truth: dict[str, Any]) -> list[tuple[str, int, str, float]]:
    """(vessel, point, kind, severity): the last reportable point of every artery, and 20 mm behind every lesion."""
    out = []
    by_id = {vessel["id"]: vessel for vessel in truth["tree"]["vessels"]}
    worst: dict[str, float] = {}
    for lesion in truth["lesions"]:
        worst[lesion["vessel"]] = max(worst.get(lesion["vessel"], 0.0), lesion["stenosis"])
    for name, vessel in by_id.items():
        wide = np.flatnonzero(np.array(vessel["healthy_radius_mm"]) >= REPORTABLE_RADIUS_MM)
        if len(wide):
            out.append((name, int(wide[-1]), "end", worst.get(name, 0.0)))
    for lesion in truth["lesions"]:
        vessel = by_id[lesion["vessel"]]
        s = _arc(np.array(vessel["points_mm"]))
        at = min(lesion["centre_mm"] + 0.5 * lesion["length_mm"] + DISTAL_MM, float(s[-1]))
        point = int(np.argmin(np.abs(s - at)))
        if vessel["healthy_radius_mm"][point] >= REPORTABLE_RADIUS_MM:
            out.append((lesion["vessel"], point, "lesion", lesion["stenosis"]))
    return out


def compare(
    truth: dict[str, Any],
    true: dict[str, Any],
    lumen: dict[str, Any],
    found_tree: dict[str, Any],
    found: dict[str, Any],
) -> list[dict[str, Any]]:
    """Readings of one phantom: result documents of the true tree, of its lumen alone, and of the tree found."""
    tree = {vessel["id"]: vessel for vessel in truth["tree"]["vessels"]}
    results = [{vessel["id"]: vessel for vessel in result["vessels"]} for result in (true, lumen)]
    points = np.concatenate([np.array(vessel["points_mm"]) for vessel in found_tree["vessels"]])
    values = {name: _joined(found_tree, found, name) for name in ("ffr", "ffr_p5", "ffr_p95")}
    lookup = cKDTree(points)
    readings = []
    for name, point, kind, severity in places(truth):
        distance, nearest = lookup.query(np.array(tree[name]["points_mm"][point]))
        matched = distance <= MATCH_MM
        own = [result[name]["ffr"][point] for result in results]
        near = {
            key: float(value[nearest]) if matched and np.isfinite(value[nearest]) else None
            for key, value in values.items()
        }
        readings.append(
            asdict(
                Reading(
                    name,
                    kind,
                    severity,
                    2.0 * tree[name]["healthy_radius_mm"][point],
                    own[0],
                    own[1],
                    near["ffr"],
                    near["ffr_p5"],
                    near["ffr_p95"],
                )
            )
        )
    return readings


def geometry(truth: dict[str, Any], found_tree: dict[str, Any]) -> dict[str, float]:
    """Overlap of centrelines (truth of 1.5 mm and more found within 1 mm), mean distance, diameter bias and sd, mm."""
    found = np.concatenate([np.array(v["points_mm"]) for v in found_tree["vessels"]])
    radius = np.concatenate([np.array(v["radius_mm"]) for v in found_tree["vessels"]])
    points = np.concatenate([np.array(v["points_mm"]) for v in truth["tree"]["vessels"]])
    lumen = np.concatenate([np.array(v["radius_mm"]) for v in truth["tree"]["vessels"]])
    wide = np.concatenate([np.array(v["healthy_radius_mm"]) for v in truth["tree"]["vessels"]]) >= 0.75
    distance, nearest = (np.atleast_1d(values) for values in cKDTree(found).query(points))
    hit = wide & (distance < 1.0)
    error = 2.0 * (radius[nearest] - lumen)[hit & (lumen >= 0.75)]
    return {
        "overlap": float(hit[wide].mean()) if wide.any() else 0.0,
        "distance_mm": float(distance[hit].mean()) if hit.any() else float("nan"),
        "diameter_bias_mm": float(error.mean()) if len(error) else float("nan"),
        "diameter_sd_mm": float(error.std()) if len(error) else float("nan"),
    }


def _joined(tree: dict[str, Any], result: dict[str, Any], name: str) -> Any:
    parts = []
    for vessel, answer in zip(tree["vessels"], result["vessels"], strict=True):
        values = answer[name] or [None] * len(vessel["points_mm"])
        parts.append(np.array([np.nan if v is None else v for v in values], dtype=np.float64))
    return np.concatenate(parts)


def _arc(points: Any) -> Any:
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
