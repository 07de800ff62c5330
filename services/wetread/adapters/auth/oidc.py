"""Bearer tokens of an OpenID Connect issuer (JWT access tokens: RFC 6750, RFC 7519, RFC 9068, RFC 8725)."""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from wetread.adapters.auth.issuer_keys import IssuerKeys
from wetread.core.access import ACTOR_LENGTH, Caller, Scope, is_tenant
from wetread.core.errors import NotAuthenticated

_TOKEN_BYTES: Final = 16 << 10
_KEPT_TOKENS: Final = 4096
_KEPT_SECONDS: Final = 300.0
_SUBJECT: Final = re.compile(rf"[\x21-\x7e]{{1,{ACTOR_LENGTH}}}")
_SCOPES: Final = {str(scope): scope for scope in Scope}


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What a token has to say. ``leeway``: seconds that clocks may differ."""

    audience: str
    algorithms: frozenset[str]
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    leeway: float = 30.0


class OidcTokens:
    """Recognises the tokens of one issuer.

    A checked token is remembered by its digest for some minutes, never beyond its end nor beyond a change of the
    issuer's keys: checking a signature costs more than everything else that a request has to pass.
    """

    def __init__(self, keys: IssuerKeys, policy: TokenPolicy, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._policy = policy
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._generation = keys.generation

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller that a token names. Raises NotAuthenticated, Unavailable."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _TOKEN_BYTES:
            raise refused("a token is needed")
        now = self._clock()
        self._keys.renew()
        self._forget_old_keys()
        presented = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(presented)
        if known is not None and now < known[0]:
            self._known.move_to_end(presented)
            return known[1]
        try:
            caller = await self._check(token, now)
        except NotAuthenticated as error:
            raise refused(error.detail) from error
        assert caller.expires_at is not None
        self._forget_old_keys()
        self._known[presented] = (min(caller.expires_at, now + _KEPT_SECONDS), caller)
        while len(self._known) > _KEPT_TOKENS:
            self._known.popitem(last=False)
        return caller

    def _forget_old_keys(self) -> None:
        if self._generation != self._keys.generation:
            self._known.clear()
            self._generation = self._keys.generation

    async def _check(self, token: str, now: float) -> Caller:
        policy = self._policy
        try:
            header = jwt.get_unverified_header(token)
            alg, kid = header.get("alg"), header.get("kid")
            if not isinstance(alg, str) or alg not in policy.algorithms:
                msg = "the token's algorithm is not accepted"
                raise NotAuthenticated(msg)
            if "crit" in header or "b64" in header:
                msg = "the token demands an extension"
                raise NotAuthenticated(msg)
            key = await self._keys.find(kid, alg)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[alg],
                audience=policy.audience,
                issuer=self._keys.issuer,
                # The times are checked below, by our own clock.
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.InvalidTokenError, UnicodeError, TypeError) as error:
            msg = _REASONS.get(type(error), "the token is not valid")
            raise NotAuthenticated(msg) from error
        ends = self._check_times(claims, now)
        return Caller(self._tenant(claims), _actor(claims), _scopes(claims.get(policy.scope_claim)), ends)

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        """Return when the token ends, clock difference included."""
        leeway = self._policy.leeway
        ends = _time(claims, "exp")
        assert ends is not None
        if now >= ends + leeway:
            msg = "the token has expired"
            raise NotAuthenticated(msg)
        for claim in ("nbf", "iat"):
            begins = _time(claims, claim)
            if begins is not None and now < begins - leeway:
                msg = "the token is not valid yet"
                raise NotAuthenticated(msg)
        return ends + leeway

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        tenant = claims.get(self._policy.tenant_claim)
        if not isinstance(tenant, str) or not is_tenant(tenant):
            msg = "the token names no tenant"
            raise NotAuthenticated(msg)
        return tenant


_REASONS: Final[Mapping[type[Exception], str]] = {
    jwt.InvalidAudienceError: "the token is for somebody else",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.MissingRequiredClaimError: "the token lacks a claim: exp, iss, aud and sub are needed",
    jwt.InvalidSignatureError: "the token's signature is wrong",
}


def refused(detail: str) -> NotAuthenticated:
    """Return the error with the challenge of RFC 6750 3.1."""
    error = NotAuthenticated(detail)
    error.headers["WWW-Authenticate"] = f'Bearer realm="wetread", error="invalid_token", error_description="{detail}"'
    return error


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name != "exp":
        return None
    # Beyond 2^53 no number is a time, and some cannot even be made a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        msg = f"the token's {name} is not a time"
        raise NotAuthenticated(msg)
    return float(value)


def _actor(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        msg = "the token's subject cannot be used"
        raise NotAuthenticated(msg)
    return subject


def _scopes(claim: object) -> frozenset[Scope]:
    """Return the scopes of a blank-separated string (RFC 9068 2.2.3) or an array; those of other services are left."""
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    return frozenset(_SCOPES[name] for name in names if isinstance(name, str) and name in _SCOPES)
