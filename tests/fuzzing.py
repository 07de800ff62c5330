"""Mutations of real files and of the grammars of the gateway, with what has to hold for each case.

Every case is made from a seed and a number, so that one that fails can be made again alone.
"""

from __future__ import annotations

import copy
import random
import resource
import string
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from wetread.core.dicom.frame_table import FrameTable
from wetread.core.dicom.header import read_header
from wetread.core.dicom.json_model import to_json
from wetread.core.dicom.native_xml import from_xml, to_xml
from wetread.core.dicomweb.levels import Level
from wetread.core.dicomweb.match import matches
from wetread.core.dicomweb.media_types import parse_accept, parse_media_type
from wetread.core.dicomweb.multipart import MultipartSplitter, PartBegin, PartData, PartEnd
from wetread.core.dicomweb.query import parse_query
from wetread.core.errors import InstanceRejected, InvalidInput
from wetread.core.facts import Source
from wetread.core.ports.ingest import InstanceOutcome
from wetread.gateway.assembling import assemble
from wetread.gateway.bulkparts import BulkPart, BulkSpool, MetadataBody
from wetread.gateway.negotiation import choose_frames, choose_instance
from wetread.gateway.prepare import prepare

SECONDS_PER_CASE = 5.0
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TOKENS = (
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\xdd\xe0",
    b"\xff\xff\xff\xff",
    b"SQ",
    b"UN",
    b"??",
    b"OB\0\0",
)


@dataclass
class Corpus:
    """Small real files, and what the gateway makes of their headers."""

    parts: list[bytes]
    models: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in self.parts:
            try:
                model, _ = to_json(read_header(part), inline_limit=1 << 16)
            except InstanceRejected:
                continue
            if len(self.models) < 60:
                self.models.append(orjson.loads(orjson.dumps(model)))


def corpus(shared: Path, largest: int = 24_000) -> Corpus:
    files = [path for path in sorted((shared / "dicom-variety").rglob("*")) if path.is_file()]
    return Corpus([part for part in (path.read_bytes() for path in files) if 200 < len(part) <= largest])


def mutated(dice: random.Random, part: bytes) -> bytes:
    """Return *part* with a few bytes, lengths or pieces changed."""
    data = bytearray(part)
    for _ in range(dice.choice((1, 1, 2, 4, 12))):
        at = dice.randrange(len(data)) if data else 0
        kind = dice.randrange(8)
        if kind == 0 and data:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1 and data:
            data[at] = dice.randrange(256)
        elif kind == 2:
            value, size = dice.choice(INTERESTING), dice.choice((2, 4))
            data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, dice.choice(("little", "big")))
        elif kind == 3:
            del data[at : at + dice.randrange(1, 64)]
        elif kind == 4:
            piece = data[at : at + dice.randrange(1, 200)]
            data[at:at] = piece * dice.choice((1, 2, 8))
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            data[at : at + dice.choice((0, 4))] = dice.choice(TOKENS)
        else:
            data[at:at] = dice.randbytes(dice.randrange(1, 40))
    return bytes(data)


def dicom_case(dice: random.Random, known: Corpus) -> None:
    """A damaged file is refused with a reason, or accepted with metadata and frames that lie within it."""
    part = mutated(dice, dice.choice(known.parts))
    found = prepare(part, received_at=0.0, source=Source())
    reason = found.outcome.failure_reason
    if reason is not None:
        assert reason in (0x0122, 0xA900, 0xC000), hex(reason)
        return
    assert found.facts is not None
    assert found.entry is not None
    orjson.dumps(found.attributes)
    table = FrameTable.from_json(orjson.loads(orjson.dumps(found.frames)))
    if not table.embedded:
        for number in {1, table.count} & set(range(1, table.count + 1)):
            for start, length in table.ranges(number):
                assert 0 <= start <= start + length <= found.size, "a frame lies within the stored object"


def multipart_case(dice: random.Random, known: Corpus) -> None:
    """Whatever the bytes and however they are cut: the same parts."""
    boundary = dice.choice(("XX", "a'b", "=_?:", "b" * 90))
    good = b"".join(
        f"{dice.choice(('', chr(13) + chr(10)))}--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        + dice.choice(known.parts)[: dice.randrange(300)]
        + b"\r\n"
        for _ in range(dice.randrange(4))
    )
    body = mutated(dice, good + f"--{boundary}--\r\n".encode())
    assert _split(body, boundary, [len(body)]) == _split(body, boundary, [dice.randrange(1, 60) for _ in range(200)])


def _split(body: bytes, boundary: str, sizes: list[int]) -> tuple[Any, ...]:
    splitter, position, parts = MultipartSplitter(boundary), 0, []
    events = []
    for size in [*sizes, len(body)]:
        if position < len(body):
            events += splitter.feed(body[position : position + size])
            position += size
    events += splitter.finish()
    for event in events:
        if isinstance(event, PartBegin):
            parts.append([dict(event.headers), bytearray(), False])
        elif isinstance(event, PartData):
            parts[-1][1] += event.data
        elif isinstance(event, PartEnd):
            parts[-1][2] = True
    # What an unfinished part holds depends on how far the splitter could tell it from a delimiter.
    whole = [(headers, bytes(data)) for headers, data, ended in parts if ended]
    return whole, splitter.complete, bool(splitter.broken)


JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 70,
    1.5,
    1e308,
    "",
    "x",
    "\u0000",
    "é",
    "\\",
    [],
    {},
    [[]],
    [None],
    {"Value": 1},
)


def _changed_json(dice: random.Random, value: Any) -> Any:
    """Replace something somewhere in a JSON value."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        if dice.random() < 0.1:
            value[dice.choice((key.lower(), "0010001G", "", "00100010", "Value", "vr", "BulkDataURI"))] = value.pop(key)
        else:
            value[key] = _changed_json(dice, value[key])
        return value
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(len(value))
        value[at] = _changed_json(dice, value[at])
        return value
    return dice.choice((*JUNK, dice.choice(("SQ", "OB", "US", "PN", "FD", "DS", "AT", "ZZ", "UV", "BulkDataURI"))))


def json_case(dice: random.Random, known: Corpus) -> None:
    """Changed metadata become an instance that can be read, or a failure with a reason."""
    model = copy.deepcopy(dice.choice(known.models))
    for _ in range(dice.choice((1, 1, 2, 6))):
        _changed_json(dice, model)
    _assembled(model)


def _assembled(model: dict[str, Any]) -> None:
    spool = BulkSpool(None, 1 << 20, lambda _: None)
    spool.write(memoryview(bytes(64)))
    bulk = {
        uri: [BulkPart(parse_media_type(media), 0, 64)]
        for uri, media in (("x", "image/jls"), ("", "application/octet-stream"))
    }
    found = assemble(model, MetadataBody(bulk=bulk), spool, limit=1 << 20)
    if isinstance(found, InstanceOutcome):
        assert found.failure_reason is not None
        return
    stored = prepare(found, received_at=0.0, source=Source())
    assert stored.outcome.failure_reason in (None, 0xA900, 0x0122, 0xC000)


def xml_case(dice: random.Random, known: Corpus) -> None:
    """Changed XML is refused, or is a data set that can be encoded or refused in turn."""
    document = mutated(dice, to_xml(dice.choice(known.models))[:20_000])
    if dice.random() < 0.1:
        document = b'<!DOCTYPE x [<!ENTITY e "eeee">]>' + document
    try:
        found = from_xml(document)
    except InvalidInput:
        return
    _assembled(found)


_WORDS = [
    "PatientName",
    "PatientID",
    "StudyDate",
    "StudyTime",
    "ModalitiesInStudy",
    "00100020",
    "0010001G",
    "RequestAttributesSequence.00400009",
    "includefield",
    "limit",
    "offset",
    "fuzzymatching",
    "emptyvaluematching",
    "0040A370.00080050",
    "StudyInstanceUID",
    "AcquisitionDateTime",
    "x",
    ".",
    "..",
    "all",
    "true",
    "-1",
    "99999999999999999999",
    "1.2.3,4",
    "20230101-20231231",
    "-2023",
    "1000-1100",
    "2023010112+0100",
    "*?*",
    "M%C3%BCller",
    "%FF",
    "%00",
    '""',
]


def query_case(dice: random.Random, known: Corpus) -> None:
    """A query string is understood or refused; matching never fails."""
    pairs = [_word(dice) + dice.choice(("=", "=", "", "==")) + _word(dice) for _ in range(dice.randrange(6))]
    try:
        query = parse_query(dice.choice(list(Level)), dice.choice(("&", "&&")).join(pairs))
    except InvalidInput:
        return
    assert query.page >= 0
    assert all(text.isprintable() and text.isascii() for text in query.warnings)
    matches(query.keys, dice.choice(known.models), fuzzy=query.fuzzy)


def _word(dice: random.Random) -> str:
    if dice.random() < 0.7:
        return dice.choice(_WORDS)
    return "".join(dice.choice(string.printable + "é山\u202e\ud7ff") for _ in range(dice.randrange(12)))


_RANGES = [
    "application/dicom",
    "application/dicom+json",
    "application/octet-stream",
    "image/jls",
    "image/*",
    "*/*",
    "*",
    "image/jphc",
    "application/zip",
    'multipart/related;type="application/dicom"',
    "multipart/related;type=image/jls",
    "multipart/related",
    "text/html",
    ";q=0",
    ";q=1",
    ";q=nan",
    ";q=-1",
    ";transfer-syntax=*",
    ";transfer-syntax=1.2.840.10008.1.2.4.80",
    ";transfer-syntax=1.2.840.10008.1.2",
    ";type=",
    ";=",
    ",",
    ";",
    '"',
    "\\",
    ";q",
]
_SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.1.99",
    "1.2.3",
)


def accept_case(dice: random.Random, known: Corpus) -> None:
    """An Accept header chooses something that the server has, or nothing."""
    del known
    header = dice.choice(("", ",", ", ")).join(
        dice.choice(_RANGES) if dice.random() < 0.9 else _word(dice) for _ in range(dice.randrange(12))
    )
    ranges = parse_accept(header, _word(dice) if dice.random() < 0.2 else None)
    stored, single = dice.choice(_SYNTAXES), dice.random() < 0.5
    encodable = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201"})
    for choose in (
        lambda: choose_instance(ranges, stored, single=single, lossy=False, encodable=encodable),
        lambda: choose_frames(ranges, stored, one=single, lossy=False, encodable=encodable),
    ):
        try:
            choices = choose()
        except InvalidInput:
            continue
        assert all(choice.transfer_syntax in (*_SYNTAXES, *encodable) for choice in choices)
        if stored.endswith(".50"):
            assert not any(choice.form == "encoded" for choice in choices), "lossy never becomes lossless"


Case = Callable[[random.Random, Corpus], None]

CASES: dict[str, tuple[Case, int]] = {
    "DICOM": (dicom_case, 30_000),
    "multipart": (multipart_case, 20_000),
    "JSON": (json_case, 15_000),
    "XML": (xml_case, 10_000),
    "query": (query_case, 20_000),
    "Accept": (accept_case, 20_000),
}
"""Kinds of input, and how many of each the long run makes."""


def run(name: str, known: Corpus, *, seed: int, share: int = 1) -> int:
    """Run ``1/share`` of the cases of a kind; return how many."""
    case, count = CASES[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count // share):
        dice = random.Random(f"{seed}/{name}/{number}")
        began = time.process_time()
        try:
            case(dice, known)
        except Exception as error:
            error.add_note(f"fuzz case {name}/{number}, seed {seed}")
            raise
        assert time.process_time() - began < SECONDS_PER_CASE, f"{name}/{number} takes too long, seed {seed}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 << 10, f"{grown} KiB more memory"
    return count // share
