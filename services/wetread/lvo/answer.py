"""An analysed angiogram as a detector's result: the occlusion or none, both vessel trees, mask, picture, numbers."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from wetread.core.detector import Attachment, LabelArray, Measure, Observation, Result, Volume
from wetread.core.ruo import RUO_STATEMENT
from wetread.lvo.analysis import Analysis
from wetread.lvo.asymmetry import FEATURES, SideReading
from wetread.lvo.frame import back_to_planes
from wetread.lvo.picture import summary_png

MISSING, WORSE_TREE, BETTER_TREE = 1, 2, 3
"""Labels of the mask: the mirror image of what the side lacks, its own vessels, those of the other side."""
METHOD: Final = "left-right comparison of the vessel tree"


def result_of(
    found: Analysis, volume: Volume, scores: tuple[float, float], threshold: float, model: dict[str, Any]
) -> Result:
    """Return the result on the planes of *volume*; *scores* of left and right. The worse side comes first."""
    order = sorted((0, 1), key=lambda k: -scores[k])
    worse, better = (found.sides[k] for k in order)
    score = scores[order[0]]
    positive = score >= threshold
    mask = _mask(found, volume, worse, positive=positive)
    observations = (
        _occlusion(found, volume, worse, score, positive=positive),
        _tree(worse, WORSE_TREE, mask),
        _tree(better, BETTER_TREE, mask),
    )
    return Result(
        state="positive" if positive else "negative",
        observations=observations,
        score=score,
        threshold=threshold,
        mask=mask,
        flags=volume.flags,
        attachments=(
            Attachment("lvo.json", "application/json", _document(found, scores, threshold, model)),
            Attachment("lvo.png", "image/png", summary_png(found, worse, score, threshold), capture=True),
        ),
    )


def _occlusion(found: Analysis, volume: Volume, side: SideReading, score: float, *, positive: bool) -> Observation:
    if not positive:
        return Observation(code="large_vessel_occlusion", state="negative", score=score)
    measures = [Measure("missing_length", round(side.missing_mm, 1), "mm", METHOD)]
    key = None
    if side.end is not None:
        place = found.frame.to_lps(np.array([side.end], dtype=np.float64))[0]
        names = ("position_x", "position_y", "position_z")
        measures += [Measure(name, round(float(v), 2), "mm", METHOD) for name, v in zip(names, place, strict=True)]
        key = int(np.abs((volume.origins - place) @ volume.normal).argmin())
    return Observation(
        code="large_vessel_occlusion",
        state="positive",
        score=score,
        types=(side.site,) if side.site else (),
        measures=tuple(measures),
        label=MISSING if side.missing.any() else None,
        key_plane=key,
        laterality=side.side,
    )


def _tree(side: SideReading, label: int, mask: LabelArray) -> Observation:
    """Say how much vessel one side has, carotid end with M1 and the branches beyond."""
    return Observation(
        code="cerebral_vessel_tree",
        state="measured",
        measures=(
            Measure("proximal_length", round(side.length_mm[0], 1), "mm", METHOD),
            Measure("distal_length", round(side.length_mm[1], 1), "mm", METHOD),
            Measure("volume", round(sum(side.volume_ml), 3), "mL", METHOD),
        ),
        label=label if (mask == label).any() else None,
        laterality=side.side,
    )


def _mask(found: Analysis, volume: Volume, worse: SideReading, *, positive: bool) -> LabelArray:
    labels: LabelArray = np.zeros(found.vessels.mask.shape, dtype=np.uint8)
    wide = found.frame.hu.shape[2]
    left, right = (WORSE_TREE, BETTER_TREE) if worse.side == "left" else (BETTER_TREE, WORSE_TREE)
    column = np.arange(wide)
    labels[found.vessels.mask & (column >= (wide - 1) // 2)] = left
    labels[found.vessels.mask & (column < (wide - 1) // 2)] = right
    if positive:
        labels[worse.missing] = MISSING
    return back_to_planes(found.frame, labels, volume)


def _document(found: Analysis, scores: tuple[float, float], threshold: float, model: dict[str, Any]) -> bytes:
    """Every number that the score came from: the rule and its contributions."""
    sides = {}
    for side, score in zip(found.sides, scores, strict=True):
        values = {name: round(float(v), 4) for name, v in zip(FEATURES, side.features, strict=True)}
        sides[side.side] = {
            "score": round(score, 6),
            "features": values,
            "contributions": {name: round(float(model["weights"][name]) * v, 4) for name, v in values.items()},
            "segment": side.site,
            "missing_mm": round(side.missing_mm, 1),
        }
    document = {
        "schema": "wetread.lvo/1",
        "disclaimer": RUO_STATEMENT,
        "threshold": threshold,
        "offset": model["offset"],
        "lumen_hu": round(found.vessels.lumen_hu, 1),
        "brain_hu": round(found.vessels.brain_hu, 1),
        "sides": sides,
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
