"""Spread of the result over plausible radii, flow, pressure and loss factor, from one batched solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri

from .boundary_conditions import BoundaryConditions
from .constants import Physiology
from .fields import Coefficients, Flows, solve_flows
from .losses import expansion_coefficient, released
from .lumen_model import LumenModel
from .tiers import TierChoice
from .tree import FloatArray, IntArray

DRIVERS: Final = ("radius", "flow", "pressure", "loss")
DRAWS_PER_DRIVER: Final = 64
PERCENTILES: Final = (5.0, 50.0, 95.0)
THRESHOLD: Final = 0.80


@dataclass(frozen=True)
class SpreadSetting:
    """How to draw: count, the loss factors, and per branch the scale that a table put on R.

    ``loss`` maps uniforms (n,) to loss factors (n, n_branches).
    """

    draws: int
    loss: Callable[[FloatArray], FloatArray]
    viscous_scale: FloatArray
    ke_factor: float


@dataclass(frozen=True)
class Draws:
    """Factors of every draw: ``common`` and ``local`` (n, n_segments) on the radius, the rest (n,).

    ``common`` moves lumen and healthy lumen alike, ``local`` the lumen only; ``kt`` (n, n_branches).
    """

    common: FloatArray
    local: FloatArray
    flow: FloatArray
    pressure: FloatArray
    kt: FloatArray


@dataclass(frozen=True)
class Segments:
    """Stretches of about 5 mm over which a local radius error is one.

    ``of_sample`` per branch (k,); a branch owns the segments ``first[b]`` to ``first[b + 1]``;
    ``sd`` (n_segments,) is the relative sd of the radius.
    """

    of_sample: tuple[IntArray, ...]
    first: tuple[int, ...]
    sd: FloatArray

    def own(self, branch: int) -> slice:
        """The branch's segments."""
        return slice(self.first[branch], self.first[branch + 1])


@dataclass(frozen=True)
class TargetSpread:
    """Spread of FFR at one point; ``drivers`` are shares of variance, one factor at a time."""

    p5: float
    p95: float
    p_le_080: float
    indeterminate: bool
    drivers: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """Percentiles 5, 50, 95 of FFR per branch (3, k); per target its spread, None if closed."""

    percentiles: tuple[FloatArray, ...]
    targets: tuple[TargetSpread | None, ...]


def cut_segments(model: LumenModel, physiology: Physiology) -> Segments:
    """Cut every branch into stretches; a measured radius sd replaces the default where given."""
    length, default = physiology.si("uq.segment_length"), physiology.si("uq.radius_sd")
    numbers: list[IntArray] = []
    spreads: list[float] = []
    first = [0]
    for branch in model.tree.branches:
        count = max(1, round(float(branch.s_m[-1]) / length))
        scale = float(branch.s_m[-1]) or 1.0
        own = np.minimum((branch.s_m / scale * count).astype(np.int64), count - 1)
        relative = branch.radius_sd_m / branch.radius_m
        for segment in range(count):
            inside = relative[own == segment]
            known = inside[np.isfinite(inside)]
            spreads.append(float(known.mean()) if len(known) else default)
        numbers.append(own + first[-1])
        first.append(first[-1] + count)
    return Segments(tuple(numbers), tuple(first), np.array(spreads))


def draw(
    segments: Segments,
    loss: Callable[[FloatArray], FloatArray],
    count: int,
    rng: np.random.Generator,
    physiology: Physiology,
    only: str | None = None,
) -> Draws:
    """Latin hypercube over all factors; with ``only`` every other group stays at its middle.

    ``loss`` maps uniforms (n,) to the loss factors (n, n_branches).
    """
    from scipy.stats import qmc  # slow to import: not at the start of every process

    n_segments = len(segments.sd)
    uniform = qmc.LatinHypercube(n_segments + 4, rng=rng).random(count)
    if only is not None:
        kept = {
            "radius": slice(0, n_segments + 1),
            "flow": slice(n_segments + 1, n_segments + 2),
            "pressure": slice(n_segments + 2, n_segments + 3),
            "loss": slice(n_segments + 3, n_segments + 4),
        }[only]
        middle = np.full_like(uniform, 0.5)
        middle[:, kept] = uniform[:, kept]
        uniform = middle
    normal = ndtri(uniform[:, : n_segments + 3])
    half = np.sqrt(0.5)
    flow_sd, pressure_sd = physiology.si("uq.flow_sd"), physiology.si("uq.pressure_sd")
    return Draws(
        common=np.exp(segments.sd * half * normal[:, :1]),
        local=np.exp(segments.sd * half * normal[:, 1 : n_segments + 1]),
        flow=np.exp(flow_sd * normal[:, n_segments + 1]),
        pressure=np.maximum(1.0 + pressure_sd * normal[:, n_segments + 2], 0.5),
        kt=loss(uniform[:, n_segments + 3]),
    )


def loss_factors(
    choice: TierChoice, equivalent: FloatArray, physiology: Physiology
) -> Callable[[FloatArray], FloatArray]:
    """How the loss factor of every branch spreads: band (analytic), a share (rnsp), or the emulator's sd.

    ``equivalent`` (n_branches,) is the Kt that gives each branch's tabulated drop.
    """
    low, high = physiology.si("loss.kt_laminar"), physiology.si("loss.kt_experimental")
    band = physiology.si("loss.rnsp_relative_band")
    tier = np.array(choice.tier)
    kt_sd = np.array(choice.kt_sd)

    def spread(uniform: FloatArray) -> FloatArray:
        u = uniform[:, None]
        options = {
            "analytic": low + (high - low) * u,
            "rnsp": equivalent * (1.0 + band * (2.0 * u - 1.0)),
            "calibrated": np.maximum(equivalent + kt_sd * ndtri(u), 0.0),
        }
        return np.select([tier == name for name in options], list(options.values()))

    return spread


def perturbed(
    model: LumenModel,
    bc: BoundaryConditions,
    segments: Segments,
    draws: Draws,
    viscous_scale: FloatArray,
    physiology: Physiology,
) -> Coefficients:
    """Coefficients (n, n_branches) of all draws; resistances go with r^-4, outlets with flow and pressure."""
    count = len(draws.flow)
    inverse_fourth = (draws.common * draws.local) ** -4
    resistance = np.empty((count, len(model.branches)))
    quadratic = np.zeros((count, len(model.branches)))
    for index in range(len(model.branches)):
        weights = segment_resistance(model, segments, index)
        own = segments.own(index)
        resistance[:, index] = inverse_fourth[:, own] @ weights[:, -1] * viscous_scale[index]
        for term, _ in lesion_terms(model, segments, draws, index, physiology):
            quadratic[:, index] += term
    if bc.inlet_flow_m3_s is not None:
        inlet = bc.inlet_flow_m3_s * draws.flow
        outlet = np.broadcast_to(bc.outlet_resistance, (count, len(model.outlets)))
    else:
        nominal = np.nan if bc.inlet_pressure_pa is None else bc.inlet_pressure_pa
        inlet = nominal * draws.pressure
        scale = 1.0 / draws.flow
        if bc.weights is not None:
            # The flow demand is what was estimated: the resistance follows from it and the pressure.
            venous = bc.venous_pressure_pa
            scale = scale * (inlet - venous) / (nominal - venous)
        outlet = bc.outlet_resistance[None, :] * scale[:, None]
    pressures = np.broadcast_to(bc.outlet_pressure, (count, len(model.outlets)))
    return Coefficients(resistance, quadratic, outlet, pressures, inlet)


def segment_resistance(model: LumenModel, segments: Segments, branch: int) -> FloatArray:
    """Part (own segments, k) of each sample's cumulative viscous resistance lying in each segment."""
    own = segments.of_sample[branch] - segments.first[branch]
    steps = np.diff(model.branches[branch].viscous, prepend=0.0)
    parts = np.zeros((segments.first[branch + 1] - segments.first[branch], len(own)))
    parts[own, np.arange(len(own))] = steps
    return np.cumsum(parts, axis=1)


def lesion_terms(
    model: LumenModel, segments: Segments, draws: Draws, branch: int, physiology: Physiology
) -> list[tuple[FloatArray, FloatArray]]:
    """Per lesion of a branch: quadratic coefficient (n,) of every draw and released share (k,)."""
    density = physiology.si("blood.rho")
    own = model.tree.branches[branch]
    terms = []
    for lesion in model.branches[branch].lesions:
        segment = segments.of_sample[branch][int(np.argmin(np.abs(own.s_m - lesion.s_throat_m)))]
        common, local = draws.common[:, segment], draws.local[:, segment]
        term = expansion_coefficient(
            draws.kt[:, branch],
            density,
            lesion.radius_throat_m * common * local,
            lesion.healthy_throat_m * common,
        )
        terms.append((term, released(lesion, own.s_m, own.radius_m)))
    return terms


def ffr_rows(
    model: LumenModel,
    segments: Segments,
    draws: Draws,
    flows: Flows,
    branch: int,
    at: IntArray,
    setting: SpreadSetting,
    physiology: Physiology,
) -> FloatArray:
    """FFR (n, len(at)) of every draw at some samples of a branch."""
    weights = segment_resistance(model, segments, branch)[:, at]
    factor = draws.common * draws.local
    viscous = factor[:, segments.own(branch)] ** -4 @ weights * setting.viscous_scale[branch]
    expansion = np.zeros_like(viscous)
    for term, share in lesion_terms(model, segments, draws, branch, physiology):
        expansion += term[:, None] * share[at]
    q = flows.flow[:, branch][:, None]
    head = flows.upstream[:, branch][:, None] - viscous * q - expansion * q * np.abs(q)
    radius = model.tree.branches[branch].radius_m[at] * factor[:, segments.of_sample[branch][at]]
    velocity = q / (np.pi * radius**2)
    static = head - 0.5 * setting.ke_factor * physiology.si("blood.rho") * velocity**2
    return np.asarray(static / flows.inlet_pressure[:, None], dtype=np.float64)


def quantify(
    model: LumenModel,
    bc: BoundaryConditions,
    targets: Sequence[tuple[int, int] | None],
    setting: SpreadSetting,
    rng: np.random.Generator,
    physiology: Physiology,
) -> Spread | None:
    """Draw, solve all draws in one batch, and summarise; None when a draw did not converge.

    ``targets`` are (branch, sample) of the points that get a spread of their own.
    """
    segments = cut_segments(model, physiology)
    plan = [(setting.draws, None), *((DRAWS_PER_DRIVER, driver) for driver in DRIVERS)]
    parts = [draw(segments, setting.loss, n, rng, physiology, only) for n, only in plan]
    draws = Draws(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("common", "local", "flow", "pressure", "kt")
        )
    )
    flows = solve_flows(model, bc, perturbed(model, bc, segments, draws, setting.viscous_scale, physiology))
    if not bool(flows.converged.all()):
        return None
    percentiles = []
    for index, branch in enumerate(model.branches):
        at = np.arange(len(branch.viscous))
        if branch.closed:
            percentiles.append(np.full((3, len(at)), np.nan))
            continue
        rows = ffr_rows(model, segments, draws, flows, index, at, setting, physiology)
        percentiles.append(np.percentile(rows[: setting.draws], PERCENTILES, axis=0))
    spreads: list[TargetSpread | None] = []
    for target in targets:
        if target is None:
            spreads.append(None)
            continue
        where, sample = target
        at = np.array([sample])
        rows = ffr_rows(model, segments, draws, flows, where, at, setting, physiology)
        spreads.append(_summarise(rows[:, 0], setting.draws))
    return Spread(tuple(percentiles), tuple(spreads))


def _summarise(ffr: FloatArray, draws: int) -> TargetSpread:
    p5, p95 = (float(v) for v in np.percentile(ffr[:draws], (5.0, 95.0)))
    variances = [
        float(np.var(ffr[draws + i * DRAWS_PER_DRIVER : draws + (i + 1) * DRAWS_PER_DRIVER]))
        for i in range(len(DRIVERS))
    ]
    total = sum(variances)
    shares = [variance / total if total > 0.0 else 0.0 for variance in variances]
    return TargetSpread(
        p5=p5,
        p95=p95,
        p_le_080=float(np.mean(ffr[:draws] <= THRESHOLD)),
        indeterminate=p5 < THRESHOLD < p95,
        drivers=dict(zip(DRIVERS, shares, strict=True)),
    )
