"""From an extraction to a tree document of the FFR calls."""

from __future__ import annotations

from typing import Any

from .api_models import TREE_SCHEMA
from .imaging.tree import Artery

POINT_STEP = 2
"""Every second point of 0.25 mm goes into the document."""


def tree_document(
    arteries: tuple[Artery, ...],
    *,
    patient: dict[str, Any] | None = None,
    bc: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the arteries as ``wetread.ffr.tree/1``, with what is known of patient, borders and options."""
    document: dict[str, Any] = {"schema": TREE_SCHEMA, "vessels": [_vessel(artery) for artery in arteries]}
    document |= {name: value for name, value in (("patient", patient), ("bc", bc), ("options", options)) if value}
    return document


def _vessel(artery: Artery) -> dict[str, Any]:
    count = len(artery.points_mm)
    keep = sorted({*range(0, count, POINT_STEP), count - 1})
    return {
        "id": artery.id,
        "parent": artery.parent,
        "label": artery.label,
        "points_mm": artery.points_mm[keep].round(4).tolist(),
        "radius_mm": artery.radius_mm[keep].round(4).tolist(),
        "radius_kind": "area",
        "aspect_ratio": artery.aspect[keep].round(3).tolist(),
        "radius_sd_mm": artery.radius_sd_mm[keep].round(4).tolist(),
        "calcium": artery.calcium[keep].tolist(),
    }
