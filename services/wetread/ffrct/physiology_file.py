"""Reads the constants file that ships with the package."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wetread.core.errors import ConfigurationError

from .science.constants import Constant, Physiology, known_units


def parse_physiology(text: str) -> Physiology:
    """Build the constants from YAML text.

    Raises :class:`ConfigurationError` for an entry without a known unit, with a value outside its range,
    with an unknown status, or marked confirmed without a source that can be looked up.
    """
    try:
        document: Any = YAML(typ="safe", pure=True).load(text)
        entries = {str(key): _entry(str(key), raw) for key, raw in document["constants"].items()}
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"physiology file: {error}") from error
    return Physiology(entries)


@lru_cache(maxsize=1)
def shipped_physiology() -> Physiology:
    """Return the constants of this version of the package."""
    path = files("wetread.ffrct.science") / "physiology.yaml"
    return parse_physiology(path.read_text(encoding="utf-8"))


def _entry(key: str, raw: dict[str, Any]) -> Constant:
    low, high = (float(limit) for limit in raw["range"])
    entry = Constant(
        value=float(raw["value"]),
        unit=str(raw["unit"]),
        range=(low, high),
        status=raw["status"],
        source_title=str(raw["source"]["title"]),
        source_doi=None if raw["source"]["doi"] is None else str(raw["source"]["doi"]),
        note=str(raw["note"]),
    )
    if entry.unit not in known_units():
        raise ConfigurationError(f"physiology file: {key} has no known unit")
    if not low <= entry.value <= high:
        raise ConfigurationError(f"physiology file: {key} lies outside its own range")
    if entry.status not in ("confirmed", "unconfirmed", "design"):
        raise ConfigurationError(f"physiology file: {key} has an unknown status")
    if entry.status == "confirmed" and not entry.source_doi:
        raise ConfigurationError(f"physiology file: {key} is confirmed but cites no source")
    return entry
