"""The public keys of an OpenID Connect issuer: found by discovery, kept, renewed, and changed when the issuer rotates.

OpenID Connect Discovery 1.0 section 4, RFC 7517. The issuer's addresses come from the configuration and from the
issuer itself, never from a token.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import InvalidKeyError, PyJWKError

from wetread.core.errors import NotAuthenticated, Unavailable

logger = logging.getLogger("wetread.auth")

ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Signature algorithms (RFC 7518, RFC 8037) with the key type and curve each needs. All are asymmetric."""

_KINDS: Final = frozenset(ALGORITHMS.values())

_RENEW_SECONDS: Final = 300.0
_FORCED_SECONDS: Final = 10.0
"""Pause between two fetches that unknown key ids or a silent issuer cause."""
_STALE_SECONDS: Final = 24 * 3600.0
"""How long the last known keys are good for while the issuer does not answer."""
_TIMEOUT_SECONDS: Final = 5.0
_DOCUMENT_BYTES: Final = 1 << 20
_MINIMUM_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key of the issuer. ``alg``: the only algorithm it is for, when the issuer says so."""

    kid: str | None
    kind: tuple[str, str | None]
    alg: str | None
    key: Any

    def fits(self, alg: str) -> bool:
        """Return whether a signature by *alg* may be checked with this key."""
        return ALGORITHMS[alg] == self.kind and self.alg in (None, alg)


class IssuerKeys:
    """Keys of *issuer*. ``generation`` grows whenever the set changes. Nothing is fetched before it is needed."""

    def __init__(
        self,
        issuer: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self.generation = 0
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched: float | None = None
        self._attempted: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    def renew(self) -> None:
        """Begin to fetch the keys anew, beside the request, when they are due."""
        now = self._clock()
        if self._fetched is not None and now - self._fetched > _RENEW_SECONDS and self._may_fetch(now):
            self._begin()

    async def find(self, kid: str | None, alg: str) -> PublicKey:
        """Return the key that a token names. Raises NotAuthenticated, or Unavailable when the issuer is silent."""
        now = self._clock()
        if self._fetched is None or now - self._fetched > _STALE_SECONDS:
            if self._fetching is not None or self._may_fetch(now):
                await self._fetch()
            if self._fetched is None or self._clock() - self._fetched > _STALE_SECONDS:
                msg = "the issuer of tokens does not answer"
                raise Unavailable(msg, retry_after=_FORCED_SECONDS)
        self.renew()
        found = self._choose(kid, alg)
        if found is None and (self._fetching is not None or self._may_fetch(self._clock())):
            await self._fetch()
            found = self._choose(kid, alg)
        if found is None:
            msg = "the token is signed by a key that the issuer does not have"
            raise NotAuthenticated(msg)
        return found

    def _choose(self, kid: str | None, alg: str) -> PublicKey | None:
        fitting = [key for key in self._keys if key.fits(alg) and (kid is None or key.kid == kid)]
        # A token without a key id is accepted only when there is no choice.
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None

    def _may_fetch(self, now: float) -> bool:
        return self._attempted is None or now - self._attempted > _FORCED_SECONDS

    def _begin(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._attempted = self._clock()
            self._fetching = asyncio.create_task(self._replace())
        return self._fetching

    async def _fetch(self) -> None:
        # Shielded: a caller that goes away does not take the fetch of all others along.
        await asyncio.shield(self._begin())

    def _trust(self) -> ssl.SSLContext | bool:
        """Return the authorities of this machine, loaded once; nothing for an issuer on loopback without TLS."""
        if urlsplit(self.issuer).scheme == "http":
            return False
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context

    async def _replace(self) -> None:
        try:
            async with httpx.AsyncClient(verify=self._trust(), timeout=_TIMEOUT_SECONDS) as client:
                document = await _get(client, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
                keys = _public_keys(await _get(client, _place_of_keys(document, self.issuer)))
        except (Unavailable, httpx.HTTPError, httpx.InvalidURL) as error:
            logger.warning("the issuer's keys cannot be fetched", extra={"error": type(error).__name__})
        else:
            self._fetched = self._clock()
            if [_identity(key) for key in keys] != [_identity(key) for key in self._keys]:
                self._keys = keys
                self.generation += 1
                logger.info("the issuer's keys have changed", extra={"keys": len(keys)})
        finally:
            self._fetching = None


def _identity(key: PublicKey) -> tuple[Any, ...]:
    return key.kid, key.alg, key.key.public_numbers() if key.kind[0] != "OKP" else key.key.public_bytes_raw()


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Fetch one JSON object; no redirects. Raises Unavailable, httpx.HTTPError."""
    body = bytearray()
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != 200:
            msg = "the issuer does not answer with a document"
            raise Unavailable(msg)
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > _DOCUMENT_BYTES:
                msg = "the issuer's document is too large"
                raise Unavailable(msg)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        msg = "the issuer's document is not JSON"
        raise Unavailable(msg) from error
    if not isinstance(document, dict):
        msg = "the issuer's document is not an object"
        raise Unavailable(msg)
    return document


def _place_of_keys(document: Mapping[str, Any], issuer: str) -> str:
    """Return where the keys are: of this very issuer, by no weaker a scheme than its own. Raises Unavailable."""
    if document.get("issuer") != issuer:
        msg = "the discovery document is that of another issuer"
        raise Unavailable(msg)
    address = document.get("jwks_uri")
    if not isinstance(address, str) or urlsplit(address).scheme not in {"https", urlsplit(issuer).scheme}:
        msg = "the issuer names no place of its keys"
        raise Unavailable(msg)
    return address


def _public_keys(document: Mapping[str, Any]) -> tuple[PublicKey, ...]:
    """Return the keys of a JWK set that can check signatures; what cannot is left out (RFC 7517 5)."""
    found = []
    listed = document.get("keys")
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
            continue
        kind = next((kind for kind in _KINDS if kind == (entry.get("kty"), entry.get("crv"))), None)
        if kind is None:
            continue
        try:
            key = PyJWK(entry).key
        except (PyJWKError, InvalidKeyError, ValueError, TypeError):
            continue
        if isinstance(key, RSAPublicKey) and key.key_size < _MINIMUM_RSA_BITS:
            continue
        kid, alg = entry.get("kid"), entry.get("alg")
        if isinstance(kid, str | None) and isinstance(alg, str | None):
            found.append(PublicKey(kid, kind, alg, key))
    return tuple(found)
