"""Rows of the study index: what an instance's attributes become at each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from wetread.core.dicom.attributes import Attributes, folded, text
from wetread.core.dicom.facts import SeriesHeader
from wetread.core.dicomweb.fragments import instance_fragment
from wetread.core.dicomweb.levels import Level, fragment
from wetread.core.dicomweb.match import normalised
from wetread.core.ports.archive import IndexEntry


def study_row(tenant: str, entry: IndexEntry) -> dict[str, Any]:
    """Return the row of a study that begins with *entry*; counters are the caller's."""
    return {
        "tenant": tenant,
        "study_uid": entry.study_uid,
        "received_at": entry.received_at,
        "source_json": orjson.dumps(entry.source).decode(),
        **study_columns(entry.attributes, entry.age_years),
    }


def study_columns(data: Attributes, age_years: float | None) -> dict[str, Any]:
    """Return the columns of a study that come from the attributes of its first instance."""
    name, physician = text(data, "00100010"), text(data, "00080090")
    return {
        "patient_id": text(data, "00100020"),
        "patient_name": name,
        "patient_name_folded": folded(name),
        "birth_date": normalised(text(data, "00100030"), "DA"),
        "sex": text(data, "00100040"),
        "age_years": age_years,
        "study_date": normalised(text(data, "00080020"), "DA"),
        "study_time": text(data, "00080030"),
        "accession_number": text(data, "00080050"),
        "referring_physician": physician,
        "referring_physician_folded": folded(physician),
        "study_id": text(data, "00200010"),
        "description": text(data, "00081030"),
        "institution": text(data, "00080080"),
        "attributes_json": orjson.dumps(fragment(data, Level.STUDY)),
    }


def series_row(tenant: str, entries: Sequence[IndexEntry]) -> dict[str, Any]:
    """Return the row of a series that begins with *entries*; its version is the caller's."""
    first = entries[0]
    return {
        "tenant": tenant,
        "study_uid": first.study_uid,
        "series_uid": first.series_uid,
        "own_result": first.own_result,
        "instance_count": len(entries),
        "received_at": first.received_at,
        **series_columns(first.attributes, first.series),
    }


def series_columns(data: Attributes, header: SeriesHeader) -> dict[str, Any]:
    """Return the columns of a series that come from the attributes of its first instance."""
    return {
        "modality": header.modality,
        "series_number": _sql_integer(header.series_number),
        "description": header.description,
        "body_part": header.body_part,
        "series_date": normalised(text(data, "00080021"), "DA"),
        "series_time": text(data, "00080031"),
        "performed_date": normalised(text(data, "00400244"), "DA"),
        "performed_time": text(data, "00400245"),
        "facts_json": orjson.dumps(header).decode(),
        "attributes_json": orjson.dumps(fragment(data, Level.SERIES)),
    }


def instance_row(tenant: str, entry: IndexEntry) -> dict[str, Any]:
    """Return the row of an instance."""
    facts, data = entry.facts, entry.attributes
    return {
        "tenant": tenant,
        "study_uid": entry.study_uid,
        "series_uid": entry.series_uid,
        "sop_uid": facts.sop_instance_uid,
        "sop_class_uid": facts.sop_class_uid,
        "instance_number": _sql_integer(facts.instance_number),
        "rows": _sql_integer(facts.rows),
        "columns": _sql_integer(facts.columns),
        "number_of_frames": _sql_integer(facts.number_of_frames) or 1,
        "transfer_syntax_uid": facts.transfer_syntax_uid,
        "content_hash": facts.content_hash,
        "locator": entry.ref.locator,
        "length": entry.ref.length,
        "received_at": entry.received_at,
        "warnings": ",".join(entry.warnings),
        "facts_json": orjson.dumps(facts).decode(),
        "attributes_json": instance_fragment(data),
        "metadata_json": entry.metadata,
        "frames_json": orjson.dumps(entry.frames).decode(),
    }


def _sql_integer(value: int | None) -> int | None:
    """Return *value* when a 64-bit column holds it (an IS of a broken writer may not fit)."""
    return value if value is None or abs(value) < 1 << 62 else None
