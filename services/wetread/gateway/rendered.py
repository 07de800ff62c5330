"""WADO-RS rendered resources and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from wetread.core.dicom.frame_table import FrameTable
from wetread.core.dicomweb.media_types import accepts, parse_accept
from wetread.core.dicomweb.multipart import MultipartWriter
from wetread.core.errors import InvalidInput, NotAcceptable, NotFound, PayloadTooLarge
from wetread.core.ports.archive import ArchivedInstance
from wetread.gateway.rendering import FORMATS, RenderOptions, icon, parse_options, render, thumbnail
from wetread.gateway.responses import DATA_HEADERS, accepted, base_url, etag_of, not_modified, warning_299
from wetread.gateway.retrieval import RetrieveEndpoints
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.transcoding import Undecodable

_THUMBNAIL_SIDE: Final = 128
_IMAGES_PER_ANSWER: Final = 500


class RenderEndpoints:
    """Rendered images of studies, series, instances and frames."""

    def __init__(self, retrieve: RetrieveEndpoints, settings: GatewaySettings) -> None:
        self._retrieve = retrieve
        self._settings = settings

    async def rendered(self, request: Request) -> Response:
        """``GET .../rendered``: one image, or one part per image."""
        query = request.query_params
        options = parse_options(query)
        ranges = parse_accept(request.headers.get("accept"), query.get("accept"))
        found = await run_sync(self._retrieve.find, request)
        single = next((media for media in FORMATS if accepts(ranges, media)), None)
        many = next((media for media in FORMATS if any(r.multipart and r.covers(media) for r in ranges)), None)
        media = single or many
        if media is None:
            raise NotAcceptable(f"available: {', '.join(FORMATS)}")
        frames = self._retrieve.frame_numbers(request) if "frames" in request.path_params else None
        etag = etag_of([item.content_hash for item in found], frames, options, media, single is None)
        same = not_modified(request, etag)
        if same is not None:
            return same
        headers = {"ETag": etag, "Vary": "Accept", **DATA_HEADERS}
        picks = _picks(found, frames, every=single is None)
        images = await run_sync(self._images, request, picks, options, media, limiter=self._retrieve.codec_turns)
        if single is not None:
            response = Response(images[0], headers=headers | {"Content-Type": media})
        else:
            writer = MultipartWriter(media, boundary=etag.strip('"'))
            pieces = [piece for image in images for piece in (writer.begin(media, len(image)), image)]
            response = Response(
                b"".join([*pieces, writer.end()]), headers=headers | {"Content-Type": writer.content_type}
            )
        base = base_url(request, self._settings)
        for name in ("annotation", "iccprofile"):
            if name in query:
                response.headers.append("Warning", warning_299(base, f"The parameter {name} is not supported"))
        return response

    def _images(
        self, request: Request, picks: Sequence[tuple[ArchivedInstance, int]], options: RenderOptions, media: str
    ) -> list[bytes]:
        if not picks:
            msg = "nothing here has pixels to render"
            raise NotFound(msg)
        if len(picks) > _IMAGES_PER_ANSWER:
            msg = f"more than {_IMAGES_PER_ANSWER} images in one answer: ask for frames"
            raise InvalidInput(msg)
        tenant = str(getattr(request.state, "tenant", "default"))
        images = []
        for item, frame in picks:
            key = (tenant, item.content_hash, "rendered", frame, options, media)
            drawing = partial(self._render, request, tenant, item, frame, options, media)
            images.append(self._retrieve.transcoder.cache.get(key, drawing, len))
        return images

    def _render(
        self, request: Request, tenant: str, item: ArchivedInstance, frame: int, options: RenderOptions, media: str
    ) -> bytes:
        reader = self._retrieve.reader(request, item)
        return render(reader, self._retrieve.attributes(tenant, item), frame, options, media)

    async def thumbnail(self, request: Request) -> Response:
        """``GET .../thumbnail``: middle frame of the middle image, small, without text; an icon where there is none."""
        found = await run_sync(self._retrieve.find, request)
        ranges = accepted(request)
        if not accepts(ranges, "image/jpeg"):
            msg = "thumbnails are image/jpeg"
            raise NotAcceptable(msg)
        frames = self._retrieve.frame_numbers(request) if "frames" in request.path_params else None
        etag = etag_of([item.content_hash for item in found], frames, "thumbnail", _THUMBNAIL_SIDE)
        same = not_modified(request, etag)
        if same is not None:
            return same
        picks = _picks(found, frames, every=False, middle=True)
        body = await run_sync(self._thumbnail, request, picks, limiter=self._retrieve.codec_turns)
        return Response(body, headers={"Content-Type": "image/jpeg", "ETag": etag, **DATA_HEADERS})

    def _thumbnail(self, request: Request, picks: Sequence[tuple[ArchivedInstance, int]]) -> bytes:
        if not picks:
            return icon(_THUMBNAIL_SIDE)
        item, frame = picks[0]
        tenant = str(getattr(request.state, "tenant", "default"))
        key = (tenant, item.content_hash, "thumbnail", frame)
        return self._retrieve.transcoder.cache.get(key, partial(self._small, request, tenant, item, frame), len)

    def _small(self, request: Request, tenant: str, item: ArchivedInstance, frame: int) -> bytes:
        try:
            reader = self._retrieve.reader(request, item)
            return thumbnail(reader, self._retrieve.attributes(tenant, item), frame, _THUMBNAIL_SIDE)
        except (Undecodable, PayloadTooLarge):
            return icon(_THUMBNAIL_SIDE)


def _picks(
    found: Sequence[ArchivedInstance], frames: Sequence[int] | None, *, every: bool, middle: bool = False
) -> list[tuple[ArchivedInstance, int]]:
    """Return which (instance, frame) pairs are pictures of the resource.

    A single-part answer shows the first frame (``middle``: the middle one of the middle instance); a multipart answer
    shows all.
    """
    if frames is not None:
        chosen = [(found[0], frame) for frame in frames]
        return chosen if every else chosen[:1]
    images = [(item, FrameTable.from_json(item.frames).count) for item in found]
    images = [(item, count) for item, count in images if count]
    if every:
        return [(item, frame) for item, count in images for frame in range(1, count + 1)]
    if not images:
        return []
    item, count = images[len(images) // 2] if middle or len(images) > 1 else images[0]
    return [(item, count // 2 + 1 if middle else 1)]
