"""WADO-RS rendered resources and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Final

from anyio.to_thread import run_sync
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wetread.core.dicom.attributes import text
from wetread.core.dicom.native_xml import to_xml
from wetread.core.dicomweb.media_types import MediaType
from wetread.core.dicomweb.multipart import MultipartWriter
from wetread.core.errors import InvalidInput, NotAcceptable, NotFound, PayloadTooLarge
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.objects import ObjectStore
from wetread.gateway.documents import (
    HTML,
    PLAIN,
    Category,
    NotRenderable,
    Pick,
    Plan,
    category,
    choose,
    document,
    frame_count,
    stream_spans,
)
from wetread.gateway.icons import icon
from wetread.gateway.ranges import asked_range, part_of
from wetread.gateway.rendering import RenderOptions, parse_options, render, thumbnail
from wetread.gateway.report_page import POLICY, page, plain
from wetread.gateway.responses import (
    DATA_HEADERS,
    accepted,
    base_url,
    data_response,
    etag_of,
    not_modified,
    warning_299,
)
from wetread.gateway.retrieval import RetrieveEndpoints, instance_url, tenant_of
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.threads import beside
from wetread.gateway.transcoding import Undecodable

_THUMBNAIL_SIDE: Final = 128
_BYTES_PER_ANSWER: Final = 256 << 20
"""Stored bytes of documents and videos in one multipart answer; a single one is sent whatever its size."""
_CHUNK: Final = 1 << 20
_CHARSETS: Final = frozenset({"utf-8", "utf8", "iso_ir 192"})

_SHUT: Final = "default-src 'none'; sandbox"
_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    HTML: {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"},
    PLAIN: {"Content-Security-Policy": _SHUT},
}
"""What keeps a browser from running what somebody stored; the rest is in ``_foreign``."""


class RenderEndpoints:
    """Rendered forms of studies, series, instances and frames."""

    def __init__(self, retrieve: RetrieveEndpoints, settings: GatewaySettings, objects: ObjectStore) -> None:
        self._retrieve = retrieve
        self._settings = settings
        self._objects = objects

    async def rendered(self, request: Request) -> Response:
        """``GET .../rendered``: one picture, report, document or video, or one part for each."""
        options = parse_options(request.query_params)
        frames = self._retrieve.frame_numbers(request) if "frames" in request.path_params else None
        return await self.answer(request, options, frames, accepted(request, self._settings))

    async def answer(
        self, request: Request, options: RenderOptions, frames: Sequence[int] | None, ranges: Sequence[MediaType]
    ) -> Response:
        """Return what the path names in the first of *ranges* that fits; ``charset`` and the like are of the query."""
        query = request.query_params
        _check_charset(query)
        plan = await beside(lambda: choose(self._retrieve.find(request), frames, ranges))
        base = base_url(request, self._settings)
        sent = [(pick.item.content_hash, pick.frame, pick.media) for pick in plan.picks]
        etag = etag_of(sent, options, base, plan.multipart)
        same = not_modified(request, etag)
        if same is not None:
            return same
        response = await self._answer(request, plan, options, base, etag)
        if any(category(pick.item) is Category.IMAGE for pick in plan.picks):
            for name in _unsupported(query):
                response.headers.append("Warning", warning_299(base, f"The parameter {name} is not supported"))
        return response

    async def _answer(self, request: Request, plan: Plan, options: RenderOptions, base: str, etag: str) -> Response:
        headers = {"ETag": etag, "Vary": "Accept", **DATA_HEADERS}
        if plan.multipart:
            parts = await run_sync(self._parts, request, plan, options, base, limiter=self._retrieve.codec_turns)
            writer = MultipartWriter(plan.picks[0].media, boundary=etag.strip('"'))
            pieces = [piece for kind, body in parts for piece in (writer.begin(kind, len(body)), body)]
            return Response(b"".join([*pieces, writer.end()]), headers=headers | {"Content-Type": writer.content_type})
        (pick,) = plan.picks
        kind = category(pick.item)
        if kind is Category.VIDEO:
            spans = await beside(self._spans, tenant_of(request), pick.item)
            return self._stream(request, pick, spans, headers | {"Content-Type": pick.media})
        limiter = self._retrieve.codec_turns if kind is Category.IMAGE else None
        body = await run_sync(self._body, request, pick, options, base, limiter=limiter)
        if kind is Category.DOCUMENT:
            return part_of(request, body, headers | _foreign(pick.media) | {"Content-Type": pick.media})
        if kind is Category.REPORT:
            response = data_response(request, body, etag=etag, media_type=_typed(pick.media))
            response.headers.update(_HEADERS.get(pick.media, _foreign(pick.media)))
            return response
        return Response(body, headers=headers | {"Content-Type": pick.media})

    def _parts(self, request: Request, plan: Plan, options: RenderOptions, base: str) -> list[tuple[str, bytes]]:
        """Return (content type, body) of each part."""
        stored = sum(pick.item.ref.length for pick in plan.picks if category(pick.item) is not Category.IMAGE)
        if stored > _BYTES_PER_ANSWER:
            msg = f"more than {_BYTES_PER_ANSWER} bytes of documents and videos in one answer: ask for instances"
            raise PayloadTooLarge(msg)
        return [(_typed(pick.media), self._body(request, pick, options, base)) for pick in plan.picks]

    def _body(self, request: Request, pick: Pick, options: RenderOptions, base: str) -> bytes:
        tenant, item = tenant_of(request), pick.item
        kind = category(item)
        if kind is Category.IMAGE:
            key = (tenant, item.content_hash, "rendered", pick.frame, options, pick.media)
            drawing = partial(self._draw, request, pick, options)
            return self._retrieve.transcoder.cache.get(key, drawing, len)
        if kind is Category.VIDEO:
            spans = self._spans(tenant, item)
            return b"".join(self._objects.read(item.ref, start, length) for start, length in spans)
        if kind is Category.DOCUMENT:
            return self._document(tenant, item)
        data = self._retrieve.attributes(tenant, item, instance_url(base, item))
        if pick.media == HTML:
            return page(data, partial(_rendered_url, base))
        return plain(data) if pick.media == PLAIN else to_xml(data)

    def _draw(self, request: Request, pick: Pick, options: RenderOptions) -> bytes:
        reader = self._retrieve.reader(request, pick.item)
        data = self._retrieve.attributes(tenant_of(request), pick.item)
        return render(reader, data, pick.frame or 1, options, pick.media)

    def _document(self, tenant: str, item: ArchivedInstance) -> bytes:
        try:
            (value,), _ = self._retrieve.bulk_values(tenant, item, "00420011", (MediaType("*/*"),))
        except NotFound:
            value = b""
        if not value:
            raise NotRenderable("no-document", "the instance has no Encapsulated Document (0042,0011)")
        return document(value, self._retrieve.attributes(tenant, item))

    def _spans(self, tenant: str, item: ArchivedInstance) -> Sequence[tuple[int, int]]:
        key = (tenant, item.content_hash, "stream")
        return self._retrieve.transcoder.cache.get(
            key, partial(stream_spans, self._objects, item), lambda s: 64 * len(s)
        )

    def _stream(
        self, request: Request, pick: Pick, spans: Sequence[tuple[int, int]], headers: Mapping[str, str]
    ) -> Response:
        """Return a video, or the range of it that a player asks for, without ever holding it whole."""
        total = sum(length for _, length in spans)
        wanted = asked_range(request, total, headers["ETag"])
        start, count = wanted or (0, total)
        said = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(count)}
        if wanted is not None:
            said["Content-Range"] = f"bytes {start}-{start + count - 1}/{total}"
        body = self._chunks(pick.item, spans, start, count)
        return StreamingResponse(body, 200 if wanted is None else 206, headers=said)

    async def _chunks(
        self, item: ArchivedInstance, spans: Sequence[tuple[int, int]], skip: int, count: int
    ) -> AsyncIterator[bytes]:
        for first, length in spans:
            at, end = first + min(skip, length), first + length
            skip -= at - first
            while at < end and count:
                size = min(_CHUNK, end - at, count)
                yield await beside(self._objects.read, item.ref, at, size)
                at, count = at + size, count - size

    async def thumbnail(self, request: Request) -> Response:
        """``GET .../thumbnail``: middle frame of the middle image, small, without text; an icon where there is none."""
        found = await beside(self._retrieve.find, request)
        if not any(not media.multipart and media.covers("image/jpeg") for media in accepted(request, self._settings)):
            msg = "thumbnails are image/jpeg"
            raise NotAcceptable(msg)
        frames = self._retrieve.frame_numbers(request) if "frames" in request.path_params else None
        etag = etag_of([item.content_hash for item in found], frames, "thumbnail", _THUMBNAIL_SIDE)
        same = not_modified(request, etag)
        if same is not None:
            return same
        body = await run_sync(self._thumbnail, request, found, frames, limiter=self._retrieve.codec_turns)
        return Response(body, headers={"Content-Type": "image/jpeg", "ETag": etag, **DATA_HEADERS})

    def _thumbnail(self, request: Request, found: Sequence[ArchivedInstance], frames: Sequence[int] | None) -> bytes:
        images = [item for item in found if category(item) is Category.IMAGE]
        if not images:
            if frames is not None:
                raise NotRenderable("no-frames", "the instance has no frames")
            kinds = {category(item) for item in found}
            return icon(next(kind for kind in Category if kind in kinds), _THUMBNAIL_SIDE)
        item = images[len(images) // 2]
        frame = frames[0] if frames else frame_count(item) // 2 + 1
        key = (tenant_of(request), item.content_hash, "thumbnail", frame)
        return self._retrieve.transcoder.cache.get(key, partial(self._small, request, item, frame), len)

    def _small(self, request: Request, item: ArchivedInstance, frame: int) -> bytes:
        data = self._retrieve.attributes(tenant_of(request), item)
        if text(data, "00280301").strip() == "YES":
            # Names and numbers that are part of the picture would be part of its thumbnail (PS3.18 10.4.3.3.4).
            return icon(Category.IMAGE, _THUMBNAIL_SIDE)
        try:
            return thumbnail(self._retrieve.reader(request, item), data, frame, _THUMBNAIL_SIDE)
        except (Undecodable, PayloadTooLarge):
            return icon(Category.IMAGE, _THUMBNAIL_SIDE)


def _typed(media: str) -> str:
    """Return the content type; what we write as text is UTF-8, a stored document says its character set itself."""
    return f"{media}; charset=utf-8" if media in (HTML, PLAIN) else media


def _foreign(media: str) -> dict[str, str]:
    """Return the headers of what others wrote: a browser may show a PDF, shut in, and has to save anything else."""
    shown = "inline" if media == "application/pdf" else "attachment"
    name = f"document.{media.rpartition('/')[2]}"
    return {"Content-Security-Policy": _SHUT, "Content-Disposition": f'{shown}; filename="{name}"'}


def _rendered_url(base: str, study: str, series: str, instance: str) -> str:
    return f"{base}/studies/{study}/series/{series}/instances/{instance}/rendered"


def _check_charset(query: QueryParams) -> None:
    """Refuse a ``charset`` that names no supported character set (PS3.18 8.3.3.2, 8.8)."""
    asked = [name.partition(";")[0].strip(' "').lower() for name in query.get("charset", "utf-8").split(",")]
    if _CHARSETS.isdisjoint(asked):
        msg = "rendered text is UTF-8"
        raise InvalidInput(msg)


def _unsupported(query: QueryParams) -> list[str]:
    """Return the parameters that would change a picture here, were they supported."""
    return [name for name in ("annotation", "iccprofile") if name in query and query[name] != "no"]
