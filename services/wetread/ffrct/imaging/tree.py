"""Names the measured branches and makes the vessel tree of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .image import FloatArray, Mask
from .lumen import Lumen

MAIN_RATIO: Final = 0.55
"""A side branch at least this wide, near the ostium, makes the fork of the left main artery."""
FORK_MM: Final = 30.0


@dataclass(frozen=True, slots=True)
class Artery:
    """One artery, ready for a tree document: per-point arrays (n,), mm, LPS."""

    id: str
    parent: str | None
    label: str
    points_mm: FloatArray
    radius_mm: FloatArray
    radius_sd_mm: FloatArray
    aspect: FloatArray
    calcium: Mask


def name_arteries(lumens: Sequence[Lumen]) -> tuple[Artery, ...]:
    """Cut the left main artery off, then name by course: LM, LAD, LCx, RCA; anything else ``left_n`` or ``right_n``."""
    roots = [n for n, lumen in enumerate(lumens) if lumen.parent < 0]
    if not roots:
        return ()
    left = _left_root(lumens, roots)
    out: list[Artery] = []
    names: dict[int, str] = {}
    forks: dict[int, tuple[float, str]] = {}
    counts = {"left": 0, "right": 0}
    for number, lumen in enumerate(lumens):
        if lumen.parent < 0 and number == left:
            fork = _fork(lumens, number)
            if fork is not None:
                child, at = fork
                _split(out, lumen, at, *_front_first(lumens, number, child))
                names[number] = out[-1].id
                forks[number] = (at, "lm")
                continue
            names[number] = "left_main"
            out.append(_artery(lumen, "left_main", None, "left"))
            continue
        if lumen.parent < 0:
            first = not any(n.startswith("rca") for n in names.values())
            counts["right"] += 0 if first else 1
            names[number] = "rca" if first else f"right_{counts['right']}"
            out.append(_artery(lumen, names[number], None, "RCA" if first else names[number]))
            continue
        parent = names[lumen.parent]
        if lumen.parent in forks and lumen.at_mm <= forks[lumen.parent][0] + 0.5:
            parent = forks[lumen.parent][1]
            taken = {a.label for a in out}
            label = next((name for name in ("LCx", "LAD") if name not in taken), "")
        else:
            label = ""
        side = "left" if _side_of(lumens, number) == left else "right"
        if label:
            names[number] = label.lower()
        else:
            counts[side] += 1
            names[number] = f"{side}_{counts[side]}"
        out.append(_artery(lumen, names[number], parent, label or names[number]))
    return tuple(out)


def _artery(lumen: Lumen, name: str, parent: str | None, label: str, keep: slice = slice(None)) -> Artery:
    return Artery(
        name,
        parent,
        label,
        lumen.points[keep],
        lumen.radius_mm[keep],
        lumen.radius_sd_mm[keep],
        lumen.aspect[keep],
        lumen.calcium[keep],
    )


def _left_root(lumens: Sequence[Lumen], roots: Sequence[int]) -> int:
    """The root whose tree lies furthest to the patient's left (LPS x), weighted by length."""

    def leftness(root: int) -> float:
        own = [lumen.points[:, 0] for n, lumen in enumerate(lumens) if _side_of(lumens, n) == root]
        return float(np.concatenate(own).mean())

    best = max(roots, key=leftness)
    if len(roots) == 1 and float(lumens[best].points[:, 0].mean()) < float(lumens[best].points[0, 0]):
        return -1
    return best


def _side_of(lumens: Sequence[Lumen], number: int) -> int:
    while lumens[number].parent >= 0:
        number = lumens[number].parent
    return number


def _fork(lumens: Sequence[Lumen], root: int) -> tuple[int, float] | None:
    """The first wide side branch of the left root and where it leaves."""
    host = lumens[root]
    wide = []
    for number, lumen in enumerate(lumens):
        if lumen.parent == root and 1.0 < lumen.at_mm <= FORK_MM and len(lumen.radius_mm) > 20:
            own = float(np.median(lumen.radius_mm[12:40]))
            if own >= MAIN_RATIO * float(np.interp(lumen.at_mm - 1.0, host.s, host.radius_mm)):
                wide.append((lumen.at_mm, number))
    return (min(wide)[1], min(wide)[0]) if wide else None


def _front_first(lumens: Sequence[Lumen], root: int, child: int) -> tuple[str, str]:
    """Name of what continues the root, by which of the two runs further to the front (LPS y is negative there)."""
    host, other = lumens[root], lumens[child]
    at = lumens[child].at_mm
    ahead = host.points[host.s > at][:, 1].mean() if (host.s > at).any() else 0.0
    return ("lad", "LAD") if float(ahead) < float(other.points[:, 1].mean()) else ("lcx", "LCx")


def _split(out: list[Artery], lumen: Lumen, at: float, name: str, label: str) -> None:
    cut = int(np.clip(np.searchsorted(lumen.s, at), 2, len(lumen.s) - 3))
    out.append(_artery(lumen, "lm", None, "LM", slice(0, cut + 1)))
    out.append(_artery(lumen, name, "lm", label, slice(cut, None)))
