"""Pressure at the ostia and resistance behind every outlet: estimated from the patient, or prescribed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .constants import Physiology
from .problems import Problem
from .tree import FloatArray, IntArray

Status = Literal["measured", "patient_scaled", "estimated", "prescribed"]


@dataclass(frozen=True)
class Patient:
    """What is known of the patient, SI except ``lv_mass_g``; None where unknown.

    ``q_hyp_m3_s`` hyperaemic and ``q_rest_m3_s`` resting flow of both coronary arteries together;
    ``missing_ostium_radius_m`` healthy radius of an ostium that the tree does not contain.
    """

    sbp_pa: float | None = None
    dbp_pa: float | None = None
    lv_mass_g: float | None = None
    q_hyp_m3_s: float | None = None
    q_rest_m3_s: float | None = None
    missing_ostium_radius_m: float | None = None


@dataclass(frozen=True)
class Outlet:
    """Prescribed end of a vessel: ``resistance_pa_s_m3`` (0 for a fixed pressure) to ``pressure_pa``."""

    vessel: int
    resistance_pa_s_m3: float
    pressure_pa: float


@dataclass(frozen=True)
class Prescription:
    """What the caller fixes; None where it is to be estimated."""

    inlet_pressure_pa: float | None = None
    inlet_flow_m3_s: float | None = None
    outlets: tuple[Outlet, ...] | None = None


@dataclass(frozen=True)
class BoundaryConditions:
    """Everything at the borders of the tree, SI; outlet arrays (n_outlets,).

    ``weights`` sum to 1 and are None for prescribed outlets; ``q_hyp_m3_s`` likewise. ``used`` names the
    constants that went in.
    """

    status: Status
    inlet_pressure_pa: float | None
    inlet_flow_m3_s: float | None
    venous_pressure_pa: float
    outlet_resistance: FloatArray
    outlet_pressure: FloatArray
    q_hyp_m3_s: float | None
    weights: FloatArray | None
    flags: tuple[str, ...]
    used: frozenset[str]


@dataclass(frozen=True)
class Ends:
    """Ends of the tree: healthy radius (n,) and vessel index (n,) of outlets, healthy ostial radii."""

    outlet_radius_m: FloatArray
    outlet_vessel: IntArray
    ostium_radius_m: FloatArray


def boundary_conditions(
    ends: Ends,
    patient: Patient,
    prescription: Prescription,
    exponent: float,
    physiology: Physiology,
) -> BoundaryConditions | tuple[Problem, ...]:
    """Choose and check the boundary conditions; problems all carry ``bc_invalid``."""
    inlet, used, problems = _inlet_pressure(patient, prescription, physiology)
    venous = physiology.si("pressure.pv")
    if prescription.outlets is not None:
        found = _match_outlets(ends, prescription.outlets)
        flow = prescription.inlet_flow_m3_s
        if flow is not None and len(ends.ostium_radius_m) > 1:
            problems.append(_invalid("/bc/inlet", "a flow inlet needs a tree with one ostium"))
        if isinstance(found, list):
            problems += found
        if problems or isinstance(found, list):
            return tuple(problems)
        return BoundaryConditions(
            "prescribed",
            None if flow is not None else inlet,
            flow,
            venous,
            found[0],
            found[1],
            None,
            None,
            (),
            used,
        )
    if prescription.inlet_flow_m3_s is not None:
        problems.append(_invalid("/bc/outlets", "a flow inlet needs outlets given one by one"))
    if inlet <= venous:
        problems.append(_invalid("/bc/inlet", "the aortic pressure must exceed the venous pressure"))
    if problems:
        return tuple(problems)
    q_hyp, status, flags, flow_used = _hyperaemic_flow(ends, patient, exponent, physiology)
    weights = ends.outlet_radius_m**exponent
    weights = weights / weights.sum()
    return BoundaryConditions(
        status,
        inlet,
        None,
        venous,
        (inlet - venous) / (q_hyp * weights),
        np.full(len(weights), venous),
        q_hyp,
        weights,
        flags,
        used | flow_used | {"pressure.pv", "split.exponent"},
    )


def _invalid(pointer: str, advice: str) -> Problem:
    return Problem("bc_invalid", pointer, advice)


def _inlet_pressure(
    patient: Patient, prescription: Prescription, physiology: Physiology
) -> tuple[float, frozenset[str], list[Problem]]:
    """Mean aortic pressure: prescribed, else from the cuff, else the default."""
    if prescription.inlet_pressure_pa is not None:
        return prescription.inlet_pressure_pa, frozenset(), []
    if prescription.inlet_flow_m3_s is not None:
        return float("nan"), frozenset(), []
    if patient.sbp_pa is None or patient.dbp_pa is None:
        if (patient.sbp_pa is None) != (patient.dbp_pa is None):
            advice = "give both systolic and diastolic pressure, or neither"
            return 0.0, frozenset(), [_invalid("/patient", advice)]
        return physiology.si("pressure.map"), frozenset({"pressure.map"}), []
    if patient.sbp_pa <= patient.dbp_pa:
        advice = "the systolic pressure must exceed the diastolic"
        return 0.0, frozenset(), [_invalid("/patient/sbp_mmhg", advice)]
    mean = patient.dbp_pa + (patient.sbp_pa - patient.dbp_pa) / 3.0
    return mean, frozenset({"pressure.map"}), []


def _hyperaemic_flow(
    ends: Ends, patient: Patient, exponent: float, physiology: Physiology
) -> tuple[float, Status, tuple[str, ...], frozenset[str]]:
    """Total flow through the given ostia, how it was found, flags, and the constants used."""
    share, flags = 1.0, []
    if len(ends.ostium_radius_m) == 1:
        flags.append("single_ostium")
        if patient.missing_ostium_radius_m is not None:
            own = float(ends.ostium_radius_m[0]) ** exponent
            share = own / (own + patient.missing_ostium_radius_m**exponent)
    split_known = len(ends.ostium_radius_m) > 1 or patient.missing_ostium_radius_m is not None
    if patient.q_hyp_m3_s is not None:
        status: Status = "measured" if split_known else "estimated"
        return patient.q_hyp_m3_s * share, status, tuple(flags), frozenset()
    status = "patient_scaled" if split_known else "estimated"
    if patient.lv_mass_g is not None:
        flow = physiology.si("flow.mbf_hyp") * patient.lv_mass_g
        return flow * share, status, tuple(flags), frozenset({"flow.mbf_hyp"})
    if patient.q_rest_m3_s is not None:
        key = "flow.hyperaemic_resistance_ratio"
        return patient.q_rest_m3_s / physiology.si(key) * share, status, tuple(flags), frozenset({key})
    keys = ("flow.root_reference_flow", "flow.root_reference_radius", "flow.root_exponent")
    reference, radius, power = (physiology.si(key) for key in keys)
    flow = reference * float(np.sum((ends.ostium_radius_m / radius) ** power))
    return flow, "estimated", tuple(flags), frozenset(keys)


def _match_outlets(ends: Ends, outlets: Sequence[Outlet]) -> tuple[FloatArray, FloatArray] | list[Problem]:
    """Bring prescribed outlets into the tree's order; each end needs exactly one."""
    problems: list[Problem] = []
    by_vessel: dict[int, Outlet] = {}
    for position, outlet in enumerate(outlets):
        pointer = f"/bc/outlets/{position}"
        if outlet.vessel in by_vessel:
            problems.append(_invalid(pointer, "two outlets for one vessel"))
        if outlet.vessel not in ends.outlet_vessel:
            problems.append(_invalid(pointer, "this vessel does not end in an outlet"))
        if outlet.resistance_pa_s_m3 < 0.0:
            problems.append(_invalid(pointer, "a resistance is not negative"))
        by_vessel[outlet.vessel] = outlet
    missing = sum(1 for vessel in ends.outlet_vessel if int(vessel) not in by_vessel)
    if missing:
        problems.append(_invalid("/bc/outlets", f"{missing} ends of the tree have no outlet"))
    if problems:
        return problems
    ordered = [by_vessel[int(vessel)] for vessel in ends.outlet_vessel]
    return (
        np.array([outlet.resistance_pa_s_m3 for outlet in ordered]),
        np.array([outlet.pressure_pa for outlet in ordered]),
    )
