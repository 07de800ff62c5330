"""Two kinds of bearer credential: what looks like a JWT is checked with the issuer's keys, the rest is an API key."""

from __future__ import annotations

from wetread.core.access import Caller
from wetread.core.errors import NotAuthenticated
from wetread.core.ports.access import Authenticator


class Bearer:
    """``keys`` and ``tokens``: who recognises opaque keys and JWTs (RFC 7519); None where that is not configured."""

    def __init__(self, keys: Authenticator | None, tokens: Authenticator | None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller. Raises NotAuthenticated."""
        credential = (authorization or "").partition(" ")[2]
        # A compact JWS has two dots and its header is a JSON object (RFC 7515 7.1); keys are hex or base64 by custom.
        chosen = self._tokens if credential.count(".") == 2 and credential.lstrip().startswith("eyJ") else self._keys
        if chosen is None:
            msg = "a valid credential is needed: Authorization: Bearer <token>"
            raise NotAuthenticated(msg)
        return await chosen.authenticate(authorization)
