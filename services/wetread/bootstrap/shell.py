"""The outermost layer of the application: who calls, what the caller may do, how much of it, and a note of it.

All of it is decided before a byte of the body is read. The tenant comes from the credential, nothing in a request can
name another (ADR 1001).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.permissions import PERMISSIONS, STREAMS, STREAMS_BY_ACCEPT, Need, Needs
from wetread.bootstrap.plain_routes import OnError, answer, plain_routes
from wetread.bootstrap.problems import problem_response
from wetread.bootstrap.rates import Rates
from wetread.bootstrap.route_table import FoundRoute, RouteTable
from wetread.core import tracing
from wetread.core.access import LOCAL, Caller, Scope
from wetread.core.errors import Forbidden, NotAuthenticated, NotFound, TooManyRequests, WetreadError
from wetread.core.event_stream import asks_for_events
from wetread.core.identifiers import is_uid
from wetread.core.ports.access import Access, AccessLog, Authenticator
from wetread.core.shares import Shares
from wetread.core.tenants import Tenants

_BEARER_PROTOCOL: Final = "bearer."
_UNTRACED: Final = frozenset({Need.NOTHING, Scope.METRICS_READ})
_TOKEN_ENDED: Final = 3000
"""Close code "Unauthorized" of the IANA registry of WebSocket close codes."""


@dataclass(frozen=True, slots=True)
class Guards:
    """``authenticator`` None: no authentication, the server is bound to loopback. ``audit`` None: no audit trail."""

    authenticator: Authenticator | None = None
    audit: AccessLog | None = None
    tenants: Tenants = Tenants()  # noqa: RUF009 - it has no state
    permissions: Mapping[str, Needs] | None = None
    shares: Shares | None = None
    """What tenants use of the server; None: this process is all of it."""


class Shell:
    """ASGI layer around the application with the routes *routes*. ``on_error``: for those that it answers itself."""

    def __init__(
        self, app: ASGIApp, routes: list[BaseRoute], guards: Guards, metrics: Metrics, on_error: OnError
    ) -> None:
        self.app = app
        self._plain = plain_routes(routes)
        self._on_error = on_error
        self._table = RouteTable(routes, PERMISSIONS if guards.permissions is None else guards.permissions)
        self._authenticator = guards.authenticator
        self._audit = guards.audit
        self._rates = Rates(guards.tenants, guards.shares)
        self._metrics = metrics

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, self._table.find(scope["path"]))
        state = scope.setdefault("state", {})
        state["request_id"] = visit.request_id
        leave: Callable[[], None] | None = None
        started = time.perf_counter()
        self._metrics.began()
        try:
            try:
                visit.caller = await self._admit(visit)
                if visit.needs != [Need.NOTHING]:  # probes use up nobody's share
                    leave = self._rates.enter(visit.caller.tenant, stream=visit.stream)
            except WetreadError as error:
                await self._refuse(visit, error, receive, send)
                return
            state["tenant"], state["client"] = visit.caller.tenant, visit.caller.name
            if visit.stream and visit.caller.expires_at is not None:
                await self._until_expiry(visit, visit.caller.expires_at, receive, send)
            else:
                await self._answer(visit, receive, send)
        finally:
            if leave is not None:
                leave()
            self._metrics.ended()
            if scope["type"] == "http":
                seconds = time.perf_counter() - started
                self._metrics.answered(visit.template, scope["method"], visit.status, seconds)

    async def _admit(self, visit: _Visit) -> Caller:
        """Return the caller when its credential is good for all routes that the path may mean. Raises WetreadError."""
        if visit.needs == [Need.NOTHING] or self._authenticator is None:
            caller = LOCAL
        else:
            caller = visit.caller = await self._authenticator.authenticate(_authorization(visit.scope))
        if not visit.found and not _only_slash_differs(self._table, visit.scope["path"]):
            raise NotFound("there is no such resource")
        if self._authenticator is None:
            return caller
        for need in visit.needs:
            if need is Need.REFUSED:
                raise Forbidden("this resource is not open to anybody")
            if isinstance(need, Scope) and need not in caller.scopes:
                error = Forbidden(f"the credential lacks the scope {need}")
                error.headers["WWW-Authenticate"] = (
                    f'Bearer realm="wetread", error="insufficient_scope", scope="{need}"'
                )
                raise error
        return caller

    async def _refuse(self, visit: _Visit, error: WetreadError, receive: Receive, send: Send) -> None:
        if isinstance(error, NotAuthenticated | Forbidden | TooManyRequests):
            self._note(visit, error.http_status)
        visit.status = error.http_status
        response = problem_response(error, visit.scope["path"])
        response.headers["X-Request-Id"] = visit.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        if visit.scope["type"] == "http":
            await response(visit.scope, receive, send)
            return
        await receive()
        if "websocket.http.response" not in visit.scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        status, headers = response.status_code, response.raw_headers
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": response.body})

    async def _answer(self, visit: _Visit, receive: Receive, send: Send) -> None:
        """Have the application answer, in a span unless it is a stream, a probe, a scrape or nothing offered."""
        traced = not visit.stream and any(need not in _UNTRACED for need in visit.needs)
        if not traced or not tracing.enabled():
            await self._call(visit, receive, send)
            return
        sent = [value for name, value in visit.scope["headers"] if name == b"traceparent"]
        parent = tracing.parse(sent[0].decode("latin-1")) if len(sent) == 1 else None
        # The path is left out, although the convention wants it: it holds UIDs.
        attributes = {
            "http.request.method": visit.method,
            "http.route": visit.template,
            "url.scheme": visit.scope["scheme"],
        }
        name = f"{visit.method} {visit.template}"
        with tracing.span(name, kind="server", parent=parent, attributes=attributes) as span:
            try:
                await self._call(visit, receive, send)
            finally:
                span.set("http.response.status_code", visit.status)
                if visit.status >= 500:
                    span.fail(str(visit.status))

    async def _call(self, visit: _Visit, receive: Receive, send: Send) -> None:
        """Call a plain route directly, everything else through the framework (ADR 0207)."""
        plain = self._plain.get(visit.template)
        if plain is None or len(visit.found) > 1 or visit.method not in plain.methods:
            await self.app(visit.scope, receive, self._watched(visit, send))
            return
        visit.scope.setdefault("app", self.app)
        await answer(plain, self._on_error, visit.scope, receive, self._watched(visit, send))

    def _watched(self, visit: _Visit, send: Send) -> Send:
        """Return *send* that sees the answer begin: that is what is noted, an open stream too."""

        async def watched(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", visit.request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                self._note_answer(visit)
            elif kind == "websocket.accept":
                visit.status = 101
                offered = visit.scope.get("subprotocols") or ()
                if message.get("subprotocol") is None and offered:
                    # A browser drops a connection that takes none of the protocols it offered.
                    message["subprotocol"] = offered[0]
                self._note_answer(visit)
            elif kind == "websocket.http.response.start":
                visit.status = message["status"]
                self._note_answer(visit)
            await send(message)

        return watched

    async def _until_expiry(self, visit: _Visit, ends: float, receive: Receive, send: Send) -> None:
        """Serve a stream until its credential ends (Unix seconds) at the latest."""
        try:
            async with asyncio.timeout(ends - time.time()):
                await self.app(visit.scope, receive, self._watched(visit, send))
        except TimeoutError:
            if visit.scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _TOKEN_ENDED, "reason": "the credential has expired"})
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _note_answer(self, visit: _Visit) -> None:
        if any(isinstance(need, Scope) and need is not Scope.METRICS_READ for need in visit.needs):
            self._note(visit, visit.status)

    def _note(self, visit: _Visit, status: int) -> None:
        if self._audit is None:
            return
        caller, scope, now = visit.caller, visit.scope, time.time()
        peer = scope.get("client")
        action, address = f"{visit.method} {visit.template}", peer[0] if peer else ""
        tenant, actor = (caller.tenant, caller.name or "local") if caller else ("", "")
        # Who stores names the studies only within the body: the endpoint has put them here.
        for study in scope["state"].get("studies") or (visit.subject(),):
            # A UID that is none may be anything, a patient's name too.
            access = Access(tenant, actor, action, study if is_uid(study) else "", str(status), address)
            self._audit.note(access, at=now, request_id=visit.request_id)


class _Visit:
    """One request or websocket on its way through the shell."""

    __slots__ = ("caller", "found", "method", "needs", "request_id", "scope", "status", "stream", "template")

    def __init__(self, scope: AsgiScope, found: list[FoundRoute]) -> None:
        self.scope = scope
        self.found = found
        self.request_id = secrets.token_hex(8)
        self.method: str = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        self.template = found[0].template if found else "unmatched"
        self.needs: list[Needs] = [route.needs[self.method] for route in found if self.method in route.needs]
        """What the routes ask for; nothing for a method that they do not offer (405)."""
        self.stream = self.method == "WEBSOCKET" or self.template in STREAMS or self._asks_for_events()
        self.status = 500
        self.caller: Caller | None = None

    def _asks_for_events(self) -> bool:
        if self.template not in STREAMS_BY_ACCEPT:
            return False
        return asks_for_events(Headers(scope=self.scope).get("accept"))

    def subject(self) -> str:
        """Return what stands for the UID of a study or workitem in the path, empty when nothing does."""
        position = self.found[0].subject if self.found else None
        if position is None:
            return ""
        return str(self.scope["path"]).split("/")[position].partition(":")[0]


def _authorization(scope: AsgiScope) -> str | None:
    """Return the credential: of the header, or for websockets of a browser, which cannot set it, of a subprotocol."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) > 1:
        raise NotAuthenticated("one Authorization header is needed")
    if scope["type"] == "websocket":
        offered = scope.get("subprotocols") or []
        tokens = [name for name in offered if name.startswith(_BEARER_PROTOCOL)]
        scope["subprotocols"] = [name for name in offered if not name.startswith(_BEARER_PROTOCOL)]
        if tokens and not values:
            return f"Bearer {tokens[0].removeprefix(_BEARER_PROTOCOL)}"
    return values[0].decode("latin-1") if values else None


def _only_slash_differs(table: RouteTable, path: str) -> bool:
    """Return whether the framework would redirect to the route: a slash too many or too few at the end."""
    return bool(table.find(path.removesuffix("/") if path.endswith("/") else f"{path}/"))
