"""API keys, hashed at rest.

File format: one ``<sha256 hex of the key> <tenant> <name> [scopes] [until=YYYY-MM-DD]`` per line, ``#`` comments.
Scopes are separated by commas; a key without them may do everything in its tenant. The file is read again when it has
changed, so a key is withdrawn without a restart.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from wetread.core.access import TENANT_SCOPES, Caller, parse_scopes
from wetread.core.errors import ConfigurationError, InvalidInput, NotAuthenticated

logger = logging.getLogger("wetread.auth")

_LINE: Final = re.compile(
    r"(?P<hash>[0-9a-f]{64})\s+(?P<tenant>[a-z0-9-]{1,63})\s+(?P<name>\S{1,128})"
    r"(?:\s+(?P<scopes>[a-z.,]+))?(?:\s+until=(?P<until>\d{4}-\d\d-\d\d))?"
)
_LOOK_SECONDS: Final = 2.0
"""How often the file is looked at."""


class ApiKeys:
    """The keys of a file. Raises ConfigurationError on a malformed line."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._seen = self._state()
        self._looked = clock()
        self._keys = _read(path)

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller of an ``Authorization: Bearer <key>`` value. Raises NotAuthenticated."""
        now = self._clock()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._reload()
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and key:
            # Looked up by the digest of what was presented: how long that takes says nothing about a key.
            caller = self._keys.get(hashlib.sha256(key.strip().encode()).digest())
            if caller is not None and (caller.expires_at is None or now < caller.expires_at):
                return caller
        msg = "a valid API key is needed: Authorization: Bearer <key>"
        raise NotAuthenticated(msg)

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _reload(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._keys = _read(self._path)
        except (ConfigurationError, OSError) as error:
            # A half-written file must not lock everybody out; the keys before it stay until it can be read.
            logger.error("the file of API keys cannot be read: the keys before stay", extra={"error": str(error)})  # noqa: TRY400
        else:
            logger.info("API keys read again", extra={"keys": len(self._keys)})


def _read(path: Path) -> dict[bytes, Caller]:
    keys: dict[bytes, Caller] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            msg = f"{path.name}:{number}: expected '<sha256 of key> <tenant> <name> [scopes] [until=YYYY-MM-DD]'"
            raise ConfigurationError(msg)
        try:
            scopes = parse_scopes(match["scopes"].split(",")) if match["scopes"] else TENANT_SCOPES
            ends = _end_of_day(match["until"]) if match["until"] else None
        except (InvalidInput, ValueError) as error:
            msg = f"{path.name}:{number}: {error}"
            raise ConfigurationError(msg) from error
        keys[bytes.fromhex(match["hash"])] = Caller(match["tenant"], match["name"], scopes, ends)
    return keys


def _end_of_day(text: str) -> float:
    """Return the end of a day (UTC) in Unix seconds: a key is good on the day it names."""
    after = date.fromisoformat(text) + timedelta(days=1)
    return datetime(after.year, after.month, after.day, tzinfo=UTC).timestamp()
