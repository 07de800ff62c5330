"""An analysed series as a detector's result: findings, label mask, parameter maps, summary."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import Attachment, DynamicVolume, LabelArray, Measure, Observation, ParameterMap, Result
from wetread.core.ruo import RUO_STATEMENT
from wetread.perfusion.analysis import DENSITY_G_PER_ML, Perfusion
from wetread.perfusion.grid import expand
from wetread.perfusion.picture import summary_png
from wetread.perfusion.stroke import side_of
from wetread.perfusion.vessels import Vessel

CORE, LATE, ARTERY, VEIN = 1, 2, 3, 4
"""Labels of the mask: core, hypoperfused tissue outside it, arterial and venous voxels."""
METHOD: Final = "Tmax > 6 s; core: CBF < 30 % of healthy tissue"
MISMATCH_ML: Final = 15.0
MISMATCH_RATIO: Final = 1.8
QUANTITIES: Final = ("cerebral_blood_flow", "cerebral_blood_volume", "mean_transit_time", "tmax")
MOVED_MM: Final = 2.0


def result_of(found: Perfusion, volume: DynamicVolume) -> Result:
    """Return the result on the planes of *volume*."""
    return Result(
        state="measured",
        observations=_observations(found, volume),
        mask=_mask(found, volume),
        flags=_flags(found, volume),
        attachments=(
            Attachment("perfusion.json", "application/json", _document(found, volume)),
            Attachment("perfusion.png", "image/png", summary_png(found, _to_left(found, volume)), capture=True),
        ),
        maps=_maps(found, volume),
    )


def _observations(found: Perfusion, volume: DynamicVolume) -> tuple[Observation, ...]:
    stroke, to_left = found.stroke, _to_left(found, volume)
    late = Observation(
        code="hypoperfused_tissue",
        state="measured",
        measures=(Measure("volume", _round(stroke.hypoperfused_ml), "mL", METHOD),),
        label=LATE if stroke.hypoperfused_ml > stroke.core_ml else None,
        laterality=side_of(stroke.hypoperfused, to_left),
        key_plane=_fullest(stroke.hypoperfused),
    )
    core = Observation(
        code="infarct_core",
        state="measured",
        measures=(Measure("volume", _round(stroke.core_ml), "mL", METHOD),),
        label=CORE if stroke.core_ml > 0 else None,
        laterality=side_of(stroke.core, to_left),
        key_plane=_fullest(stroke.core),
    )
    measures = [Measure("mismatch_volume", _round(stroke.mismatch_ml), "mL", METHOD)]
    if stroke.ratio is not None:
        measures.append(Measure("mismatch_ratio", round(stroke.ratio, 3), "1", METHOD))
    target = stroke.mismatch_ml >= MISMATCH_ML and (stroke.ratio is None or stroke.ratio >= MISMATCH_RATIO)
    mismatch = Observation(
        code="perfusion_mismatch",
        state="measured",
        measures=tuple(measures),
        site="at least 15 mL and a ratio of 1.8" if target else "less than 15 mL or a ratio below 1.8",
    )
    return (
        late,
        core,
        mismatch,
        _vessel(found, volume, found.vessels.artery, "arterial_input", ARTERY),
        _vessel(found, volume, found.vessels.vein, "venous_output", VEIN),
    )


def _vessel(found: Perfusion, volume: DynamicVolume, vessel: Vessel, code: str, label: int) -> Observation:
    """Say where a curve was measured and how it looks, so that a reader can check the choice."""
    series = found.series
    x, y, z = _place(found, volume, vessel)
    unit = "[hnsf'U]" if series.modality == "CT" else "1"
    peak = int(vessel.curve.argmax())
    return Observation(
        code=code,
        state="measured",
        measures=(
            Measure("position_x", x, "mm"),
            Measure("position_y", y, "mm"),
            Measure("position_z", z, "mm"),
            Measure("peak_enhancement", _round(float(vessel.curve[peak])), unit),
            Measure("time_to_peak", round(series.start_s + peak * series.step_s, 2), "s"),
        ),
        label=label,
        key_plane=int(np.bincount(vessel.voxels[:, 0]).argmax()),
    )


def _place(found: Perfusion, volume: DynamicVolume, vessel: Vessel) -> tuple[float, float, float]:
    """Return where a vessel's best voxel lies in the patient, LPS mm: the mean of several would lie in none."""
    block = found.series.block
    plane, row, column = (int(v) for v in vessel.voxels[-1])
    point = (
        volume.origins[plane]
        + (row * block + (block - 1) / 2) * volume.pixel_spacing[0] * volume.column_direction
        + (column * block + (block - 1) / 2) * volume.pixel_spacing[1] * volume.row_direction
    )
    x, y, z = (round(float(v), 2) for v in point)
    return x, y, z


def _mask(found: Perfusion, volume: DynamicVolume) -> LabelArray:
    mask = np.zeros(found.tissue.shape, dtype=np.uint8)
    mask[found.stroke.hypoperfused] = LATE
    mask[found.stroke.core] = CORE
    for vessel, label in ((found.vessels.vein, VEIN), (found.vessels.artery, ARTERY)):
        mask[tuple(vessel.voxels.T)] = label
    return np.ascontiguousarray(_expanded(found, volume, mask))


def _maps(found: Perfusion, volume: DynamicVolume) -> tuple[ParameterMap, ...]:
    quantities = zip(
        QUANTITIES,
        (found.cbf, found.cbv * DENSITY_G_PER_ML, found.mtt_s, found.tmax_s),
        ("ml/[100]g/min", "ml/[100]ml", "s", "s"),
        strict=True,
    )
    return tuple(
        ParameterMap(name, np.ascontiguousarray(_expanded(found, volume, values.astype(np.float32))), unit)
        for name, values, unit in quantities
    )


def _flags(found: Perfusion, volume: DynamicVolume) -> tuple[str, ...]:
    flags = []
    if found.moved_mm > MOVED_MM:
        flags.append("motion_corrected")
    if found.dropped:
        flags.append("time_points_dropped")
    if volume.modality == "MR":
        flags.append("relative_perfusion")
    return tuple(flags)


def _document(found: Perfusion, volume: DynamicVolume) -> bytes:
    stroke, series = found.stroke, found.series
    document: dict[str, Any] = {
        "schema": "wetread.perfusion/1",
        "disclaimer": RUO_STATEMENT,
        "hypoperfused_ml": _round(stroke.hypoperfused_ml),
        "core_ml": _round(stroke.core_ml),
        "mismatch_ml": _round(stroke.mismatch_ml),
        "mismatch_ratio": None if stroke.ratio is None else round(stroke.ratio, 3),
        "time_points": len(volume.times_s),
        "step_s": round(series.step_s, 4),
        "largest_motion_mm": round(found.moved_mm, 2),
        "dropped_time_points": found.dropped,
        "partial_volume_scale": round(found.vessels.scale, 4),
    }
    for name, vessel in (("arterial_input", found.vessels.artery), ("venous_output", found.vessels.vein)):
        document[name] = {
            "lps_mm": list(_place(found, volume, vessel)),
            "start_s": round(series.start_s, 4),
            "curve": [round(float(v), 3) for v in vessel.curve],
        }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _to_left(found: Perfusion, volume: DynamicVolume) -> npt.NDArray[np.float64]:
    """Return how far each column of the working grid lies to the left of the midline, [1, 1, column]."""
    columns = np.arange(found.tissue.shape[2]) - found.midline
    scale = found.series.pixel_mm[1] * float(np.sign(volume.row_direction[0]))
    return np.asarray(columns[None, None] * scale, dtype=np.float64)


def _expanded(found: Perfusion, volume: DynamicVolume, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return expand(values, found.series.block, (volume.voxels.shape[1], volume.voxels.shape[2]))


def _fullest(region: npt.NDArray[np.bool_]) -> int | None:
    counts = region.sum(axis=(1, 2))
    return int(counts.argmax()) if counts.any() else None


def _round(value: float) -> float:
    return float(f"{value:.5g}")
