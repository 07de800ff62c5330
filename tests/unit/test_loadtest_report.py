"""The load report's own arithmetic: the replayed queue, the rate between two steps, the slope of memory, the ratios."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import ROOT
from tests.unit.test_capacity import costs

sys.path.insert(0, str(ROOT / "loadtest"))

from isolation import Isolation, Window
from report import steps
from report.comparison import compared
from report.mixed import Cell, Mix
from report.page import Predicted, Report, page, write
from report.soak import Soak, slope
from stress_hour.summary import Summary
from stress_hour.watching import Usage
from unit_costs import Measured, solved

from wetread.commands.capacity_costs import PerStudy
from wetread.commands.capacity_model import Sustained

PROTOCOL = steps.Protocol(minutes=10, goal=30, slices=32, seed=1)
IDLE = {"web event loop": 0.0, "web threads": 0.0, "orchestration": 0.06, "detectors": 0.0, "codecs": 0.0}
ASKING = 0.01
DELETION = PerStudy(study=0.003, instance=0.0001)
MEASURED = Measured(costs(), PerStudy(study=0.01, instance=0.001, megabyte=0.001), DELETION, ASKING, IDLE)


def summary(*, lost: int = 0, heads: tuple[float, ...] = (4.0, 5.0)) -> Summary:
    return Summary(
        transactions=2, instances=64, gigabytes=0.03, checked=64 - lost, deleted=2, results=2, seconds=60.0,
        sending_seconds=50.0, lost=lost, silent=[], refused=Counter(), retried_in=0, turned_away=0, lateness=[0.0],
        turnaround={"CT head": list(heads)}, delayed={"CT head": list(heads)},
        starts=[0.05], inferred=[4.0], occupied=50.0, outcomes=Counter(),
        usage=Usage(seconds=60.0, cpu={"web event loop": 10.0, "orchestration": 6.0, "detectors": 40.0},
                    busiest={"web event loop": 6.0}, machine_seconds=110.0),
        stored_bytes=1, reclaimed_bytes=0, cores=2,
    )  # fmt: skip


def step(rate: float, p95: float, *, lost: int = 0) -> steps.Step:
    return steps.Step(rate / steps.PER_HOUR, p95, p95, summary(lost=lost))


def test_replayed_queue_adds_the_wait_to_the_run() -> None:
    alone = [steps.Run(at, False, 5.0) for at in (0.0, 1.0, 2.0, 20.0)]
    assert steps.replayed(alone) == [5.0, 9.0, 13.0, 5.0]


def test_reports_are_written_one_after_the_other_while_the_next_run_goes_on() -> None:
    assert steps.replayed([steps.Run(at, False, 5.0, 2.0) for at in (0.0, 1.0)]) == [7.0, 11.0]
    slow = [steps.Run(at, False, 1.0, 4.0) for at in (0.0, 0.0, 0.0)]
    assert steps.replayed(slow) == [5.0, 9.0, 13.0], "the reports are the queue"


def test_urgent_runs_go_before_others_that_wait_and_end_none() -> None:
    others = [steps.Run(0.0, True, 3.0), steps.Run(0.5, True, 3.0)]
    heads = [steps.Run(1.0, False, 5.0), steps.Run(2.0, False, 5.0)]
    assert steps.replayed([*others, *heads]) == [7.0, 11.0]


def test_a_kind_that_no_detector_process_reads_takes_no_time_of_it() -> None:
    only = {"ich": costs().detectors["ich"]}
    cut = Measured(costs().model_copy(update={"detectors": only}), MEASURED.sender, DELETION, ASKING, IDLE)
    assert {kind.name: kind.detector for kind in PROTOCOL.kinds(cut, 4)}["CT body"] == ""
    assert steps.predicted95(PROTOCOL, cut, 8) <= steps.predicted95(PROTOCOL, MEASURED, 8)


def test_prediction_grows_with_the_rate_and_meets_its_own_highest_rate() -> None:
    values = [steps.predicted95(PROTOCOL, MEASURED, scale) for scale in (1, 4, 8, 12)]
    assert values == sorted(values)
    assert values[0] >= costs().detectors["ich"].wall
    rate = steps.predicted_highest(PROTOCOL, MEASURED)
    assert steps.predicted95(PROTOCOL, MEASURED, rate / steps.PER_HOUR * 0.98) <= 30
    assert steps.predicted95(PROTOCOL, MEASURED, rate / steps.PER_HOUR * 1.3) > 30
    assert steps.predicted95(PROTOCOL, MEASURED, 1e3) == math.inf


def test_highest_rate_lies_between_the_last_good_step_and_the_first_bad_one() -> None:
    assert steps.highest([step(1000, 8.0), step(1300, 60.0)], 30) == pytest.approx(
        1000 * 1.3 ** (math.log(30 / 8) / math.log(60 / 8))
    )
    assert steps.highest([step(1000, 40.0)], 30) == 0
    assert steps.highest([step(1000, 8.0), step(1300, 9.0, lost=1)], 30) == 1000
    down = [step(1000, 8.0), step(1300, 60.0), step(1690, 200.0)]
    assert steps.highest(down, 30) == steps.highest(down[:2], 30), "the step after the last good one counts"


def test_steps_go_up_while_the_goal_is_kept_and_down_while_it_is_missed() -> None:
    published = float(steps.PER_HOUR)
    good, bad = step(4 * published, 8.0), step(6 * published, 60.0)
    assert steps.following([good], 30, 1.5) == pytest.approx(6.0)
    assert steps.following([bad], 30, 1.5) == pytest.approx(4.0)
    assert steps.following([bad, good], 30, 1.5) is None, "the goal lies between the two"
    assert steps.following([step(0.3 * published, 60.0)], 30, 1.5) is None, "a machine that keeps it at no rate"


def test_slope_of_memory_is_that_of_the_line_and_its_error_that_of_the_noise() -> None:
    draw = np.random.default_rng(1)
    flat = [(float(at), int(1e9 + draw.normal(0, 1e6))) for at in range(1200)]
    found, error = slope(flat)
    assert abs(found) < 3 * error
    rising = [(at, int(size + at * 36 * 2**20 / 3600)) for at, size in flat]
    found, error = slope(rising)
    assert found == pytest.approx(36, abs=3 * error)
    assert slope([(0.0, 1), (1.0, 1)]) != slope(flat)
    assert math.isnan(slope([])[0])


def test_isolation_compares_percentiles_and_wants_every_answer_right() -> None:
    idle, busy = Window(), Window()
    for number in range(100):
        for kind in ("frame", "instance"):
            idle.latencies[kind].append(0.010 + number * 1e-5)
            busy.latencies[kind].append(0.011 + number * 1e-5)
    found = Isolation([idle], [idle], [busy])
    assert "(1.00)" in found.lines()[2], "beside a neighbour as when idle"
    assert found.ratio("frame") == pytest.approx(0.01194 / 0.01094, rel=1e-3)
    assert found.met
    busy.latencies["instance"] = [3 * seconds for seconds in busy.latencies["instance"]]
    assert not found.met
    assert "MISSED" in found.lines()[-1]
    busy.latencies["instance"] = list(idle.latencies["instance"])
    assert found.met
    busy.bad = 1
    assert not found.met
    assert not Isolation().met


def test_unit_costs_solve_the_equations_of_their_cells() -> None:
    equations = [(120.0, 120.0, 1.0), (24.0, 1536.0, 12.0), (6.0, 384.0, 200.0)]
    true = np.array([0.004, 0.002, 0.001])
    found = solved(equations, [float(np.dot(one, true)) for one in equations])
    assert found == pytest.approx({"study": 0.004, "instance": 0.002, "megabyte": 0.001}, rel=1e-2)
    two = solved(equations[:2], [float(np.dot(one[:2], true[:2])) for one in equations[:2]])
    assert two == pytest.approx({"study": 0.004, "instance": 0.002}, rel=1e-2)
    assert min(solved(equations, [0.1, 0.0, 1.0]).values()) >= 0


def report_of(highest: float) -> Report:
    window = Window({"frame": [0.01] * 20, "instance": [0.01] * 20}, 1.5)
    cells = {"STOW": Cell(1.0, [0.01]), "QIDO": Cell(1.0, [0.01])}
    return Report(
        PROTOCOL,
        MEASURED,
        Predicted(1000, Sustained(900, "machine CPU"), Sustained(1200, "machine CPU")),
        [step(highest, 29.99), step(highest * 1.01, 31.0)],
        Isolation([window], [window]),
        Mix(cells, cells),
        Soak(summary(), [(float(at), 10**9) for at in range(60)], 0.1, 0.2),
    )


def test_report_says_whether_the_prediction_holds() -> None:
    good, bad = report_of(950), report_of(700)
    assert good.passed
    assert "+5%" in "\n".join(page(good)).replace(".0", "")
    assert not bad.passed
    assert "MISSED" in "\n".join(page(bad))
    assert "Bottleneck: machine CPU" in "\n".join(page(good))


def test_every_step_is_compared_thing_by_thing_under_the_names_of_the_calculator() -> None:
    one = step(1000, 29.0)
    rows = {row.what.partition(",")[0]: row for row in compared(PROTOCOL, MEASURED, [one])}
    assert list(rows) == ["gateway", "orchestration", "detectors", "machine with the sender", "head CT to result"]
    load = PROTOCOL.load(MEASURED, one.scale)
    deletion = 0.003 + 0.0001 * load.instances
    assert rows["gateway"].predicted == pytest.approx(load.gateway + deletion + ASKING), "asked for and deleted too"
    assert rows["gateway"].measured == pytest.approx(5.0)
    assert rows["orchestration"].predicted == pytest.approx(load.orchestration + 0.06 * 60 / 2), "what idles counts"
    assert rows["detectors"].predicted == pytest.approx(load.runs["ich"] * 6.0 + load.runs["lung-nodule"] * 1.5)
    assert rows["detectors"].off == pytest.approx(rows["detectors"].predicted / 20.0 - 1)
    assert rows["head CT to result"].held
    report = report_of(950)
    text = "\n".join(page(report))
    held = sum(row.held for row in compared(PROTOCOL, MEASURED, report.steps))
    assert f"{held} of 10 within 25%" in text
    assert 0 < held < 10
    assert f"| 950 | gateway, CPU s per study | {rows['gateway'].predicted:.3f} | 5.000 |" in text


def test_report_is_written_with_its_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need matplotlib (extra dev)")
    write(tmp_path, report_of(950))
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"report.md", "unit-costs.json", "records.json"}
    for name in ("turnaround.png", "busy.png", "isolation.png", "memory.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in (tmp_path / "report.md").read_text()
