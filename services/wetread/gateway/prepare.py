"""One received part made ready to be stored: parsed, validated, digested, its index entry and metadata computed.

Pure computation on bytes; runs in any thread. What is wrong with a part ends in its outcome, never in an exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from wetread.core.dicom.attributes import text
from wetread.core.dicom.facts import SeriesHeader, age_years, instance_facts, series_header
from wetread.core.dicom.file_meta import file_meta
from wetread.core.dicom.frame_table import frame_table
from wetread.core.dicom.header import Header, HeaderLimits, read_header
from wetread.core.dicom.header_memory import HeaderMemory
from wetread.core.dicom.json_model import JsonDataset, to_json
from wetread.core.dicomweb.stored_metadata import pack
from wetread.core.errors import InstanceRejected
from wetread.core.facts import InstanceFacts, Source
from wetread.core.identifiers import is_uid
from wetread.core.ports.archive import IndexEntry
from wetread.core.ports.ingest import InstanceOutcome
from wetread.core.ports.objects import ObjectRef
from wetread.gateway import reasons

_DICOMDIR: Final = "1.2.840.10008.1.3.10"

Part = bytes | memoryview

_HEAD_BYTES: Final = 1 << 16
"""Enough for the header of most instances: it is looked at without joining what was received in pieces."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """``outcome.failure_reason`` set: refused, nothing else is. ``chunks``: what the object store will hold."""

    outcome: InstanceOutcome
    description: bytes = b""
    chunks: Sequence[Part] = ()
    size: int = 0
    facts: InstanceFacts | None = None
    series: SeriesHeader | None = None
    series_uid: str = ""
    age_years: float | None = None
    attributes: JsonDataset | None = None
    metadata: bytes = b""
    frames: Mapping[str, Any] | None = None
    received_at: float = 0.0
    source: Source = field(default_factory=Source)
    own_result: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID of an accepted part."""
        return self.outcome.sop_instance_uid or ""

    @property
    def study_uid(self) -> str:
        """Study Instance UID of an accepted part."""
        return self.outcome.study_instance_uid or ""

    def entry(self, ref: ObjectRef) -> IndexEntry:
        """Return the index entry once the bytes have an address."""
        assert self.facts is not None
        assert self.series is not None
        assert self.attributes is not None
        return IndexEntry(
            study_uid=self.study_uid,
            series_uid=self.series_uid,
            facts=self.facts,
            series=self.series,
            age_years=self.age_years,
            attributes=self.attributes,
            metadata=self.metadata,
            frames=self.frames or {},
            ref=ref,
            received_at=self.received_at,
            source=self.source,
            own_result=self.own_result,
            warnings=self.warnings,
        )


@dataclass(frozen=True, slots=True)
class _Parsed:
    """``pieces``: the part as received. ``json``: its attributes as a JSON object."""

    pieces: Sequence[Part]
    header: Header
    attributes: JsonDataset
    json: bytes
    clean: bool


def prepare(
    part: Part | Sequence[Part],
    *,
    received_at: float,
    source: Source,
    study_uid: str | None = None,
    own_result: bool = False,
    limits: HeaderLimits | None = None,
    memory: HeaderMemory | None = None,
) -> Prepared:
    """Parse and validate *part* (whole, or in pieces). ``study_uid``: the study that the request's URL names.

    ``memory``: of earlier headers, for speed.
    """
    try:
        parsed = _parse([part] if isinstance(part, Part) else part, limits, memory)
    except InstanceRejected as error:
        return Prepared(InstanceOutcome(None, None, None, failure_reason=error.reason, comment=error.detail))
    attributes = parsed.attributes
    problem = _identity_problem(attributes, study_uid)
    outcome = InstanceOutcome(
        _uid_or_none(attributes, "00080016"),
        _uid_or_none(attributes, "00080018"),
        _uid_or_none(attributes, "0020000D"),
        _uid_or_none(attributes, "0020000E"),
    )
    if problem is not None:
        reason, comment = problem
        return Prepared(replace(outcome, failure_reason=reason, comment=comment))
    return _accepted(parsed, outcome, received_at, source, own_result)


def _parse(pieces: Sequence[Part], limits: HeaderLimits | None, memory: HeaderMemory | None) -> _Parsed:
    if memory is not None:
        size = sum(len(piece) for piece in pieces)
        first = memoryview(pieces[0]) if pieces else memoryview(b"")
        head = bytes(first[:_HEAD_BYTES])
        if len(head) < _HEAD_BYTES and len(pieces) > 1:
            head = b"".join([head, *pieces[1:]])[:_HEAD_BYTES]
        plain = memory.read(head, size)
        if plain is not None:
            return _Parsed(pieces, plain.header, plain.attributes, plain.json, plain.clean)
    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    header = read_header(whole, limits)
    attributes, clean = to_json(header)
    return _Parsed([whole], header, attributes, orjson.dumps(attributes), clean)


def _accepted(
    parsed: _Parsed, outcome: InstanceOutcome, received_at: float, source: Source, own_result: bool
) -> Prepared:
    header, attributes = parsed.header, parsed.attributes
    warnings: list[str] = [] if parsed.clean else ["charset"]
    chunks = list(parsed.pieces)
    digest = _digest(chunks, header)
    if not header.complete_file:
        lead = file_meta(outcome.sop_class_uid or "", outcome.sop_instance_uid or "", header.transfer_syntax_uid)
        chunks = [lead, *_behind(chunks, header.dataset_start)]
        shift = len(lead) - header.dataset_start
        warnings.append("file-meta")
        outcome = replace(
            outcome,
            warning_reason=reasons.WARNING_MISMATCH,
            comment="file meta information was missing and has been added",
        )
    else:
        shift = 0
    description = {
        "received": received_at,
        "source": {"ae": source.ae, "client": source.client, "site": source.site},
        "own": own_result,
    }
    return Prepared(
        outcome=outcome,
        description=orjson.dumps(description),
        chunks=chunks,
        size=sum(len(chunk) for chunk in chunks),
        facts=instance_facts(attributes, content_hash=digest, transfer_syntax_uid=header.transfer_syntax_uid),
        series=series_header(attributes),
        series_uid=text(attributes, "0020000E"),
        age_years=age_years(attributes),
        attributes=attributes,
        metadata=pack(parsed.json),
        frames=frame_table(header, attributes, shift=shift).to_json(),
        received_at=received_at,
        source=source,
        own_result=own_result,
        warnings=tuple(warnings),
    )


def _behind(pieces: Sequence[Part], start: int) -> list[Part]:
    """Return what lies behind the first *start* bytes."""
    rest: list[Part] = []
    for piece in pieces:
        if start < len(piece):
            rest.append(memoryview(piece)[start:])
        start = max(start - len(piece), 0)
    return rest


def _digest(pieces: Sequence[Part], header: Header) -> str:
    """Return the identity of a content: SHA-256 over the data set and its transfer syntax."""
    digest = hashlib.sha256()
    for piece in _behind(pieces, header.dataset_start):
        digest.update(piece)
    digest.update(header.transfer_syntax_uid.encode())
    return digest.hexdigest()


def _identity_problem(attributes: JsonDataset, study_uid: str | None) -> tuple[int, str] | None:
    """Return (reason, comment) when an instance may not be stored for who it says it is."""
    if text(attributes, "00041130") or "00041220" in attributes or text(attributes, "00080016") == _DICOMDIR:
        return reasons.SOP_CLASS_NOT_SUPPORTED, "a DICOMDIR is not stored"
    for tag, name in (
        ("00080016", "SOP Class UID"),
        ("00080018", "SOP Instance UID"),
        ("0020000D", "Study Instance UID"),
        ("0020000E", "Series Instance UID"),
    ):
        value = text(attributes, tag)
        if not value:
            return reasons.ATTRIBUTE_MISSING, f"{name} is missing"
        if not is_uid(value):
            return reasons.ATTRIBUTE_MISSING, f"{name} is not a UID"
    if study_uid is not None and text(attributes, "0020000D") != study_uid:
        return reasons.STUDY_MISMATCH, "the instance belongs to another study than the request"
    return None


def _uid_or_none(attributes: JsonDataset, tag: str) -> str | None:
    value = text(attributes, tag)
    return value if value and is_uid(value) else None
