"""The result document ``wetread.ffr.result/1``: clinical units, null where there is no number."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct.science.constants import Physiology
from wetread.ffrct.science.engine import MODEL_VERSION, Solution
from wetread.ffrct.science.readout import LesionReading, closed_points, gather, vessel_flags
from wetread.ffrct.science.tree import FloatArray, IntArray
from wetread.ffrct.science.uncertainty import TargetSpread
from wetread.ffrct.science.units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG

from .disclaimer import FFR_DISCLAIMER

THRESHOLD: Final = 0.80


def result_document(solution: Solution, physiology: Physiology, emulator_sha256: str, seconds: float) -> dict[str, Any]:
    """Everything computed for one tree; ``seconds`` is the time that it took.

    FFR values are null in closed vessels (``reason: occluded``) and for a prescribed inlet flow
    (``reason: inlet_flow``), where drops are given instead.
    """
    bc = solution.bc
    vessels = [_vessel(solution, index, physiology) for index in range(len(solution.case.tree.vessels))]
    lesions = [_lesion(solution, number) for number in range(len(solution.lesions))]
    return {
        "schema": "wetread.ffr.result/1",
        "disclaimer": f"{RUO_STATEMENT} {FFR_DISCLAIMER}",
        "model": {
            "tier": solution.case.options.tier,
            "preset": solution.case.options.preset,
            "version": MODEL_VERSION,
            "constants_sha256": physiology.sha256,
            "emulator_sha256": emulator_sha256 if "calibrated" in solution.choice.tier else None,
        },
        "bc": {
            "status": bc.status,
            "q_hyp_ml_min": _clinical(bc.q_hyp_m3_s, M3_S_PER_ML_MIN),
            "inlet_ml_min": _clinical(float(np.sum(solution.flows.outlet_flow[0])), M3_S_PER_ML_MIN),
            "map_mmhg": _clinical(solution.aortic_pressure_pa, PA_PER_MMHG),
            "pv_mmhg": _clinical(bc.venous_pressure_pa, PA_PER_MMHG),
            "flags": list(bc.flags),
        },
        "vessels": vessels,
        "lesions": lesions,
        "summary": _summary(vessels, lesions),
        "constants": {"unconfirmed": list(physiology.unconfirmed(solution.used))},
        "solver": {
            "iterations": int(solution.flows.iterations[0]),
            "residual": float(solution.flows.residual[0]),
        },
        "timings_s": {"total": round(seconds, 6)},
    }


def _vessel(solution: Solution, index: int, physiology: Physiology) -> dict[str, Any]:
    model, vessel = solution.model, solution.case.tree.vessels[index]
    closed = closed_points(model, index)
    aortic = solution.aortic_pressure_pa
    along = {
        name: gather(model, index, [getattr(branch, name) for branch in solution.pressures])
        for name in ("p", "p_low", "head")
    }
    pressures = {name: np.where(closed, np.nan, values) for name, values in along.items()}
    first = int(model.tree.placements[index].branch[0])
    branches = np.unique(model.tree.placements[index].branch)
    throats = [reading.re_throat for reading in solution.lesions if reading.vessel == index]
    document: dict[str, Any] = {
        "id": vessel.id,
        "label": vessel.label,
        "s_mm": _list(model.tree.placements[index].s_m / M_PER_MM),
        "p_mmhg": _list(pressures["p"] / PA_PER_MMHG),
        "q_ml_min": _clinical(float(solution.flows.flow[0, first]), M3_S_PER_ML_MIN),
        "re_throat": max(throats) if throats else None,
        "tier_used": _tier(solution, branches),
        "flags": list(vessel_flags(vessel, index, solution.lesions, closed, physiology.si("report.min_diameter"))),
        "reason": None,
    }
    if bool(np.any(closed)):
        document["reason"] = "occluded"
    if aortic is None:
        document["reason"] = document["reason"] or "inlet_flow"
        inlet = float(solution.flows.inlet_pressure[0])
        document["drop_mmhg"] = _list((inlet - pressures["p"]) / PA_PER_MMHG)
    ratios = {"ffr": "p", "ffr_low": "p_low", "ffr_head": "head"}
    empty = aortic is None or bool(np.all(closed))
    for name, source in ratios.items():
        document[name] = None if empty or aortic is None else _list(pressures[source] / aortic)
    for row, name in enumerate(("ffr_p5", "ffr_p50", "ffr_p95")):
        document[name] = None
        if solution.spread is not None and not empty:
            document[name] = _list(gather(model, index, [values[row] for values in solution.spread.percentiles]))
    return document


def _tier(solution: Solution, branches: IntArray) -> str:
    """Tier of a vessel: the one of its diseased branches that needed most."""
    used = {solution.choice.tier[branch] for branch in branches}
    return next(tier for tier in ("rnsp", "calibrated", "analytic") if tier in used)


def _lesion(solution: Solution, number: int) -> dict[str, Any]:
    reading = solution.lesions[number]
    lesion = reading.lesion
    spread = None if solution.spread is None else solution.spread.targets[number]
    return {
        "id": f"lesion{number + 1}",
        "vessel": solution.case.tree.vessels[reading.vessel].id,
        "s_start_mm": reading.s_start_m / M_PER_MM,
        "s_throat_mm": reading.s_throat_m / M_PER_MM,
        "s_end_mm": reading.s_end_m / M_PER_MM,
        "diameter_stenosis_pct": 100.0 * lesion.diameter_stenosis,
        "area_stenosis_pct": 100.0 * (1.0 - lesion.area_ratio),
        "mla_mm2": float(np.pi) * (lesion.radius_throat_m / M_PER_MM) ** 2,
        "length_mm": lesion.length_m / M_PER_MM,
        "aspect_ratio": lesion.aspect_ratio,
        "re_throat": reading.re_throat,
        "delta_ffr": reading.delta_ffr,
        "ffr_distal_20mm": reading.ffr_distal,
        **_spread(spread),
        "tier_used": solution.choice.tier[lesion.branch],
        "flags": sorted(reading.flags),
        "reason": _lesion_reason(reading),
    }


def _lesion_reason(reading: LesionReading) -> str | None:
    if reading.delta_ffr is not None:
        return None
    return "occluded" if "occluded" in reading.flags else "inlet_flow"


def _spread(spread: TargetSpread | None) -> dict[str, Any]:
    if spread is None:
        names = ("ffr_p5", "ffr_p95", "p_le_080", "indeterminate", "drivers")
        return dict.fromkeys(names)
    return {
        "ffr_p5": spread.p5,
        "ffr_p95": spread.p95,
        "p_le_080": spread.p_le_080,
        "indeterminate": spread.indeterminate,
        "drivers": spread.drivers,
    }


def _summary(vessels: list[dict[str, Any]], lesions: list[dict[str, Any]]) -> dict[str, Any]:
    """Lowest FFR of the tree and how many lesions there are, at or below 0.80, and closed vessels."""
    values = [value for vessel in vessels for value in vessel["ffr"] or () if value is not None]
    distal = [lesion["ffr_distal_20mm"] for lesion in lesions]
    return {
        "ffr_min": min(values) if values else None,
        "n_lesions": len(lesions),
        "n_lesions_le_080": sum(1 for value in distal if value is not None and value <= THRESHOLD),
        "n_vessels_occluded": sum(1 for vessel in vessels if vessel["reason"] == "occluded"),
    }


def _clinical(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _list(values: FloatArray) -> list[float | None]:
    """Numbers as JSON has them: NaN becomes null."""
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124 - NaN test
