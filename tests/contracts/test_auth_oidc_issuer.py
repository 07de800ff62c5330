"""Tokens of a real issuer: what is accepted, what is refused, and what happens when keys rotate or the issuer dies."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.oidc_issuer import AUDIENCE, NOW, Issuer, issuing

from wetread.adapters.auth.issuer_keys import ALGORITHMS, IssuerKeys
from wetread.adapters.auth.oidc import OidcTokens, TokenPolicy
from wetread.core.access import Caller, Scope
from wetread.core.errors import NotAuthenticated, Unavailable

POLICY = TokenPolicy(AUDIENCE, frozenset({"RS256", "PS256", "ES256", "EdDSA"}))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


class Door:
    """Tokens at an authenticator with a settable clock."""

    def __init__(self, issuer: Issuer, policy: TokenPolicy = POLICY) -> None:
        self.now = NOW
        self.keys = IssuerKeys(issuer.url, clock=lambda: self.now)
        self.tokens = OidcTokens(self.keys, policy, clock=lambda: self.now)

    async def knock(self, token: str) -> Caller:
        return await self.tokens.authenticate(f"Bearer {token}")

    async def refused(self, token: str) -> str:
        with pytest.raises(NotAuthenticated) as caught:
            await self.knock(token)
        challenge = caught.value.headers["WWW-Authenticate"]
        assert challenge.startswith('Bearer realm="wetread", error="invalid_token"')
        return caught.value.detail


@pytest.mark.parametrize(("kid", "alg"), [("rsa-1", "RS256"), ("rsa-1", "PS256"), ("ec-1", "ES256"), ("ed-1", "EdDSA")])
def test_a_token_names_tenant_actor_scopes_and_end(issuer: Issuer, kid: str, alg: str) -> None:
    caller = asyncio.run(Door(issuer).knock(issuer.token(kid, alg)))
    scopes = frozenset({Scope.DICOM_READ, Scope.DICOM_WRITE})
    assert caller == Caller("north", "pacs-1", scopes, expires_at=NOW + 600 + POLICY.leeway)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(issuer: Issuer, alg: str = "none") -> str:
    return f"{segment({'alg': alg, 'kid': 'rsa-1'})}.{issuer.token().split('.')[1]}."


def confused(issuer: Issuer) -> str:
    """Return a token whose HMAC key is the issuer's public key (RFC 8725 2.1)."""
    import hashlib
    import hmac

    public = issuer.keys["rsa-1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{segment({'alg': 'HS256', 'kid': 'rsa-1'})}.{issuer.token().split('.')[1]}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered(issuer: Issuer) -> str:
    head, payload, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{head}.{segment(claims | {'tenant': 'south'})}.{signature}"


def critical(issuer: Issuer) -> str:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "x", "exp": NOW + 60, "tenant": "north"}
    return jwt.encode(claims, issuer.keys["rsa-1"], "RS256", headers={"kid": "rsa-1", "crit": ["x"], "x": 1})


REFUSED = {
    "alg none": (unsigned, "algorithm"),
    "alg None": (lambda i: unsigned(i, "None"), "algorithm"),
    "HMAC with the public key": (confused, "algorithm"),
    "algorithm of the list that the policy lacks": (lambda i: i.token("rsa-1", "RS384"), "algorithm"),
    "key of another kind": (lambda i: i.token("ec-1", "RS256", i.keys["rsa-1"]), "does not have"),
    "changed claims": (tampered, "signature"),
    "key of somebody else": (
        lambda i: i.token(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "signature",
    ),
    "unknown extension": (critical, ""),
    "expired": (lambda i: i.token(exp=NOW - 31), "expired"),
    "not yet": (lambda i: i.token(nbf=NOW + 31), "not valid yet"),
    "from the future": (lambda i: i.token(iat=NOW + 31), "not valid yet"),
    "no end": (lambda i: i.token(exp=None), "lacks a claim"),
    "end is text": (lambda i: i.token(exp="soon"), "not a time"),
    "end is infinite": (lambda i: i.token(exp=float("inf")), ""),
    "end is huge": (lambda i: i.token(exp=10**400), "not a time"),
    "another issuer": (lambda i: i.token(iss="https://evil.example"), "another issuer"),
    "no audience": (lambda i: i.token(aud=None), "lacks a claim"),
    "another audience": (lambda i: i.token(aud=["viewer", "pacs"]), "somebody else"),
    "no subject": (lambda i: i.token(sub=None), "lacks a claim"),
    "subject with a line break": (lambda i: i.token(sub="a\nb"), "subject"),
    "no tenant": (lambda i: i.token(tenant=None), "tenant"),
    "tenant that is none": (lambda i: i.token(tenant="../south"), "tenant"),
    "tenants": (lambda i: i.token(tenant=["north"]), "tenant"),
    "not a token": (lambda _: "eyJ.eyJ.x", ""),
    "too long": (lambda _: "eyJ" + "a" * 20_000 + ".a.a", ""),
    "bytes": (lambda _: "eyJ\udcff.a.a", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(issuer: Issuer, name: str) -> None:
    make, said = REFUSED[name]
    assert said in asyncio.run(Door(issuer).refused(make(issuer)))


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        (None, set()),
        ("", set()),
        ("dicom.delete unknown", {Scope.DICOM_DELETE}),
        (["ups.read", 7, "admin"], {Scope.UPS_READ, Scope.ADMIN}),
        ({"dicom.read": True}, set()),
    ],
)
def test_scopes_are_a_string_or_an_array_and_strange_ones_give_nothing(
    issuer: Issuer, claim: object, scopes: set[Scope]
) -> None:
    assert asyncio.run(Door(issuer).knock(issuer.token(scope=claim))).scopes == scopes


def test_claims_are_taken_from_where_the_policy_says(issuer: Issuer) -> None:
    policy = TokenPolicy(AUDIENCE, POLICY.algorithms, tenant_claim="https://x.example/site", scope_claim="scp")
    token = issuer.token(**{"https://x.example/site": "south", "scp": ["ups.perform"]})
    caller = asyncio.run(Door(issuer, policy).knock(token))
    assert (caller.tenant, caller.scopes) == ("south", {Scope.UPS_PERFORM})


def test_a_remembered_token_is_checked_once_and_ends_on_time(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        door, token = Door(issuer), issuer.token()
        decode, checks = jwt.decode, []
        monkeypatch.setattr(jwt, "decode", lambda *a, **k: checks.append(1) or decode(*a, **k))
        first = await door.knock(token)
        assert await door.knock(token) is first
        assert len(checks) == 1
        door.now += 600 + POLICY.leeway - 1
        assert (await door.knock(token)).tenant == "north"
        door.now += 1
        assert "expired" in await door.refused(token)

    asyncio.run(run())


def test_a_rotated_key_is_found_and_a_withdrawn_one_is_worth_nothing(issuer: Issuer) -> None:
    async def run() -> None:
        door = Door(issuer)
        old = issuer.token("ec-1", "ES256", exp=NOW + 9000)
        await door.knock(old)
        issuer.keys = {"ec-2": ec.generate_private_key(ec.SECP256R1())}
        door.now += 11
        assert (await door.knock(issuer.token("ec-2", "ES256"))).tenant == "north"
        assert "does not have" in await door.refused(old), "also when it had been remembered"

    asyncio.run(run())


def test_a_withdrawn_key_is_noticed_without_a_new_one(issuer: Issuer) -> None:
    async def run() -> None:
        door = Door(issuer)
        old = issuer.token("ec-1", "ES256", exp=NOW + 9000)
        await door.knock(old)
        del issuer.keys["ec-1"]
        door.now += 301
        await door.knock(old)  # begins to look, and does not wait
        while door.keys.generation == 1:  # noqa: ASYNC110 - nobody tells when the issuer has answered
            await asyncio.sleep(0.005)
        assert "does not have" in await door.refused(old)

    asyncio.run(run())


def test_unknown_key_ids_do_not_make_us_flood_the_issuer(issuer: Issuer) -> None:
    async def run() -> None:
        door = Door(issuer)
        await door.knock(issuer.token())
        for number in range(20):
            await door.refused(issuer.token(f"guess-{number}", key=issuer.keys["rsa-1"]))
        assert issuer.asked.count("/keys") == 1
        door.now += 11
        await asyncio.gather(*(door.refused(issuer.token(f"g-{n}", key=issuer.keys["rsa-1"])) for n in range(20)))
        assert issuer.asked.count("/keys") == 2

    asyncio.run(run())


def test_the_issuer_may_be_silent_for_a_day_but_not_at_the_start(issuer: Issuer) -> None:
    async def run() -> None:
        issuer.status = 500
        door = Door(issuer)
        with pytest.raises(Unavailable):
            await door.knock(issuer.token())
        with pytest.raises(Unavailable):
            await door.knock(issuer.token())
        assert len(issuer.asked) == 1, "a silent issuer is left alone for a while"
        issuer.status = 200
        door.now += 11
        await door.knock(issuer.token())
        issuer.status = 500
        door.now += 23 * 3600
        assert (await door.knock(issuer.token(exp=door.now + 60))).tenant == "north"
        door.now += 2 * 3600
        with pytest.raises(Unavailable):
            await door.knock(issuer.token(exp=door.now + 60))

    asyncio.run(run())


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"padding": "x" * (1 << 20)},
    ],
    ids=["issuer", "scheme", "no keys", "size"],
)
def test_a_discovery_document_that_is_wrong_is_not_used(issuer: Issuer, document: dict[str, object]) -> None:
    issuer.document = document
    with pytest.raises(Unavailable):
        asyncio.run(Door(issuer).knock(issuer.token()))


def test_keys_that_cannot_check_signatures_are_left_out(issuer: Issuer) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer.keys["weak"] = weak
    encryption = issuer.public("rsa-1") | {"use": "enc", "kid": "enc"}
    bound = issuer.public("rsa-1") | {"alg": "PS256", "kid": "bound"}
    issuer.extra_keys = [
        encryption,
        bound,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
        {"kty": "RSA", "kid": "torn"},
        {"kty": "EC", "crv": "P-999", "kid": "curve"},
        {"kty": ["RSA"], "kid": "odd"},
        "nonsense",
    ]  # type: ignore[list-item]

    async def run() -> None:
        door = Door(issuer)
        key = issuer.keys["rsa-1"]
        with pytest.warns(match="below the minimum"):
            short = issuer.token("weak")
        for token in (short, issuer.token("enc", key=key), issuer.token("bound", key=key)):
            assert "does not have" in await door.refused(token)
        assert await door.knock(issuer.token("bound", "PS256", key))
        assert await door.knock(issuer.token(None, "ES256", issuer.keys["ec-1"])), "one key of this kind: no id needed"
        assert "does not have" in await door.refused(issuer.token(None, "PS256", key)), "two of this kind"

    asyncio.run(run())


def test_no_algorithm_has_a_shared_secret() -> None:
    assert {kind for kind, _ in ALGORITHMS.values()} == {"RSA", "EC", "OKP"}
