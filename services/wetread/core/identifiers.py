"""Identifiers: DICOM UIDs, deterministic result UIDs, and the hashes that stand for them in logs and keys."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import Any, Final

from wetread.core.errors import InvalidInput

_UID = re.compile(r"[0-9.]{1,64}")
_NAMESPACE: Final = uuid.UUID("6f1d2c0a-52c5-5f0e-9c55-b1f0d8f0a7e1")
"""Namespace of every version-5 UUID that wetread derives. Changing it changes all result UIDs."""

DEFAULT_TENANT: Final = "default"


def check_uid(value: str, name: str = "UID") -> str:
    """Return *value* when it is a UID as accepted on our paths (``[0-9.]{1,64}``).

    Looser than PS3.5 9.1 on purpose (real senders write leading zeros), but no other character ever passes.

    Raises InvalidInput.
    """
    if not _UID.fullmatch(value):
        msg = f"{name} is not a DICOM UID"
        raise InvalidInput(msg)
    return value


def is_uid(value: str) -> bool:
    """Return whether *value* may be stored as a UID."""
    return _UID.fullmatch(value) is not None


def canonical_json(value: Any) -> bytes:
    """Return the one byte form of a JSON value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(*parts: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of *parts*: ids, keys, references."""
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()


def derived_uid(*parts: Any) -> str:
    """Return a UID that is a pure function of *parts*: ``2.25.`` + version-5 UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, digest(*parts)).int}"


def random_uid() -> str:
    """Return a fresh ``2.25.`` UID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def log_ref(*parts: str) -> str:
    """Return a short reference to name something in a log line without naming a patient or a UID."""
    return digest(*parts)[:12]
