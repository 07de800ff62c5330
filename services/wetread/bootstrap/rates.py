"""Each tenant's share of the web process: requests per second, requests and streams at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from wetread.core.errors import TooManyRequests
from wetread.core.tenants import TenantPolicy, Tenants

_BUSY_RETRY_SECONDS = 1.0


class _Share:
    """What one tenant has left. A token bucket: ``tokens`` are what may come now, refilled with time."""

    __slots__ = ("at", "policy", "requests", "streams", "tokens")

    def __init__(self, policy: TenantPolicy, now: float) -> None:
        self.policy = policy
        self.at = now
        self.tokens = float(_burst(policy))
        self.requests = 0
        self.streams = 0


class Rates:
    """Admits requests of tenants; for one event loop."""

    def __init__(self, tenants: Tenants, clock: Callable[[], float] = time.monotonic) -> None:
        self._tenants = tenants
        self._clock = clock
        self._shares: dict[str, _Share] = {}

    def enter(self, tenant: str, *, stream: bool) -> Callable[[], None] | None:
        """Count a request; return what to call at its end (None: nothing). Raises TooManyRequests."""
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = _Share(self._tenants.policy(tenant), self._clock())
        policy = share.policy
        most = policy.streams_at_once if stream else policy.requests_at_once
        if most is not None and (share.streams if stream else share.requests) >= most:
            msg = f"more than {most} {'streams' if stream else 'requests'} at a time"
            raise TooManyRequests(msg, retry_after=_BUSY_RETRY_SECONDS)
        if policy.requests_per_second is not None:
            self._spend(share, policy.requests_per_second)
        if most is None:
            return None
        return self._count_stream(share) if stream else self._count_request(share)

    def _spend(self, share: _Share, rate: float) -> None:
        now = self._clock()
        share.tokens = min(_burst(share.policy), share.tokens + (now - share.at) * rate)
        share.at = now
        if share.tokens < 1:
            msg = f"more than {rate:g} requests per second"
            raise TooManyRequests(msg, retry_after=(1 - share.tokens) / rate)
        share.tokens -= 1

    def _count_request(self, share: _Share) -> Callable[[], None]:
        share.requests += 1

        def leave() -> None:
            share.requests -= 1

        return leave

    def _count_stream(self, share: _Share) -> Callable[[], None]:
        share.streams += 1

        def leave() -> None:
            share.streams -= 1

        return leave


def _burst(policy: TenantPolicy) -> int:
    return policy.burst or max(1, math.ceil(2 * (policy.requests_per_second or 0)))
