"""Chooses the loss model of every diseased branch and computes its pressure-flow table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from . import rnsp
from .constants import Physiology
from .laws import TabulatedLaw
from .lumen_model import LumenModel
from .tree import FloatArray

Tier = Literal["analytic", "rnsp"]
RequestedTier = Literal["auto", "analytic", "rnsp"]

RNSP_FLOWS: Final = np.linspace(0.15, 1.25, 5)
"""Tabulated flows as share of the analytic estimate."""

RNSP_SEVERE: Final = 0.6


@dataclass(frozen=True)
class TierChoice:
    """``tables`` by branch; ``tier`` and ``flags`` per branch, in branch order."""

    tables: Mapping[int, TabulatedLaw]
    tier: tuple[Tier, ...]
    flags: tuple[tuple[str, ...], ...]


def analytic_everywhere(model: LumenModel) -> TierChoice:
    """No tables: every branch follows R Q + K Q|Q|."""
    everywhere: list[Tier] = ["analytic"] * len(model.branches)
    return TierChoice({}, tuple(everywhere), ((),) * len(everywhere))


def rnsp_tables(model: LumenModel, estimate: FloatArray, physiology: Physiology) -> TierChoice:
    """March every open branch with a lesion at five flows around ``estimate`` (n_branches,) in m3/s.

    The head drop is the exact viscous part plus the static excess of the march plus the change of
    kinetic head, so that a straight branch keeps its Poiseuille drop. A branch whose march did not
    converge or whose drops do not rise falls back to the analytic tier with flag ``rnsp_failed``.
    """
    density, viscosity = physiology.si("blood.rho"), physiology.si("blood.mu")
    chosen = [
        index
        for index, branch in enumerate(model.branches)
        if branch.lesions and not branch.closed and estimate[index] > 0.0
    ]
    tier: list[Tier] = ["analytic"] * len(model.branches)
    flags: list[tuple[str, ...]] = [()] * len(model.branches)
    tables: dict[int, TabulatedLaw] = {}
    if not chosen:
        return TierChoice(tables, tuple(tier), tuple(flags))
    per_branch = len(RNSP_FLOWS)
    flows = (estimate[chosen, None] * RNSP_FLOWS).ravel()
    lumens = [
        rnsp.Lumen(model.tree.branches[index].s_m, model.tree.branches[index].radius_m)
        for index in chosen
        for _ in range(per_branch)
    ]
    marches = rnsp.march(lumens, flows, density, viscosity)
    for row, index in enumerate(chosen):
        span = slice(row * per_branch, (row + 1) * per_branch)
        q = flows[span]
        branch = model.tree.branches[index]
        kinetic = _kinetic_head(branch.radius_m, density, physiology.si("ke_factor"))
        drop = model.branches[index].viscous[-1] * q + marches.excess[span] + kinetic * q**2
        rising = bool(np.all(np.diff(np.concatenate([[0.0], drop])) > 0.0))
        if not (rising and bool(np.all(marches.converged[span]))):
            flags[index] = ("rnsp_failed",)
            continue
        tables[index] = TabulatedLaw(q, drop, float(model.branches[index].expansion[-1]))
        tier[index] = "rnsp"
        if max(lesion.diameter_stenosis for lesion in model.branches[index].lesions) > RNSP_SEVERE:
            flags[index] = ("rnsp_severe",)
    return TierChoice(tables, tuple(tier), tuple(flags))


def _kinetic_head(radius: FloatArray, density: float, ke_factor: float) -> float:
    """Kinetic head at the start minus that at the end, per squared flow (Pa s2/m6)."""
    first, last = np.pi * float(radius[0]) ** 2, np.pi * float(radius[-1]) ** 2
    return 0.5 * ke_factor * density * (1.0 / first**2 - 1.0 / last**2)
