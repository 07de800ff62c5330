"""Marks as a detector's result: one finding per nodule with its measures, types, side, mask and activation map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from wetread.core.detector import Attachment, Explanation, FloatArray, LabelArray, Measure, Observation, Result
from wetread.core.priors import Priors
from wetread.core.ruo import RUO_STATEMENT
from wetread.nodule.category import Category, category
from wetread.nodule.comparison import AXES, Comparison, Lungs, compare, lungs_of
from wetread.nodule.frame import to_planes
from wetread.nodule.growth import Sized, error_of
from wetread.nodule.measure import Nodule
from wetread.nodule.patches import SIZE
from wetread.nodule.reading import Mark, Reading

METHOD: Final = "region growing"
METHOD_VOLUME: Final = "region growing, border by partial volume"
MOST: Final = 20
"""Findings of one result; of more, the surest are kept and the flag ``more_marks`` is set."""
SPEC: Final = "wetread.lung-nodule/3"
HEAT_FLOOR: Final = 0.05


def result_of(
    reading: Reading,
    marks: Sequence[Mark],
    threshold: float,
    best: float,
    cams: FloatArray | None,
    *,
    mean_error: float,
    priors: Priors | None = None,
) -> Result:
    """Result of a reading: *marks* at or above *threshold*; *best* is the highest score of any candidate.

    *mean_error*: of a volume, relative, as the card states it. *priors*: earlier results to compare with.
    """
    shown = [m for m in marks if m.nodule is not None][:MOST]
    lungs = lungs_of(reading)
    sizes = [_sized(reading, mark, lungs, mean_error) for mark in shown]
    comparison = compare(sizes, lungs, priors.results if priors else (), MOST)
    flags = (*reading.frame.volume.flags, *comparison.flags)
    if len(marks) > MOST:
        flags += ("more_marks",)
    mask: LabelArray = np.zeros(reading.frame.volume.voxels.shape, dtype=np.uint8)
    # the surest is drawn last, so that it keeps its voxels where two touch
    for label, mark in reversed(list(enumerate(shown, start=1))):
        assert mark.nodule is not None
        to_planes(reading.frame, mark.nodule.mask, mark.nodule.start, mark.nodule.step, label, mask)
    height = Measure("lungs_height", lungs.height_mm, "mm")
    seen = tuple(
        replace(
            _observation(reading, mark, label, mask),
            measures=(*_measures(mark, sizes[label - 1]), height, *comparison.measures.get(label - 1, ())),
            change=comparison.changes.get(label - 1),
        )
        for label, mark in enumerate(shown, start=1)
    )
    # a candidate above the threshold at which nothing stands out from the lung is no finding
    score = max((m.score for m in shown), default=min(best, float(np.nextafter(threshold, 0))))
    return Result(
        state="positive" if seen else "negative",
        observations=seen or (Observation("nodule", "negative", score=score, measures=(height,)),),
        score=score,
        threshold=threshold,
        mask=mask,
        explanation=_explanation(reading, shown, cams) if cams is not None and shown else None,
        flags=flags,
        attachments=(
            Attachment("lung-nodules.json", "application/json", _document(reading, shown, threshold, comparison)),
        ),
    )


def _sized(reading: Reading, mark: Mark, lungs: Lungs, mean_error: float) -> Sized:
    assert mark.nodule is not None
    volume = _figures(mark.nodule.volume_mm3)
    return Sized(lungs.place(mark.centre_lps_mm), volume, error_of(volume, reading.blur_mm, mean_error))


def _measures(mark: Mark, size: Sized) -> tuple[Measure, ...]:
    nodule = mark.nodule
    assert nodule is not None
    x, y, z = (round(v, 2) for v in mark.centre_lps_mm)
    measures = [
        Measure("volume", size.volume_mm3, "mm3", METHOD_VOLUME, _figures(size.error * size.volume_mm3)),
        Measure("long_axis", round(nodule.long_axis_mm, 1), "mm", METHOD),
        Measure("short_axis", round(nodule.short_axis_mm, 1), "mm", METHOD),
        Measure("mean_attenuation", round(nodule.mean_hu, 0), "[hnsf'U]", METHOD),
        Measure("position_x", x, "mm"),
        Measure("position_y", y, "mm"),
        Measure("position_z", z, "mm"),
    ]
    if nodule.solidity == "part_solid":
        measures.insert(3, Measure("solid_diameter", round(nodule.solid_diameter_mm, 1), "mm", METHOD))
    return *measures, *(Measure(f"from_lungs_{axis}", v, "mm") for axis, v in zip(AXES, size.centre_mm, strict=True))


def _observation(reading: Reading, mark: Mark, label: int, mask: LabelArray) -> Observation:
    """The observation of a mark but for its measures."""
    nodule = mark.nodule
    assert nodule is not None
    counts = (mask == label).sum(axis=(1, 2))
    return Observation(
        code="nodule",
        state="positive",
        score=mark.score,
        types=types_of(nodule),
        label=label if counts.any() else None,
        key_plane=int(counts.argmax()) if counts.any() else _nearest_plane(reading, mark),
        laterality="left" if mark.centre_lps_mm[0] > _middle_lps(reading, mark) else "right",
    )


def types_of(nodule: Nodule) -> tuple[str, ...]:
    """Density, and size category or that it is a mass, as keys of the code dictionary."""
    size = _category(nodule)
    return f"nodule_{nodule.solidity}", f"nodule_category_{size}" if size else "nodule_mass"


def _category(nodule: Nodule) -> Category | None:
    """The size category; None for a mass, which the table was not made for."""
    if nodule.is_mass:
        return None
    return category(nodule.solidity, nodule.diameter_mm, nodule.solid_diameter_mm)


def _middle_lps(reading: Reading, mark: Mark) -> float:
    """LPS x of the middle between the lungs at the height and depth of a mark."""
    place = reading.frame.axes @ np.array(mark.centre_lps_mm)
    place[2] = reading.midline_mm
    return float(reading.frame.to_lps(place)[0])


def _nearest_plane(reading: Reading, mark: Mark) -> int:
    height = float(reading.frame.axes[0] @ np.array(mark.centre_lps_mm))
    return int(np.abs(reading.frame.corners[:, 0] - height).argmin())


def _explanation(reading: Reading, marks: Sequence[Mark], cams: FloatArray) -> Explanation:
    """The network's activation map of each mark, 0..1, on cells of 4 mm: where it looked.

    Cells of a candidate's own map are put into the nearest cell of the common grid, up to 2 mm away.
    """
    grid, axes = reading.grid, reading.frame.axes
    cell = SIZE / cams.shape[1] * grid.step
    shape = np.ceil(np.array(grid.values.shape) * grid.step / cell).astype(int)
    first = grid.start + (cell - grid.step) / 2
    values = np.zeros(shape, dtype=np.float32)
    for mark in marks:
        cam = 1 / (1 + np.exp(-np.clip(cams[mark.candidate], -30, 30)))
        corner = grid.place(np.rint(reading.candidates.index[mark.candidate]) - SIZE / 2)
        inner = np.argwhere(cam >= HEAT_FLOOR)
        place = np.rint((corner + (inner + 0.5) * cell - first) / cell).astype(int)
        inside = ((place >= 0) & (place < shape)).all(axis=1)
        np.maximum.at(values, tuple(place[inside].T), cam[tuple(inner[inside].T)].astype(np.float32))
    return Explanation(
        method="cam",
        values=values,
        origin_mm=reading.frame.to_lps(first),
        row_direction=axes[2],
        column_direction=axes[1],
        spacing_mm=(cell, cell, cell),
        note="Only around the marks shown; a mark's score is the network's for a cube of 32 mm, lowered by its shape.",
    )


def _document(reading: Reading, marks: Sequence[Mark], threshold: float, comparison: Comparison) -> bytes:
    document: dict[str, Any] = {
        "schema": SPEC,
        "disclaimer": RUO_STATEMENT,
        "threshold": threshold,
        "candidates": len(reading.candidates),
        "lung_level_hu": round(reading.level_hu, 1),
        "category_table": "size and density rows of Lung-RADS v2022, a look-up and no assessment; none for a mass",
        "compared_with": [prior.study_date.isoformat() for prior in comparison.compared],
        "nodules": [_entry(reading, mark) | _followed(comparison, k) for k, mark in enumerate(marks)],
        "gone": [
            {"prior_date": prior.study_date.isoformat(), "volume_mm3": size.volume_mm3}
            for prior, size in comparison.gone
        ],
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _followed(comparison: Comparison, number: int) -> dict[str, Any]:
    change = comparison.changes.get(number)
    if change is None:
        return {"change": None}
    entry: dict[str, Any] = {"course": change.course, "prior_date": change.prior.study_date.isoformat()}
    for measure in comparison.measures.get(number, ()):
        entry |= {f"{measure.name}_{'percent' if measure.unit == '%' else 'days'}": measure.value}
        if measure.name == "volume_change":
            entry["how"] = measure.method
    return {"change": entry}


def _entry(reading: Reading, mark: Mark) -> dict[str, Any]:
    nodule, found = mark.nodule, reading.candidates
    assert nodule is not None
    return {
        "score": round(mark.score, 6),
        "centre_lps_mm": [round(v, 2) for v in mark.centre_lps_mm],
        "volume_mm3": _figures(nodule.volume_mm3),
        "long_axis_mm": round(nodule.long_axis_mm, 1),
        "short_axis_mm": round(nodule.short_axis_mm, 1),
        "solid_diameter_mm": round(nodule.solid_diameter_mm, 1),
        "solidity": nodule.solidity,
        "compactness": round(nodule.compactness, 3),
        "size_category": _category(nodule),
        "mass": nodule.is_mass,
        "candidate": {
            "radius_mm": round(float(found.radius_mm[mark.candidate]), 2),
            "response_hu": round(float(found.response_hu[mark.candidate]), 1),
            "dot_hu": round(float(found.dot_hu[mark.candidate]), 1),
            "roundness": [round(float(v), 3) for v in found.roundness[mark.candidate]],
        },
    }


def _figures(value: float) -> float:
    """Four significant figures."""
    return float(f"{value:.4g}")
