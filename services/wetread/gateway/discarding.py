"""How it is recorded in the object store that records hold no instance: they lost against others (ADR 0209).

A record that was replaced by one that says so needs no such note. It is for what only the index decided: two processes
that stored at the same time, and groups whose transaction failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

_KEY: Final = "discarded"

Record = tuple[str, str]
"""SOP Instance UID and locator."""


def describe_discarded(records: Sequence[Record]) -> bytes:
    """Return the description of the record; it has no payload."""
    return orjson.dumps({_KEY: records})


def discarded_of(description: Mapping[str, Any]) -> list[Record] | None:
    """Return the records that are named, None when the description is of something else."""
    stored = description.get(_KEY)
    return None if stored is None else [(uid, locator) for uid, locator in stored]
