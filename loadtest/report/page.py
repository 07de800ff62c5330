"""The report as values, as Markdown and as files."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isolation import Isolation
from run import machine
from stress_hour.summary import lines as stress_lines
from stress_hour.summary import percentile
from unit_costs import Measured

from report import comparison, plots, steps
from report.comparison import TOLERANCE
from report.mixed import Mix
from report.soak import Soak
from report.steps import Protocol, Step
from wetread.commands.capacity_model import Sustained


@dataclass(frozen=True, slots=True)
class Predicted:
    """What unit costs say before anything was measured at a rate, studies an hour."""

    step: float
    steady: Sustained
    most: Sustained


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured."""

    protocol: Protocol
    measured: Measured
    predicted: Predicted
    steps: Sequence[Step]
    isolated: Isolation
    mix: Mix
    soaked: Soak

    @property
    def highest(self) -> float:
        """Studies an hour at which the goal is reached."""
        return steps.highest(self.steps, self.protocol.goal)

    @property
    def off(self) -> float:
        """Prediction over measurement, less one."""
        return self.predicted.step / self.highest - 1 if self.highest else float("inf")

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or silent and the prediction holds."""
        whole = all(step.summary.passed for step in self.steps) and self.soaked.summary.passed
        return whole and not self.mix.bad and abs(self.off) <= TOLERANCE


def write(folder: Path, report: Report) -> None:
    """Write the Markdown, the pictures and the raw figures into *folder*."""
    costs = report.measured.costs.model_dump(by_alias=True)
    (folder / "unit-costs.json").write_text(json.dumps(costs, indent=1) + "\n", "utf-8")
    records = [
        {"rate": step.rate, "p95": step.p95, "predicted": step.predicted, "turnaround": step.summary.turnaround}
        for step in report.steps
    ]
    (folder / "records.json").write_text(json.dumps(records), "utf-8")
    goal = report.protocol.goal
    plots.draw(folder, steps=report.steps, goal=goal, isolation=report.isolated, soak=report.soaked)
    (folder / "report.md").write_text("\n".join(page(report)) + "\n", "utf-8")


def page(report: Report) -> list[str]:
    """Return the Markdown lines."""
    protocol, costs = report.protocol, report.measured.costs
    last = report.steps[-1].summary
    name, share = last.bottleneck
    cut = "" if protocol.slices == 324 else f" (CUT: CT of {protocol.slices} slices instead of 324)"
    verdict = "met" if abs(report.off) <= TOLERANCE else "MISSED"
    predicted = report.predicted
    return [
        "# Load report",
        "",
        f"{time.strftime('%Y-%m-%d')}, {machine()}. Embedded profile (`wetread up`: SQLite, segments on disk).",
        f"The sender runs on the same machine. Mix of MONAI's stress hour{cut}, synthetic images, phantom head CTs,",
        f"seed {protocol.seed}.",
        "",
        f"## Studies an hour at a p95 of {protocol.goal:g} s",
        "",
        f"**Measured {report.highest:.0f}/h, predicted {predicted.step:.0f}/h: {report.off:+.0%}",
        f"(within {TOLERANCE:.0%}: {verdict}).** Bottleneck: {name}, {share:.0%} busy.",
        "",
        "Turnaround: last byte of a head CT to its detector's result, plus its wait for a free association.",
        f"Steps of {protocol.minutes:g} min, open loop.",
        "",
        "| studies/h | head CTs | p50 s | p95 s | predicted p95 s | lost / silent | busiest |",
        "|---|---|---|---|---|---|---|",
        *(_row(step) for step in report.steps),
        "",
        f"In the long run the calculator gives {predicted.steady.studies_per_hour:.0f}/h at this goal and",
        f"{predicted.most.studies_per_hour:.0f}/h at most ({predicted.most.bottleneck}).",
        f"A step of {protocol.minutes:g} min starts empty and ends before the longest queues:",
        "the prediction above replays its own arrivals.",
        "",
        "![turnaround](turnaround.png) ![busy](busy.png)",
        "",
        "## Prediction beside measurement",
        "",
        *comparison.lines(comparison.compared(protocol, report.measured, report.steps)),
        "",
        "The last step:",
        "",
        *stress_lines(last),
        "",
        "## Retrieval while detectors work",
        "",
        *report.isolated.lines(),
        "",
        "![isolation](isolation.png)",
        "",
        "## STOW, QIDO, WADO",
        "",
        *report.mix.lines(),
        "",
        "## Soak",
        "",
        *report.soaked.lines(),
        "",
        "![memory](memory.png)",
        "",
        "## Unit costs of the prediction",
        "",
        "```json",
        json.dumps(costs.model_dump(by_alias=True), indent=1),
        "```",
    ]


def _row(step: Step) -> str:
    heads = step.summary.delayed.get("CT head", [])
    name, share = step.summary.bottleneck
    middle = percentile(heads, 0.5)
    return (
        f"| {step.rate:.0f} | {len(heads)} | {middle:.1f} | {step.p95:.1f} | {step.predicted:.1f} "
        f"| {step.summary.lost} / {len(step.summary.silent)} | {name} {share:.0%} |"
    )
