"""A real OpenID Connect issuer on a loopback port: discovery, key set, and tokens signed with keys that rotate."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "wetread"
NOW = 1_790_000_000.0

_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
"""Shared by the tests of a run: making one takes a tenth of a second."""


class Issuer:
    """``keys``: private keys by key id. ``document``: replaces entries of the discovery document."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, Any] = {
            "rsa-1": _RSA,
            "ec-1": ec.generate_private_key(ec.SECP256R1()),
            "ed-1": ed25519.Ed25519PrivateKey.generate(),
        }
        self.document: dict[str, Any] = {}
        self.extra_keys: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.status = 200

    def public(self, kid: str) -> dict[str, Any]:
        key = self.keys[kid].public_key()
        family = {"RSAPublicKey": RSAAlgorithm, "Ed25519PublicKey": OKPAlgorithm}.get(type(key).__name__, ECAlgorithm)
        return {**json.loads(family.to_jwk(key)), "kid": kid, "use": "sig"}

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            body: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | self.document
        elif path == "/keys":
            body = {"keys": [self.public(kid) for kid in self.keys] + self.extra_keys}
        else:
            return 404, b""
        return self.status, json.dumps(body).encode()

    def token(self, kid: str | None = "rsa-1", alg: str = "RS256", key: Any = None, **changes: Any) -> str:
        """Return a signed token; a claim given as None is left out."""
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "pacs-1",
            "exp": NOW + 600,
            "iat": NOW,
            "tenant": "north",
            "scope": "openid dicom.read dicom.write",
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        signing = key if key is not None else self.keys[kid or "rsa-1"]
        return jwt.encode(claims, signing, algorithm=alg, headers={"kid": kid} if kid else None)


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run an issuer until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: tests read what the server says."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
