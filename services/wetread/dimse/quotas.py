"""The share of the edge that peers and tenants have: associations, requests per second, size, room (ADR 1003).

DIMSE has no status for "later": what comes too fast is held back first, which slows the sender down, and refused when
that does not help. A sender waits for each response anyway (no asynchronous operations window, PS3.7 D.3.3.3).
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable

from wetread.core.errors import QuotaExceeded
from wetread.core.quota import StorageQuota
from wetread.core.shares import Shares
from wetread.dimse.peers import SHARE_USED, Peer, Refusal
from wetread.dimse.ports import DimsePorts
from wetread.dimse.settings import DimseSettings


class Quotas:
    """Thread-safe; one per listener. Every refusal is counted by the limit that it is for."""

    def __init__(self, ports: DimsePorts, settings: DimseSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._open: Counter[tuple[str, ...]] = Counter()
        self._closing = threading.Event()
        self._tenants = Shares(turn=threading.Lock())
        self._peers = Shares(turn=threading.Lock())
        self._quota = None if ports.usage is None else StorageQuota(ports.database, ports.usage, self._tenants, clock)

    def enter(self, peer: Peer) -> Refusal | None:
        """Count an association, or return why there is none to be had."""
        limits = (
            (_name(peer), peer.associations),
            ((peer.tenant,), self._ports.tenants.policy(peer.tenant).associations_at_once),
        )
        with self._lock:
            if any(most is not None and self._open[name] >= most for name, most in limits):
                self._ports.meter.limited("associations")
                return SHARE_USED
            self._open.update(name for name, _ in limits)
        return None

    def leave(self, peer: Peer) -> None:
        """An association has ended."""
        with self._lock:
            for name in (_name(peer), (peer.tenant,)):
                self._open[name] -= 1
                if not self._open[name]:
                    del self._open[name]

    def pace(self, peer: Peer) -> bool:
        """Hold a request back until it is its turn; False when that takes too long."""
        policy = self._ports.tenants.policy(peer.tenant)
        until = self._clock() + self._settings.pace_seconds
        own = peer.requests_per_second
        return self._spend(self._peers, "\0".join(_name(peer)), own, math.ceil(2 * (own or 0)), until) and self._spend(
            self._tenants, peer.tenant, policy.requests_per_second, policy.tokens, until
        )

    def close(self) -> None:
        """Hold nobody back any more: what waits is refused."""
        self._closing.set()

    def object_bytes(self, peer: Peer) -> int:
        """Return the size of the largest instance that *peer* may store."""
        limits = (self._settings.object_bytes, peer.object_bytes, self._ports.tenants.policy(peer.tenant).request_bytes)
        return min(limit for limit in limits if limit is not None)

    def room(self, peer: Peer, size: int) -> str:
        """Count what is about to be stored; return why it may not be, empty when it may."""
        policy = self._ports.tenants.policy(peer.tenant)
        if self._quota is None or not self._quota.limits(policy):
            return ""
        if self._quota.stale(peer.tenant):
            self._quota.measure(peer.tenant)
        try:
            self._quota.admit(peer.tenant, policy, size)
        except QuotaExceeded as error:
            self._ports.meter.limited("storage")
            return error.detail
        return ""

    def _spend(self, shares: Shares, name: str, rate: float | None, burst: int, until: float) -> bool:
        if rate is None:
            return True
        share = shares.of(name)
        while True:
            with shares.turn:
                wait = share.spend(rate, burst, self._clock())
            if not wait:
                return True
            if self._clock() + wait > until or self._closing.wait(wait):
                self._ports.meter.limited("rate")
                return False


def _name(peer: Peer) -> tuple[str, ...]:
    """Return what tells peers apart: tenants may share a title, and a title may be called in two ways."""
    return peer.tenant, peer.ae, peer.called or ""
