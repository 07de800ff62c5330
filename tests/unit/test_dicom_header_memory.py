"""The memory of headers gives what the whole walk gives, whatever came before; what is not plain it leaves alone."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests.gateway_support import dataset, encoded

from wetread.core.dicom.header import HeaderLimits, read_header
from wetread.core.dicom.header_memory import HeaderMemory
from wetread.core.dicom.json_model import to_json
from wetread.core.errors import InstanceRejected

NAMES = st.sampled_from(["Doe^Jane", "M\u00fcller^J\u00fcrgen", ""])


def agrees(memory: HeaderMemory, part: bytes) -> bool:
    """Read *part* with *memory*; what it says must be what the walk says. Return whether it said anything."""
    plain = memory.read(part, len(part))
    if plain is None:
        return False
    header = read_header(part)
    attributes, clean = to_json(header)
    assert plain.attributes == attributes
    assert list(plain.attributes) == list(attributes)
    assert plain.json == orjson.dumps(attributes)
    assert (plain.clean, plain.header.pixels) == (clean, header.pixels)
    assert (plain.header.meta, plain.header.dataset_start) == (header.meta, header.dataset_start)
    return True


def code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", "meaning of " + value
    return item


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """Instances of a few series, told apart by a few values: text in two character sets, sequences, private blocks."""
    data = dataset(SpecificCharacterSet=draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192", ""])))
    data.PatientName = draw(NAMES)
    data.InstanceNumber = draw(st.integers(1, 5))
    data.PixelRepresentation = draw(st.sampled_from([0, 1]))
    data.AnatomicRegionSequence = [code(draw(st.sampled_from("AB"))) for _ in range(draw(st.integers(0, 2)))]
    data.SliceLocation = draw(st.sampled_from(["1.5", "-2"]))
    if draw(st.booleans()):
        block = data.private_block(0x0029, draw(st.sampled_from(["SIEMENS CSA HEADER", "NOBODY"])), create=True)
        block.add_new(0x10, draw(st.sampled_from(["UN", "OB"])), draw(st.sampled_from([b"\1\2", bytes(5000)])))
    return encoded(data, ExplicitVRLittleEndian)


@settings(max_examples=40, deadline=None)
@given(st.lists(parts(), min_size=1, max_size=8), st.sampled_from([1 << 10, 4 << 20]))
def test_same_as_the_walk_whatever_came_before(files: list[bytes], room: int) -> None:
    memory = HeaderMemory(room=room)
    for part in [*files, *files]:
        assert agrees(memory, part)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_left_to_the_walk(data: st.DataObject) -> None:
    memory, sound = HeaderMemory(), encoded(dataset(), ExplicitVRLittleEndian)
    for _ in range(3):
        assert agrees(memory, sound)
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(132, min(len(sound), 700) - 1))] = data.draw(st.integers(0, 255))
    part = bytes(damaged[: data.draw(st.sampled_from([len(sound), 400, 250]))])
    try:
        agrees(memory, part)
    except InstanceRejected:
        pytest.fail("the memory accepted what the walk refuses")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_syntaxes_are_left_to_the_walk(syntax: str) -> None:
    part = encoded(dataset(), syntax)
    assert HeaderMemory().read(part, len(part)) is None


def test_head_is_enough_and_pixels_are_not_looked_at() -> None:
    part = encoded(dataset(), ExplicitVRLittleEndian)
    header = read_header(part)
    assert header.pixels is not None
    plain = HeaderMemory().read(part[: header.pixels.start], len(part))
    assert plain is not None
    assert plain.header.pixels == header.pixels
    assert HeaderMemory().read(part[: header.pixels.start - 20], len(part)) is None


def test_limits_hold_for_remembered_elements() -> None:
    part = encoded(dataset(), ExplicitVRLittleEndian)
    memory = HeaderMemory(HeaderLimits(elements=10))
    assert [memory.read(part, len(part)) for _ in range(3)] == [None] * 3


def test_all_real_files(shared: Path) -> None:
    memory = HeaderMemory()
    files = sorted(path for path in (shared / "dicom-variety").rglob("*") if path.is_file())
    plain = 0
    for path in [*files, *files]:
        part = path.read_bytes()
        try:
            read_header(part)
        except InstanceRejected:
            continue
        plain += agrees(memory, part)
    assert plain > 20
