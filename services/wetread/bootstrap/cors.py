"""Cross-origin access for viewers: preflight on every path, an allow-list of origins, resource policy (WHATWG Fetch).

Outside the authentication layer: a preflight carries no credential, and a page has to be able to read a 401.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ResourcePolicy = Literal["cross-origin", "same-site", "same-origin"]

METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
EXPOSED: Final = (
    "Content-Range, Content-Location, ETag, Warning, Location, Retry-After, X-Request-Id, Accept-Ranges, "
    "Content-Disposition"
)
_MAX_AGE_SECONDS: Final = "7200"
_FIELD_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """``origins``: pages that may read answers (none: same origin only). ``resources``: who may embed them."""

    origins: frozenset[str] = frozenset()
    resources: ResourcePolicy = "cross-origin"


class Cors:
    """ASGI layer that answers preflights and marks answers."""

    def __init__(self, app: ASGIApp, policy: CorsPolicy) -> None:
        self.app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self._policy.origins and not any(name == b"origin" for name, _ in scope["headers"]):
            await self.app(scope, receive, self._embeddable(send))
            return
        asked = Headers(scope=scope)
        origin = asked.get("origin")
        allowed = origin if origin in self._policy.origins else None
        if scope["method"] == "OPTIONS" and origin is not None and "access-control-request-method" in asked:
            await _preflight(allowed, asked.get("access-control-request-headers", ""), send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Cross-Origin-Resource-Policy"] = self._policy.resources
                if self._policy.origins:
                    headers.add_vary_header("Origin")
                if allowed is not None:
                    headers["Access-Control-Allow-Origin"] = allowed
                    headers["Access-Control-Expose-Headers"] = EXPOSED
            await send(message)

        await self.app(scope, receive, send_marked)

    def _embeddable(self, send: Send) -> Send:
        """Return *send* that says who may embed the answer: all that is to be said to who is no page."""
        policy = (b"cross-origin-resource-policy", self._policy.resources.encode())

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        return send_marked


async def _preflight(allowed: str | None, wanted: str, send: Send) -> None:
    """Answer 204; without the allow headers when the origin is not on the list, so that the browser refuses."""
    headers = MutableHeaders()
    headers["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    if allowed is not None:
        headers["Access-Control-Allow-Origin"] = allowed
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Max-Age"] = _MAX_AGE_SECONDS
        if _FIELD_NAMES.fullmatch(wanted):
            headers["Access-Control-Allow-Headers"] = wanted
    await send({"type": "http.response.start", "status": 204, "headers": headers.raw})
    await send({"type": "http.response.body", "body": b""})
