"""The header walker against pydicom as oracle, and against everything that is not DICOM."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from tests.gateway_support import dataset, encoded, instance
from tests.json_oracle import normalised, oracle_json

from wetread.core.dicom.header import HeaderLimits, read_header
from wetread.core.dicom.json_model import to_json
from wetread.core.errors import InstanceRejected

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def item(**values: object) -> Dataset:
    result = Dataset()
    for name, value in values.items():
        setattr(result, name, value)
    return result


def rich() -> Dataset:
    """Nested and empty sequences, private blocks, many VRs."""
    data = dataset(PixelData=None)
    inner = item(CodeValue="T-A0100", CodeMeaning="Brain")
    empty = Dataset()
    data.AnatomicRegionSequence = Sequence(
        [inner, item(CodeValue="X", AnatomicRegionModifierSequence=Sequence([inner]))]
    )
    data.ReferencedStudySequence = Sequence([empty])
    data.ReferencedPatientSequence = Sequence([])
    block = data.private_block(0x0029, "WETREAD TEST", create=True)
    block.add_new(1, "LO", "private text")
    block.add_new(2, "OB", b"\x01\x02\x03\x04")
    data.OtherPatientNames = ["Doe^J", "Roe^R"]
    data.FrameIncrementPointer = 0x00181063
    data.PatientComments = "line one\r\nline two \\ with backslash"
    data.WindowCenter, data.WindowWidth = [40, 600.5], [80, 2800]
    data.SmallestImagePixelValue = 3
    return data


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_same_json_as_pydicom(syntax: str) -> None:
    part = encoded(rich(), syntax)
    found, clean = to_json(read_header(part))
    assert clean
    assert normalised(found) == normalised(oracle_json(part))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_undefined_lengths(syntax: str) -> None:
    data = rich()
    for element in data.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
            for one in element.value:
                one.is_undefined_length_sequence_item = True
    part = encoded(data, syntax)
    assert normalised(to_json(read_header(part))[0]) == normalised(oracle_json(part))


def test_pixel_offset() -> None:
    part = instance()
    header = read_header(part)
    assert header.pixels is not None
    assert part[header.pixels.start : header.pixels.start + header.pixels.length] == dataset().PixelData


def test_fragments_of_an_encapsulated_value() -> None:
    from pydicom.encaps import encapsulate

    data = dataset(NumberOfFrames=2)
    data.PixelData = encapsulate([b"\xff\xd8abc\x00", b"\xff\xd8defgh\x00"])
    data["PixelData"].is_undefined_length = True
    part = encoded(data, "1.2.840.10008.1.2.4.50")
    pixels = read_header(part).pixels
    assert pixels is not None
    assert pixels.fragments is not None
    assert [part[start : start + length] for start, length in pixels.fragments] == [
        b"\xff\xd8abc\x00",
        b"\xff\xd8defgh\x00",
    ]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_without_preamble_and_file_meta(syntax: str) -> None:
    part = encoded(dataset(), syntax)
    header = read_header(part)
    bare = read_header(part[header.dataset_start :])
    assert (bare.transfer_syntax_uid, bare.complete_file) == (syntax, False)
    assert to_json(bare)[0] == to_json(header)[0]


def test_file_meta_that_lies_about_the_vr() -> None:
    explicit, implicit = instance(), encoded(dataset(), ImplicitVRLittleEndian)
    lying = explicit[: read_header(explicit).dataset_start] + implicit[read_header(implicit).dataset_start :]
    header = read_header(lying)
    assert not header.explicit
    assert to_json(header)[0]["00100020"]["Value"] == ["P1"]


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"SQ", b"UN", b"OB"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def file_of(body: bytes) -> bytes:
    part = instance()
    return part[: read_header(part).dataset_start] + body


START = element(8, 5, b"CS", b"ISO_IR 100")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (START + struct.pack("<HH2sH", 8, 0x50, b"SH", 500) + b"x", "longer"),
        (START + b"\x08\x00\x50\x00??\x04\x00xxxx", "value representation"),
        (START + struct.pack("<HHI", 0xFFFE, 0xE00D, 0), "where no sequence is open"),
        (START + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), "where no sequence is open"),
        (START + struct.pack("<HH2sHI", 8, 0x1110, b"SQ", 0, 0xFFFFFFFF), "cut off"),
        (START + element(8, 0x1110, b"SQ", b"\x08\x00\x00\x00\x00\x00\x00\x00"), "item must begin"),
        (
            START + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
            "fragment",
        ),
        (START + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFF0) + b"xx", "longer"),
        (b"", "not a DICOM file|empty"),
        (START + b"\x01", "do not make an element"),
    ],
)
def test_broken_structures_are_refused(body: bytes, what: str) -> None:
    with pytest.raises(InstanceRejected, match=what) as caught:
        read_header(file_of(body))
    assert 0xC000 <= caught.value.reason <= 0xCFFF


def test_nesting_bomb() -> None:
    depth = 5000
    opening = struct.pack("<HH2sHI", 8, 0x1110, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(InstanceRejected, match="nest"):
        read_header(file_of(START + opening * depth))


def test_element_flood() -> None:
    with pytest.raises(InstanceRejected, match="more than 50 elements"):
        read_header(file_of(START + element(0x0009, 0x10, b"LO", b"") * 100), HeaderLimits(elements=50))


def test_deflate_bomb_is_stopped() -> None:
    data = dataset()
    part = encoded(data, DeflatedExplicitVRLittleEndian)
    start = read_header(part).dataset_start
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = engine.compress(bytes(64 << 20)) + engine.flush()
    with pytest.raises(InstanceRejected, match="grows beyond"):
        read_header(part[:start] + bomb)


@pytest.mark.parametrize("part", [b"", b"junk", bytes(1000), b"DICM", bytes(128) + b"DICM", b"%PDF-1.4" + bytes(200)])
def test_not_dicom(part: bytes) -> None:
    with pytest.raises(InstanceRejected):
        read_header(part)


def test_unknown_vr_of_a_known_attribute_is_looked_up() -> None:
    body = START + element(0x0010, 0x0020, b"UN", b"P9") + element(0x0099, 0x0010, b"UN", b"NOBODY")
    found, _ = to_json(read_header(file_of(body + element(0x0099, 0x1001, b"UN", b"\x01\x02"))))
    assert found["00100020"] == {"vr": "LO", "Value": ["P9"]}
    assert found["00991001"] == {"vr": "UN", "InlineBinary": "AQI="}


def test_sequence_written_as_un_holds_implicit_items() -> None:
    implicit_item = struct.pack("<HHI", 8, 0x0100, 4) + b"T-A0"
    body = START + element(8, 0x2218, b"UN", struct.pack("<HHI", 0xFFFE, 0xE000, len(implicit_item)) + implicit_item)
    found, _ = to_json(read_header(file_of(body)))
    assert found["00082218"]["Value"] == [{"00080100": {"vr": "SH", "Value": ["T-A0"]}}]


PART = encoded(rich())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_flipped_and_cut_bytes_never_crash(data: st.DataObject) -> None:
    part = bytearray(PART)
    for _ in range(data.draw(st.integers(1, 8))):
        part[data.draw(st.integers(128, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del part[data.draw(st.integers(0, len(part))) :]
    with contextlib.suppress(InstanceRejected):
        header = read_header(bytes(part))
        found, _ = to_json(header)
        assert set(found) <= {f"{element[0]:08X}" for element in header.elements}


def test_every_truncation_ends_in_an_answer() -> None:
    whole, _ = to_json(read_header(PART))
    refused = cut = 0
    for length in range(0, len(PART), 3):
        try:
            found, _ = to_json(read_header(PART[:length]))
        except InstanceRejected:
            refused += 1
            continue
        cut += 1
        assert set(found) <= set(whole), "nothing is made up"
    assert refused > 0, "what cannot be an instance is refused"
    assert refused + cut == len(range(0, len(PART), 3))


def test_all_real_files_have_the_metadata_of_pydicom(shared: Path) -> None:
    compared = refused = 0
    for path in sorted((shared / "dicom-variety").rglob("*")):
        if not path.is_file():
            continue
        part = path.read_bytes()
        try:
            found, _ = to_json(read_header(part))
        except InstanceRejected:
            refused += 1
            continue
        try:
            expected = oracle_json(part)
        except Exception:  # noqa: BLE001 - pydicom itself gives up on the value (badVR.dcm)
            assert path.name == "badVR.dcm"
            continue
        assert normalised(found) == normalised(expected), path.name
        compared += 1
    assert compared >= 250
    assert refused <= 91


def test_refused_real_files_are_no_usable_dicom(shared: Path) -> None:
    """What the walker refuses, pydicom cannot read completely either: not DICOM, or cut off."""
    broken = {
        "MR_truncated.dcm",
        "rtplan_truncated.dcm",
        "DICOMDIR-nooffset",
        "emri_small_jpeg_2k_lossless_too_short.dcm",
        "meta_missing_tsyntax.dcm",
        "no_meta.dcm",
    }
    for path in sorted((shared / "dicom-variety").rglob("*")):
        if not path.is_file():
            continue
        try:
            read_header(path.read_bytes())
        except InstanceRejected:
            if path.name in broken:
                continue
            with pytest.raises(pydicom.errors.InvalidDicomError):
                pydicom.dcmread(io.BytesIO(path.read_bytes()))
