"""Each tenant's share of a server: requests per second, requests and streams at a time, over its web processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from wetread.core.errors import TooManyRequests
from wetread.core.shares import Open, Shares
from wetread.core.tenants import Tenants

_BUSY_RETRY_SECONDS = 1.0


class Rates:
    """Admits requests of tenants; for one event loop. ``clock``: one that all processes share."""

    def __init__(
        self, tenants: Tenants, shares: Shares | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tenants = tenants
        self._shares = shares or Shares()
        self._clock = clock

    def enter(self, tenant: str, *, stream: bool) -> Callable[[], None] | None:
        """Count a request; return what to call at its end (None: nothing). Raises TooManyRequests."""
        policy = self._tenants.policy(tenant)
        kind: Open = "streams" if stream else "requests"
        most, rate = policy.streams_at_once if stream else policy.requests_at_once, policy.requests_per_second
        if most is None and rate is None:
            return None
        share = self._shares.of(tenant)
        with self._shares.turn:
            if most is not None and share.open(kind) >= most:
                msg = f"more than {most} {kind} at a time"
                raise TooManyRequests(msg, retry_after=_BUSY_RETRY_SECONDS)
            if rate is not None and (wait := share.spend(rate, policy.tokens, self._clock())):
                msg = f"more than {rate:g} requests per second"
                raise TooManyRequests(msg, retry_after=wait)
            if most is None:
                return None
            share.enter(kind)
        return partial(share.leave, kind)
