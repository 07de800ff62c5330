"""The marching tier: Poiseuille, batch independence, and against our stored Navier-Stokes set."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.ffrct.science.rnsp import Lumen, Marches, march

RHO, MU, D = 1060.0, 4e-3, 3e-3


def lesion(stenosis: float, length: float, run: float = 4.0) -> Lumen:
    """Cosine lesion of ``length`` diameters, two diameters behind the inlet."""
    x = np.linspace(0.0, 2.0 + length + run, 1201)
    z = np.clip((x - 2.0 - length / 2) / (length / 2), -1, 1)
    return Lumen(x * D, D / 2 * (1 - stenosis / 2 * (1 + np.cos(np.pi * z))))


def flow(re: float) -> float:
    return re * MU / (RHO * D) * np.pi * D**2 / 4


def excess(marches: Marches, re: np.ndarray) -> np.ndarray:
    """In rho U^2 on the healthy lumen."""
    return marches.excess / (RHO * (re * MU / (RHO * D)) ** 2)


@pytest.mark.parametrize("re", [30.0, 300.0])
def test_straight_tube_has_no_excess(re: float) -> None:
    result = march([lesion(0.0, 2.0)], np.array([flow(re)]), RHO, MU)
    assert result.converged.all()
    # Total drop is 32 L/Re per diameter: the excess is nothing against it.
    assert abs(excess(result, np.array([re]))[0]) < 1e-4 * 32 * 8 / re


def test_tighter_and_faster_lose_more() -> None:
    re = np.array([80.0, 160.0, 240.0])
    drops = []
    for stenosis in (0.3, 0.45, 0.6):
        result = march([lesion(stenosis, 3.0)] * 3, np.array([flow(v) for v in re]), RHO, MU)
        assert result.converged.all()
        drops.append(result.excess)
        assert (np.diff(result.excess) > 0).all()
    assert (np.diff(np.array(drops), axis=0) > 0).all()


def test_a_march_does_not_depend_on_its_neighbours() -> None:
    lumens = [lesion(0.5, 2.0), lesion(0.65, 3.0), lesion(0.3, 5.0, run=9.0)]
    flows = np.array([flow(120.0), flow(200.0), flow(60.0)])
    together = march(lumens, flows, RHO, MU)
    for order in ((0, 1, 2), (2, 0, 1)):
        mixed = march([lumens[i] for i in order], flows[list(order)], RHO, MU)
        np.testing.assert_allclose(mixed.excess, together.excess[list(order)], rtol=1e-12)
    for i in range(3):
        alone = march([lumens[i]], flows[i : i + 1], RHO, MU)
        np.testing.assert_allclose(alone.excess, together.excess[i : i + 1], rtol=1e-12)


def test_drop_depends_on_shape_and_reynolds_number_only() -> None:
    """Twice the size at half the velocity: the same scaled drop."""
    small, large = lesion(0.5, 3.0), lesion(0.5, 3.0)
    large = Lumen(large.s * 2, large.radius * 2)
    a = march([small], np.array([flow(150.0)]), RHO, MU).excess[0]
    b = march([large], np.array([2 * flow(150.0)]), RHO, MU).excess[0]
    assert b == pytest.approx(a / 4, rel=1e-9)
