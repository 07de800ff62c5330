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
JET_DIAMETERS: Final = 6.0
JET_PER_REYNOLDS: Final = 0.06


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
    spans = [_marched_span(model, index, float(estimate[index]), density, viscosity) for index in chosen]
    lumens = [span for span in spans for _ in range(per_branch)]
    marches = rnsp.march(lumens, flows, density, viscosity)
    for row, index in enumerate(chosen):
        span = slice(row * per_branch, (row + 1) * per_branch)
        q = flows[span]
        kinetic = _kinetic_head(spans[row].radius, density, physiology.si("ke_factor"))
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


def _marched_span(model: LumenModel, branch: int, flow: float, density: float, viscosity: float) -> rnsp.Lumen:
    """The part of a branch that its lesions disturb: from a diameter before the first to where the jet is gone.

    Upstream the profile is Poiseuille's, and behind the decay length of the jet it is so again; the viscous
    part of the law covers what is not marched.
    """
    own, lesions = model.tree.branches[branch], model.branches[branch].lesions
    first, last = lesions[0], lesions[-1]
    start = max(0.0, first.s_start_m - 2.0 * first.healthy_throat_m)
    reynolds = 2.0 * density * flow / (np.pi * viscosity * last.radius_throat_m)
    decay = max(JET_DIAMETERS, JET_PER_REYNOLDS * reynolds) * 2.0 * last.healthy_throat_m
    end = min(float(own.s_m[-1]), last.s_end_m + decay)
    inside = (own.s_m > start) & (own.s_m < end)
    s = np.concatenate([[start], own.s_m[inside], [end]])
    return rnsp.Lumen(s - start, np.interp(s, own.s_m, own.radius_m))


def _kinetic_head(radius: FloatArray, density: float, ke_factor: float) -> float:
    """Kinetic head at the start minus that at the end, per squared flow (Pa s2/m6)."""
    first, last = np.pi * float(radius[0]) ** 2, np.pi * float(radius[-1]) ** 2
    return 0.5 * ke_factor * density * (1.0 / first**2 - 1.0 / last**2)
