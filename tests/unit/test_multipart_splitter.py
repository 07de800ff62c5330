"""The streaming splitter: any chunking gives the same parts, and the same as a slow reference on whole bodies."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.dicomweb.multipart import MultipartSplitter, MultipartWriter, PartBegin, PartData, PartEnd
from wetread.core.errors import MalformedMultipart

Parts = list[tuple[dict[str, str], bytes, bool]]


def split(chunks: list[bytes], boundary: str = "B") -> tuple[Parts, bool]:
    splitter = MultipartSplitter(boundary)
    parts: list[list] = []
    for events in [*(splitter.feed(chunk) for chunk in chunks), splitter.finish()]:
        for event in events:
            if isinstance(event, PartBegin):
                parts.append([dict(event.headers), b"", False])
            elif isinstance(event, PartData):
                parts[-1][1] += bytes(event.data)
            else:
                parts[-1][2] = True
    if splitter.broken:
        raise MalformedMultipart(splitter.broken)
    return [tuple(part) for part in parts], splitter.complete


def outcome(chunks: list[bytes]) -> tuple[Parts, bool] | str:
    """Return the parts, or that a header block is malformed."""
    try:
        return split(chunks)
    except MalformedMultipart:
        return "malformed"


def reference(body: bytes, boundary: str) -> tuple[list[bytes], bool]:
    """Return the bodies of complete parts, found with one regular expression over the whole body."""
    line = re.compile(rb"\r\n--" + re.escape(boundary.encode()) + rb"(--)?[ \t]{0,256}(?=\r\n|\Z)")
    text = b"\r\n" + body
    cuts: list[tuple[int, int, bool]] = []
    position = 0
    while True:
        found = line.search(text, position)
        if found is None:
            break
        closing = found[1] is not None
        if not closing and text[found.end() : found.end() + 2] != b"\r\n":
            position = found.start() + 1
            continue
        cuts.append((found.start(), found.end(), closing))
        position = found.end()
        if closing:
            break
    bodies = []
    for (_, begin, _), (end, _, _) in pairwise(cuts):
        block = text[begin:end]
        head = block.find(b"\r\n\r\n")
        bodies.append(block[head + 4 :] if head >= 0 else b"")
    return bodies, bool(cuts) and cuts[-1][2]


PIECES = st.sampled_from(
    [
        b"--B",
        b"\r\n",
        b"\r",
        b"\n",
        b"--",
        b"B",
        b"\r\n--B",
        b"\r\n--B--",
        b"\r\n--B\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"x",
    ]
)
NOISE = st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(NOISE, max_size=4))
    body = draw(st.sampled_from([b"", b"\r\n", b"preamble\r\n"]))
    for part in parts:
        body += b"--B" + draw(st.sampled_from([b"", b"  "])) + b"\r\nContent-Type: a/b\r\n\r\n" + part + b"\r\n"
    return body + draw(st.sampled_from([b"--B--", b"--B--\r\n", b"--B--  \r\nepilogue\r\n--B\r\n", b""]))


@given(bodies(), st.lists(st.integers(0, 200), max_size=8))
def test_any_chunking_gives_the_same_parts(body: bytes, cuts: list[int]) -> None:
    positions = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[a:b] for a, b in pairwise(positions)]
    whole = outcome([body])
    assert outcome(chunks) == whole
    assert outcome([body[at : at + 1] for at in range(len(body))]) == whole


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_written_bodies_come_back(payloads: list[bytes]) -> None:
    writer = MultipartWriter("application/dicom")
    body = b"".join(writer.begin("application/dicom", len(p)) + p for p in payloads) + writer.end()
    parts, complete = split([body], writer.boundary)
    assert complete
    assert [part[1] for part in parts] == payloads
    assert all(part[0]["content-length"] == str(len(part[1])) for part in parts)


@given(bodies())
def test_equals_the_slow_reference(body: bytes) -> None:
    try:
        parts, complete = split([body])
    except MalformedMultipart:
        return  # a header line without a colon: the reference does not look at headers
    expected, closed = reference(body, "B")
    found = [part[1] for part in parts if part[2]]
    if _has_junk_header(body):
        # Malformed either way: what counts is that nothing before it is lost and nothing is made up.
        assert found == expected[: len(found)]
    else:
        assert (found, complete) == (expected, closed)


def _has_junk_header(body: bytes) -> bool:
    """Return whether a line right behind a delimiter line is neither header, delimiter nor empty."""
    lines = (b"\r\n" + body).split(b"\r\n")
    return any(
        before.rstrip(b" \t") == b"--B" and b":" not in line and line and line.rstrip(b" \t") not in {b"--B", b"--B--"}
        for before, line in pairwise(lines)
    )


@given(st.binary(max_size=40))
def test_a_junk_header_line_never_makes_up_a_part(junk: bytes) -> None:
    line = junk.replace(b"\r", b"").replace(b"\n", b"").replace(b":", b"") or b"x"
    good = b"--B\r\nContent-Type: a/b\r\n\r\nhello\r\n"
    answer = outcome([good + b"--B\r\n" + line + b"\r\n--B--"])
    assert answer == "malformed" or b"hello" in [part[1] for part in answer[0]]


def test_every_single_split_of_a_tricky_body() -> None:
    body = (
        b"\r\n--B\r\nContent-Type: application/dicom\r\nX-Long: a\r\n b\r\n\r\nhello\r\n--Bx\r\n\r\n--B \t\r\n\r\nx"
        b"\r\n--B\r\n--B\r\nH: v\r\n\r\n--B--"
    )
    expected = [
        ({"content-type": "application/dicom", "x-long": "a b"}, b"hello\r\n--Bx\r\n", True),
        ({}, b"x", True),
        ({}, b"", True),
        ({"h": "v"}, b"", True),
    ]
    for cut in range(len(body)):
        assert split([body[:cut], body[cut:]]) == (expected, True), cut


@pytest.mark.parametrize("tail", [b"", b"\r\n", b"  ", b"\r\nepilogue --B\r\n"])
def test_close_delimiter_forms(tail: bytes) -> None:
    parts, complete = split([b"--B\r\n\r\nx\r\n--B--" + tail])
    assert complete
    assert [part[1] for part in parts] == [b"x"]


def test_truncated_body_has_no_end() -> None:
    parts, complete = split([b"--B\r\n\r\nwhole\r\n--B\r\n\r\nhal"])
    assert not complete
    assert [(part[1], part[2]) for part in parts] == [(b"whole", True), (b"hal", False)]


def test_body_without_delimiter_is_preamble_only() -> None:
    splitter = MultipartSplitter("B")
    assert splitter.feed(b"no multipart at all" * 100) == []
    assert splitter.finish() == []
    assert not splitter.started


def test_long_and_odd_boundaries() -> None:
    boundary = "=_" + "x" * 71 + "?(strange)'"
    parts, complete = split([f"--{boundary}\r\n\r\nx\r\n--{boundary}--".encode()], boundary)
    assert (complete, parts[0][1]) == (True, b"x")


def test_header_block_limit() -> None:
    splitter = MultipartSplitter("B", header_limit=64)
    assert splitter.feed(b"--B\r\nX: " + b"y" * 100) == []
    assert "64 bytes" in splitter.broken
    assert splitter.feed(b"\r\n\r\nbody\r\n--B--") == []


def test_header_without_colon_is_malformed() -> None:
    with pytest.raises(MalformedMultipart):
        split([b"--B\r\nnonsense\r\n\r\nx\r\n--B--"])


def test_part_limit() -> None:
    splitter = MultipartSplitter("B", part_limit=2)
    events = splitter.feed(b"--B\r\n\r\n" * 3 + b"--B--\r\n")
    assert [type(event) for event in events] == [PartBegin, PartEnd] * 2, "what came before is kept"
    assert splitter.too_many
    assert "more than 2 parts" in splitter.broken


def test_empty_boundary_is_refused() -> None:
    with pytest.raises(MalformedMultipart):
        MultipartSplitter("")


def test_memory_stays_bounded_on_large_parts() -> None:
    splitter = MultipartSplitter("B")
    splitter.feed(b"--B\r\n\r\n")
    block = b"\r\n--" + b"z" * 65532
    for _ in range(100):
        splitter.feed(block)
        assert len(splitter._buffer) < 64
