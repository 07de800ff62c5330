"""The room that tenants may use: measured now and then, admitted at its size in between (ADR 1003)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wetread.core.errors import QuotaExceeded
from wetread.core.ports.database import Database
from wetread.core.ports.usage import UsageMeter
from wetread.core.shares import Shares
from wetread.core.tenants import TenantPolicy

_MEASURED_SECONDS: Final = 10.0
"""How long a tenant's use of room is taken for known; what is admitted meanwhile is added at its declared size."""
_NO_ROOM: Final = 0xA700


class StorageQuota:
    """Measures tenants with a quota, never others. Threads may use it where the turn of *shares* is a lock."""

    def __init__(self, database: Database, meter: UsageMeter, shares: Shares, clock: Callable[[], float]) -> None:
        self._database = database
        self._meter = meter
        self._shares = shares
        self._clock = clock

    @staticmethod
    def limits(policy: TenantPolicy) -> bool:
        """Return whether there is a quota at all."""
        return policy.storage_bytes is not None or policy.storage_instances is not None

    def stale(self, tenant: str) -> bool:
        """Return whether the use of *tenant* is to be measured before anything is admitted."""
        measured = self._shares.of(tenant).measured()
        return measured is None or self._clock() - measured > _MEASURED_SECONDS

    def measure(self, tenant: str) -> None:
        """Ask the index what the tenant has stored; blocks."""
        with self._database.read() as tx:
            used = self._meter.usage(tx, tenant)
        share = self._shares.of(tenant)
        with self._shares.turn:
            share.measure(used.stored_bytes, used.instances, self._clock())

    def admit(self, tenant: str, policy: TenantPolicy, size: int) -> None:
        """Count *size* bytes that are about to be stored. Raises QuotaExceeded when there is no room for them."""
        share = self._shares.of(tenant)
        with self._shares.turn:
            stored, instances = share.used()
            if policy.storage_bytes is not None and stored + size > policy.storage_bytes:
                msg = f"{policy.storage_bytes} bytes are all that this tenant may store"
                raise QuotaExceeded(msg, dicom_status=_NO_ROOM)
            if policy.storage_instances is not None and instances >= policy.storage_instances:
                msg = f"{policy.storage_instances} instances are all that this tenant may store"
                raise QuotaExceeded(msg, dicom_status=_NO_ROOM)
            share.admit(size)
