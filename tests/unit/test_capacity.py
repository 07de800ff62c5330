"""The capacity calculator: queueing against the textbook, every figure from the costs it names, typed refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wetread.cli import app
from wetread.commands.capacity_costs import SHIPPED, UnitCosts, load_costs
from wetread.commands.capacity_model import (
    STRESS_HOUR,
    Assumptions,
    StudyKind,
    at_goal,
    erlang_c,
    load_of,
    plan,
    processes_for,
    slowed,
    sustained,
    wait95,
)
from wetread.core.errors import InvalidInput


def measured(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "wetread.unit-costs/1",
        "provenance": {"command": "test", "machine": "none", "date": "2026-01-01", "load": 0},
        "gateway": {
            "store": {"study": 0.004, "instance": 0.002, "megabyte": 0.001},
            "read": {"study": 0.002, "instance": 0.0005, "megabyte": 0.0005},
            "loop_share": 0.5,
        },
        "orchestration": {"per_study": 0.1, "per_run": 0.2},
        "detectors": {
            "ich": {
                "wall": 4.0, "cpu": 6.0, "inference": 3.0, "memory_megabytes": 1000, "result_megabytes": 1.0,
                "input": "a test",
            },
            "lung-nodule": {
                "wall": 1.0, "cpu": 1.5, "inference": 0.0, "memory_megabytes": 1000, "result_megabytes": 0.0,
                "input": "a test",
            },
        },
        "database": {
            "size": {"study": 10_000, "instance": 1_000},
            "log": {"study": 40_960, "instance": 4_096},
            "syncs": {"study": 10, "instance": 0.1},
            "serial": {"study": 0.01, "instance": 0.0001},
        },
        **changes,
    }  # fmt: skip


def costs(**changes: Any) -> UnitCosts:
    return UnitCosts.model_validate(measured(**changes))


HEADS = (StudyKind("head", 1.0, 100, 50.0, "ich"), StudyKind("other", 3.0, 10, 10.0))


@pytest.mark.parametrize(
    ("offered", "servers", "waits"), [(0.5, 1, 0.5), (1.0, 2, 1 / 3), (8.0, 10, 0.4092), (20.0, 25, 0.2091)]
)
def test_erlang_c_gives_the_tabled_values(offered: float, servers: int, waits: float) -> None:
    assert erlang_c(offered, servers) == pytest.approx(waits, abs=2e-4)


def test_wait_of_an_m_m_1_queue_is_halved_for_constant_running_times() -> None:
    load, wall = 0.8, 10.0
    exponential = wall / (1 - load) * math.log(load / 0.05)
    assert wait95([(load / wall, wall)], 1) == pytest.approx(exponential / 2)
    assert wait95([(0.1, 10.0)], 1) == math.inf
    assert wait95([(0.001, 10.0)], 3) == 0.0


def test_the_wait_of_an_m_g_1_queue_is_that_of_pollaczek_and_khinchine() -> None:
    """Two lengths of runs: the mean wait is rate E[S^2] / 2 / (1 - load); its tail is scaled in the same way."""
    runs = [(0.05, 2.0), (0.02, 30.0)]
    rate, load = 0.07, 0.7
    mean, square = load / rate, (0.05 * 4 + 0.02 * 900) / rate
    exponential = mean / (1 - load) * math.log(load / 0.05)
    assert wait95(runs, 1) == pytest.approx(exponential * (square / mean**2) / 2)
    assert wait95([(0.03, 5.0), (0.04, 5.0)], 1) == pytest.approx(wait95([(0.07, 5.0)], 1))


def test_processes_are_the_fewest_that_keep_the_goal() -> None:
    runs = [(1.0, 4.0), (2.0, 2.0)]
    needed = processes_for(runs, 10.0)
    assert needed > 8  # offered load
    assert wait95(runs, needed) + 4.0 <= 10.0
    assert wait95(runs, needed - 1) + 4.0 > 10.0
    assert processes_for([(2.0, 4.0)], 1000.0) == 9
    assert processes_for([(1e-6, 4.0), (1e-6, 1.0)], 10.0) == 1, "one process runs any detector"
    assert processes_for([], 10.0) == 0
    with pytest.raises(InvalidInput, match="no number of processes"):
        processes_for(runs, 3.0)


def test_load_is_the_weighted_mean_of_the_mix() -> None:
    load = load_of(costs(), HEADS, reads=2)
    assert (load.instances, load.megabytes) == (32.5, 20.0)
    assert load.runs == {"ich": 0.25}
    assert load.gateway == pytest.approx(0.004 + 0.065 + 0.02 + 2 * (0.002 + 0.01625 + 0.01))
    assert load.orchestration == pytest.approx(0.15)


def test_a_plan_multiplies_costs_by_the_peak_hour_and_storage_by_days() -> None:
    chosen = Assumptions(peak_factor=2.0, hot_days=10, kept_days=100, reads=1, goal=30)
    found = plan(costs(), HEADS, 864_000, chosen)  # 20 studies a second at the peak
    assert found.peak_per_hour == pytest.approx(72_000)
    load = load_of(costs(), HEADS, reads=1)
    assert found.gateway_cores == pytest.approx(20 * load.gateway)
    assert found.gateway_pods == math.ceil(20 * load.gateway / 0.6)
    assert found.detector_processes == processes_for([(5.0, 4.0)], 30)
    assert found.worker_pods == found.detector_processes
    assert found.writers_turn == pytest.approx(20 * (0.01 + 32.5 * 0.0001))
    assert found.deployments == 1
    assert found.database_iops == pytest.approx(20 * (10 + 3.25 + (40_960 + 32.5 * 4_096) / 8192))
    assert found.database_gigabytes == pytest.approx(864_000 * 100 * (10_000 + 32_500) / 1e9)
    assert found.hot_terabytes == pytest.approx(864_000 * 10 * 20.25 / 1e6)
    assert found.warm_terabytes == pytest.approx(9 * found.hot_terabytes)
    assert found.network_megabytes_per_second == pytest.approx(20 * 20 * 2)
    assert found.gpu_pods == 0


def test_writers_that_take_turns_ask_for_more_deployments_and_each_for_its_pods() -> None:
    slow = costs(database=measured()["database"] | {"serial": {"study": 0.5, "instance": 0.0}})
    found = plan(slow, HEADS[1:], 86_400, Assumptions(peak_factor=1.0, reads=0))
    assert found.writers_turn == pytest.approx(0.5)
    assert found.deployments == 1
    found = plan(slow, HEADS[1:], 4 * 86_400, Assumptions(peak_factor=1.0, reads=0))
    assert found.deployments == 4
    assert found.gateway_pods == 8


def test_a_gpu_takes_the_inference_over() -> None:
    cpu = plan(costs(), HEADS, 1_000_000, Assumptions())
    gpu = plan(costs(), HEADS, 1_000_000, Assumptions(gpu={"ich": 0.5}))
    assert gpu.detector_processes < cpu.detector_processes
    assert gpu.gpu_pods == math.ceil(1_000_000 / 86_400 * 4.8 * 0.25 * 0.5 / 0.6)


def test_a_report_takes_its_time_from_the_goal() -> None:
    late = measured()
    late["detectors"]["ich"]["report"] = 20.0
    chosen = Assumptions(goal=30)
    assert (
        plan(costs(**late), HEADS, 864_000, chosen).detector_processes
        == plan(costs(), HEADS, 864_000, Assumptions(goal=10)).detector_processes
    )
    quick, slow = (at_goal(one, HEADS, cores=4, reads=1, goal=30).studies_per_hour for one in (costs(), costs(**late)))
    assert slow < quick


def test_bursts_of_others_slow_down_more_than_their_mean() -> None:
    assert slowed(1.25, 0.0, 2) == 1
    assert slowed(1.0, 1.0, 2) == pytest.approx(1 / 0.75), "a quarter of the time both cores are theirs"
    assert slowed(2.0, 1.0, 2) == pytest.approx(2.0), "who uses all cores loses what others take"
    assert slowed(1.25, 1.0, 2) == pytest.approx(1.25 / (0.25 * 1.25 + 0.5))
    assert slowed(1.0, 2.0, 2) == math.inf
    values = [slowed(1.25, taken, 1.95) for taken in (0.0, 0.4, 0.8, 1.2, 1.6)]
    assert values == sorted(values)


def test_more_studies_never_need_less() -> None:
    plans = [plan(costs(), STRESS_HOUR, number, Assumptions()) for number in (100, 1e3, 1e4, 1e5, 1e6)]
    for name in ("gateway_pods", "worker_pods", "detector_processes", "deployments", "hot_terabytes", "database_iops"):
        values = [getattr(one, name) for one in plans]
        assert values == sorted(values), name
    assert plans[0].gateway_pods == 2


def test_one_machine_is_bound_by_what_runs_out_first() -> None:
    plenty = sustained(costs(), HEADS, cores=64, reads=1)
    assert (plenty.studies_per_hour, plenty.bottleneck) == (pytest.approx(3600), "detector processes")
    few = sustained(costs(), HEADS, cores=1, reads=1, sender=0.1)
    load = load_of(costs(), HEADS, reads=1)
    assert few.studies_per_hour == pytest.approx(3600 / (load.gateway + load.orchestration + 0.25 * 6.0 + 0.1))
    assert few.bottleneck == "machine CPU"
    alone = sustained(costs(), HEADS[1:], cores=64, reads=1)
    assert alone.bottleneck == "event loop"
    two = sustained(costs(), HEADS[1:], cores=64, reads=1, web_processes=2)
    assert two.studies_per_hour == pytest.approx(2 * alone.studies_per_hour)


def test_a_latency_goal_costs_rate_and_a_looser_one_less() -> None:
    top = sustained(costs(), HEADS, cores=4, reads=1).studies_per_hour
    rates = [at_goal(costs(), HEADS, cores=4, reads=1, goal=goal).studies_per_hour for goal in (5, 10, 30, 300, 1e6)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < 0.6 * top
    assert rates[-1] == pytest.approx(top, rel=1e-3)
    assert at_goal(costs(), HEADS, cores=4, reads=1, goal=3.0).studies_per_hour == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: plan(costs(), HEADS, 0, Assumptions()),
        lambda: plan(costs(), HEADS, math.inf, Assumptions()),
        lambda: plan(costs(), (), 10, Assumptions()),
        lambda: plan(costs(), (StudyKind("x", 1, 1, 1, "unknown"),), 10, Assumptions()),
        lambda: plan(costs(), (StudyKind("x", 1, -1, 1),), 10, Assumptions()),
        lambda: Assumptions(peak_factor=0.5),
        lambda: Assumptions(utilisation=1.5),
        lambda: Assumptions(hot_days=400),
        lambda: Assumptions(gpu={"ich": 0}),
    ],
)
def test_what_makes_no_plan_is_a_typed_error(wrong: Any) -> None:
    with pytest.raises(InvalidInput):
        wrong()


def test_costs_are_typed_and_a_wrong_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(measured(orchestration={"per_study": -1, "per_run": 0})))
    with pytest.raises(InvalidInput, match=r"orchestration\.per_study"):
        load_costs(path)
    path.write_text("{")
    with pytest.raises(InvalidInput):
        load_costs(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_costs(tmp_path / "none")


def test_shipped_costs_say_where_they_come_from() -> None:
    shipped = load_costs()
    assert shipped.provenance.command.startswith("make bench BENCH=unit_costs")
    assert "cores" in shipped.provenance.machine
    assert shipped.detectors["ich"].input
    assert json.loads(SHIPPED.read_text())["schema"] == "wetread.unit-costs/1"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["capacity", *arguments])


def test_command_prints_a_column_per_number_of_studies_and_what_was_assumed(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(measured()))
    done = run("100,1000000", "--costs", str(path), "--goal", "30")
    assert done.exit_code == 0, done.output
    assert "1,000,000" in done.output
    assert "30 s" in done.output
    assert "hot storage" in done.output
    assert "2026-01-01, none" in " ".join(done.output.split())


def test_command_warns_of_costs_from_a_busy_machine(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    busy = measured()["provenance"] | {"load": 7.5}
    path.write_text(json.dumps(measured(provenance=busy)))
    assert "busy machine" in run("100", "--costs", str(path)).output
    path.write_text(json.dumps(measured()))
    assert "busy machine" not in run("100", "--costs", str(path)).output


def test_command_gives_json_and_takes_a_mix(tmp_path: Path) -> None:
    mix, path = tmp_path / "mix.json", tmp_path / "costs.json"
    path.write_text(json.dumps(measured()))
    mix.write_text(json.dumps([{"name": "CT", "share": 1, "instances": 100, "megabytes": 50, "detector": "ich"}]))
    done = run("5000", "--mix", str(mix), "--costs", str(path), "--gpu", "ich=0.2", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output)
    assert answer["plans"][0]["studies_per_day"] == 5000
    assert answer["plans"][0]["gpu_pods"] == 1
    assert answer["mix"][0]["name"] == "CT"
    assert answer["assumptions"]["gpu"] == {"ich": 0.2}


@pytest.mark.parametrize(
    "arguments",
    [
        ["many"],
        ["-5"],
        ["10", "--mix", "nowhere"],
        ["10", "--gpu", "ich"],
        ["10", "--gpu", "no=1"],
        ["10", "--goal", "0"],
    ],
)
def test_command_refuses_with_a_reason(arguments: list[str]) -> None:
    done = run(*(["--", *arguments] if arguments[0].startswith("-") else arguments))
    assert done.exit_code == 2
    assert "Traceback" not in done.output
