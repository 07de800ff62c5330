"""Finds the route of a path before the body is read, and with it what the route needs.

The framework looks for the route itself, once more, behind this. Where the two could differ the request is refused: a
path without a route here never gets there, and of several routes that match, the needs of all have to be met.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.routing import BaseRoute, Route, WebSocketRoute

from wetread.bootstrap.permissions import Need, Needs
from wetread.core.errors import ConfigurationError

PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)(:path)?\}")
_SUBJECTS: Final = frozenset({"study", "study_uid", "uid"})
"""Placeholders that stand for the UID of a study or workitem."""


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """``needs`` by method; ``subject``: which segment of the path holds the UID of a study or workitem."""

    template: str
    needs: Mapping[str, Needs]
    subject: int | None


@dataclass(slots=True)
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    mixed: list[tuple[re.Pattern[str], _Node]] = field(default_factory=list)
    wild: _Node | None = None
    here: FoundRoute | None = None
    below: FoundRoute | None = None
    """Route whose last placeholder takes the rest of the path."""


class RouteTable:
    """The routes of an application with their needs; what *permissions* does not list is refused to everybody."""

    def __init__(self, routes: Iterable[BaseRoute], permissions: Mapping[str, Needs]) -> None:
        needs: dict[str, dict[str, Needs]] = {}
        for method, template in routes_of(routes):
            asked = "GET" if method == "HEAD" else method
            needs.setdefault(template, {})[method] = permissions.get(f"{asked} {template}", Need.REFUSED)
        self._root = _Node()
        for template, methods in needs.items():
            self._insert(template, methods)

    def find(self, path: str) -> list[FoundRoute]:
        """Return the routes of a path, the most literal first."""
        nodes = [self._root]
        found: list[FoundRoute] = []
        for segment in path.split("/")[1:]:
            following: list[_Node] = []
            for node in nodes:
                if node.below is not None:
                    found.append(node.below)
                literal = node.literal.get(segment)
                if literal is not None:
                    following.append(literal)
                following += [child for pattern, child in node.mixed if pattern.fullmatch(segment)]
                if node.wild is not None and segment:
                    following.append(node.wild)
            nodes = following
            if not nodes:
                return found
        return [node.here for node in nodes if node.here is not None] + found

    def _insert(self, template: str, needs: Mapping[str, Needs]) -> None:
        segments = template.split("/")[1:]
        subject = next(
            (at for at, segment in enumerate(segments, 1) if (m := PLACEHOLDER.match(segment)) and m[1] in _SUBJECTS),
            None,
        )
        route = FoundRoute(template, needs, subject)
        node = self._root
        for segment in segments:
            placeholder = PLACEHOLDER.fullmatch(segment)
            if placeholder is not None and placeholder[2]:
                node.below = route
                return
            node = _child(node, segment, is_wild=placeholder is not None)
        node.here = route


def _child(node: _Node, segment: str, *, is_wild: bool) -> _Node:
    if is_wild:
        node.wild = node.wild or _Node()
        return node.wild
    if "{" not in segment:
        return node.literal.setdefault(segment, _Node())
    parts = PLACEHOLDER.split(segment)
    pattern = re.compile("[^/]+".join(re.escape(part) for part in parts[::3]), re.DOTALL)
    for known, child in node.mixed:
        if known == pattern:
            return child
    child = _Node()
    node.mixed.append((pattern, child))
    return child


def routes_of(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield method (``WEBSOCKET`` for websockets) and template of every route; included routers hold routes.

    Raises ConfigurationError for a kind of route whose needs could not be checked.
    """
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner.routes, prefix + getattr(getattr(route, "include_context", None), "prefix", ""))
        elif isinstance(route, WebSocketRoute):
            yield "WEBSOCKET", prefix + route.path
        elif isinstance(route, Route):
            for method in sorted(route.methods or ()):
                yield method, prefix + route.path
        else:
            msg = f"a route of this kind cannot be guarded: {type(route).__name__}"
            raise ConfigurationError(msg)
