"""Reading back source images: short reads for headers, whole ones where they must be, rescaled planes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tests.orchestration_fakes import FakeObjects

from wetread.core.errors import ComputationFailed
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.studies import StoredInstance
from wetread.orchestration.source_images import SourceImages


class Bytes:
    """ObjectStore of one object that notes what is read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[int | None] = []

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        self.reads.append(length)
        return self.data[start : None if length is None else start + length]


def instance(data: bytes, syntax: str = "1.2.840.10008.1.2.1") -> StoredInstance:
    return StoredInstance("1.2.3.1.1", "1.2.3.1", ObjectRef("1.2.3/1.2.3.1/1.2.3.1.1", len(data)), "h", syntax)


def image(*, comment: int = 0, pixels: int = 0) -> tuple[bytes, Dataset]:
    dataset = dcmread(io.BytesIO(FakeObjects().read(ObjectRef("1.2.3/1.2.3.1/1.2.3.1.1", 1))))
    if comment:
        dataset.add_new(0x00204000, "LT", "x")
        dataset.add_new(0x00091001, "OB", bytes(comment))
    if pixels:
        dataset.Rows = dataset.Columns = pixels
        dataset.PixelData = bytes(2 * pixels * pixels)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue(), dataset


def test_the_header_of_a_large_image_costs_a_short_read() -> None:
    data, _ = image(pixels=512)
    store = Bytes(data)
    [header] = SourceImages(store, [instance(data)]).headers()  # type: ignore[arg-type]
    assert store.reads == [64 * 1024]
    assert header.SOPInstanceUID == "1.2.3.1.1"
    assert "PixelData" not in header


def test_a_long_header_is_read_whole() -> None:
    data, _ = image(comment=200_000, pixels=64)
    store = Bytes(data)
    [header] = SourceImages(store, [instance(data)]).headers()  # type: ignore[arg-type]
    assert store.reads == [64 * 1024, None]
    assert header.Rows == 64
    assert len(header[0x00091001].value) == 200_000


def test_a_deflated_image_is_read_whole() -> None:
    _, dataset = image(pixels=300)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue() + bytes(70_000)
    store = Bytes(data)
    [header] = SourceImages(store, [instance(data, DeflatedExplicitVRLittleEndian)]).headers()  # type: ignore[arg-type]
    assert store.reads == [None]
    assert header.Rows == 300


def test_planes_are_rescaled_to_hounsfield_units() -> None:
    data, _ = image()
    images = SourceImages(Bytes(data), [instance(data), instance(data)])  # type: ignore[arg-type]
    plane = images.plane(1)
    assert plane.dtype == np.float32
    assert plane.tolist() == [[-998.0, -996.0], [-994.0, -992.0]]


def test_a_multi_frame_image_gives_its_planes() -> None:
    _, dataset = image()
    dataset.NumberOfFrames = 2
    dataset.PixelData = bytes([1, 0] * 4 + [9, 0] * 4)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    images = SourceImages(Bytes(buffer.getvalue()), [instance(buffer.getvalue())])  # type: ignore[arg-type]
    assert images.plane(0).tolist() == [[-998.0, -998.0]] * 2
    assert images.plane(1).tolist() == [[-982.0, -982.0]] * 2


def test_an_unreadable_source_is_a_typed_failure() -> None:
    data = b"DICM" * 3
    images = SourceImages(Bytes(data), [instance(data)])  # type: ignore[arg-type]
    with pytest.raises(ComputationFailed):
        images.headers()
