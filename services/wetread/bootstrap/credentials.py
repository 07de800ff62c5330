"""Who recognises credentials, as the settings say."""

from __future__ import annotations

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.adapters.auth.bearer import Bearer
from wetread.core.ports.access import Authenticator
from wetread.settings import Settings


def authenticator(settings: Settings) -> Authenticator | None:
    """Return what turns credentials into callers; None: no authentication. Raises ConfigurationError."""
    keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return keys
    from wetread.adapters.auth.issuer_keys import IssuerKeys
    from wetread.adapters.auth.oidc import OidcTokens, TokenPolicy

    policy = TokenPolicy(
        audience=settings.oidc_audience,
        algorithms=frozenset(settings.oidc_algorithms.split(",")),
        tenant_claim=settings.oidc_tenant_claim,
        scope_claim=settings.oidc_scope_claim,
        leeway=settings.oidc_leeway,
    )
    return Bearer(keys, OidcTokens(IssuerKeys(settings.oidc_issuer), policy))
