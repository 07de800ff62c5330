"""WADO-RS bulk data of studies, series and instances: each value that metadata give by address (PS3.18 10.4.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wetread.core.dicom.attributes import items
from wetread.core.dicomweb.media_types import OCTETS, MediaType
from wetread.core.dicomweb.multipart import MultipartWriter
from wetread.core.errors import NotAcceptable, NotFound
from wetread.core.ports.archive import ArchivedInstance
from wetread.gateway.responses import DATA_HEADERS, accepted, base_url, etag_of, not_modified
from wetread.gateway.retrieval import RetrieveEndpoints, instance_url, tenant_of
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.threads import beside

_PIXELS: Final = frozenset({"7FE00008", "7FE00009", "7FE00010"})
Value = tuple[ArchivedInstance, str]
"""An instance and the path of one of its bulk values."""


class BulkEndpoints:
    """``.../bulkdata`` and ``.../pixeldata`` below a study, series or instance; always multipart."""

    def __init__(self, retrieve: RetrieveEndpoints, settings: GatewaySettings) -> None:
        self._retrieve = retrieve
        self._settings = settings

    async def bulkdata(self, request: Request) -> Response:
        """``GET .../bulkdata``: all bulk values, pixel data included."""
        return await self._answer(request, pixels_only=False)

    async def pixeldata(self, request: Request) -> Response:
        """``GET .../pixeldata``: pixel data alone."""
        return await self._answer(request, pixels_only=True)

    async def _answer(self, request: Request, *, pixels_only: bool) -> Response:
        ranges = accepted(request, self._settings)
        ranges = tuple(media for media in ranges if media.multipart or media.payload in ("*/*", "*"))
        if not ranges:
            raise NotAcceptable(f"available: multipart/related; type={OCTETS}")
        found = await beside(self._retrieve.find, request)
        tags = [(item.sop_uid, item.content_hash) for item in found]
        etag = etag_of(tags, pixels_only, [str(media) for media in ranges], base_url(request, self._settings))
        same = not_modified(request, etag)
        if same is not None:
            return same
        values = self._values(tenant_of(request), found, pixels_only=pixels_only)
        first = await run_sync(next, values, None)
        if first is None:
            msg = "nothing here has bulk data"
            raise NotFound(msg)
        writer = MultipartWriter(OCTETS, boundary=etag.strip('"'))
        parts = await self._read(request, ranges, first)
        headers = {"ETag": etag, "Vary": "Accept", **DATA_HEADERS, "Content-Type": writer.content_type}
        return StreamingResponse(self._stream(request, writer, ranges, values, first, parts), headers=headers)

    def _values(self, tenant: str, found: Sequence[ArchivedInstance], *, pixels_only: bool) -> Iterator[Value]:
        for item in found:
            for path in _paths(self._retrieve.attributes(tenant, item)):
                if not pixels_only or path in _PIXELS:
                    yield item, path

    async def _read(self, request: Request, ranges: Sequence[MediaType], value: Value) -> tuple[list[bytes], str]:
        item, path = value
        reading = partial(self._retrieve.bulk_values, tenant_of(request), item, path, ranges)
        return await run_sync(reading, limiter=self._retrieve.codec_turns)

    async def _stream(
        self,
        request: Request,
        writer: MultipartWriter,
        ranges: Sequence[MediaType],
        values: Iterator[Value],
        first: Value,
        parts: tuple[list[bytes], str],
    ) -> AsyncIterator[bytes]:
        """Yield the parts. A value that cannot be read ends the connection without the final delimiter."""
        base = base_url(request, self._settings)
        value: Value | None = first
        while value is not None:
            item, path = value
            for body in parts[0]:
                yield writer.begin(parts[1], len(body), f"{instance_url(base, item)}/bulkdata/{path}")
                yield body
            value = await run_sync(next, values, None)
            if value is not None:
                parts = await self._read(request, ranges, value)
        yield writer.end()


def _paths(data: Mapping[str, Mapping[str, Any]], prefix: str = "") -> Iterator[str]:
    """Yield the path of each value that is given by address."""
    for key, entry in data.items():
        if "BulkDataURI" in entry:
            yield f"{prefix}{key}"
        elif entry["vr"] == "SQ":
            for number, item in enumerate(items(data, key)):
                yield from _paths(item, f"{prefix}{key}/{number}/")
