"""From a vessel tree to pressure, flow and FFR along every vessel: the whole computation in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from .boundary_conditions import (
    BoundaryConditions,
    Patient,
    Prescription,
    boundary_conditions,
)
from .branches import build_branches
from .constants import Physiology
from .emulator import Emulator
from .fields import (
    Coefficients,
    Flows,
    Layout,
    equivalent_layout,
    head_along,
    nominal_inlet,
    solve_flows,
    static_along,
)
from .healthy_flow import match_healthy_flow
from .lumen_model import LumenModel, build_model
from .problems import Problem
from .readout import BranchPressures, LesionReading, distal_point, read_lesions
from .tiers import RequestedTier, TierChoice, choose_tiers
from .tree import FloatArray, VesselTree, check_tree
from .uncertainty import Spread, SpreadSetting, loss_factors, quantify

MODEL_VERSION: Final = "1"


@dataclass(frozen=True)
class Options:
    """How to compute. ``split_exponent`` None takes the shipped one; ``uq_draws`` 0 gives no spread."""

    tier: RequestedTier = "auto"
    uq_draws: int = 500
    split_exponent: float | None = None
    preset: Literal["svzerod"] | None = None
    match_healthy_flow: bool = False


@dataclass(frozen=True)
class Case:
    """One request of the engine, SI."""

    tree: VesselTree
    patient: Patient
    prescription: Prescription
    options: Options


@dataclass(frozen=True)
class Solution:
    """Everything computed for a case; per-branch lists follow ``model.branches``.

    Row 0 of ``flows`` is the nominal solution, row 1 the cautious one (Kt 1.52).
    """

    case: Case
    model: LumenModel
    bc: BoundaryConditions
    flows: Flows
    choice: TierChoice
    pressures: tuple[BranchPressures, ...]
    lesions: tuple[LesionReading, ...]
    spread: Spread | None
    aortic_pressure_pa: float | None
    used: frozenset[str]


def solve(
    case: Case, physiology: Physiology, rng: np.random.Generator, emulator: Emulator | None = None
) -> Solution | tuple[Problem, ...]:
    """Check, solve and read out one case; problems instead of a solution when it cannot be computed.

    ``rng`` drives the uncertainty draws only. Without an ``emulator`` the calibrated tier is the marching one.
    """
    problems = check_tree(case.tree)
    if problems:
        return problems
    branches = build_branches(case.tree)
    if isinstance(branches, tuple):
        return branches
    model = build_model(branches, physiology)
    bc = _borders(case, model, physiology)
    if isinstance(bc, tuple):
        return bc
    solved = _solve_tiers(case, model, bc, emulator, physiology)
    if solved is None:
        return (Problem("solver_diverged", "/tree", "Newton's method did not converge"),)
    flows, choice, layouts = solved
    pressures = _pressures(case, model, flows, layouts, physiology)
    aortic = None if bc.inlet_flow_m3_s is not None else float(flows.inlet_pressure[0])
    lesions = read_lesions(model, flows.flow[0], list(pressures), aortic, choice, physiology)
    spread = None
    if case.options.uq_draws and aortic is not None:
        spread = _spread(case, model, bc, choice, layouts, rng, physiology)
    return Solution(
        case,
        model,
        bc,
        flows,
        choice,
        pressures,
        lesions,
        spread,
        aortic,
        model.used
        | bc.used
        | {"loss.kt_experimental", "flow.rms_over_mean"}
        | ({"re_transitional"} if lesions else set())
        | {"report.min_diameter"},
    )


def _borders(case: Case, model: LumenModel, physiology: Physiology) -> BoundaryConditions | tuple[Problem, ...]:
    exponent = case.options.split_exponent or physiology.si("split.exponent")
    bc = boundary_conditions(model.ends, case.patient, case.prescription, exponent, physiology)
    if isinstance(bc, tuple):
        return bc
    if bc.inlet_flow_m3_s is not None and not model.open_outlets.any():
        return (Problem("bc_invalid", "/bc/inlet", "the tree is closed: no flow can be prescribed"),)
    if case.options.match_healthy_flow:
        return match_healthy_flow(model, bc, physiology)
    return bc


def _kt_rows(case: Case, physiology: Physiology) -> FloatArray:
    high = physiology.si("loss.kt_experimental")
    low = high if case.options.preset == "svzerod" else physiology.si("loss.kt_laminar")
    return np.array([low, high])


def _ke_factor(case: Case, physiology: Physiology) -> float:
    """0 makes static pressure equal head, which is what network solvers report."""
    return 0.0 if case.options.preset == "svzerod" else physiology.si("ke_factor")


def _solve_tiers(
    case: Case, model: LumenModel, bc: BoundaryConditions, emulator: Emulator | None, physiology: Physiology
) -> tuple[Flows, TierChoice, tuple[Layout, ...]] | None:
    """Analytic solution at both Kt; on other tiers the first row is solved again with tables."""
    kt = _kt_rows(case, physiology)
    unsteady = physiology.si("flow.rms_over_mean") ** 2
    coefficients = Coefficients(
        resistance=np.tile(model.resistance, (2, 1)),
        quadratic=np.outer(kt, model.expansion) * unsteady,
        outlet_resistance=np.tile(bc.outlet_resistance, (2, 1)),
        outlet_pressure=np.tile(bc.outlet_pressure, (2, 1)),
        inlet=np.full(2, nominal_inlet(bc)),
    )
    flows = solve_flows(model, bc, coefficients)
    if not bool(flows.converged.all()):
        return None
    layouts = tuple(
        Layout(np.tile(branch.viscous, (2, 1)), np.outer(kt, branch.expansion) * unsteady) for branch in model.branches
    )
    requested: RequestedTier = "analytic" if case.options.preset == "svzerod" else case.options.tier
    choice = choose_tiers(model, flows.flow[0], requested, emulator, physiology)
    if not choice.tables:
        return flows, choice, layouts
    first = Coefficients(
        coefficients.resistance[:1],
        coefficients.quadratic[:1],
        coefficients.outlet_resistance[:1],
        coefficients.outlet_pressure[:1],
        coefficients.inlet[:1],
        choice.tables,
    )
    tabulated = solve_flows(model, bc, first)
    if not bool(tabulated.converged.all()):
        return None
    merged = Flows(
        *(
            np.concatenate([getattr(tabulated, name), getattr(flows, name)[1:]])
            for name in (
                "flow",
                "upstream",
                "drop",
                "outlet_flow",
                "inlet_pressure",
                "residual",
                "iterations",
                "converged",
            )
        )
    )
    laid = list(layouts)
    for index in choice.tables:
        own = equivalent_layout(model, index, float(merged.flow[0, index]), float(merged.drop[0, index]))
        laid[index] = Layout(
            np.concatenate([own.viscous, layouts[index].viscous[1:]]),
            np.concatenate([own.expansion, layouts[index].expansion[1:]]),
        )
    return merged, choice, tuple(laid)


def _pressures(
    case: Case,
    model: LumenModel,
    flows: Flows,
    layouts: tuple[Layout, ...],
    physiology: Physiology,
) -> tuple[BranchPressures, ...]:
    density, ke_factor = physiology.si("blood.rho"), _ke_factor(case, physiology)
    along = []
    for index, layout in enumerate(layouts):
        q = flows.flow[:, index]
        head = head_along(layout, flows.upstream[:, index], q)
        static = static_along(head, q, model.tree.branches[index].radius_m, density, ke_factor)
        # Less flow can raise static pressure upstream of a lesion: the cautious side is the lower one.
        along.append(BranchPressures(static[0], head[0], np.minimum(static[0], static[1])))
    return tuple(along)


def _spread(
    case: Case,
    model: LumenModel,
    bc: BoundaryConditions,
    choice: TierChoice,
    layouts: tuple[Layout, ...],
    rng: np.random.Generator,
    physiology: Physiology,
) -> Spread | None:
    """Draws around the nominal solution; tables enter as their equivalent Kt."""
    at_one = model.expansion
    total = np.array([layout.expansion[0, -1] for layout in layouts])
    equivalent = np.divide(total, at_one, out=np.ones_like(total), where=at_one > 0.0)
    viscous = np.array([layout.viscous[0, -1] for layout in layouts])
    scale = np.divide(viscous, model.resistance, out=np.ones_like(viscous), where=viscous > 0.0)
    targets: list[tuple[int, int] | None] = []
    for branch_index, branch in enumerate(model.branches):
        for lesion in branch.lesions:
            if branch.closed:
                targets.append(None)
                continue
            target, at, _ = distal_point(model, branch_index, lesion)
            s = model.tree.branches[target].s_m
            targets.append((target, int(np.argmin(np.abs(s - at)))))
    setting = SpreadSetting(
        draws=case.options.uq_draws,
        loss=loss_factors(choice, equivalent, physiology),
        viscous_scale=scale,
        ke_factor=_ke_factor(case, physiology),
    )
    return quantify(model, bc, targets, setting, rng, physiology)
