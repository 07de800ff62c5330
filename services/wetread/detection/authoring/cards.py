"""``model-card.json`` of a folder: written first as "unknown" throughout, then filled with what was measured."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from wetread.core.errors import ConfigurationError
from wetread.core.manifest import Manifest
from wetread.core.ruo import RUO_STATEMENT
from wetread.detection.evaluation.measure import Row
from wetread.detection.evaluation.report import readme
from wetread.detection.evaluation.summary import gates_missed, metrics
from wetread.testing.parameter_tables import evidence_id


def draft(manifest: Manifest, *, evidence: str = "", failure_modes: Sequence[str]) -> dict[str, Any]:
    """Return the card of a detector that was not measured yet: shadow, everything about patients unknown."""
    return {
        "schema": "wetread.card/1",
        "name": manifest.name,
        "version": manifest.version,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "title": manifest.title,
        "ruo": RUO_STATEMENT,
        "licence": manifest.licence.model_dump(),
        "intended_use": manifest.intended_use,
        "excluded_use": list(manifest.not_for),
        "performance_on_patients": "unknown",
        "subgroup_fairness_on_patients": "unknown",
        "effect_on_care": "unknown",
        "phantom_evidence_id": evidence,
        "operating_points": [],
        "default_operating_point": None,
        "known_failure_modes": list(failure_modes),
        "seen_real_cases": [],
        "change_log": "CHANGELOG.md",
        "shadow": True,
    }


def evidence_of(folder: Path) -> str:
    """Return the phantom-evidence id of a folder: the digest of what its ``phantom.yaml`` says; empty without one."""
    path = folder / "phantom.yaml"
    if not path.is_file():
        return ""
    return evidence_id(YAML(typ="safe").load(path))


def read(folder: Path) -> dict[str, Any]:
    """Return the card. Raises ConfigurationError."""
    try:
        content = json.loads((folder / "model-card.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder.name}/model-card.json cannot be read") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{folder.name}/model-card.json is no card")
    return content


def text(card: Mapping[str, Any]) -> str:
    """Return ``model-card.json`` as it is stored."""
    return json.dumps(card, indent=2) + "\n"


def write(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card and its README.md."""
    (folder / "model-card.json").write_text(text(card), "utf-8")
    (folder / "README.md").write_text(readme(card), "utf-8")


def measured(folder: Path, card: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the card with the metrics of *rows* at its operating point; a missed gate means shadow."""
    name = card.get("default_operating_point")
    point = next((p for p in card.get("operating_points", []) if p["name"] == name), None)
    figures = metrics(rows, None if point is None else float(point["threshold"]))
    out = {
        **card,
        "metrics": figures,
        "phantom_evidence_id": evidence_of(folder) or card.get("phantom_evidence_id", ""),
    }
    path = folder / "gates.yaml"
    if path.is_file():
        out["gates_missed"] = gates_missed(figures, YAML(typ="safe").load(path).get("sets", {}))
        out["shadow"] = bool(card.get("shadow", True)) or bool(out["gates_missed"])
    return out
