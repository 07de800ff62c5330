"""STOW-RS: streaming store of PS3.10 files (PS3.18 10.5). The answer is sent after the durability point."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from wetread.core.dicom.native_xml import to_xml
from wetread.core.dicomweb.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    MULTIPART,
    OCTETS,
    MediaType,
    accepts,
    parse_media_type,
)
from wetread.core.dicomweb.multipart import MultipartSplitter, PartBegin, PartData
from wetread.core.errors import (
    InvalidInput,
    MalformedMultipart,
    NotAcceptable,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from wetread.core.facts import Source
from wetread.core.identifiers import check_uid
from wetread.core.ports.ingest import InstanceOutcome
from wetread.gateway import reasons
from wetread.gateway.assembling import instances
from wetread.gateway.bulkparts import METADATA, BulkSpool, receive
from wetread.gateway.committer import Committer, Pending, Received
from wetread.gateway.ingest import Transfer
from wetread.gateway.partbuffer import PartBuffer
from wetread.gateway.prepare import Part, Prepared
from wetread.gateway.responses import accepted, base_url, json_response
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.store_response import location, store_response, store_status

_STORABLE: Final = f"stored are {MULTIPART} and single parts of type {DICOM}, {DICOM_JSON}, {DICOM_XML}"
_PARSE_BYTES: Final = 64 << 10
"""Received bytes that are worth a hand-over to the parser."""
_LEFT_BYTES: Final = 4 << 20
"""At the end of a body: less is left to the committer, whom it does not keep from others for long."""


class StowEndpoint:
    """``POST /studies`` and ``POST /studies/{s}``. ``scratch``: folder for parts that do not fit into memory."""

    def __init__(self, committer: Committer, settings: GatewaySettings, scratch: Path | None = None) -> None:
        self._committer = committer
        self._settings = settings
        self._limits = settings.ingest
        self._scratch = scratch

    async def __call__(self, request: Request) -> Response:
        """Store the request's instances."""
        study_uid = request.path_params.get("study")
        if study_uid is not None:
            check_uid(study_uid, "Study Instance UID")
        ranges = accepted(request, self._settings)
        if not accepts(ranges, DICOM_JSON) and not accepts(ranges, DICOM_XML):
            msg = f"the answer is {DICOM_JSON} or {DICOM_XML}"
            raise NotAcceptable(msg)
        content = _content_type(request)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limits.request_bytes:
            msg = f"the request is larger than {self._limits.request_bytes} bytes"
            raise PayloadTooLarge(msg)
        source = Source(client=getattr(request.state, "client", ""), site=getattr(request.state, "site", ""))
        tenant = getattr(request.state, "tenant", "default")
        store = _Store(self._committer, self._settings, self._scratch, Transfer(tenant, source), study_uid)
        try:
            if content.payload in METADATA:
                await store.metadata(self._body(request), content)
            elif content.multipart:
                await store.multipart(self._body(request), content)
            else:
                await store.single(self._body(request))
        except ClientDisconnect:
            # Nobody is there to be answered; what was complete has been stored.
            store.abandon()
            return Response(status_code=400)
        except BaseException:
            store.abandon()
            raise
        outcomes = store.outcomes
        # For the audit trail: the path may name no study.
        request.state.studies = {outcome.study_instance_uid or "" for outcome in outcomes}
        base = base_url(request, self._settings)
        status = store_status(outcomes, too_large=store.too_large)
        module = store_response(outcomes, base)
        if not accepts(ranges, DICOM_JSON):
            return Response(to_xml(module), status, location(outcomes, base) | {"Cache-Control": "no-store"}, DICOM_XML)
        return json_response(module, status=status, headers=location(outcomes, base))

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body; a body that stands still is given up. The consumer's own work does not count."""
        receive = request.receive
        with _IdleWatch(self._limits.idle_seconds) as idle:
            more = True
            while more:
                try:
                    idle.since = idle.now()
                    message = await receive()
                    idle.since = None
                except asyncio.CancelledError:
                    if idle.fired:
                        raise RequestTimedOut from None
                    raise
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                more = message.get("more_body", False)
                if chunk := message.get("body"):
                    yield chunk


class _IdleWatch:
    """Cancels the task that made it when it has waited too long. ``since``: when the wait began (None: none is on).

    One timer per request, which looks how long the wait has lasted: one per wait costs as much as what is waited for.
    """

    __slots__ = ("_handle", "_loop", "_seconds", "_task", "fired", "now", "since")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.now = self._loop.time
        self.since: float | None = None
        self.fired = False

    def __enter__(self) -> Self:
        self._handle = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if self.fired and self._task is not None:
            self._task.uncancel()

    def _look(self) -> None:
        left = self._seconds if self.since is None else self.since + self._seconds - self.now()
        if left <= 0 and self._task is not None:
            self.fired = True
            self._task.cancel()
        else:
            self._handle = self._loop.call_later(max(left, 0.0), self._look)


class RequestTimedOut(InvalidInput):
    """The body stopped arriving (RFC 9110 15.5.9)."""

    status, slug, title = 408, "request-timeout", "Request timeout"


def _content_type(request: Request) -> MediaType:
    """Return the request's media type. Raises UnsupportedMediaType for what is not stored."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        msg = "content codings are not supported"
        raise UnsupportedMediaType(msg)
    try:
        content = parse_media_type(request.headers.get("content-type", ""))
    except InvalidInput as error:
        raise UnsupportedMediaType(_STORABLE) from error
    if content.payload not in ((DICOM, "*/*", *METADATA) if content.multipart else (DICOM, *METADATA)):
        raise UnsupportedMediaType(_STORABLE)
    return content


class _Store:
    """The parts of one request on their way to the committer, in groups; at most one group is ahead of the sync."""

    def __init__(
        self,
        committer: Committer,
        settings: GatewaySettings,
        scratch: Path | None,
        transfer: Transfer,
        study_uid: str | None,
    ) -> None:
        self._committer = committer
        self._limits = settings.ingest
        self._scratch = scratch
        self._transfer = transfer
        self._study_uid = study_uid
        self._received: list[list[Part]] = []
        self._received_bytes = 0
        self._pending: list[Pending] = []
        self._pending_parts = 0
        self._pending_bytes = 0
        self._complete_parts = 0
        self._held = 0
        self._group_held = 0
        self._sent: deque[tuple[asyncio.Future[list[InstanceOutcome]], int]] = deque()
        self._outcomes: list[InstanceOutcome] = []
        self._buffer: PartBuffer | None = None
        self._refusal: InstanceOutcome | None = None
        self.too_large = False

    @property
    def outcomes(self) -> list[InstanceOutcome]:
        """One outcome per part, in order."""
        return self._outcomes

    def abandon(self) -> None:
        """Give held memory back after an error; what is queued is still committed."""
        self._committer.budget.release(self._held)
        self._held = 0
        if self._buffer is not None:
            self._buffer.discard()

    async def single(self, body: AsyncIterator[bytes]) -> None:
        """Store a body that is one PS3.10 file."""
        self._begin()
        async for chunk in body:
            self._add(memoryview(chunk))
        if self._buffer is not None and not self._buffer.size and self._refusal is None:
            msg = "the body is empty"
            raise InvalidInput(msg)
        self._end(closed=True)
        await self._finish()

    async def metadata(self, body: AsyncIterator[bytes], content: MediaType) -> None:
        """Store instances whose metadata and bulk data come apart."""
        spool = BulkSpool(self._scratch, self._limits.spool_bytes, self._hold)
        try:
            received = await receive(body, content, spool, self._limits)
            found = await run_sync(partial(instances, received, spool, limit=self._limits.assembled_bytes))
            while (part := await run_sync(next, found, None)) is not None:
                self._pending_parts += 1
                if isinstance(part, InstanceOutcome):
                    self._parse()
                    self._pending.append(Prepared(part))
                else:
                    self._hold(len(part))
                    self._pending_bytes += len(part)
                    self._received.append([part])
                    self._received_bytes += len(part)
                    self._parse()
                await self._flush_full()
        finally:
            spool.close()
        await self._finish()
        if received.broken:
            reason = reasons.PROCESSING_FAILURE
            self._outcomes.append(InstanceOutcome(None, None, None, failure_reason=reason, comment=received.broken))

    async def multipart(self, body: AsyncIterator[bytes], content: MediaType) -> None:
        """Store the parts of a multipart body. Raises MalformedMultipart when not one part was complete."""
        splitter = MultipartSplitter(
            content.parameters.get("boundary", ""),
            header_limit=self._limits.part_header_bytes,
            part_limit=self._limits.request_parts,
        )
        try:
            broken = await self._split(body, splitter)
        except ClientDisconnect:
            await self._finish()
            raise
        if broken:
            self._drop_open_part()
        if not self._complete_parts:
            if self.too_large:
                raise PayloadTooLarge(broken)
            raise MalformedMultipart(broken or "the body has no parts")
        await self._finish()
        if broken:
            reason = reasons.OUT_OF_RESOURCES if self.too_large else reasons.PROCESSING_FAILURE
            self._outcomes.append(InstanceOutcome(None, None, None, failure_reason=reason, comment=broken))

    async def _split(self, body: AsyncIterator[bytes], splitter: MultipartSplitter) -> str:
        """Feed the body; return what is wrong with its end, empty when nothing is."""
        received = 0
        async for chunk in body:
            received += len(chunk)
            if received > self._limits.request_bytes:
                self.too_large = True
                return f"the request is larger than {self._limits.request_bytes} bytes"
            for event in splitter.feed(chunk):
                if isinstance(event, PartData):
                    self._add(event.data)
                elif isinstance(event, PartBegin):
                    await self._make_room()
                    self._begin(event.headers.get("content-type", ""))
                else:
                    self._end(closed=splitter.complete)
                    await self._flush_full()
            if splitter.broken:
                self.too_large = splitter.too_many
                return splitter.broken
        for event in splitter.finish():
            if isinstance(event, PartData):
                self._add(event.data)
            elif isinstance(event, PartBegin):
                self._begin(event.headers.get("content-type", ""))
            else:
                self._end()
        return splitter.broken or ("" if splitter.complete else "the body ends before its final delimiter")

    def _begin(self, part_type: str = "") -> None:
        self._buffer = PartBuffer(self._scratch, self._limits.spool_bytes)
        self._refusal = None
        declared = part_type.partition(";")[0].strip().lower()
        if declared and declared not in (DICOM, OCTETS):
            self._refuse(reasons.CANNOT_UNDERSTAND, "the part is not application/dicom")

    def _add(self, piece: memoryview) -> None:
        buffer = self._buffer
        if buffer is None or self._refusal is not None:
            return
        if buffer.size + len(piece) > self._limits.part_bytes:
            self.too_large = True
            self._refuse(reasons.OUT_OF_RESOURCES, f"the part is larger than {self._limits.part_bytes} bytes")
            return
        try:
            self._hold(buffer.add(piece))
        except OSError:
            self._refuse(reasons.OUT_OF_RESOURCES, "there is no room to receive a large part")

    def _hold(self, change: int) -> None:
        self._held += change
        self._group_held += change
        if change >= 0:
            self._committer.budget.add(change)
        else:
            self._committer.budget.release(-change)

    def _refuse(self, reason: int, comment: str) -> None:
        assert self._buffer is not None
        self._hold(-self._buffer.in_memory)
        self._buffer.discard()
        self._refusal = InstanceOutcome(None, None, None, failure_reason=reason, comment=comment)

    def _end(self, *, closed: bool = False) -> None:
        """A part is complete. ``closed``: the body ends here, so that the parser would do nothing beside anything."""
        buffer = self._buffer
        self._buffer = None
        if buffer is None:
            return
        self._complete_parts += 1
        self._pending_parts += 1
        if self._refusal is not None:
            self._parse()
            self._pending.append(Prepared(self._refusal))
            return
        self._pending_bytes += buffer.size
        self._received.append(buffer.pieces())
        self._received_bytes += buffer.size
        if self._received_bytes >= (_LEFT_BYTES if closed else _PARSE_BYTES):
            self._parse()

    def _parse(self) -> None:
        """Hand the received parts over; small ones together, because a hand-over costs as much as parsing one."""
        if self._received:
            self._pending.append(self._committer.prepare(self._received, self._transfer, self._study_uid))
            self._received = []
            self._received_bytes = 0

    def _drop_open_part(self) -> None:
        if self._buffer is not None:
            self._hold(-self._buffer.in_memory)
            self._buffer.discard()
            self._buffer = None

    async def _make_room(self) -> None:
        """Before a new part: while memory is short, first get one's own parts out of it."""
        if self._committer.budget.bytes < self._limits.in_flight_bytes:
            return
        if self._pending_parts:
            self._send(last=False)
        while self._sent:
            await self._settle()
        await self._committer.budget.wait(self._limits.back_pressure_seconds)

    async def _flush_full(self) -> None:
        if self._pending_parts >= self._limits.group_instances or self._pending_bytes >= self._limits.group_bytes // 2:
            while len(self._sent) > 1:
                await self._settle()
            self._send(last=False)

    async def _finish(self) -> None:
        self._send(last=True)
        while self._sent:
            await self._settle()

    def _send(self, *, last: bool) -> None:
        if last and self._received and self._received_bytes <= _LEFT_BYTES:
            self._pending.append(Received(self._received, self._study_uid))
            self._received, self._received_bytes = [], 0
        self._parse()
        pending, self._pending = self._pending, []
        self._pending_parts = self._pending_bytes = 0
        held, self._group_held = self._group_held, 0
        self._sent.append((self._committer.commit(self._transfer, pending, last=last), held))

    async def _settle(self) -> None:
        done, held = self._sent.popleft()
        try:
            self._outcomes += await done
        finally:
            self._held -= held
            self._committer.budget.release(held)
