"""The pictures of the report (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isolation import Isolation

from report.soak import Soak
from report.steps import Step


def draw(folder: Path, *, steps: Sequence[Step], goal: float, isolation: Isolation, soak: Soak) -> None:
    """Write ``turnaround.png``, ``busy.png``, ``isolation.png`` and ``memory.png`` into *folder*."""
    import matplotlib as mpl

    mpl.use("agg")
    _turnaround(folder / "turnaround.png", steps, goal)
    _busy(folder / "busy.png", steps)
    _isolation(folder / "isolation.png", isolation)
    _memory(folder / "memory.png", soak)


def _axes(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=120)
    plt.close(figure)


def _turnaround(path: Path, steps: Sequence[Step], goal: float) -> None:
    figure, axes = _axes("studies per hour", "p95 turnaround of head CT, s")
    rates = [step.rate for step in steps]
    axes.plot(rates, [step.p95 for step in steps], "o-", label="measured")
    axes.plot(rates, [step.predicted for step in steps], "s--", label="predicted from unit costs")
    axes.axhline(goal, color="black", linewidth=1, linestyle=":", label=f"goal {goal:g} s")
    axes.set_ylim(bottom=0)
    axes.legend()
    _save(figure, path)


def _busy(path: Path, steps: Sequence[Step]) -> None:
    figure, axes = _axes("studies per hour", "share of time busy")
    shares = [step.summary.shares for step in steps]
    for name in shares[0]:
        axes.plot([step.rate for step in steps], [share[name] for share in shares], "o-", label=name)
    axes.set_ylim(0, 1.05)
    axes.legend()
    _save(figure, path)


def _isolation(path: Path, isolation: Isolation) -> None:
    figure, axes = _axes("latency, ms", "share of requests")
    curves = (
        (isolation.idle, "-", "workers idle"),
        (isolation.beside, ":", "a neighbour"),
        (isolation.busy, "--", "workers saturated"),
    )
    for windows, style, setting in curves:
        for kind in ("frame", "instance"):
            values = sorted(seconds * 1000 for window in windows for seconds in window.latencies[kind])
            if values:
                shares = [(place + 1) / len(values) for place in range(len(values))]
                axes.plot(values, shares, style, label=f"{kind}, {setting}")
    axes.set_xscale("log")
    axes.axhline(0.95, color="black", linewidth=1, linestyle="-.")
    axes.legend(loc="lower right")
    _save(figure, path)


def _memory(path: Path, soak: Soak) -> None:
    figure, axes = _axes("minutes", "resident memory of all processes, MiB")
    axes.plot([seconds / 60 for seconds, _ in soak.rss], [size / 2**20 for _, size in soak.rss])
    axes.set_ylim(bottom=0)
    _save(figure, path)
