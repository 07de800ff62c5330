"""Chooses the loss model of every diseased branch and computes its pressure-flow table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from . import rnsp
from .constants import Physiology
from .emulator import FEATURES, LARGEST_SD, Emulator, lesion_shape
from .laws import TabulatedLaw
from .lesions import ECCENTRIC_ASPECT, Lesion, is_serial, throat_reynolds
from .losses import expansion_coefficient
from .lumen_model import LumenModel
from .tree import FloatArray

Tier = Literal["analytic", "calibrated", "rnsp"]
RequestedTier = Literal["auto", "analytic", "calibrated", "rnsp"]

RNSP_FLOWS: Final = np.linspace(0.15, 1.25, 5)
"""Tabulated flows as share of the analytic estimate."""

RNSP_SEVERE: Final = 0.6
JET_DIAMETERS: Final = 6.0
JET_PER_REYNOLDS: Final = 0.06

CALIBRATED_FLOWS: Final = 7
CALIBRATED_SHARES: Final = (0.3, 1.25)
MARGIN: Final = 1.05
"""The emulator's range of flow must hold the estimate with this factor to spare on both sides."""


@dataclass(frozen=True)
class TierChoice:
    """``tables`` by branch; ``tier``, ``flags`` and sd of Kt per branch, in branch order."""

    tables: Mapping[int, TabulatedLaw]
    tier: tuple[Tier, ...]
    flags: tuple[tuple[str, ...], ...]
    kt_sd: tuple[float, ...]


class _Choosing:
    """Tables, tiers and flags while they are being decided."""

    def __init__(self, model: LumenModel) -> None:
        count = len(model.branches)
        self.tables: dict[int, TabulatedLaw] = {}
        self.tier: list[Tier] = ["analytic"] * count
        self.flags: list[list[str]] = [[] for _ in range(count)]
        self.kt_sd = [0.0] * count

    def done(self) -> TierChoice:
        return TierChoice(
            self.tables, tuple(self.tier), tuple(tuple(sorted(own)) for own in self.flags), tuple(self.kt_sd)
        )


def choose_tiers(
    model: LumenModel,
    estimate: FloatArray,
    requested: RequestedTier,
    emulator: Emulator | None,
    physiology: Physiology,
) -> TierChoice:
    """Pick and tabulate the loss model of every open branch with a lesion.

    ``estimate`` (n_branches,) is the analytic flow in m3/s. ``auto`` and ``calibrated`` take the emulator
    where it is inside its box and sure, else the march (flag ``outside_calibration:feature``); a march that
    did not converge or whose drops do not rise leaves the analytic law (flag ``rnsp_failed``).
    """
    choosing = _Choosing(model)
    diseased = [
        index
        for index, branch in enumerate(model.branches)
        if branch.lesions and not branch.closed and estimate[index] > 0.0
    ]
    if requested == "analytic":
        return choosing.done()
    marched = diseased
    if requested != "rnsp" and emulator is not None:
        marched = [
            index
            for index in diseased
            if not _calibrate(choosing, model, index, float(estimate[index]), emulator, physiology)
        ]
    if marched:
        _march(choosing, model, marched, estimate, physiology)
    return choosing.done()


def _calibrate(
    choosing: _Choosing,
    model: LumenModel,
    index: int,
    estimate: float,
    emulator: Emulator,
    physiology: Physiology,
) -> bool:
    """Tabulate a branch with the emulator; False, with the reason as flags, where it refuses."""
    branch, own = model.tree.branches[index], model.branches[index]
    density, viscosity = physiology.si("blood.rho"), physiology.si("blood.mu")
    reynolds = [float(throat_reynolds(lesion, estimate, density, viscosity)) for lesion in own.lesions]
    if any(is_serial(own.lesions, position, value) for position, value in enumerate(reynolds)):
        choosing.flags[index].append("outside_calibration:serial")
        return False
    if any(lesion.aspect_ratio > ECCENTRIC_ASPECT for lesion in own.lesions):
        choosing.flags[index].append("outside_calibration:aspect_ratio")
        return False
    flows = estimate * _calibrated_shares(own.lesions, estimate, emulator, density, viscosity)
    drop = float(own.viscous[-1]) * flows
    variance = 0.0
    for lesion in own.lesions:
        shape = lesion_shape(lesion, branch.s_m, branch.radius_m, own.healthy_m)
        rows = shape.features(throat_reynolds(lesion, flows, density, viscosity))
        refused = list(emulator.outside(rows)) if len(flows) > 1 else ["log_throat_re"]
        kt, sd = emulator.predict(rows) if not refused else (np.ones(len(flows)), np.zeros(len(flows)))
        if not refused and float(sd.max()) > LARGEST_SD:
            refused = ["uncertain"]
        if refused:
            choosing.flags[index] += [f"outside_calibration:{name}" for name in refused]
            return False
        base = expansion_coefficient(1.0, density, lesion.radius_throat_m, lesion.healthy_throat_m)
        drop = drop + kt * base * flows**2
        variance = max(variance, float(sd.max()) ** 2)
    if not bool(np.all(np.diff(np.concatenate([[0.0], drop])) > 0.0)):
        choosing.flags[index].append("outside_calibration:not_monotone")
        return False
    choosing.tables[index] = TabulatedLaw(flows, drop, float(own.expansion[-1]))
    choosing.tier[index] = "calibrated"
    choosing.kt_sd[index] = float(np.sqrt(variance))
    return True


def _calibrated_shares(
    lesions: tuple[Lesion, ...], estimate: float, emulator: Emulator, density: float, viscosity: float
) -> FloatArray:
    """Seven flows as share of the estimate, inside the emulator's range of Reynolds numbers.

    A single share, which is refused, where that range does not hold the estimate itself with 5 % to spare.
    """
    column = FEATURES.index("log_throat_re")
    low, high = (100.0 * np.exp(limit[column]) for limit in emulator.box)
    at_estimate = [throat_reynolds(lesion, estimate, density, viscosity) for lesion in lesions]
    first = max(CALIBRATED_SHARES[0], low / min(at_estimate))
    last = min(CALIBRATED_SHARES[1], high / max(at_estimate))
    if first > 1.0 / MARGIN or last < MARGIN:
        return np.ones(1)
    return np.linspace(first, last, CALIBRATED_FLOWS)


def _march(
    choosing: _Choosing, model: LumenModel, chosen: list[int], estimate: FloatArray, physiology: Physiology
) -> None:
    """Tabulate branches by marching, all in one batch.

    The head drop is the exact viscous part plus the static excess of the march plus the change of
    kinetic head over what was marched, so that a straight branch keeps its Poiseuille drop.
    """
    density, viscosity = physiology.si("blood.rho"), physiology.si("blood.mu")
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
            choosing.flags[index].append("rnsp_failed")
            continue
        choosing.tables[index] = TabulatedLaw(q, drop, float(model.branches[index].expansion[-1]))
        choosing.tier[index] = "rnsp"
        if max(lesion.diameter_stenosis for lesion in model.branches[index].lesions) > RNSP_SEVERE:
            choosing.flags[index].append("rnsp_severe")


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
