"""Signatures of webhooks: HMAC-SHA-256 over ``id.timestamp.body``, compatible with Standard Webhooks 1.0.

Receivers call ``verify_signature``; it needs nothing but the standard library.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets as random_source
from collections.abc import Mapping, Sequence
from typing import Final

from wetread.core.errors import InvalidInput, NotAuthenticated

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
TOLERANCE_SECONDS: Final = 300

_PREFIX: Final = "whsec_"
_MIN_KEY_BYTES: Final = 24
_MAX_KEY_BYTES: Final = 64


def generate_secret() -> str:
    """Return a fresh signing secret: ``whsec_`` + base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(random_source.token_bytes(32)).decode()


def check_secret(secret: str) -> str:
    """Return *secret* when it can sign (``whsec_`` + base64 of 24 to 64 bytes). Raises InvalidInput."""
    _key(secret)
    return secret


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature, ``v1,<base64>``. Raises InvalidInput for a malformed secret."""
    mac = hmac.new(_key(secret), f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def signature_headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers; one signature per secret, so that a key can rotate without a gap."""
    signatures = " ".join(sign(secret, message_id, timestamp, body) for secret in secrets)
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: signatures}


def verify_signature(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> str:
    """Return the message id of a genuine, recent webhook; de-duplicate by it.

    *body* is the raw request body, before any JSON parsing. Raises NotAuthenticated for anything else: a missing
    header, a clock more than the tolerance away (replay), no signature that fits.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    message_id = lower.get(ID_HEADER, "")
    given = lower.get(SIGNATURE_HEADER, "").split()
    try:
        timestamp = int(lower.get(TIMESTAMP_HEADER, ""))
    except ValueError as error:
        msg = "webhook-timestamp is missing or not a number"
        raise NotAuthenticated(msg) from error
    if not message_id or not given:
        msg = "webhook-id or webhook-signature is missing"
        raise NotAuthenticated(msg)
    if abs(now - timestamp) > tolerance_seconds:
        msg = "webhook-timestamp is outside the tolerance"
        raise NotAuthenticated(msg)
    for secret in secrets:
        expected = sign(secret, message_id, timestamp, body).encode()
        # Compared as bytes: compare_digest refuses text outside ASCII, which a sender may well put there.
        if any(hmac.compare_digest(expected, signature.encode()) for signature in given):
            return message_id
    msg = "no signature fits"
    raise NotAuthenticated(msg)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "a webhook secret is whsec_ and base64"
        raise InvalidInput(msg) from error
    if not secret.startswith(_PREFIX) or not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        msg = f"a webhook secret is whsec_ and base64 of {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} bytes"
        raise InvalidInput(msg)
    return key
