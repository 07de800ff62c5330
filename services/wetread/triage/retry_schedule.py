"""When a failed delivery is tried again, as data."""

from __future__ import annotations

from typing import Final

from wetread.core.identifiers import digest

RETRY_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 8 * 3600.0, 24 * 3600.0)
"""Wait after the first, second, ... failed attempt; after the last one the delivery is a dead letter (36.7 h)."""

JITTER: Final = 0.1
"""Fraction by which a wait is stretched at most, so that a receiver that comes back is not hit by all at once."""


def retry_wait(attempts: int, *ids: str, retry_after: float | None = None) -> float | None:
    """Return the seconds to wait after *attempts* failed attempts; None: give up.

    The jitter is a function of the ids and the attempt: a repeated step decides the same. A receiver may ask for a
    longer wait (``Retry-After``), never for a shorter one.
    """
    if attempts > len(RETRY_SECONDS):
        return None
    spread = int(digest(attempts, *ids)[:8], 16) / 0xFFFFFFFF
    wait = RETRY_SECONDS[attempts - 1] * (1 + JITTER * spread)
    return max(wait, retry_after or 0.0)
