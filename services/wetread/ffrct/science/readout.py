"""Reads vessels and lesions out of the solved branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .constants import Physiology
from .lesions import ECCENTRIC_ASPECT, Lesion, is_serial, throat_reynolds
from .lumen_model import LumenModel
from .tiers import TierChoice
from .tree import BoolArray, FloatArray, Vessel

DISTAL_M: Final = 20e-3


@dataclass(frozen=True)
class BranchPressures:
    """Along one branch (k,): static ``p`` and ``head`` of the nominal solution, ``p_low`` at Kt 1.52."""

    p: FloatArray
    head: FloatArray
    p_low: FloatArray


@dataclass(frozen=True)
class LesionReading:
    """One lesion with its place on the vessel of its throat; pressures relative to the inlet's.

    ``s_*`` are along that vessel and may lie outside it when the lesion runs on into the next.
    ``delta_ffr`` and ``ffr_distal`` are None behind an occlusion or without an aortic pressure.
    """

    lesion: Lesion
    vessel: int
    s_start_m: float
    s_throat_m: float
    s_end_m: float
    re_throat: float
    delta_ffr: float | None
    ffr_distal: float | None
    flags: tuple[str, ...]


def gather(model: LumenModel, vessel: int, per_branch: list[FloatArray]) -> FloatArray:
    """Values (n,) at the points of one vessel, from arrays along each branch."""
    placement = model.tree.placements[vessel]
    values = np.empty(len(placement.branch))
    for branch in np.unique(placement.branch):
        here = placement.branch == branch
        values[here] = per_branch[int(branch)][placement.sample[here]]
    return values


def closed_points(model: LumenModel, vessel: int) -> BoolArray:
    """True (n,) where the vessel's points lie in a closed branch."""
    closed = [np.full(len(b.viscous), float(b.closed)) for b in model.branches]
    return np.asarray(gather(model, vessel, closed) > 0.0)


def read_lesions(
    model: LumenModel,
    flow: FloatArray,
    pressures: list[BranchPressures],
    inlet_pressure: float | None,
    choice: TierChoice,
    physiology: Physiology,
) -> tuple[LesionReading, ...]:
    """Every lesion in branch order; ``flow`` (n_branches,) in m3/s."""
    density, viscosity = physiology.si("blood.rho"), physiology.si("blood.mu")
    limit = physiology.si("re_transitional")
    readings = []
    for index, branch in enumerate(model.branches):
        for position, lesion in enumerate(branch.lesions):
            vessel, offset = _vessel_of(model, index, lesion.s_throat_m)
            reynolds = float(throat_reynolds(lesion, abs(float(flow[index])), density, viscosity))
            flags = list(choice.flags[index])
            if reynolds > limit:
                flags.append("transitional")
            if max(lesion.aspect_ratio, 1.0) > ECCENTRIC_ASPECT:
                flags.append("eccentric")
            if lesion.calcified:
                flags.append("calcified")
            if is_serial(branch.lesions, position, reynolds):
                flags.append("serial")
            delta: float | None = None
            distal: float | None = None
            if branch.closed:
                flags.append("occluded")
            elif inlet_pressure is not None:
                s = model.tree.branches[index].s_m
                drop = np.interp([lesion.s_start_m, lesion.s_end_m], s, pressures[index].p)
                delta = float(drop[0] - drop[1]) / inlet_pressure
                where = distal_point(model, index, lesion)
                target, at, reached = where
                p = np.interp(at, model.tree.branches[target].s_m, pressures[target].p)
                distal = float(p) / inlet_pressure
                if not reached:
                    flags.append("distal_at_vessel_end")
            readings.append(
                LesionReading(
                    lesion,
                    vessel,
                    lesion.s_start_m + offset,
                    lesion.s_throat_m + offset,
                    lesion.s_end_m + offset,
                    reynolds,
                    delta,
                    distal,
                    tuple(flags),
                )
            )
    return tuple(readings)


def distal_point(model: LumenModel, branch: int, lesion: Lesion) -> tuple[int, float, bool]:
    """Branch and arc length 20 mm behind the lesion along its vessel; False if the vessel ends before."""
    at = lesion.s_end_m + DISTAL_M
    while True:
        s = model.tree.branches[branch].s_m
        if at <= s[-1]:
            return branch, at, True
        vessel = model.tree.branches[branch].last_vessel
        onward = [
            child
            for child in np.flatnonzero(model.parents == branch)
            if model.tree.branches[child].first_vessel == vessel and not model.branches[child].closed
        ]
        if not onward:
            return branch, float(s[-1]), False
        at -= float(s[-1])
        branch = int(onward[0])


def _vessel_of(model: LumenModel, branch: int, s: float) -> tuple[int, float]:
    """Vessel whose point lies nearest to ``s`` on the branch, and vessel arc length minus branch arc length."""
    best: tuple[float, int, float] = (np.inf, -1, 0.0)
    along = model.tree.branches[branch].s_m
    for vessel, placement in enumerate(model.tree.placements):
        here = np.flatnonzero(placement.branch == branch)
        if not len(here):
            continue
        at = along[placement.sample[here]]
        nearest = int(np.argmin(np.abs(at - s)))
        distance = float(abs(at[nearest] - s))
        if distance < best[0]:
            best = (distance, vessel, float(placement.s_m[here[nearest]] - at[nearest]))
    return best[1], best[2]


def vessel_flags(
    vessel: Vessel,
    index: int,
    lesions: tuple[LesionReading, ...],
    closed: BoolArray,
    smallest_diameter: float,
) -> tuple[str, ...]:
    """Flags of a vessel: those of its lesions plus its own, sorted."""
    flags = {flag for reading in lesions if reading.vessel == index for flag in reading.flags}
    flags.discard("distal_at_vessel_end")
    if float(np.min(vessel.radius_m)) * 2.0 < smallest_diameter:
        flags.add("small_vessel")
    if bool(np.any(vessel.calcium)):
        flags.add("calcified")
    if vessel.radius_kind == "inscribed":
        flags.add("inscribed_radius")
    if bool(np.any(closed)):
        flags.add("occluded")
    return tuple(sorted(flags))
