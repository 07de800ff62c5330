"""The signature against published vectors, and against everything a forger would try."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.errors import InvalidInput, NotAuthenticated
from wetread.core.webhook_signature import (
    check_secret,
    generate_secret,
    sign,
    signature_headers,
    verify_signature,
)

# The example of the Standard Webhooks specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_published_vector() -> None:
    assert sign(SECRET, MESSAGE, TIMESTAMP, BODY) == SIGNATURE


def test_a_genuine_webhook_is_accepted_whatever_the_case_of_its_headers() -> None:
    headers = {"Webhook-Id": MESSAGE, "WEBHOOK-TIMESTAMP": str(TIMESTAMP), "webhook-signature": SIGNATURE}
    assert verify_signature([SECRET], headers, BODY, now=TIMESTAMP + 10) == MESSAGE


def test_while_a_key_rotates_either_secret_verifies() -> None:
    new = generate_secret()
    headers = signature_headers([new, SECRET], MESSAGE, TIMESTAMP, BODY)
    assert headers["webhook-signature"].count("v1,") == 2
    for known in (new, SECRET):
        assert verify_signature([known], headers, BODY, now=TIMESTAMP) == MESSAGE


@pytest.mark.parametrize(
    ("headers", "body", "now"),
    [
        ({}, BODY, TIMESTAMP),
        ({"webhook-timestamp": "soon"}, BODY, TIMESTAMP),
        ({"webhook-id": ""}, BODY, TIMESTAMP),
        ({"webhook-id": "msg_other"}, BODY, TIMESTAMP),
        ({"webhook-timestamp": str(TIMESTAMP + 1)}, BODY, TIMESTAMP),
        ({"webhook-signature": ""}, BODY, TIMESTAMP),
        ({"webhook-signature": "v1,"}, BODY, TIMESTAMP),
        ({"webhook-signature": "v1,ü"}, BODY, TIMESTAMP),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v2,")}, BODY, TIMESTAMP),
        (None, BODY + b" ", TIMESTAMP),
        (None, BODY, TIMESTAMP + 301),
        (None, BODY, TIMESTAMP - 301),
    ],
)
def test_anything_else_is_refused(headers: dict[str, str] | None, body: bytes, now: float) -> None:
    genuine = {"webhook-id": MESSAGE, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}
    given_headers = {**genuine, **headers} if headers else (genuine if headers is None else {})
    with pytest.raises(NotAuthenticated):
        verify_signature([SECRET], given_headers, body, now=now)


def test_another_secret_does_not_verify() -> None:
    headers = signature_headers([SECRET], MESSAGE, TIMESTAMP, BODY)
    with pytest.raises(NotAuthenticated, match="no signature fits"):
        verify_signature([generate_secret()], headers, BODY, now=TIMESTAMP)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "secret",
        "whsec_",
        "whsec_!!!!",
        "whsec_" + base64.b64encode(b"short").decode(),
        SECRET.removeprefix("whsec_"),
    ],
)
def test_a_weak_or_malformed_secret_cannot_sign(secret: str) -> None:
    with pytest.raises(InvalidInput):
        check_secret(secret)


def test_made_secrets_are_sound_and_differ() -> None:
    assert check_secret(generate_secret()) != check_secret(generate_secret())


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_changed_body_never_verifies(body: bytes, other: bytes) -> None:
    headers = signature_headers([SECRET], MESSAGE, TIMESTAMP, body)
    if other == body:
        assert verify_signature([SECRET], headers, other, now=TIMESTAMP) == MESSAGE
    else:
        with pytest.raises(NotAuthenticated):
            verify_signature([SECRET], headers, other, now=TIMESTAMP)
