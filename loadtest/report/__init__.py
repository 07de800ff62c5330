"""The load report of this machine by one command: ``make bench BENCH=report ARGS="--out FOLDER"``.

Unit costs are measured first, apart, one study at a time; from them the calculator predicts the rate of studies at
which 95 % of head CTs are read within the goal. Then that rate is measured in open-loop steps, and retrieval isolation,
a mix of STOW, QIDO and WADO, and a soak run are added. Writes ``report.md``, four pictures, ``unit-costs.json`` and the
raw ``records.json``. Exit code 1 when anything was lost or silent, or the prediction is off by more than 25 %.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import isolation
import unit_costs
from stress_hour import images, mix
from stress_hour.running import READY_SECONDS
from unit_costs import Measured

from report import mixed, soak, steps
from report.page import Predicted, Report, write
from report.steps import Protocol
from wetread.bootstrap.crew import crew_size
from wetread.commands.capacity_model import at_goal, sustained
from wetread.commands.local_server import local_server
from wetread.registry import WEB
from wetread.settings import Settings


def main(arguments: Sequence[str]) -> int:
    """Measure everything and write the report."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("load-report"), help="folder of the report")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where data folders are made")
    parser.add_argument("--slices", type=int, default=324, help="slices of a CT (published: 324)")
    parser.add_argument("--step-minutes", type=float, default=5.0)
    parser.add_argument(
        "--start", type=float, help="first rate, times the published one (two steps below the prediction)"
    )
    parser.add_argument("--factor", type=float, default=1.3, help="from step to step")
    parser.add_argument("--goal", type=float, default=30.0, help="seconds to the detector's result, 95 %% of head CTs")
    parser.add_argument("--soak-minutes", type=float, default=20.0)
    parser.add_argument("--isolation-rounds", type=int, default=4)
    parser.add_argument("--mix-seconds", type=float, default=15.0)
    parser.add_argument("--heads", type=int, default=5, help="head CTs of the unit costs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    report = _measure(options)
    write(options.out, report)
    print((options.out / "report.md").read_text("utf-8"))
    print(f"written to {options.out}")
    return 0 if report.passed else 1


def _measure(options: argparse.Namespace) -> Report:
    def say(what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)

    protocol = Protocol(options.step_minutes, options.goal, options.slices, options.seed)
    say("unit costs")
    measured = unit_costs.measure(options.folder, heads=options.heads, slices=options.slices)
    predicted = predict(protocol, measured)
    say(f"predicted {predicted.step:.0f} studies/h; steps")
    hour = images.build(mix.schedule(slices={"CT": options.slices}))
    start = options.start or max(predicted.step / steps.PER_HOUR / options.factor**2, steps.LOWEST)
    found = steps.measure(protocol, measured, hour, options.folder, start=start, factor=options.factor, say=say)
    say("isolation")
    made = images.build([mix.Transaction(0.0, 0, "CT", "CT head", 32), isolation.RESIDENT_STUDY], phantoms=1)
    with (
        tempfile.TemporaryDirectory(prefix="wetread-report-", dir=options.folder) as scratch,
        local_server(Path(scratch), ready_seconds=READY_SECONDS) as server,
    ):
        isolated = isolation.measure(
            server, Path(scratch), made, rounds=options.isolation_rounds, seconds=10, studies=6, slices=32, rate=50
        )
    say("mix of verbs")
    mixture = mixed.measure(options.folder, seconds=options.mix_seconds)
    say("soak")
    half = steps.highest(found, options.goal) / steps.PER_HOUR / 2 or found[0].scale / 2
    soaked = soak.measure(
        options.folder, hour, minutes=options.soak_minutes, scale=half, slices=options.slices, seed=options.seed + 1
    )
    return Report(protocol, measured, predicted, found, isolated, mixture, soaked)


def predict(protocol: Protocol, measured: Measured) -> Predicted:
    """Return what the calculator says of this machine: for the steps' own arrivals, in the long run, and at most."""
    hour = Protocol(60, protocol.goal, protocol.slices, protocol.seed)
    kinds, load = hour.kinds(measured, 1.0), hour.load(measured, 1.0)
    sender = measured.sender.of(load.instances, load.megabytes)
    cores = (os.cpu_count() or 1) - sum(measured.idle.values())
    web = crew_size(Settings(), WEB)
    return Predicted(
        steps.predicted_highest(protocol, measured),
        at_goal(measured.costs, kinds, cores=cores, reads=steps.READS, goal=protocol.goal, sender=sender,
                web_processes=web),
        sustained(measured.costs, kinds, cores=cores, reads=steps.READS, sender=sender, web_processes=web),
    )  # fmt: skip
