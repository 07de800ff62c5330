"""WADO-RS: instances, frames, metadata and bulk data (PS3.18 10.4)."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wetread.core.dicom.attributes import numbers
from wetread.core.dicom.header import Element, Header, read_header
from wetread.core.dicom.json_model import little_endian
from wetread.core.dicom.lossless import obstacle
from wetread.core.dicomweb import stored_metadata
from wetread.core.dicomweb.media_types import DICOM, OCTETS, MediaType
from wetread.core.dicomweb.multipart import MultipartWriter
from wetread.core.errors import InvalidInput, NotAcceptable, NotFound
from wetread.core.identifiers import check_uid
from wetread.core.ports.archive import Archive, ArchivedInstance, SeriesMetadata
from wetread.core.ports.database import Database
from wetread.core.ports.objects import ObjectStore
from wetread.gateway.archives import ZIP, ZipStream, zip_range
from wetread.gateway.negotiation import ENCODED, NATIVE, STORED, Choice, choose_frames, choose_instance
from wetread.gateway.pixels import FrameReader
from wetread.gateway.ranges import part_of, parts_of, read_part
from wetread.gateway.responses import DATA_HEADERS, accepted, base_url, data_response, etag_of, not_modified, takes_gzip
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.threads import beside
from wetread.gateway.transcoding import Transcoder, Undecodable
from wetread.gateway.xml_answers import wants_xml, xml_response

_FRAMES: Final = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9})*")
_BULK_PATH: Final = re.compile(r"[0-9A-Fa-f]{8}(?:/[0-9]{1,6}/[0-9A-Fa-f]{8})*")
_AHEAD: Final = 2
"""Groups of instances that are read while earlier ones are being sent."""
_GROUP_BYTES: Final = 2 << 20

Planned = tuple[ArchivedInstance, Sequence[Choice]]
"""An instance and the ways it may be sent."""


class RetrieveEndpoints:
    """The retrieve resources."""

    def __init__(
        self,
        database: Database,
        archive: Archive,
        objects: ObjectStore,
        transcoder: Transcoder,
        settings: GatewaySettings,
    ) -> None:
        self._database = database
        self._archive = archive
        self._objects = objects
        self.transcoder = transcoder
        self._settings = settings
        # Who waits for a codec waits here, not in the threads that everything else needs.
        self.codec_turns = CapacityLimiter(settings.codec_processes * 2)

    async def instances(self, request: Request) -> Response:
        """``GET`` of a study, series or instance: PS3.10 files."""
        return await self.files(request, accepted(request, self._settings))

    async def files(self, request: Request, ranges: Sequence[MediaType]) -> Response:
        """Return the PS3.10 files that the path names in the first of *ranges* that is possible."""
        found = await beside(self.find, request)
        single = request.path_params.get("instance") is not None
        zipped = None if single else zip_range(ranges)
        ranges = (zipped,) if zipped is not None else ranges
        encodable = self.transcoder.targets
        plans = [
            choose_instance(ranges, item.transfer_syntax_uid, single=single, lossy=item.lossy, encodable=encodable)
            for item in found
        ]
        etag = etag_of(
            [(item.sop_uid, item.content_hash) for item in found],
            plans,
            zipped is not None,
            self._base_within(request, plans[0][0]),
        )
        same = not_modified(request, etag)
        if same is not None:
            return same
        if any(plan[0].form == ENCODED for plan in plans):
            await run_sync(self._check_encodable, request, found, plans)
        headers = {"ETag": etag, "Vary": "Accept", **DATA_HEADERS}
        if single and not plans[0][0].multipart:
            stored = plans[0][0]
            if stored.form == STORED:
                reading = partial(self._objects.read, found[0].ref)
                typed = headers | {"Content-Type": stored.content_type}
                part = await read_part(request, found[0].ref.length, reading, typed)
                if part is not None:
                    return part
            body, choice = await self._instance(request, found[0], plans[0])
            return part_of(request, body, headers | {"Content-Type": choice.content_type})
        if zipped is not None:
            named = {"Content-Type": ZIP, "Content-Disposition": 'attachment; filename="dicom.zip"'}
            first = await self._instance(request, found[0], plans[0])
            return StreamingResponse(self._members(request, found, plans, first[0]), headers=headers | named)
        writer = MultipartWriter(DICOM, boundary=etag.strip('"'))
        first = await self._instance(request, found[0], plans[0])
        headers["Content-Type"] = writer.content_type
        base = base_url(request, self._settings)
        if all(plan[0].form == STORED for plan in plans):
            headers["Content-Length"] = str(self._stored_length(writer.boundary, found, plans, base))
        return StreamingResponse(self._parts(request, writer, found, plans, first, base), headers=headers)

    def _base_within(self, request: Request, choice: Choice) -> str:
        """Return the base of the addresses that the parts of a multipart answer have; it is one of its bytes, too."""
        return base_url(request, self._settings) if choice.multipart else ""

    async def _parts(
        self,
        request: Request,
        writer: MultipartWriter,
        found: Sequence[ArchivedInstance],
        plans: Sequence[list[Choice]],
        first: tuple[bytes, Choice],
        base: str,
    ) -> AsyncIterator[bytes]:
        """Yield the parts. An instance that cannot be read ends the connection without the final delimiter."""
        yield writer.begin(first[1].content_type, len(first[0]), instance_url(base, found[0]))
        yield first[0]
        waiting = deque(_groups(list(zip(found, plans, strict=True))[1:]))
        reading: deque[asyncio.Task[list[tuple[ArchivedInstance, bytes, Choice]]]] = deque()
        try:
            while waiting or reading:
                while waiting and len(reading) < _AHEAD:
                    reading.append(asyncio.create_task(self._group(request, waiting.popleft())))
                for item, body, choice in await reading.popleft():
                    yield writer.begin(choice.content_type, len(body), instance_url(base, item))
                    yield body
            yield writer.end()
        finally:
            for task in reading:
                task.cancel()

    async def _members(
        self, request: Request, found: Sequence[ArchivedInstance], plans: Sequence[list[Choice]], first: bytes
    ) -> AsyncIterator[bytes]:
        """Yield a zip archive. An instance that cannot be read ends the connection without the central directory."""
        archive = ZipStream()
        series, number, current = 0, 0, ""
        for item, plan in zip(found, plans, strict=True):
            if item.series_uid != current:
                series, number, current = series + 1, 0, item.series_uid
            number += 1
            body = first if (series, number) == (1, 1) else (await self._instance(request, item, plan))[0]
            yield await run_sync(archive.add, series, number, body)
        yield archive.end()

    def _stored_length(
        self, boundary: str, found: Sequence[ArchivedInstance], plans: Sequence[list[Choice]], base: str
    ) -> int:
        writer = MultipartWriter(DICOM, boundary=boundary)
        total = 0
        for item, plan in zip(found, plans, strict=True):
            total += len(writer.begin(plan[0].content_type, item.ref.length, instance_url(base, item)))
            total += item.ref.length
        return total + len(writer.end())

    async def _group(self, request: Request, group: Sequence[Planned]) -> list[tuple[ArchivedInstance, bytes, Choice]]:
        """Read a few instances; those that go out as stored in one go."""
        if all(plan[0].form == STORED for _, plan in group):
            bodies = await beside(lambda: [self._objects.read(item.ref) for item, _ in group])
            return [(item, body, plan[0]) for (item, plan), body in zip(group, bodies, strict=True)]
        return [(item, *await self._instance(request, item, plan)) for item, plan in group]

    async def _instance(self, request: Request, item: ArchivedInstance, plan: Sequence[Choice]) -> tuple[bytes, Choice]:
        """Return the bytes of one instance in the first form of *plan* that is possible."""
        problem: Undecodable | None = None
        for choice in plan:
            if choice.form == STORED:
                return await beside(self._objects.read, item.ref), choice
            converting = partial(self.transcoder.instance, tenant_of(request), item, choice.transfer_syntax)
            try:
                return await run_sync(converting, limiter=self.codec_turns), choice
            except Undecodable as error:
                problem = error
        assert problem is not None
        raise problem

    def _check_encodable(
        self, request: Request, found: Sequence[ArchivedInstance], plans: Sequence[list[Choice]]
    ) -> None:
        """Refuse before the first byte what a compressed syntax cannot carry. Raises NotAcceptable."""
        for item, plan in zip(found, plans, strict=True):
            if plan[0].form != ENCODED:
                continue
            problem = obstacle(self.attributes(tenant_of(request), item), plan[0].transfer_syntax)
            if problem:
                raise NotAcceptable(problem)

    async def frames(self, request: Request) -> Response:
        """``GET .../frames/{list}``: 1-based frame numbers, in the order asked for."""
        numbers = self.frame_numbers(request)
        item, plan, etag, same, read = await beside(self._stored_frames, request, numbers)
        if same is not None:
            return same
        if read is None:
            reader = self.reader(request, item)
            read = await run_sync(_read_frames, reader, numbers, plan, limiter=self.codec_turns)
        frames, choice = read
        headers = {"ETag": etag, "Vary": "Accept", **DATA_HEADERS}
        if not choice.multipart:
            return part_of(request, frames[0], headers | {"Content-Type": choice.content_type})
        writer = MultipartWriter(choice.media, boundary=etag.strip('"'))
        url = instance_url(base_url(request, self._settings), item)
        pieces: list[bytes] = []
        for number, frame in zip(numbers, frames, strict=True):
            pieces += [writer.begin(choice.content_type, len(frame), f"{url}/frames/{number}"), frame]
        pieces.append(writer.end())
        # The boundary is made of the entity tag, so that a range of the whole body can be asked for (PS3.18 8.6.1.2).
        return parts_of(request, pieces, headers | {"Content-Type": writer.content_type})

    def _stored_frames(
        self, request: Request, numbers: Sequence[int]
    ) -> tuple[ArchivedInstance, list[Choice], str, Response | None, tuple[list[bytes], Choice] | None]:
        """Return instance, plan, entity tag and the answer 304 or the frames, when those go out as they are stored."""
        (item,) = self.find(request)
        plan = self._frame_plan(accepted(request, self._settings), item, one=len(numbers) == 1)
        etag = etag_of(item.content_hash, numbers, plan, self._base_within(request, plan[0]))
        same = not_modified(request, etag)
        if same is not None or plan[0].form != STORED:
            return item, plan, etag, same, None
        return item, plan, etag, None, _read_frames(self.reader(request, item), numbers, plan)

    async def metadata(self, request: Request) -> Response:
        """``GET .../metadata``: DICOM JSON or XML of every instance, bulk values by address."""
        as_xml = wants_xml(accepted(request, self._settings))
        base = base_url(request, self._settings)
        coding = "gzip" if takes_gzip(request) and not as_xml else ""
        body, versions = await beside(self._metadata, request, base, coding)
        version = tenant_of(request), versions, base, sorted(request.path_params.items())
        if as_xml:
            return await run_sync(lambda: xml_response(request, orjson.loads(body), version=version))
        return data_response(request, body, etag=etag_of(*version), coding=coding)

    def _metadata(self, request: Request, base: str, coding: str) -> tuple[bytes, list[tuple[str, int]]]:
        path = path_of(request)
        with self._database.read() as tx:
            found = self._archive.metadata(tx, tenant_of(request), *path)
        versions = [(group.series_uid, group.version) for group in found]
        if coding:
            members = ((stored, _url_in(base, group, uid)) for group in found for uid, stored in group.instances)
            return stored_metadata.gzip_array(members), versions
        pieces = [addressed(stored, base, group, uid) for group in found for uid, stored in group.instances]
        return b"[" + b",".join(pieces) + b"]", versions

    async def bulkdata(self, request: Request) -> Response:
        """``GET .../bulkdata/{path}``: one value, little endian, by the address that metadata gave."""
        path = request.path_params["path"]
        if not _BULK_PATH.fullmatch(path):
            msg = "a bulk data path is tags and item numbers"
            raise InvalidInput(msg)
        (item,) = await beside(self.find, request)
        ranges = accepted(request, self._settings)
        url = f"{instance_url(base_url(request, self._settings), item)}/bulkdata/{path}"
        etag = etag_of(item.content_hash, url, path.upper(), [str(media) for media in ranges])
        same = not_modified(request, etag)
        if same is not None:
            return same
        values, content_type = await run_sync(self.bulk_values, tenant_of(request), item, path.upper(), ranges)
        headers = {"ETag": etag, "Vary": "Accept", **DATA_HEADERS}
        if len(values) == 1 and not _wants_multipart(ranges):
            return part_of(request, values[0], headers | {"Content-Type": content_type})
        writer = MultipartWriter(content_type.partition(";")[0], boundary=etag.strip('"'))
        pieces: list[bytes] = []
        for value in values:
            pieces += [writer.begin(content_type, len(value), url), value]
        body = b"".join([*pieces, writer.end()])
        return part_of(request, body, headers | {"Content-Type": writer.content_type})

    def bulk_values(
        self, tenant: str, item: ArchivedInstance, path: str, ranges: Sequence[MediaType]
    ) -> tuple[list[bytes], str]:
        """Return the values (frames of encapsulated pixel data, else one) and their media type."""
        header = read_header(self._objects.read(item.ref))
        element = _element_at(header, path)
        if element is None:
            msg = "the instance has no such value"
            raise NotFound(msg)
        tag, vr, start, length, _ = element
        if header.pixels is not None and header.pixels.fragments is not None and tag == header.pixels.tag:
            plan = self._frame_plan(ranges, item, one=False)
            reader = self._reader(tenant, item)
            frames, choice = _read_frames(reader, list(range(1, reader.count + 1)), plan)
            return frames, choice.content_type
        if not any(media.covers(OCTETS) for media in ranges):
            msg = f"bulk data is available as {OCTETS}"
            raise NotAcceptable(msg)
        value = bytes(header.data[start : start + length])
        return [little_endian(value, vr, little=header.little_endian)], OCTETS

    def _frame_plan(self, ranges: Sequence[MediaType], item: ArchivedInstance, *, one: bool) -> list[Choice]:
        encodable = self.transcoder.targets
        return choose_frames(ranges, item.transfer_syntax_uid, one=one, lossy=item.lossy, encodable=encodable)

    def find(self, request: Request) -> list[ArchivedInstance]:
        """Return the instances that the request's path names. Raises NotFound."""
        with self._database.read() as tx:
            return self._archive.instances(tx, tenant_of(request), *path_of(request))

    async def matrix(self, request: Request) -> tuple[int, int]:
        """Return columns and rows of the one instance that the path names; 1 and 1 when it has none."""

        def read() -> tuple[int, int]:
            (item,) = self.find(request)
            data = self.attributes(tenant_of(request), item)
            columns, rows = numbers(data, "00280011", 1), numbers(data, "00280010", 1)
            return (int(columns[0]), int(rows[0])) if columns and rows else (1, 1)

        return await beside(read)

    def reader(self, request: Request, item: ArchivedInstance) -> FrameReader:
        """Return a frame reader for one found instance."""
        return self._reader(tenant_of(request), item)

    def _reader(self, tenant: str, item: ArchivedInstance) -> FrameReader:
        attributes = partial(self.attributes, tenant, item)
        limit = self._settings.frame_bytes
        return FrameReader(self._objects, self.transcoder, tenant, item, attributes, frame_bytes=limit)

    def attributes(self, tenant: str, item: ArchivedInstance, url: str = "") -> Mapping[str, Mapping[str, Any]]:
        """Return the stored metadata of one instance; bulk data addresses below *url*."""
        with self._database.read() as tx:
            (group,) = self._archive.metadata(tx, tenant, item.study_uid, item.series_uid, item.sop_uid)
        found: Mapping[str, Mapping[str, Any]] = orjson.loads(
            stored_metadata.addressed(group.instances[0][1], url.encode())
        )
        return found

    def frame_numbers(self, request: Request) -> list[int]:
        """Return the frame list of the path. Raises InvalidInput."""
        text = request.path_params["frames"]
        if not _FRAMES.fullmatch(text):
            msg = "a frame list is positive numbers with commas"
            raise InvalidInput(msg)
        numbers = [int(part) for part in text.split(",")]
        if 0 in numbers:
            msg = "frames are counted from 1"
            raise InvalidInput(msg)
        if len(numbers) > self._settings.frames_per_request:
            msg = f"more than {self._settings.frames_per_request} frames in one request"
            raise InvalidInput(msg)
        return numbers


def tenant_of(request: Request) -> str:
    """Return the tenant that the credential belongs to."""
    return str(getattr(request.state, "tenant", "default"))


def path_of(request: Request) -> tuple[str, str | None, str | None]:
    """Return study, series and instance of the request's path. Raises InvalidInput for what is no UID."""
    found = request.path_params
    check_uid(found["study"], "Study Instance UID")
    for key, name in (("series", "Series Instance UID"), ("instance", "SOP Instance UID")):
        if key in found:
            check_uid(found[key], name)
    return found["study"], found.get("series"), found.get("instance")


def addressed(stored: bytes, base: str, group: SeriesMetadata, sop_uid: str) -> bytes:
    """Return the JSON of an instance from its stored metadata, bulk data addresses made absolute."""
    return stored_metadata.addressed(stored, _url_in(base, group, sop_uid))


def _url_in(base: str, group: SeriesMetadata, sop_uid: str) -> bytes:
    return f"{base}/studies/{group.study_uid}/series/{group.series_uid}/instances/{sop_uid}".encode()


def _groups(planned: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Cut into groups that are worth a thread's while."""
    group: list[Planned] = []
    size = 0
    for item, plan in planned:
        group.append((item, plan))
        size += item.ref.length
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _wants_multipart(ranges: Sequence[MediaType]) -> bool:
    return bool(ranges) and ranges[0].multipart


def instance_url(base: str, item: ArchivedInstance) -> str:
    """Return the URL of an instance."""
    return f"{base}/studies/{item.study_uid}/series/{item.series_uid}/instances/{item.sop_uid}"


def _read_frames(reader: FrameReader, numbers: Sequence[int], plan: Sequence[Choice]) -> tuple[list[bytes], Choice]:
    """Return the frames in the first form of *plan* that is possible."""
    problem: Undecodable | None = None
    for choice in plan:
        try:
            if choice.form == ENCODED:
                return [reader.encoded(number, choice.transfer_syntax) for number in numbers], choice
            read = reader.native if choice.form == NATIVE else reader.stored
            return [read(number) for number in numbers], choice
        except Undecodable as error:
            problem = error
    assert problem is not None
    raise problem


def _element_at(header: Header, path: str) -> Element | None:
    """Walk ``tag/item/tag...`` through the parsed header."""
    elements = header.elements
    parts = path.split("/")
    for at in range(0, len(parts), 2):
        tag = int(parts[at], 16)
        element = next((found for found in reversed(elements) if found[0] == tag), None)
        if element is None or at + 1 == len(parts):
            return element if element is not None and element[4] is None else None
        items = element[4]
        number = int(parts[at + 1])
        if items is None or number >= len(items):
            return None
        elements = items[number]
    return None
