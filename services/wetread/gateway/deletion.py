"""How a deletion is recorded in the object store, beside the instances it takes away (ADR 0204)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson

from wetread.core.ports.changes import Removal, RemovedInstance

_KEY: Final = "removed"
_IDEMPOTENCY: Final = "key"
"""Beside the removal: a release that does not know it reads the record all the same."""


def describe(removal: Removal) -> bytes:
    """Return the description of the record; it has no payload."""
    told = asdict(removal)
    key = told.pop("key")
    return orjson.dumps({_KEY: told} | ({_IDEMPOTENCY: key} if key else {}))


def removal_of(description: Mapping[str, Any]) -> Removal | None:
    """Return the deletion that a record tells, None when it holds an instance."""
    stored = description.get(_KEY)
    if stored is None:
        return None
    members = tuple(RemovedInstance(**found) for found in stored["instances"])
    return Removal(**{**stored, "instances": members}, key=description.get(_IDEMPOTENCY, ""))
