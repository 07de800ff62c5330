"""The card as people read it: README.md in Markdown, from ``model-card.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

PHANTOM_FIGURES: Final = (
    "Every figure below is a **phantom figure**: computed on generated cases, not on patients. "
    "Performance on patients is unknown."
)


def cell(item: Mapping[str, Any] | None) -> str:
    """A figure with its 95 % interval, or a dash."""
    if not item or item.get("value") is None:
        return "-"
    low, high = item.get("ci95", (None, None))
    return f"{item['value']:.3f}" + (f" ({low:.3f}-{high:.3f})" if low is not None else "")


def readme(card: Mapping[str, Any]) -> str:
    """README.md of a detector folder."""
    lines = [*heading(card), _identity(card), ""]
    measured = card.get("metrics") or {}
    if measured:
        lines += [PHANTOM_FIGURES, "", *_sets(measured), *_measurements(measured), *_subgroups(measured)]
    if "gates_missed" in card:
        lines += [f"Gates missed: {', '.join(card['gates_missed']) or 'none'}.", ""]
    lines += [f"Shadow: {'yes: it may notify nobody' if card.get('shadow') else 'no'}.", ""]
    lines += timing(card)
    for title, key in (("Known failure modes", "known_failure_modes"), ("Origin", "origin_notes")):
        if card.get(key):
            lines += [f"## {title}", "", *(f"- {text}" for text in card[key]), ""]
    lines += [f"Generated from model-card.json by `wetread models card {card['name']}`.", ""]
    return "\n".join(lines)


def heading(card: Mapping[str, Any]) -> list[str]:
    """Title, research use, what it is for and what not."""
    excluded = f"Not for: {', '.join(card['excluded_use'])}."
    return [f"# {card['title']}", "", card["ruo"], "", card["intended_use"], "", excluded, ""]


def timing(card: Mapping[str, Any]) -> list[str]:
    """What one study costs: seconds on two cores and peak memory, as the card's `timing` says; nothing without one."""
    if not card.get("timing"):
        return []
    kept = card["timing"]
    rows = [f"- {r['input']}: {r['seconds']:g} s, peak of the process {r['peak_mib']:,} MiB" for r in kept["rows"]]
    return ["## Time", "", f"Of the detector alone, by `{kept['command']}` on {kept['machine']}:", "", *rows, ""]


def _identity(card: Mapping[str, Any]) -> str:
    parts = [f"Version {card['version']}."]
    if card.get("phantom_evidence_id"):
        parts.append(f"Phantom evidence {card['phantom_evidence_id']}.")
    if card.get("default_operating_point"):
        point = next(p for p in card["operating_points"] if p["name"] == card["default_operating_point"])
        parts.append(f"Operating point {point['name']}: threshold {point['threshold']:g}.")
    licence = card.get("licence") or {}
    parts.append(f"Licence: code {licence.get('code', 'unknown')}, weights {licence.get('weights', 'unknown')}.")
    return " ".join(parts)


def _sets(measured: Mapping[str, Any]) -> list[str]:
    sets = {name: part for name, part in measured.items() if isinstance(part, Mapping) and "seeds" in part}
    if not any("auc" in part for part in sets.values()):
        return []
    lines = [
        "| set | n (positive) | seeds | AUC (95 %) | sensitivity (95 %) | specificity (95 %) | FROC mean | refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, part in sets.items():
        froc = part.get("froc", {}).get("mean")
        lines.append(
            f"| {name} | {part['n']} ({part.get('positives', '-')}) | {part['seeds'][0]}-{part['seeds'][1]} "
            f"| {cell(part.get('auc'))} | {cell(part.get('sensitivity'))} | {cell(part.get('specificity'))} "
            f"| {cell(froc)} | {sum(part['refused'].values())} |"
        )
    return [*lines, ""]


def _measurements(measured: Mapping[str, Any]) -> list[str]:
    rows: list[str] = []
    for name, part in measured.items():
        if not isinstance(part, Mapping) or "seeds" not in part:
            continue
        for label, item in part.get("dice", {}).items():
            rows.append(f"| {name} | Dice of {label} | {cell(item)} | {item['n']} |")
        if explained := part.get("explanation"):
            figure = cell(explained["maximum_in_lesion"])
            rows.append(f"| {name} | where the score came from: maximum in the lesion | {figure} | {explained['n']} |")
        for what, item in part.get("measurements", {}).items():
            if item["n"]:
                low, high = item["limits_of_agreement"]
                limits = "-" if low is None else f"{low:.3g} to {high:.3g}"
                percent = item["median_abs_error_percent"]
                shown = f"bias {item['bias']:.3g}, limits {limits}" + (
                    "" if percent is None else f", median error {percent:.1f} %"
                )
                rows.append(f"| {name} | {what} | {shown} | {item['n']} |")
    return ["| set | what | figure | n |", "|---|---|---|---|", *rows, ""] if rows else []


def _subgroups(measured: Mapping[str, Any]) -> list[str]:
    rows: Sequence[Mapping[str, Any]] = measured.get("subgroups") or []
    if not rows:
        return []
    lines = ["| subgroup | n | sensitivity | specificity | differs from the rest |", "|---|---|---|---|---|"]
    for row in rows:
        if "note" in row:
            lines.append(f"| {row['group']} | {row['n']} | {row['note']} | {row['note']} | - |")
            continue
        differs = [m for m in ("sensitivity", "specificity") if row.get(f"{m}_difference", {}).get("differs")]
        shown = ", ".join(differs) or "no"
        figures = f"{cell(row['sensitivity'])} | {cell(row['specificity'])}"
        lines.append(f"| {row['group']} | {row['n']} | {figures} | {shown} |")
    return [*lines, ""]
