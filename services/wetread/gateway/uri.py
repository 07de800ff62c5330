"""WADO-URI: one instance by query parameters, as DICOM or rendered (PS3.18 9); an adapter over the RESTful ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from wetread.core.dicomweb.media_types import DICOM, MediaType, parse_accept
from wetread.core.errors import InvalidInput, NotAcceptable
from wetread.core.identifiers import check_uid, is_uid
from wetread.gateway.rendered import RenderEndpoints
from wetread.gateway.rendering import SIDE_LIMIT, RenderOptions, Viewport, parse_quality
from wetread.gateway.responses import accepted
from wetread.gateway.retrieval import RetrieveEndpoints
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.windowing import Window, parse_window

_NAMED: Final = {"study": "studyUID", "series": "seriesUID", "instance": "objectUID"}
_OF_PICTURES: Final = (
    *("frameNumber", "rows", "columns", "region", "windowCenter", "windowWidth", "imageQuality"),
    *("annotation", "imageAnnotation", "presentationUID", "presentationSeriesUID"),
)
_KNOWN: Final = frozenset(
    {"requestType", "contentType", "charset", "anonymize", "transferSyntax", *_NAMED.values(), *_OF_PICTURES}
)
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")
_SHARE: Final = re.compile(r"(?:0(?:\.[0-9]{1,12})?|1(?:\.0{1,12})?|\.[0-9]{1,12})")

Region = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of width and height."""


@dataclass(frozen=True, slots=True)
class UriRequest:
    """What the parameters say. ``ranges``: of ``contentType``, empty without one."""

    path: dict[str, str]
    ranges: tuple[MediaType, ...]
    transfer_syntax: str | None = None
    frame: int | None = None
    window: Window | None = None
    size: tuple[int | None, int | None] = (None, None)
    """Columns and rows that the picture has to fit into."""
    region: Region | None = None
    quality: int = 90
    of_pictures: bool = False
    """Whether it has parameters that go with rendered types only."""


class UriEndpoint:
    """``GET {base}/wado?requestType=WADO&...``."""

    def __init__(self, retrieve: RetrieveEndpoints, rendered: RenderEndpoints, settings: GatewaySettings) -> None:
        self._retrieve = retrieve
        self._rendered = rendered
        self._settings = settings

    async def __call__(self, request: Request) -> Response:
        """Answer with the instance, or with what is rendered of it (PS3.18 9.4, 9.5)."""
        asked = parse_uri(request)
        # For the audit trail: the path names no study.
        request.state.studies = {asked.path["study"]}
        one = Request({**request.scope, "path_params": asked.path}, request.receive)
        ranges = asked.ranges or accepted(request, self._settings)
        if asked.ranges and 0 < sum(media.payload == DICOM for media in ranges) < len(ranges):
            msg = "DICOM and rendered media types are not mixed (PS3.18 8.7.5)"
            raise InvalidInput(msg)
        if ranges and ranges[0].payload == DICOM:
            if asked.of_pictures:
                msg = f"parameters of pictures do not go with {DICOM} (PS3.18 9.5.1.2)"
                raise InvalidInput(msg)
            syntax = {"transfer-syntax": asked.transfer_syntax} if asked.transfer_syntax else {}
            return await self._retrieve.files(one, (MediaType(DICOM, syntax),))
        if asked.transfer_syntax:
            msg = f"transferSyntax goes with {DICOM} (PS3.18 9.4.1.2.3)"
            raise InvalidInput(msg)
        options = RenderOptions(asked.window, await self._viewport(one, asked), asked.quality)
        frames = None if asked.frame is None else [asked.frame]
        # One instance is one part: a list of parts is no answer of this service (PS3.18 9.1.2.2.1).
        singles = tuple(media for media in ranges if not media.multipart)
        if not singles:
            msg = "the answer is a single part"
            raise NotAcceptable(msg)
        return await self._rendered.answer(one, options, frames, singles)

    async def _viewport(self, request: Request, asked: UriRequest) -> Viewport | None:
        columns, rows = asked.size
        if asked.region is None:
            return Viewport(columns or SIDE_LIMIT, rows or SIDE_LIMIT) if columns or rows else None
        width, height = await self._retrieve.matrix(request)
        left, top, right, bottom = asked.region
        cut = (left * width, top * height, (right - left) * width, (bottom - top) * height)
        if not columns and not rows:
            columns = max(round(cut[2]), 1)  # as large as it is stored
        return Viewport(columns or SIDE_LIMIT, rows or SIDE_LIMIT, cut)


def parse_uri(request: Request) -> UriRequest:
    """Return what a request asks for. Raises InvalidInput; parameters that nobody knows are ignored (PS3.18 8.3.1)."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            msg = "a parameter is given twice"
            raise InvalidInput(msg)
        if name in _KNOWN:
            found[name] = value
    if found.get("requestType") != "WADO":
        msg = "requestType is WADO"
        raise InvalidInput(msg)
    path = {level: found.get(name, "") for level, name in _NAMED.items()}
    for level, name in _NAMED.items():
        check_uid(path[level], name)
    if "anonymize" in found:
        # Ignored, the answer would be a patient's that somebody believes to be nobody's.
        msg = "instances are not anonymised here"
        raise InvalidInput(msg)
    if "presentationUID" in found or "presentationSeriesUID" in found:
        msg = "presentation states are not applied here"
        raise InvalidInput(msg)
    syntax = found.get("transferSyntax")
    if syntax is not None and not is_uid(syntax):
        msg = "transferSyntax is a UID"
        raise InvalidInput(msg)
    types = found.get("contentType", "").strip()
    ranges = parse_accept(None, types) if types else ()
    if types and (not ranges or any("*" in media.type for media in ranges)):
        msg = "contentType is media types without wild cards (PS3.18 9.1.2.2.1)"
        raise InvalidInput(msg)
    return UriRequest(
        path,
        ranges,
        syntax,
        frame=_count(found, "frameNumber", 10**9),
        window=_window(found),
        size=(_count(found, "columns", SIDE_LIMIT), _count(found, "rows", SIDE_LIMIT)),
        region=_region(found.get("region")),
        quality=parse_quality(found.get("imageQuality", "90")),
        of_pictures=any(name in found for name in _OF_PICTURES),
    )


def _count(found: dict[str, str], name: str, most: int) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not _COUNT.fullmatch(value) or int(value) > most:
        msg = f"{name} is a number from 1"
        raise InvalidInput(msg)
    return int(value)


def _window(found: dict[str, str]) -> Window | None:
    center, width = found.get("windowCenter"), found.get("windowWidth")
    if center is None and width is None:
        return None
    if center is None or width is None or "," in center + width:
        msg = "windowCenter and windowWidth go together (PS3.18 9.5.1.2.6)"
        raise InvalidInput(msg)
    return parse_window(f"{center},{width}")


def _region(text: str | None) -> Region | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) == 4 and all(_SHARE.fullmatch(part) for part in parts):
        left, top, right, bottom = (float(part) for part in parts)
        if left < right and top < bottom:
            return left, top, right, bottom
    msg = "region is left,top,right,bottom from 0 to 1 (PS3.18 9.5.1.2.5)"
    raise InvalidInput(msg)
