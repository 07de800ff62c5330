"""What the calculator says of a step beside what was measured in it, thing by thing, under the calculator's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unit_costs import Measured

from report.steps import Protocol, Step

TOLERANCE: Final = 0.25
"""A prediction holds when it is off by no more than this share of the measurement."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a step of *rate* studies an hour."""

    rate: float
    what: str
    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """Prediction over measurement, less one."""
        return self.predicted / self.measured - 1 if self.measured else float("inf")

    @property
    def held(self) -> bool:
        """Whether the prediction is close enough."""
        return abs(self.off) <= TOLERANCE


def compared(protocol: Protocol, measured: Measured, steps: Sequence[Step]) -> list[Row]:
    """Return the figures of every step: CPU seconds per study by component, and the head CTs' turnaround."""
    return [row for step in steps for row in _of_step(protocol, measured, step)]


def _of_step(protocol: Protocol, measured: Measured, step: Step) -> list[Row]:
    summary, costs = step.summary, measured.costs
    studies, took = max(summary.transactions, 1), summary.usage.seconds
    load = protocol.load(measured, step.scale)
    detectors = sum(runs * costs.detectors[name].cpu for name, runs in load.runs.items())
    sender = measured.sender.of(load.instances, load.megabytes)
    components = {
        "gateway": (
            measured.gateway(load),
            ("web event loop", "web threads", "codecs"),
        ),
        "orchestration": (load.orchestration, ("orchestration",)),
        "detectors": (detectors, ("detectors",)),
    }
    found = []
    for name, (cost, roles) in components.items():
        idle = sum(measured.idle.get(role, 0.0) for role in roles) * took / studies
        used = sum(summary.usage.cpu.get(role, 0.0) for role in roles) / studies
        found.append(Row(step.rate, f"{name}, CPU s per study", cost + idle, used))
    whole = sum(row.predicted for row in found) + sender
    machine = summary.usage.machine_seconds / studies
    found.append(Row(step.rate, "machine with the sender, CPU s per study", whole, machine))
    found.append(Row(step.rate, "head CT to result, p95 s", step.predicted, step.p95))
    return found


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table."""
    held = sum(row.held for row in rows)
    return [
        "| studies/h | | predicted | measured | deviation |",
        "|---|---|---|---|---|",
        *(
            f"| {row.rate:.0f} | {row.what} | {row.predicted:.3f} | {row.measured:.3f} | {_verdict(row)} |"
            for row in rows
        ),
        "",
        f"{held} of {len(rows)} within {TOLERANCE:.0%}. What an idle server uses and what it costs to ask for studies",
        "and to delete them is added to the predicted costs; they know nothing of what processes lose to each",
        "other's caches.",
    ]


def _verdict(row: Row) -> str:
    return f"{row.off:+.0%}" + ("" if row.held else " MISSED")
