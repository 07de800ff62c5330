"""The layer that sees a request as the client sent it to the outermost trusted proxy (RFC 7239).

Whoever makes a URL afterwards, or notes an address, finds it where it would be without proxies: scheme, ``Host``,
server, client. From any other peer the headers change nothing.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from wetread.bootstrap.forwarded import Seen, TrustedNetworks

_HEADERS: Final = frozenset(
    {b"forwarded", b"via", *(b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"port", b"prefix"))}
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_WEBSOCKET: Final = {"http": "ws", "https": "wss"}
_HTTP: Final = {"ws": "http", "wss": "https"}


class Proxies:
    """ASGI layer, the outermost one."""

    def __init__(self, app: ASGIApp, networks: TrustedNetworks) -> None:
        self.app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client") if scope["type"] in ("http", "websocket") else None
        seen = None if peer is None else self._networks.seen(peer[0], scope["headers"])
        await self.app(scope if seen is None else as_seen(scope, seen), receive, send)


def as_seen(scope: Scope, seen: Seen) -> Scope:
    """Return the scope of the request as it was seen. What is not said stays; an unsaid port is the scheme's."""
    came: str = scope["scheme"]
    scheme = seen.scheme or _HTTP.get(came, came)
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    named = seen.host or (hosts[0] if len(hosts) == 1 else "")
    # The port of a name that a proxy passes on stands for itself; one that is said apart goes with a name without one.
    ported = named.rpartition(":")[2].isdecimal()
    port = seen.port if seen.host or not ported else None
    if named and port is not None and port != _DEFAULT_PORTS[scheme]:
        named = f"{named}:{port}"
    headers = [(name, value) for name, value in scope["headers"] if name not in _HEADERS and name != b"host"]
    if named:
        headers.append((b"host", named.encode("latin-1")))
    server = scope.get("server")
    return {
        **scope,
        "scheme": _WEBSOCKET[scheme] if scope["type"] == "websocket" else scheme,
        "headers": headers,
        # Not where it arrived: where the client sent it. Else the port of the connection would be added to the name.
        "server": (server[0] if server else named, port or _DEFAULT_PORTS[scheme]),
        "client": (seen.address, 0),
        # Starlette puts it in front of its base URL and looks for routes without it.
        "app_root_path": seen.prefix,
    }
