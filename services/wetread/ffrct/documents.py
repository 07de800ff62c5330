"""Documents to cases of the engine in SI units."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from .api_models import (
    MAX_POINTS,
    MAX_VESSELS,
    BordersDocument,
    FfrRequest,
    FlowInlet,
    OptionsDocument,
    PatientDocument,
    PressureInlet,
    TreeDocument,
    VesselDocument,
)
from .errors import FfrDocumentInvalid, FfrTooLarge, FfrUnprocessable
from .science.boundary_conditions import Outlet, Patient, Prescription
from .science.engine import Case, Options
from .science.problems import Problem
from .science.tree import FloatArray, Vessel, VesselTree
from .science.units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG, PA_S_M3_PER_MMHG_MIN_ML


def canonical_seed(document: Any) -> int:
    """First 8 bytes of the SHA-256 of the canonical JSON: the same request gives the same draws."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big")


def tree_of(request: FfrRequest) -> TreeDocument:
    """The tree of a request with the request's own patient, borders and options in place."""
    if request.tree is None:
        raise FfrDocumentInvalid((Problem("schema_invalid", "/tree", "give exactly one of tree and network"),))
    changes = {name: value for name in ("patient", "bc", "options") if (value := getattr(request, name)) is not None}
    return request.tree.model_copy(update=changes)


def case_of(document: TreeDocument) -> Case:
    """Convert a tree document to SI.

    Raises :class:`FfrTooLarge` above 200 vessels or 2000 points in one, :class:`FfrUnprocessable` for
    outlets that name no vessel (``bc_invalid``).
    """
    if len(document.vessels) > MAX_VESSELS:
        raise FfrTooLarge(f"{len(document.vessels)} vessels; one call takes {MAX_VESSELS}")
    for vessel in document.vessels:
        if len(vessel.points_mm) > MAX_POINTS:
            raise FfrTooLarge(f"a vessel of {len(vessel.points_mm)} points; one call takes {MAX_POINTS}")
    return Case(
        tree=VesselTree(tuple(_vessel(vessel) for vessel in document.vessels)),
        patient=_patient(document.patient),
        prescription=_prescription(document.bc, [vessel.id for vessel in document.vessels]),
        options=_options(document.options),
    )


def _vessel(document: VesselDocument) -> Vessel:
    count = len(document.points_mm)
    aspect, calcium = document.aspect_ratio, document.calcium
    return Vessel(
        id=document.id,
        parent=document.parent,
        label=document.label,
        points_m=np.array(document.points_mm, dtype=np.float64).reshape(count, 3) * M_PER_MM,
        radius_m=_metres(document.radius_mm),
        aspect_ratio=np.ones(count) if aspect is None else np.array(aspect, dtype=np.float64),
        calcium=np.zeros(count, dtype=bool) if calcium is None else np.array(calcium, dtype=bool),
        healthy_radius_m=None if document.healthy_radius_mm is None else _metres(document.healthy_radius_mm),
        radius_sd_m=None if document.radius_sd_mm is None else _metres(document.radius_sd_mm),
        radius_kind=document.radius_kind,
    )


def _metres(values: list[float]) -> FloatArray:
    return np.array(values, dtype=np.float64) * M_PER_MM


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _patient(document: PatientDocument) -> Patient:
    return Patient(
        sbp_pa=_scaled(document.sbp_mmhg, PA_PER_MMHG),
        dbp_pa=_scaled(document.dbp_mmhg, PA_PER_MMHG),
        lv_mass_g=document.lv_mass_g,
        q_hyp_m3_s=_scaled(document.q_hyp_ml_min, M3_S_PER_ML_MIN),
        q_rest_m3_s=_scaled(document.q_rest_ml_min, M3_S_PER_ML_MIN),
        missing_ostium_radius_m=_scaled(document.missing_ostium_radius_mm, M_PER_MM),
    )


def _prescription(document: BordersDocument, ids: list[str]) -> Prescription:
    inlet = document.inlet
    outlets: tuple[Outlet, ...] | None = None
    if document.outlets != "murray":
        unknown = [i for i, item in enumerate(document.outlets) if item.vessel not in ids]
        if unknown:
            pointers = (Problem("bc_invalid", f"/bc/outlets/{i}/vessel", "no such vessel") for i in unknown)
            raise FfrUnprocessable(tuple(pointers))
        outlets = tuple(
            Outlet(ids.index(item.vessel), item.r * PA_S_M3_PER_MMHG_MIN_ML, item.pd * PA_PER_MMHG)
            for item in document.outlets
        )
    return Prescription(
        inlet_pressure_pa=inlet.mmhg * PA_PER_MMHG if isinstance(inlet, PressureInlet) else None,
        inlet_flow_m3_s=inlet.ml_min * M3_S_PER_ML_MIN if isinstance(inlet, FlowInlet) else None,
        outlets=outlets,
    )


def _options(document: OptionsDocument) -> Options:
    return Options(
        tier=document.tier,
        uq_draws=document.uq_draws,
        split_exponent=document.split_exponent,
        preset=document.preset,
        match_healthy_flow=document.match_healthy_flow,
    )
