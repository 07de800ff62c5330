"""The reading part: searches at two sizes of the index, metadata, frames and whole series, on the same stores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from dicomweb.connection import Answer
from dicomweb.instances import Place, Template
from dicomweb.load import Get, fetch, stow
from dicomweb.servers import Server, start

SMALL_INDEX: Final = 4_000
_PER_SERIES: Final = 100
_SERIES_PER_STUDY: Final = 2
_JSON: Final = "Accept: application/dicom+json\r\nAccept-Encoding: gzip\r\n"
_STORED: Final = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*\r\n'
_FRAMES: Final = 'Accept: multipart/related; type="application/octet-stream"; transfer-syntax=*\r\n'
_OHIF: Final = "/studies?limit=101&offset=0&fuzzymatching=true&includefield=00081030%2C00080060%2C00080090%2C00100030"
_SETTLED_SECONDS: Final = 75
"""Orthanc writes its cache of series metadata 60 s after a series has become stable."""

_BIG, _LONG, _FILL = 1, 2, 3
"""Runs (UID ranges): 100 slices of 526 KB, 1000 slices with full headers, small instances for the index."""
_NOBODY: Final = 9_000_000
"""Studies from this number on are of patients that no search asks for: each of those has one study."""


def run(
    names: Sequence[str],
    orthanc: Path,
    *,
    base: Path,
    count: int,
    size: int,
    requests: int,
    settle: bool,
    retrievals: bool,
    say: Any,
) -> list[dict[str, Any]]:
    """Fill stores of *names* to *size* instances and measure; return one record per cell, server and round.

    ``retrievals`` False: searches only, at both sizes of the index.
    """
    records: list[dict[str, Any]] = []

    def note(part: str, cell: str, number: int, server: Server, figures: dict[str, Any]) -> None:
        found = {"part": part, "cell": cell, "round": number, "server": server.name, **figures}
        say(found)
        records.append(found)

    servers: list[Server] = []
    try:
        servers += [start(name, base, orthanc) for name in names]
        small = min(SMALL_INDEX, size)
        for server in servers if retrievals else ():
            stow(server, Template.ct(512), [[_series(_BIG, 0, 1, _PER_SERIES)]])
            stow(server, Template.ct(64), [_cut(_series(_LONG, 0, 1, 1000))])
        _fill(servers, 0, small, 1, note)
        if settle:
            time.sleep(_SETTLED_SECONDS)
        extra = 2 if retrievals else 0
        _searches(servers, small, extra, count, requests, f"at {small}", note)
        if retrievals:
            _retrievals(servers, count, requests, note)
            _first_metadata(servers, count, note)
            extra += count
        if size > small:
            _fill(servers, small, size, count, note)
            if settle:
                time.sleep(_SETTLED_SECONDS)
            _searches(servers, size, extra, count, requests, f"at {size}", note)
    finally:
        for server in servers:
            server.stop()
    return records


Note = Callable[[str, str, int, Server, dict[str, Any]], None]


def _series(run_number: int, study: int, series: int, count: int) -> list[Place]:
    return [Place(run_number, study, series, number + 1) for number in range(count)]


def _cut(places: Sequence[Place]) -> list[list[Place]]:
    return [list(places[at : at + 100]) for at in range(0, len(places), 100)]


def _filler(first: int, last: int) -> list[list[Place]]:
    """Return the series number *first* to *last* of the index load, one request each."""
    return [
        _series(_FILL, one // _SERIES_PER_STUDY, one % _SERIES_PER_STUDY + 1, _PER_SERIES) for one in range(first, last)
    ]


def _fill(servers: Sequence[Server], start_at: int, end: int, count: int, note: Note) -> None:
    """Load small instances, 100 per request over 4 connections, in *count* interleaved blocks."""
    template = Template.ct(24, rich=False)
    first, last = start_at // _PER_SERIES, end // _PER_SERIES
    borders = [first + (last - first) * step // count for step in range(count + 1)]
    for number in range(count):
        requests = _filler(borders[number], borders[number + 1])
        for server in _order(servers, number):
            cell = stow(server, template, [requests[at::4] for at in range(4)])
            note("fill", f"from {start_at} to {end}", number, server, cell.as_json())


def _order(servers: Sequence[Server], number: int) -> list[Server]:
    return list(servers) if number % 2 == 0 else list(reversed(servers))


def _cells(
    servers: Sequence[Server],
    count: int,
    part: str,
    cell: str,
    gets: Sequence[Get],
    connections: int,
    check: Callable[[Answer], bool],
    note: Note,
) -> None:
    for number in range(count):
        for server in _order(servers, number):
            fetch(server, gets[:2], 1, check, keep=True)
            note(part, cell, number, server, fetch(server, gets, connections, check, keep=True).as_json())


def _results(wanted: int) -> Callable[[Answer], bool]:
    """Return a check that parses each answer once in a while: parsing all would make the client the bottleneck."""
    seen = 0

    def check(answer: Answer) -> bool:
        nonlocal seen
        seen += 1
        if seen % 16 != 1:
            return answer.size > 2
        return len(_parsed(answer)) == wanted

    return check


def _parsed(answer: Answer) -> list[Any]:
    import gzip

    body = answer.body
    if answer.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    found = json.loads(body)
    assert isinstance(found, list)
    return found


def _searches(
    servers: Sequence[Server], size: int, extra: int, count: int, requests: int, cell: str, note: Note
) -> None:
    """Search for patients, list studies, list a series' instances. ``extra``: studies besides those of the fill."""
    studies = size // _PER_SERIES // _SERIES_PER_STUDY
    # The series of the retrieval cells are studies of patient 0, whom the fill has as well.
    chosen = [1 + (number * 7919) % (studies - 1) for number in range(requests)]
    by_patient = [(f"/studies?PatientID={Place(_FILL, study, 1, 1).patient_id}", _JSON) for study in chosen]
    _cells(servers, count, "qido PatientID", cell, by_patient, 1, _results(1), note)
    listed = min(101, studies + extra)
    _cells(servers, count, "qido list", cell, [(_OHIF, _JSON)] * max(requests // 4, 8), 1, _results(listed), note)
    places = [Place(_FILL, study, 1, 1) for study in chosen[: max(requests // 4, 8)]]
    below = [(f"/studies/{one.study_uid}/series/{one.series_uid}/instances", _JSON) for one in places]
    _cells(servers, count, "qido instances", cell, below, 1, _results(_PER_SERIES), note)


def _retrievals(servers: Sequence[Server], count: int, requests: int, note: Note) -> None:
    big, long = _series(_BIG, 0, 1, _PER_SERIES), _series(_LONG, 0, 1, 1000)
    few = max(requests // 10, 5)
    for cell, one in (("100", big[0]), ("1000", long[0])):
        gets = [(f"{_path(one)}/metadata", _JSON)] * few
        _cells(servers, count, "series metadata", cell, gets, 1, _results(int(cell)), note)
    spread = [big[number % len(big)] for number in range(requests)]
    metadata = [(f"{_path(one, instance=True)}/metadata", _JSON) for one in spread]
    _cells(servers, count, "instance metadata", "c1", metadata, 1, _results(1), note)
    frames = [(f"{_path(one, instance=True)}/frames/1", _FRAMES) for one in spread]
    pixels = 512 * 512 * 2
    _cells(servers, count, "frames", "c4", frames, 4, lambda answer: answer.size > pixels, note)
    whole = [(_path(big[0]), _STORED)] * few
    enough = Template.ct(512).size * _PER_SERIES
    for number in range(count):
        for server in _order(servers, number):
            cell_ = fetch(server, whole, 1, lambda answer: answer.size > enough)
            note("series retrieve", "c1", number, server, cell_.as_json())
    rendered = [(f"{_path(one, instance=True)}/rendered", "Accept: image/jpeg\r\n") for one in spread]
    _cells(servers, count, "rendered", "c1", rendered, 1, lambda answer: answer.body[:2] == b"\xff\xd8", note)


def _first_metadata(servers: Sequence[Server], count: int, note: Note) -> None:
    """Time the first metadata request after the STOW answer against later ones of the same series."""
    template = Template.ct(64)
    for number in range(count):
        for server in _order(servers, number):
            places = _series(_LONG, _NOBODY + number, 1, _PER_SERIES)
            stow(server, template, [[places]])
            get = (f"{_path(places[0])}/metadata", _JSON)
            first = fetch(server, [get], 1, _results(_PER_SERIES), keep=True)
            later = fetch(server, [get] * 9, 1, _results(_PER_SERIES), keep=True)
            note("first metadata", "100", number, server, later.as_json() | {"first_ms": first.p50_ms})


def _path(place: Place, *, instance: bool = False) -> str:
    path = f"/studies/{place.study_uid}/series/{place.series_uid}"
    return f"{path}/instances/{place.sop_uid}" if instance else path
