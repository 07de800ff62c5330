"""What each tenant may use: rates, room, and what happens to conflicting duplicates (ADR 1003)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wetread.core.access import is_tenant
from wetread.core.channels import Channel, Escalation
from wetread.core.errors import ConfigurationError
from wetread.core.identifiers import is_uid

DuplicatePolicy = Literal["reject", "keep_first", "replace"]

ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=1)]


def _uid(value: str) -> str:
    if not is_uid(value):
        msg = "not a UID"
        raise ValueError(msg)
    return value


Uid = Annotated[str, AfterValidator(_uid)]


class StoreRules(BaseModel):
    """Which instances are taken, by STOW-RS and C-STORE (PS3.18 table I.2-1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sop_classes: frozenset[Uid] | None = None
    """These only (else 0122); None: all."""
    refused_sop_classes: frozenset[Uid] = frozenset()
    """These not (0122)."""
    transfer_syntaxes: Literal["any", "known"] = "any"
    """``any``: what nobody knows is stored as it is and never rendered; ``known``: it is refused (C122)."""


class TenantPolicy(BaseModel):
    """Limits of one tenant; None: none. Rates and numbers at a time are counted per server, those of DIMSE apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    burst: Annotated[int, Field(ge=1)] | None = None
    """Requests that may come at once after a pause; None: those of two seconds."""
    requests_at_once: Count | None = None
    streams_at_once: Count | None = None
    """Open event streams and websockets."""
    stores_at_once: Count | None = None
    """STOW requests being received."""
    request_bytes: Count | None = None
    """Largest STOW request, and largest instance of a C-STORE; the deployment's own limits hold beside it."""
    storage_bytes: Count | None = None
    storage_instances: Count | None = None
    associations_at_once: Count | None = None
    """DICOM associations, of all of the tenant's peers together."""
    duplicates: DuplicatePolicy | None = None
    """For an instance whose UID is stored with other content; None: as the deployment says."""
    takes: StoreRules | None = None
    """Which instances are stored at all; None: all."""
    channels: dict[ChannelName, Channel] = {}
    """Ways to reach people, by the names that workflows ``notify`` and escalations use."""
    escalation: Escalation | None = None
    """Who is told when nobody acknowledges a time-critical finding; None: nobody."""

    @property
    def tokens(self) -> int:
        """Requests that may come at once after a pause."""
        return self.burst or max(1, math.ceil(2 * (self.requests_per_second or 0)))


class TenantFile(BaseModel):
    """``default`` holds for every tenant that is not named; a named tenant's entries go on top of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: TenantPolicy = TenantPolicy()
    tenants: dict[str, TenantPolicy] = {}


class Tenants:
    """The policies by tenant. Raises ConfigurationError for a name that no tenant can have."""

    def __init__(self, file: TenantFile | None = None) -> None:
        file = file or TenantFile()
        wrong = [name for name in file.tenants if not is_tenant(name)]
        if wrong:
            msg = f"not a name of a tenant: {wrong[0]!r}"
            raise ConfigurationError(msg)
        self._default = file.default
        self._named: Mapping[str, TenantPolicy] = {
            name: file.default.model_copy(update={key: getattr(policy, key) for key in policy.model_fields_set})
            for name, policy in file.tenants.items()
        }
        for policy in (self._default, *self._named.values()):
            for step in policy.escalation.steps if policy.escalation else ():
                if step.channel not in policy.channels:
                    msg = f"an escalation names a channel that does not exist: {step.channel!r}"
                    raise ConfigurationError(msg)

    @property
    def choosy(self) -> bool:
        """Whether any tenant has rules of what is stored."""
        return any(policy.takes is not None for policy in (self._default, *self._named.values()))

    def policy(self, tenant: str) -> TenantPolicy:
        """Return what holds for *tenant*."""
        return self._named.get(tenant, self._default)
