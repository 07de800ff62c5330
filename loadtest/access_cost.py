"""What authentication, scopes, rates and audit cost per request: the shell around an empty application, against none.

CPU of the whole process (the audit writer's thread too), per request, for each kind of credential; no network, no
store. The trail is a real SQLite file. ``python loadtest/run.py access_cost [requests] [rounds]``.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from wetread.adapters.audit.journal import AccessJournal
from wetread.adapters.audit.trail import SqlAccessTrail
from wetread.adapters.auth.api_keys import ApiKeys
from wetread.adapters.auth.issuer_keys import IssuerKeys, PublicKey
from wetread.adapters.auth.oidc import OidcTokens, TokenPolicy
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.house import House
from wetread.bootstrap.shell import Guards, Shell
from wetread.bootstrap.web import error_response
from wetread.core.ports.access import Authenticator
from wetread.core.tenants import TenantFile, TenantPolicy, Tenants
from wetread.registry import WEB
from wetread.settings import Settings

ISSUER = "https://idp.example"


class FixedKeys(IssuerKeys):
    """The keys of an issuer that need no fetching."""

    def __init__(self, key: Any) -> None:
        super().__init__(ISSUER)
        self._keys = (PublicKey("k", ("RSA", None), None, key),)
        self._fetched = self._attempted = time.monotonic()


async def nothing(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def drop(_message: Any) -> None:
    pass


def scope(headers: Sequence[tuple[bytes, bytes]], study: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/dicom-web/studies",
        "query_string": b"",
        "headers": [(b"host", b"x"), (b"content-type", b"multipart/related"), *headers],
        "client": ("127.0.0.1", 5),
        "state": {"studies": (study,)},
    }


def cpu_per_request(
    app: Any, headers: Sequence[tuple[bytes, bytes]], requests: int, journal: AccessJournal, *, per_study: int
) -> float:
    """Return microseconds of CPU per request; *per_study* requests in a row are about the same study."""

    async def run() -> None:
        for number in range(requests):
            study = f"1.2.840.113619.2.55.3.604688119.969.1268071029.{number // per_study}"
            await app(scope(headers, study), None, drop)

    journal.open()
    begun = time.process_time()
    asyncio.run(run())
    journal.close()
    return (time.process_time() - begun) / requests * 1e6


def main(arguments: Sequence[str]) -> int:
    """Print medians of the rounds."""
    requests = int(arguments[0]) if arguments else 20_000
    rounds = int(arguments[1]) if len(arguments) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        house = House(Settings(data=folder / "house"), shard="web")
        routes = house.application(house.services(WEB)).app.app.routes  # type: ignore[attr-defined]
        database = SqlDatabase(folder / "wetread.db", full_sync=False)
        database.create_schema()
        metrics = Metrics(database)
        (folder / "keys").write_text(
            "\n".join(f"{hashlib.sha256(f'k{n}'.encode()).hexdigest()} t{n} n" for n in range(1000))
        )
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        claims = {
            "iss": ISSUER,
            "aud": "w",
            "sub": "s",
            "exp": time.time() + 3600,
            "tenant": "t",
            "scope": "dicom.write",
        }
        token = jwt.encode(claims, private, "RS256", headers={"kid": "k"})
        policy = TokenPolicy("w", frozenset({"RS256"}))
        tokens = OidcTokens(FixedKeys(private.public_key()), policy)
        uncached = OidcTokens(FixedKeys(private.public_key()), policy)
        uncached._known = _Forgetful()  # type: ignore[assignment]  # noqa: SLF001
        rated = Tenants(TenantFile(default=TenantPolicy(requests_per_second=1e9, requests_at_once=1000)))
        kinds: dict[str, tuple[Authenticator | None, str, Tenants, bool]] = {
            "API key, audit, each request a study": (ApiKeys(folder / "keys"), "k500", Tenants(), True),
            "no authentication, no audit": (None, "", Tenants(), False),
            "audit": (None, "", Tenants(), True),
            "API key (of 1000), audit": (ApiKeys(folder / "keys"), "k500", Tenants(), True),
            "API key, audit, rate limits": (ApiKeys(folder / "keys"), "k500", rated, True),
            "JWT seen before, audit": (tokens, token, Tenants(), True),
            "JWT checked each time (RS256), audit": (uncached, token, Tenants(), True),
        }
        measured: dict[str, list[float]] = {kind: [] for kind in ["bare application", *kinds]}
        for _ in range(rounds):
            idle = AccessJournal(database, SqlAccessTrail())
            measured["bare application"].append(cpu_per_request(nothing, (), requests, idle, per_study=100))
            for kind, (authenticator, secret, tenants, audited) in kinds.items():
                journal = AccessJournal(database, SqlAccessTrail())
                shell = Shell(
                    nothing,
                    routes,
                    Guards(authenticator, journal if audited else None, tenants),
                    metrics,
                    error_response,
                )
                headers = ((b"authorization", f"Bearer {secret}".encode()),) if secret else ()
                per_study = 1 if "each request a study" in kind else 100
                measured[kind].append(cpu_per_request(shell, headers, requests, journal, per_study=per_study))
        house.close()
        database.close()
    bare = statistics.median(measured["bare application"])
    print(f"{requests} requests x {rounds} rounds, CPU of the process in us per request, median (min - max)")
    for kind, values in measured.items():
        median = statistics.median(values)
        print(f"{kind:40s} {median:7.1f}  ({min(values):.1f} - {max(values):.1f})   shell: {median - bare:6.1f}")
    return 0


class _Forgetful(dict[bytes, Any]):
    """Forgets every token at once."""

    def __setitem__(self, key: bytes, value: Any) -> None:
        pass
