"""What stands above a report for people: who, what, when, and how far it may be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wetread.core.dicom.attributes import Attributes, items, text
from wetread.core.ruo import RUO_STATEMENT
from wetread.gateway.documents import class_name
from wetread.gateway.report_tree import ContentItem, date, date_time, names, time

_OURS: Final = "wetread"


@dataclass(frozen=True, slots=True)
class Head:
    """``statement``: of research use, when the report is our own. ``facts``: (label, value), none of them empty."""

    title: str
    statement: str
    facts: tuple[tuple[str, str], ...]
    sop_uid: str


def head(data: Attributes, root: ContentItem) -> Head:
    """Return the head of a report (PS3.3 C.7.1.1, C.7.2.1, C.17.2)."""
    name = root.name
    title = (name.meaning or name.value) if name else ""
    statement = RUO_STATEMENT if text(data, "00080070").strip().lower() == _OURS else ""
    facts = tuple((label, value) for label, value in _facts(data) if value)
    uid = text(data, "00080018")
    return Head(title or class_name(text(data, "00080016")), statement, facts, uid)


def _facts(data: Attributes) -> Iterator[tuple[str, str]]:
    yield "Patient", names(data, "00100010")
    yield "Patient ID", text(data, "00100020")
    yield "Born", date(text(data, "00100030"))
    yield "Sex", text(data, "00100040")
    yield "Study", _joined(text(data, "00081030"), _moment(data, "00080020", "00080030"))
    yield "Accession number", text(data, "00080050")
    yield "Referring physician", names(data, "00080090")
    yield "Series", text(data, "0008103E")
    yield "Written", _moment(data, "00080023", "00080033")
    yield "By", _joined(text(data, "00080070"), text(data, "00081090"), text(data, "00080080"))
    yield "Author", "; ".join(filter(None, (names(item, "0040A123") for item in items(data, "0040A078"))))
    yield "Standing", _joined(*(text(data, tag).lower() for tag in ("0040A491", "0040A493", "0040A496")))
    yield "Completion", text(data, "0040A492")
    for item in items(data, "0040A073"):
        yield "Verified by", _joined(names(item, "0040A075"), text(item, "0040A027"), date_time(text(item, "0040A030")))
    yield "Kind", class_name(text(data, "00080016"))


def _joined(*values: str) -> str:
    return ", ".join(filter(None, (value.strip() for value in values)))


def _moment(data: Attributes, day: str, clock: str) -> str:
    return f"{date(text(data, day))} {time(text(data, clock))}".strip()
