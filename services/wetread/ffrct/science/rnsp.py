"""Marches the reduced Navier-Stokes/Prandtl equations along a lumen: lesion loss without a fitted constant.

Axisymmetric, laminar, steady, pressure a function of x only::

    u u_x + v u_r = -p_x + nu (1/r)(r u_r)_r,   (r u)_x + (r v)_r = 0,   u(R) = 0,   flux given

Lengths are scaled by the inlet diameter D and velocities by the inlet mean U, so nu = 1/Re. Cells are
rings in eta = r/R(x), packed towards the wall. Reversed flow does not convect (FLARE). The step of 0.02 D
is part of the model: u u_x is taken at the new station, and the error of that form, which is not small in
tight short lesions, makes up for the axial diffusion and the radial pressure gradient that the equations
leave out (docs/adr/0603). All marches go through one block-tridiagonal solve per sweep; each row is frozen
as soon as it has converged, so that a result does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.linalg.lapack import dgtsv

from .tree import BoolArray, FloatArray

CELLS: Final = 48
STEP_DIAMETERS: Final = 0.02
RUN_OUT_DIAMETERS: Final = 6.0
MAX_SWEEPS: Final = 30
SHRINK: Final = 0.6
SLOWEST_RELAXATION: Final = 0.2
SLOW: Final = 0.7
SWEEP_TOLERANCE: Final = 1e-5
ACCEPTED_UPDATE: Final = 0.05
LARGEST_BATCH: Final = 128
_WALL_PACKING: Final = 1.6


@dataclass(frozen=True)
class Lumen:
    """Circular lumen to march: ``s`` and ``radius`` (n,) in m from the inlet."""

    s: FloatArray
    radius: FloatArray


@dataclass(frozen=True)
class Marches:
    """``excess`` (n,) in Pa: static drop from inlet to outlet beyond the Poiseuille integral.

    ``converged`` (n,) is False where a station kept changing by over 5 % of its mean velocity, or where
    the numbers left the range of floats.
    """

    excess: FloatArray
    converged: BoolArray


@dataclass(frozen=True)
class _Rings:
    """Radial grid in eta: ``edge`` (N+1,), ``area`` (N,), ``conduct`` (N+1,) = eta/(distance of centres)."""

    area: FloatArray
    centre: FloatArray
    conduct: FloatArray


@lru_cache(maxsize=4)
def _rings(cells: int) -> _Rings:
    edge = 1.0 - (1.0 - np.arange(cells + 1) / cells) ** _WALL_PACKING
    centre = 0.5 * (edge[1:] + edge[:-1])
    conduct = np.zeros(cells + 1)
    conduct[1:-1] = edge[1:-1] / np.diff(centre)
    conduct[-1] = 1.0 / (1.0 - centre[-1])
    return _Rings(0.5 * np.diff(edge**2), centre, conduct)


def march(
    lumens: Sequence[Lumen],
    flow: FloatArray,
    density: float,
    viscosity: float,
    *,
    step_diameters: float = STEP_DIAMETERS,
    cells: int = CELLS,
) -> Marches:
    """March each lumen at its own flow (n,) in m3/s, with a straight run-out of six diameters.

    Density in kg/m3, viscosity in Pa s. The inlet profile is Poiseuille's.
    """
    parts = [
        _march_batch(
            lumens[low : low + LARGEST_BATCH],
            flow[low : low + LARGEST_BATCH],
            density,
            viscosity,
            step_diameters,
            _rings(cells),
        )
        for low in range(0, len(lumens), LARGEST_BATCH)
    ]
    return Marches(
        np.concatenate([part.excess for part in parts]),
        np.concatenate([part.converged for part in parts]),
    )


@dataclass(frozen=True)
class _Scaled:
    """Stations of every march, padded with the last one: radius (n, k) in D; steps (n,); counts (n,)."""

    radius: FloatArray
    step: FloatArray
    last: FloatArray


def _scale(lumens: Sequence[Lumen], step_diameters: float) -> _Scaled:
    profiles, steps = [], []
    for lumen in lumens:
        diameter = 2.0 * float(lumen.radius[0])
        length = float(lumen.s[-1]) + RUN_OUT_DIAMETERS * 2.0 * float(lumen.radius[-1])
        count = max(2, int(np.ceil(length / (step_diameters * diameter))))
        x = np.linspace(0.0, length, count + 1)
        profiles.append(np.interp(x, lumen.s, lumen.radius) / diameter)
        steps.append(length / count / diameter)
    longest = max(len(profile) for profile in profiles)
    padded = np.stack([np.pad(p, (0, longest - len(p)), mode="edge") for p in profiles])
    return _Scaled(padded, np.array(steps), np.array([len(p) - 1.0 for p in profiles]))


def _march_batch(
    lumens: Sequence[Lumen],
    flow: FloatArray,
    density: float,
    viscosity: float,
    step_diameters: float,
    rings: _Rings,
) -> Marches:
    scaled = _scale(lumens, step_diameters)
    diameter = np.array([2.0 * float(lumen.radius[0]) for lumen in lumens])
    velocity = flow / (np.pi * diameter**2 / 4.0)
    nu = viscosity / (density * velocity * diameter)
    profile = 1.0 - rings.centre**2
    profile = profile / (8.0 * np.sum(rings.area * profile))
    u = profile[None, :] / scaled.radius[:, :1] ** 2
    change = np.zeros_like(u)
    excess = np.zeros(len(lumens))
    converged = np.ones(len(lumens), dtype=bool)
    poiseuille = _poiseuille_gradient(rings)
    for station in range(1, scaled.radius.shape[1]):
        rows = np.flatnonzero(station <= scaled.last)
        before, after = scaled.radius[rows, station - 1], scaled.radius[rows, station]
        # The profile, scaled to the new radius, goes on changing as it did over the last step.
        shrink = ((before / after) ** 2)[:, None]
        guess = (u[rows] + change[rows]) * shrink
        fresh, gradient, update = _station(u[rows], guess, before, after, scaled.step[rows], nu[rows], rings)
        change[rows] = fresh / shrink - u[rows]
        u[rows] = fresh
        # Subtracting the scheme's own Poiseuille gradient leaves exactly nothing in a straight tube.
        excess[rows] -= scaled.step[rows] * (gradient + poiseuille * nu[rows] / after**4)
        converged[rows] &= update <= ACCEPTED_UPDATE
    drop = excess * density * velocity**2
    return Marches(drop, converged & np.isfinite(drop))


def _poiseuille_gradient(rings: _Rings) -> float:
    """-p_x R^4 / nu of the discrete scheme at flux 1/8 (exact: 2)."""
    n = len(rings.area)
    diagonal = rings.conduct[:-1] + rings.conduct[1:]
    off = -rings.conduct[1:-1]
    *_, unit, info = dgtsv(off, diagonal, off, rings.area.reshape(n, 1))
    if info != 0:
        return 2.0
    return float(0.125 / np.sum(rings.area * unit[:, 0]))


def _station(
    old: FloatArray,
    guess: FloatArray,
    radius_old: FloatArray,
    radius: FloatArray,
    step: FloatArray,
    nu: FloatArray,
    rings: _Rings,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One step in x for rows (m, N), from ``guess``: new velocity, p_x (m,) and last relative update (m,)."""
    u = guess
    gradient = np.zeros(len(u))
    update = np.full(len(u), np.inf)
    active = np.arange(len(u))
    area = rings.area
    stream_old = _stream(old, radius_old, area)
    viscous = (nu / radius**2)[:, None] * rings.conduct
    relaxation = np.ones(len(u))
    for _ in range(MAX_SWEEPS):
        now, r, dx = u[active], radius[active], step[active]
        cross = (stream_old[active] - _stream(now, r, area)) / (2.0 * dx * r * r)[:, None]
        inertia = area * np.maximum(now, 0.0) / dx[:, None]
        left, right = cross[:, :-1], cross[:, 1:]
        spread = viscous[active]
        m, n = now.shape
        lower = np.zeros((m, n))
        upper = np.zeros((m, n))
        lower[:, 1:] = -left[:, 1:] - spread[:, 1:-1]
        upper[:, :-1] = right[:, :-1] - spread[:, 1:-1]
        diagonal = inertia + left - right + spread[:, :-1] + spread[:, 1:]
        sides = np.empty((2, m * n))
        sides[0] = (inertia * old[active]).ravel()
        sides[1] = np.tile(-area, m)
        *_, solved, info = dgtsv(
            lower.ravel()[1:],
            diagonal.ravel(),
            upper.ravel()[:-1],
            sides.T,
            overwrite_dl=1,
            overwrite_d=1,
            overwrite_du=1,
            overwrite_b=1,
        )
        if info != 0:
            update[active] = np.inf
            break
        carried, driven = solved[:, 0].reshape(m, n), solved[:, 1].reshape(m, n)
        slope = (0.125 / r**2 - carried @ area) / (driven @ area)
        fresh = carried + slope[:, None] * driven
        change = np.abs(fresh - now).max(axis=1) * 4.0 * r**2
        # A row that hardly improves swings between two states: take smaller steps from here on.
        slow = change > SLOW * update[active]
        relaxation[active[slow]] = np.maximum(SHRINK * relaxation[active[slow]], SLOWEST_RELAXATION)
        u[active] = now + relaxation[active, None] * (fresh - now)
        gradient[active], update[active] = slope, change
        active = active[change > SWEEP_TOLERANCE]
        if not len(active):
            break
    return u, gradient, update


def _stream(u: FloatArray, radius: FloatArray, area: FloatArray) -> FloatArray:
    """Stream function at the ring edges (m, N+1): R^2 times the running sum of A u."""
    stream = np.zeros((len(u), len(area) + 1))
    np.cumsum(u * area, axis=1, out=stream[:, 1:])
    stream *= (radius**2)[:, None]
    stream[:, -1] = 0.125
    return stream
