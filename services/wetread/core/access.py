"""Who may do what: scopes, one per verb, and the caller that a credential stands for (ADR 1001)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wetread.core.errors import InvalidInput
from wetread.core.identifiers import DEFAULT_TENANT

_TENANT: Final = re.compile(r"[a-z0-9-]{1,63}")
ACTOR_LENGTH: Final = 128


class Scope(StrEnum):
    """What a credential allows. None implies another."""

    DICOM_READ = "dicom.read"
    """Search and retrieve, read the change feed."""
    DICOM_WRITE = "dicom.write"
    """Store."""
    DICOM_DELETE = "dicom.delete"
    WORKLIST_READ = "worklist.read"
    """Worklist, findings, events, tasks, pages."""
    WORKLIST_WRITE = "worklist.write"
    """Raise a study, announce a manifest, try a task again."""
    UPS_READ = "ups.read"
    """Search and retrieve workitems, subscribe, receive their events."""
    UPS_WRITE = "ups.write"
    """Create workitems, request cancellation."""
    UPS_PERFORM = "ups.perform"
    """Claim, update and finish workitems."""
    WEBHOOKS = "webhooks"
    """See and change subscriptions: they send data out."""
    FFR_COMPUTE = "ffr.compute"
    ADMIN = "admin"
    """Read the tenant's audit trail."""
    METRICS_READ = "metrics.read"
    """Scrape the metrics: totals of the whole deployment, hence not a tenant's right."""


TENANT_SCOPES: Final = frozenset(Scope) - {Scope.METRICS_READ}
"""What a credential may do that names no scopes."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``expires_at``: Unix seconds after which the credential is worth nothing (None: never)."""

    tenant: str
    name: str
    scopes: frozenset[Scope] = TENANT_SCOPES
    expires_at: float | None = None


LOCAL: Final = Caller(DEFAULT_TENANT, "", frozenset(Scope))
"""The caller of a server without authentication: whoever sits at this machine."""


def parse_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes of *names*. Raises InvalidInput for one that does not exist."""
    try:
        return frozenset(Scope(name) for name in names)
    except ValueError as error:
        msg = f"a scope is one of {', '.join(Scope)}"
        raise InvalidInput(msg) from error


def is_tenant(value: object) -> bool:
    """Return whether *value* may name a tenant."""
    return isinstance(value, str) and _TENANT.fullmatch(value) is not None
