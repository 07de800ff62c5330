"""One received part made ready to be stored: parsed, validated, digested, its index entry and metadata computed.

Pure computation on bytes; runs in any thread. What is wrong with a part ends in its outcome, never in an exception.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from wetread.core.dicom.attributes import text
from wetread.core.dicom.facts import SeriesHeader, age_years, instance_facts, series_header
from wetread.core.dicom.file_meta import file_meta
from wetread.core.dicom.frame_table import frame_table
from wetread.core.dicom.header import Header, HeaderLimits, read_header
from wetread.core.dicom.json_model import JsonDataset, to_json
from wetread.core.errors import InstanceRejected
from wetread.core.facts import InstanceFacts, Source
from wetread.core.identifiers import is_uid
from wetread.core.ports.archive import IndexEntry
from wetread.core.ports.ingest import InstanceOutcome
from wetread.core.ports.objects import ObjectRef
from wetread.gateway import reasons

_DICOMDIR: Final = "1.2.840.10008.1.3.10"

Part = bytes | memoryview


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


def prepare(
    part: Part,
    *,
    received_at: float,
    source: Source,
    study_uid: str | None = None,
    own_result: bool = False,
    limits: HeaderLimits | None = None,
) -> Prepared:
    """Parse and validate *part*. ``study_uid``: the study that the request's URL names."""
    try:
        header = read_header(part, limits)
        attributes, clean = to_json(header)
    except InstanceRejected as error:
        return Prepared(InstanceOutcome(None, None, None, failure_reason=error.reason, comment=error.detail))
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
    return _accepted(part, header, attributes, outcome, clean, received_at, source, own_result)


def _accepted(
    part: Part,
    header: Header,
    attributes: JsonDataset,
    outcome: InstanceOutcome,
    clean: bool,
    received_at: float,
    source: Source,
    own_result: bool,
) -> Prepared:
    warnings: list[str] = [] if clean else ["charset"]
    chunks: list[Part] = [part]
    if not header.complete_file:
        lead = file_meta(outcome.sop_class_uid or "", outcome.sop_instance_uid or "", header.transfer_syntax_uid)
        chunks = [lead, memoryview(part)[header.dataset_start :]]
        shift = len(lead) - header.dataset_start
        warnings.append("file-meta")
        outcome = replace(
            outcome,
            warning_reason=reasons.WARNING_MISMATCH,
            comment="file meta information was missing and has been added",
        )
    else:
        shift = 0
    digest = hashlib.sha256(memoryview(part)[header.dataset_start :])
    digest.update(header.transfer_syntax_uid.encode())
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
        facts=instance_facts(
            attributes, content_hash=digest.hexdigest(), transfer_syntax_uid=header.transfer_syntax_uid
        ),
        series=series_header(attributes),
        series_uid=text(attributes, "0020000E"),
        age_years=age_years(attributes),
        attributes=attributes,
        metadata=zlib.compress(orjson.dumps(attributes), 1),
        frames=frame_table(header, attributes, shift=shift).to_json(),
        received_at=received_at,
        source=source,
        own_result=own_result,
        warnings=tuple(warnings),
    )


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
