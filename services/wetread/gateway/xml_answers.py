"""Answers in the Native DICOM Model: one XML part per data set (PS3.18 8.7.3.3, 10.4.3, 10.6.3)."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from wetread.core.dicom.native_xml import to_xml
from wetread.core.dicomweb.media_types import DICOM_JSON, DICOM_XML, MediaType
from wetread.core.dicomweb.multipart import MultipartWriter
from wetread.core.errors import NotAcceptable
from wetread.gateway.responses import DATA_HEADERS, etag_of, not_modified, takes_gzip


def wants_xml(ranges: Sequence[MediaType]) -> bool:
    """Return whether data sets are to be sent as XML; the better range wins, JSON among equals.

    Raises NotAcceptable when they may be sent as neither.
    """
    for media in ranges:
        if not media.multipart and media.covers(DICOM_JSON):
            return False
        if media.multipart and media.covers(DICOM_XML):
            return True
    msg = f"available: {DICOM_JSON}, multipart/related; type={DICOM_XML}"
    raise NotAcceptable(msg)


def xml_response(
    request: Request, data_sets: Sequence[Mapping[str, Any]], *, version: object, warnings: Sequence[str] = ()
) -> Response:
    """Return *data_sets* as parts, gzipped as a whole when the client takes it. ``version``: what they are made of."""
    etag = etag_of(version, DICOM_XML)
    same = not_modified(request, etag)
    if same is not None:
        return same
    writer = MultipartWriter(DICOM_XML, boundary=etag.strip('"'))
    pieces: list[bytes] = []
    for data in data_sets:
        document = to_xml(data)
        pieces += [writer.begin(DICOM_XML, len(document)), document]
    body = b"".join([*pieces, writer.end()])
    headers = {"Content-Type": writer.content_type, "ETag": etag, "Vary": "Accept, Accept-Encoding", **DATA_HEADERS}
    if takes_gzip(request):
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    response = Response(body, headers=headers)
    for warning in warnings:
        response.headers.append("Warning", warning)
    return response
