"""How a deletion is recorded in the object store, beside the instances it takes away (ADR 0204)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson

from wetread.core.ports.changes import Removal, RemovedInstance

_KEY: Final = "removed"


def describe(removal: Removal) -> bytes:
    """Return the description of the record; it has no payload."""
    return orjson.dumps({_KEY: asdict(removal)})


def removal_of(description: Mapping[str, Any]) -> Removal | None:
    """Return the deletion that a record tells, None when it holds an instance."""
    stored = description.get(_KEY)
    if stored is None:
        return None
    members = tuple(RemovedInstance(**found) for found in stored["instances"])
    return Removal(**{**stored, "instances": members})
