"""Retrieve Capabilities: what the service offers, told from the routes it really has (PS3.18 8.9)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from wetread.core.dicomweb.media_types import DICOM, DICOM_JSON, DICOM_XML, OCTETS, accepts
from wetread.core.errors import NotAcceptable
from wetread.core.event_stream import EVENT_STREAM
from wetread.gateway.archives import ZIP
from wetread.gateway.bulkparts import METADATA
from wetread.gateway.documents import OFFERED
from wetread.gateway.responses import accepted, base_url, data_response, etag_of
from wetread.gateway.settings import GatewaySettings

WADL: Final = "application/vnd.sun.wadl+xml"
JSON: Final = "application/json"
_NAMESPACE: Final = "http://wadl.dev.java.net/2009/02"
_PLACEHOLDER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_RELATED: Final = "multipart/related; type="

_INSTANCES: Final = (f'{_RELATED}"{DICOM}"',)
_BULK: Final = (OCTETS, f'{_RELATED}"{OCTETS}"')
_RENDERED: Final = tuple(dict.fromkeys(media for offered in OFFERED.values() for media in offered))
# Media types by (method, last fixed segment of the path); what is not named here is DICOM JSON.
_MEDIA: Final[Mapping[tuple[str, str], Sequence[str]]] = {
    ("GET", "study"): (*_INSTANCES, ZIP),
    ("GET", "series-of-study"): (*_INSTANCES, ZIP),
    ("GET", "instance"): (*_INSTANCES, DICOM),
    ("GET", "frames"): _BULK,
    ("GET", "bulkdata"): _BULK,
    ("GET", "pixeldata"): _BULK[1:],
    ("GET", "rendered"): (*_RENDERED, *(f'{_RELATED}"{media}"' for media in _RENDERED)),
    ("GET", "thumbnail"): ("image/jpeg",),
    ("GET", "wado"): (DICOM, *_RENDERED),
    ("GET", "changefeed"): (JSON, EVENT_STREAM),
    ("GET", "latest"): (JSON,),
}
_QUERY: Final[Mapping[str, Sequence[str]]] = {
    "search": ("{attributeID}", "includefield", "fuzzymatching", "limit", "offset"),
    "rendered": ("accept", "charset", "window", "viewport", "quality"),
    "wado": (
        *("requestType", "studyUID", "seriesUID", "objectUID", "contentType", "charset", "transferSyntax"),
        *("frameNumber", "rows", "columns", "region", "windowCenter", "windowWidth", "imageQuality"),
    ),
}
"""Query parameters by the kind of resource."""

Node = dict[str, Any]


class CapabilitiesEndpoint:
    """``OPTIONS {base}/``; a preflight never gets here."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    async def __call__(self, request: Request) -> Response:
        """Answer with WADL as XML, or the same tree as JSON."""
        ranges = accepted(request, self._settings)
        # Where DICOM JSON is meant, clients say application/json: the parser reads one as the other.
        offers = ((WADL, WADL), (JSON, DICOM_JSON))
        media = next((name for name, taken_as in offers if accepts(ranges, taken_as)), None)
        if media is None:
            raise NotAcceptable(f"available: {WADL}, {JSON}")
        root = application(request.app.routes, self._settings.base_path, base_url(request, self._settings))
        body = orjson.dumps(root) if media == JSON else b'<?xml version="1.0" encoding="UTF-8"?>\n' + _xml(root)
        return data_response(request, body, etag=etag_of(body), media_type=media)


def application(routes: Iterable[BaseRoute], base_path: str, base: str) -> Node:
    """Return the WADL tree: ``name``, ``attributes`` and ``children`` of each element."""
    methods: dict[str, set[str]] = {}
    for path, offered in _paths(routes):
        if path.startswith(f"{base_path}/") and path != f"{base_path}/":
            methods.setdefault(path.removeprefix(f"{base_path}/"), set()).update(offered - {"HEAD", "OPTIONS"})
    resources = [_resource(path, sorted(found)) for path, found in sorted(methods.items())]
    return _node("application", {"xmlns": _NAMESPACE}, [_node("resources", {"base": f"{base}/"}, resources)])


def _paths(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield path and methods of every route; an included router is a route that holds routes."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _paths(inner.routes, prefix + getattr(getattr(route, "include_context", None), "prefix", ""))
        elif isinstance(route, Route) and route.methods:
            yield prefix + route.path, set(route.methods)


def _resource(path: str, methods: Sequence[str]) -> Node:
    plain = _PLACEHOLDER.sub(r"{\1}", path)
    names = [_node("param", {"name": name, "style": "template"}) for name in _PLACEHOLDER.findall(path)]
    return _node("resource", {"path": plain}, [*names, *(_method(method, path) for method in methods)])


def _method(method: str, path: str) -> Node:
    children = []
    kind = _kind(path)
    if method == "GET" and kind in _QUERY:
        names = _QUERY[kind]
        children.append(_node("request", {}, [_node("param", {"name": name, "style": "query"}) for name in names]))
    if method == "POST" and path in ("studies", "studies/{study}"):
        metadata = [media for kind in METADATA for media in (f'{_RELATED}"{kind}"', kind)]
        accepted = [f'{_RELATED}"{DICOM}"', DICOM, *metadata]
        children.append(_node("request", {}, [_node("representation", {"mediaType": media}) for media in accepted]))
    data_sets = (DICOM_JSON, f'{_RELATED}"{DICOM_XML}"') if method == "GET" else (DICOM_JSON,)
    media_types = _MEDIA.get((method, kind), () if method == "DELETE" else data_sets)
    children.append(_node("response", {}, [_node("representation", {"mediaType": media}) for media in media_types]))
    return _node("method", {"name": method}, children)


def _kind(path: str) -> str:
    """Return what a resource is: a search, an object, or its last fixed segment."""
    if path in ("studies", "series", "instances", "workitems") or path.endswith(("}/series", "}/instances")):
        return "search"
    levels = {"{study}": "study", "{series}": "series-of-study", "{instance}": "instance"}
    last = path.rpartition("/")[2]
    if last in levels:
        return levels[last]
    fixed = [part for part in path.split("/") if not part.startswith("{")]
    return fixed[-1]


def _node(name: str, attributes: Mapping[str, str], children: Sequence[Node] = ()) -> Node:
    return {"name": name, "attributes": dict(attributes), "children": list(children)}


def _xml(node: Node) -> bytes:
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in node["attributes"].items())
    inner = b"".join(_xml(child) for child in node["children"])
    name = node["name"]
    if not inner:
        return f"<{name}{attributes}/>".encode()
    return f"<{name}{attributes}>".encode() + inner + f"</{name}>".encode()
