"""What the server gives back of a study, compared with what was sent: every instance, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dicomweb.connection import Answer, Connection
from dicomweb.instances import MARKS, Place, Template

_ACCEPT: Final = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*\r\n'
_UID_SIZE: Final = len(MARKS["sop"])

Span = tuple[int, int]
"""Start and end of a file inside the body of an answer."""


@dataclass(slots=True)
class Checked:
    """``missing``, ``damaged``: SOP Instance UIDs. ``others``: objects of the study that nobody sent: results."""

    status: int = 0
    sound: int = 0
    others: int = 0
    other_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Instances that did not come back as they were sent."""
        return len(self.missing) + len(self.damaged)


def retrieve(connection: Connection, places: Sequence[Place], templates: Sequence[Template]) -> Checked:
    """Fetch a study as it is stored (WADO-RS, PS3.18 10.4) and compare it with what was sent."""
    answer = connection.get(f"/dicom-web/studies/{places[0].study_uid}", _ACCEPT, keep=True)
    found = (
        compare(answer.body, spans_of(answer), places, templates)
        if answer.status == 200
        else compare(b"", (), places, templates)
    )
    found.status, found.seconds = answer.status, answer.seconds
    return found


def compare(whole: bytes, spans: Iterable[Span], places: Sequence[Place], templates: Sequence[Template]) -> Checked:
    """Compare the files at *spans* of *whole*, in whatever order, with the instances *places* of *templates*."""
    awaited = {place.sop_uid: (place, template) for place, template in zip(places, templates, strict=True)}
    uid_at = {template.sop_at for template in templates}
    found = Checked()
    for start, end in spans:
        names = (whole[start + at : start + at + _UID_SIZE].decode("ascii", "replace") for at in uid_at)
        uid = next((name for name in names if name in awaited), None)
        if uid is None:
            found.others += 1
            found.other_bytes += end - start
            continue
        place, template = awaited.pop(uid)
        head = template.head(place)
        same = whole.startswith(head, start, end) and whole.startswith(template.pixels, start + len(head), end)
        if same and end - start == template.size:
            found.sound += 1
        else:
            found.damaged.append(uid)
    found.missing = list(awaited)
    return found


def spans_of(answer: Answer) -> Iterator[Span]:
    """Yield where the bodies of a multipart answer stand (RFC 2046 5.1)."""
    boundary = answer.headers["content-type"].partition("boundary=")[2].partition(";")[0].strip().strip('"')
    delimiter = f"--{boundary}".encode()
    at = answer.body.find(delimiter)
    while at >= 0:
        head_end = answer.body.find(b"\r\n\r\n", at)
        following = answer.body.find(b"\r\n" + delimiter, head_end)
        if head_end < 0 or following < 0:
            return
        yield head_end + 4, following
        at = following + 2
