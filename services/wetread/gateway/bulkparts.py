"""The parts of a STOW request that brings metadata and bulk data apart (PS3.18 8.6.1.2, 10.5.2)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from wetread.core.dicomweb.media_types import DICOM_JSON, DICOM_XML, MediaType, parse_media_type
from wetread.core.dicomweb.multipart import Event, MultipartSplitter, PartBegin, PartData
from wetread.core.errors import InvalidInput, MalformedMultipart, PayloadTooLarge
from wetread.gateway.settings import IngestSettings

METADATA: Final = (DICOM_JSON, DICOM_XML)
"""Root types of requests that bring metadata and bulk data apart."""


@dataclass(frozen=True, slots=True)
class BulkPart:
    """One value or frame: where it lies among the request's bulk data."""

    media: MediaType
    offset: int
    length: int


@dataclass(slots=True)
class MetadataBody:
    """A received request. ``broken``: what is wrong with its end."""

    documents: list[tuple[str, bytes]] = field(default_factory=list)
    """(type, body) of each metadata part."""
    bulk: dict[str, list[BulkPart]] = field(default_factory=dict)
    """Parts by their Content-Location, in the order of the request."""
    broken: str = ""


class BulkSpool:
    """Bulk data of one request: in memory while small, beyond that in an unlinked scratch file.

    ``hold``: told of each change of the bytes in memory.
    """

    def __init__(self, scratch: Path | None, memory_bytes: int, hold: Callable[[int], None]) -> None:
        self._scratch = scratch
        self._memory_bytes = memory_bytes
        self._hold = hold
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self.size = 0

    def write(self, piece: memoryview) -> None:
        """Append."""
        self.size += len(piece)
        if self._file is not None:
            self._file.write(piece)
            return
        self._memory += piece
        self._hold(len(piece))
        if len(self._memory) > self._memory_bytes and self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - lives as long as the request
            self._file.write(self._memory)
            self._hold(-len(self._memory))
            self._memory = bytearray()

    def read(self, offset: int, length: int) -> bytes:
        """Return a range."""
        if self._file is None:
            return bytes(self._memory[offset : offset + length])
        self._file.flush()
        return os.pread(self._file.fileno(), length, offset)

    def close(self) -> None:
        """Forget everything."""
        self._hold(-len(self._memory))
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()


async def receive(
    body: AsyncIterator[bytes], content: MediaType, spool: BulkSpool, limits: IngestSettings
) -> MetadataBody:
    """Read the whole request. Raises MalformedMultipart, PayloadTooLarge."""
    if content.multipart:
        return await _Receiver(content, spool, limits).run(body)
    document = bytearray()
    async for chunk in body:
        document += chunk
        if len(document) > limits.metadata_bytes:
            raise _too_large(limits)
    if not document:
        msg = "the body is empty"
        raise InvalidInput(msg)
    return MetadataBody([(content.payload, bytes(document))])


def _too_large(limits: IngestSettings) -> PayloadTooLarge:
    return PayloadTooLarge(f"metadata beyond {limits.metadata_bytes} bytes")


class _Receiver:
    def __init__(self, content: MediaType, spool: BulkSpool, limits: IngestSettings) -> None:
        self._root = content.payload
        self._spool = spool
        self._limits = limits
        self._splitter = MultipartSplitter(
            content.parameters.get("boundary", ""),
            header_limit=limits.part_header_bytes,
            part_limit=limits.request_parts,
        )
        self._found = MetadataBody()
        self._document: bytearray | None = None
        self._documents_size = 0
        self._headers: PartBegin = PartBegin()
        self._media = MediaType("")
        self._start = 0

    async def run(self, body: AsyncIterator[bytes]) -> MetadataBody:
        received = 0
        async for chunk in body:
            received += len(chunk)
            if received > self._limits.request_bytes:
                msg = f"the request is larger than {self._limits.request_bytes} bytes"
                raise PayloadTooLarge(msg)
            self._take(self._splitter.feed(chunk))
            if self._splitter.broken:
                break
        self._take(self._splitter.finish())
        if self._splitter.too_many:
            raise PayloadTooLarge(self._splitter.broken)
        if not self._splitter.complete:
            self._found.broken = self._splitter.broken or "the body ends before its final delimiter"
        if not self._found.documents:
            raise MalformedMultipart(self._found.broken or f"the body has no part of type {self._root}")
        return self._found

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, PartBegin):
                self._begin(event)
            elif isinstance(event, PartData):
                self._add(event.data)
            else:
                self._end()

    def _begin(self, part: PartBegin) -> None:
        declared = part.headers.get("content-type", "")
        # The first part is the root (RFC 2387 3.2), whatever it forgets to say.
        fallback = "application/octet-stream" if self._found.documents else self._root
        try:
            self._media = parse_media_type(declared) if declared else MediaType(fallback)
        except InvalidInput:
            self._media = MediaType(fallback)
        self._headers = part
        self._document = bytearray() if self._media.type == self._root else None
        self._start = self._spool.size

    def _add(self, piece: memoryview) -> None:
        if self._document is None:
            self._spool.write(piece)
            return
        self._documents_size += len(piece)
        if self._documents_size > self._limits.metadata_bytes:
            raise _too_large(self._limits)
        self._document += piece

    def _end(self) -> None:
        if self._document is not None:
            self._found.documents.append((self._root, bytes(self._document)))
            self._document = None
            return
        location = self._headers.headers.get("content-location", "").strip()
        part = BulkPart(self._media, self._start, self._spool.size - self._start)
        self._found.bulk.setdefault(location, []).append(part)
