"""Routes that take a request and return a response (DICOMweb's) are answered without the framework's layers.

Ten of them lie between the shell and an endpoint: for dependencies, validation and models, which such a route does not
have (ADR 0207). Everything else, refusals such as 405 and redirects too, goes through them.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from wetread.bootstrap.route_table import PLACEHOLDER

Endpoint = Callable[[Request], Awaitable[Response]]
OnError = Callable[[Request, Exception], tuple[Response, bool]]
"""Makes the answer of an error; True: nobody foresaw it, and the server has to see it as well."""

_CONVERTED: Final = frozenset({"StringConvertor", "PathConvertor"})


@dataclass(frozen=True, slots=True)
class PlainRoute:
    """``names``: placeholders and the segment of the path they stand for. ``rest``: the last takes all that follows."""

    template: str
    methods: frozenset[str]
    endpoint: Endpoint
    names: tuple[tuple[int, str], ...]
    rest: bool

    def parameters(self, path: str) -> dict[str, str]:
        """Return what the placeholders stand for in a path that matches."""
        segments = path.split("/")
        found = {name: segments[at] for at, name in self.names}
        if self.rest:
            at, name = self.names[-1]
            found[name] = "/".join(segments[at:])
        return found


def plain_routes(routes: Iterable[BaseRoute]) -> Mapping[str, PlainRoute]:
    """Return the plain routes by template; one that shares its template with another is none."""
    found: dict[str, PlainRoute | None] = {}
    for route in _flat(routes):
        template = getattr(route, "path", "")
        # A route of the framework is of a class of its own and may have dependencies.
        plain = _plain(route) if type(route) is Route else None
        found[template] = None if template in found else plain
    return {template: route for template, route in found.items() if route is not None}


def _flat(routes: Iterable[BaseRoute]) -> Iterable[BaseRoute]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        elif not getattr(getattr(route, "include_context", None), "prefix", ""):
            yield from _flat(inner.routes)


def _plain(route: Route) -> PlainRoute | None:
    convertors = {type(one).__name__ for one in route.param_convertors.values()}
    if not inspect.iscoroutinefunction(route.endpoint) or not convertors <= _CONVERTED or route.methods is None:
        return None
    names: list[tuple[int, str]] = []
    rest = False
    for at, segment in enumerate(route.path.split("/")):
        placeholder = PLACEHOLDER.fullmatch(segment)
        if placeholder is not None:
            names.append((at, placeholder[1]))
            rest = bool(placeholder[2])
        elif "{" in segment:
            return None
    return PlainRoute(route.path, frozenset(route.methods), route.endpoint, tuple(names), rest)


async def answer(route: PlainRoute, on_error: OnError, scope: Scope, receive: Receive, send: Send) -> None:
    """Call the endpoint of *route* and send what it returns, or the answer of its error.

    An error after the first byte is raised: the server then ends the connection.
    """
    scope["path_params"] = route.parameters(scope["path"])
    begun = False

    async def watched(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    request = Request(scope, receive, send)
    try:
        response: Any = await route.endpoint(request)
        await response(scope, receive, watched)
    except Exception as error:
        if begun:
            raise
        response, unforeseen = on_error(request, error)
        await response(scope, receive, send)
        if unforeseen:
            raise
