"""Single values out of data sets: raw bytes and converted elements say the same."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread

from wetread.core.dicom.dataset import first_number, first_text, numbers, texts, whole
from wetread.testing.sections import ct_plane, part10

KEYWORDS = ("ImagePositionPatient", "PixelSpacing", "RescaleIntercept", "Rows", "HighBit", "InstanceNumber")


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_raw_and_converted_elements_agree(syntax):
    import numpy as np

    header = ct_plane(np.zeros((4, 6), np.int16), (-1.5, 2.25, 1e-3), PixelPaddingValue=2000)
    raw = dcmread(io.BytesIO(part10(header, transfer_syntax=syntax)))
    converted = dcmread(io.BytesIO(part10(header, transfer_syntax=syntax)))
    for element in converted:
        assert element.value is not None
    for keyword in KEYWORDS:
        assert numbers(raw, keyword) == numbers(converted, keyword) == numbers(header, keyword)
    assert texts(raw, "ImageType") == texts(converted, "ImageType") == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert first_text(raw, "SOPInstanceUID") == header.SOPInstanceUID
    assert whole(raw, "PixelPaddingValue") == 2000


def read(keyword, value):
    header = Dataset()
    header.add_new(keyword, "DS", "0")
    stored = io.BytesIO()
    header.save_as(stored, implicit_vr=False, little_endian=True)
    data = bytearray(stored.getvalue())
    data[6:8] = len(value).to_bytes(2, "little")
    return dcmread(io.BytesIO(bytes(data[:8]) + value), force=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1.5 ", 1.5),
        (b" 2\\3", 2.0),
        (b"", None),
        (b"abc ", None),
        (b"nan ", None),
        (b"1e999 ", None),
        (b"\0\0", None),
    ],
)
def test_odd_numbers_are_none_and_never_an_error(value, expected):
    header = read("SliceThickness", value)
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    assert first_number(header, "SliceThickness") == expected


def test_too_few_values_are_none():
    header = Dataset()
    header.PixelSpacing = [0.5, 0.5]
    assert numbers(header, "PixelSpacing", 2) == (0.5, 0.5)
    assert numbers(header, "PixelSpacing", 3) is None
    assert first_text(header, "ImageType") == ""
    assert whole(header, "Rows") is None
