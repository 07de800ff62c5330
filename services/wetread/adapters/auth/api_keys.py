"""API keys, hashed at rest. File format: one ``<sha256 hex of the key> <tenant> <name>`` per line, ``#`` comments."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from wetread.core.errors import ConfigurationError, NotAuthenticated

_LINE = re.compile(r"(?P<hash>[0-9a-f]{64})\s+(?P<tenant>[a-z0-9-]{1,63})\s+(?P<name>\S+)")


@dataclass(frozen=True, slots=True)
class Credential:
    """Who calls: the tenant and the name of the key."""

    tenant: str
    name: str


class ApiKeys:
    """The keys of a file. Raises ConfigurationError on a malformed line."""

    def __init__(self, path: Path) -> None:
        self._keys: list[tuple[bytes, Credential]] = []
        for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                msg = f"{path.name}:{number}: expected '<sha256 of key> <tenant> <name>'"
                raise ConfigurationError(msg)
            self._keys.append((bytes.fromhex(match["hash"]), Credential(match["tenant"], match["name"])))

    def authenticate(self, authorization: str | None) -> Credential:
        """Return the credential of an ``Authorization: Bearer <key>`` value. Raises NotAuthenticated."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and key:
            presented = hashlib.sha256(key.strip().encode()).digest()
            # Every key is compared, in constant time each.
            matches = [credential for stored, credential in self._keys if hmac.compare_digest(stored, presented)]
            if matches:
                return matches[0]
        msg = "a valid API key is needed: Authorization: Bearer <key>"
        raise NotAuthenticated(msg)
