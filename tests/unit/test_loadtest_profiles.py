"""The bench of profiles: who was nearest to its limit, and what its tables say."""

from __future__ import annotations

import os
import sys

import pytest
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "loadtest"))

from profiles import Figures, lines
from profiles.contention import Contention, Spent
from profiles.gateways import Gateway

LIMITS = {"gateway 1": 1, "gateway 2": 1, "S3 double": 1, "sender": 1, "machine": 4}


def spent(*, turn: float | None = 0.4, double: float = 6.0, machine: float = 30.0) -> Spent:
    cpu = {"gateway 1": 4.0, "gateway 2": 5.0, "PostgreSQL": 9.0, "S3 double": double, "sender": 2.0}
    return Spent(10.0, cpu | {"machine": machine}, turn, 0.7, 0.2, LIMITS)


def figures(stored: float, found: Spent) -> Figures:
    return Figures(stored, 300.0, 600.0, 4.0, 500, found)


@pytest.mark.parametrize(
    ("found", "name", "share"),
    [
        (spent(machine=39.0), "machine", 0.975),
        (spent(turn=0.9), "writers' turn", 0.9),
        (spent(double=9.5), "S3 double", 0.95),
        (spent(turn=None, double=0.0, machine=10.0), "gateway 2", 0.5),
    ],
)
def test_what_is_nearest_to_its_limit_is_named(found: Spent, name: str, share: float) -> None:
    """PostgreSQL has as many processes as connections: only the machine bounds it."""
    assert found.nearest == (name, pytest.approx(share))


def test_several_web_processes_of_one_gateway_have_a_core_each() -> None:
    one = Spent(10.0, {"gateway 1": 12.0}, limits={"gateway 1": 2})
    assert one.nearest == ("gateway 1", pytest.approx(0.6))


def test_the_tables_have_ratios_cores_waits_and_the_verdict_on_two_gateways() -> None:
    rows = {
        "embedded": [figures(rate, spent(turn=None)) for rate in (100.0, 90.0, 120.0)],
        "postgres": [figures(rate, spent()) for rate in (50.0, 70.0, 60.0)],
        "postgres x2": [figures(96.0, spent(double=9.9))] * 3,
    }
    text = "\n".join(lines(rows))
    assert "| postgres | 60.0 (0.60) | 18.0 (1.00) |" in text
    assert "| embedded | 0.40+0.50 | 0.90 | 0.60 | 0.20 | 0.40 | - | - | - | machine, 75% |" in text
    assert "| postgres | 0.40+0.50 | 0.90 | 0.60 | 0.20 | 0.40 | 40% | 0.70 | 0.20 | machine, 75% |" in text
    assert "two gateways over one, postgres: 1.60 (goal 1.6 where cores allow: met;" in text
    assert "nearest its limit: S3 double, 99%)" in text
    assert "postgres+s3" not in text


def test_cpu_is_counted_over_the_whole_tree_and_by_name() -> None:
    with Contention([Gateway(1, os.getpid())], {"S3 double": 0}, None) as watch:
        ends = os.times().user + 0.03
        while os.times().user < ends:
            pass
    assert watch.spent.cpu["gateway 1"] >= 0.02
    assert watch.spent.cpu["S3 double"] == 0
    assert watch.spent.cpu["sender"] > 0.02
    assert watch.spent.turn is None
