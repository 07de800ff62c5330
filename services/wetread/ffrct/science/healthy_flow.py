"""Makes the healthy tree carry the hyperaemic flow by one factor on all outlet resistances."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from .boundary_conditions import BoundaryConditions
from .constants import Physiology
from .fields import Coefficients, nominal_inlet, solve_flows
from .lumen_model import LumenModel
from .viscous import interval_resistance

SECANT_STEPS: Final = 3


def match_healthy_flow(model: LumenModel, bc: BoundaryConditions, physiology: Physiology) -> BoundaryConditions:
    """Scale outlet resistances so that the tree without lesions carries ``q_hyp``.

    Prescribed outlets are left alone. At most three secant steps on the factor; the epicardial drop is
    small against the microvascular one, so they end within 1e-6 of the flow.
    """
    if bc.q_hyp_m3_s is None:
        return bc
    viscosity = physiology.si("blood.mu")
    healthy = np.array(
        [
            float(interval_resistance(branch.s_m, own.healthy_m, np.ones_like(own.healthy_m), viscosity).sum())
            for branch, own in zip(model.tree.branches, model.branches, strict=True)
        ]
    )
    unobstructed = replace(model, open_outlets=np.ones(len(model.outlets), dtype=bool))

    def carried(factor: float) -> float:
        flows = solve_flows(
            unobstructed,
            bc,
            Coefficients(
                healthy[None],
                np.zeros((1, len(healthy))),
                bc.outlet_resistance[None] * factor,
                bc.outlet_pressure[None],
                np.array([nominal_inlet(bc)]),
            ),
        )
        return float(flows.outlet_flow.sum())

    target = bc.q_hyp_m3_s
    before, factor = 1.0, carried(1.0) / target
    miss_before, miss = carried(before) - target, carried(factor) - target
    for _ in range(SECANT_STEPS):
        if miss == miss_before or abs(miss) <= 1e-9 * target:
            break
        following = factor - miss * (factor - before) / (miss - miss_before)
        before, miss_before = factor, miss
        factor = max(following, 0.0)
        miss = carried(factor) - target
    return replace(bc, outlet_resistance=bc.outlet_resistance * factor)
