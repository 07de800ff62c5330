"""DICOM JSON and Native DICOM Model back to a data set: every real header survives the round trip."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.dicom.header import read_header
from wetread.core.dicom.json_encode import encode_data_set
from wetread.core.dicom.json_model import to_json
from wetread.core.dicom.native_xml import NAMESPACE, from_xml, to_xml
from wetread.core.errors import InstanceRejected, InvalidInput

META = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"


def no_bulk(uri: str, tag: str) -> bytes:
    return b"\1\2\3\4"


def back(data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* after encoding and reading."""
    part = META + encode_data_set(data, no_bulk)
    return to_json(read_header(part), inline_limit=1 << 30)[0]


def comparable(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may differ: the character set, pixel data, and the padding of binary values of odd length."""

    def of(entry: dict[str, Any], name: str, value: Any) -> Any:
        if name == "InlineBinary" and isinstance(value, str):
            return base64.b64decode(value).rstrip(b"\0")
        return [comparable(item) for item in value] if entry["vr"] == "SQ" and name == "Value" else value

    return {
        key: {name: of(entry, name, value) for name, value in entry.items()}
        for key, entry in data.items()
        if key not in ("00080005", "7FE00010", "7FE00008", "7FE00009")
    }


def without_empty_parts(data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* as XML can say it: the parts of a name are elements there, so trailing carets are gone."""
    result = {}
    for key, entry in comparable(data).items():
        values = entry.get("Value", [])
        if entry["vr"] == "SQ":
            values = [without_empty_parts(item) for item in values]
        if entry["vr"] == "PN":
            names = [{group: text.rstrip("^") for group, text in (name or {}).items()} for name in values]
            values = [{group: text for group, text in name.items() if text} for name in names]
            values = values if any(values) else []
        result[key] = entry | {"Value": values}
    return result


def headers(shared: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted((shared / "dicom-variety").rglob("*")):
        try:
            data, clean = to_json(read_header(path.read_bytes()), inline_limit=1 << 30)
        except (InstanceRejected, IsADirectoryError):
            continue
        if clean and len(str(data)) < 300_000:
            found.append((path.name, data))
    return found


def test_real_headers_survive_json_and_xml(shared: Path) -> None:
    compared = 0
    for name, data in headers(shared):
        assert comparable(back(data)) == comparable(data), name
        again = from_xml(to_xml(data))
        if any(int(key[:4], 16) & 1 for key in data) or "\ufffd" in str(again):
            continue  # private blocks may move; XML cannot say control characters
        assert without_empty_parts(back(again)) == without_empty_parts(data), name
        compared += 1
    assert compared >= 60


def test_private_blocks_follow_their_creator() -> None:
    data = {
        "00091010": {"vr": "LO", "Value": ["x"]},
        "00090010": {"vr": "LO", "Value": ["ACME"]},
        "00091101": {"vr": "LO", "Value": ["y"]},
        "00090011": {"vr": "LO", "Value": ["OTHER & CO"]},
    }
    document = to_xml(dict(sorted(data.items())))
    assert b'tag="00090010" vr="LO" privateCreator="ACME"' in document
    assert from_xml(document) == data


def test_values_of_every_kind_in_xml() -> None:
    data = {
        "00080008": {"vr": "CS", "Value": ["A", None, "B"]},
        "00080090": {"vr": "PN"},
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": "Yamada^Tarou^^Dr", "Ideographic": "山田^太郎"}, None, {"Phonetic": "やまだ"}],
        },
        "00081140": {"vr": "SQ", "Value": [{"00081150": {"vr": "UI", "Value": ["1.2"]}}, {}]},
        "00280009": {"vr": "AT", "Value": ["00181063"]},
        "00281050": {"vr": "DS", "Value": [40.0, 0.5]},
        "00420011": {"vr": "OB", "InlineBinary": "AAEC"},
        "7FE00010": {"vr": "OW", "BulkDataURI": 'http://x/?a="b"&c'},
    }
    document = to_xml(data)
    assert NAMESPACE.encode() in document
    assert b'keyword="PatientName"' in document
    assert b"<FamilyName>Yamada</FamilyName><GivenName>Tarou</GivenName><NamePrefix>Dr</NamePrefix>" in document
    assert b'<Value number="3">B</Value>' in document
    found = from_xml(document)
    assert found["00281050"]["Value"] == ["40", "0.5"]
    assert found["00100010"]["Value"][0]["Alphabetic"] == "Yamada^Tarou^^Dr"
    assert found["00100010"]["Value"][1] is None
    assert found["7FE00010"]["BulkDataURI"] == 'http://x/?a="b"&c'
    assert found["00081140"]["Value"][1] == {}
    assert comparable(back(found)) == comparable(back(data))


def test_control_characters_are_replaced_in_xml() -> None:
    document = to_xml({"00081030": {"vr": "LO", "Value": ["a\x1bb\ud800c<&>"]}})
    assert from_xml(document)["00081030"]["Value"] == ["a\ufffdb\ufffdc<&>"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\"), max_size=30))
def test_text_beyond_ascii_is_utf_8(text: str) -> None:
    data = {"00081030": {"vr": "LO", "Value": [text]}, "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    part = META + encode_data_set(data, no_bulk)
    read = pydicom.dcmread(io.BytesIO(part))
    assert read.get("SpecificCharacterSet") == ("ISO_IR 100" if text.isascii() else "ISO_IR 192")
    assert (read.StudyDescription or "").strip(" \0") == text.strip(" \0") or any(c in text for c in "\x1b\r\n\f\t=^")


NOT_THE_MODEL: list[tuple[str, Any]] = [
    ("no tag", {"PatientName": {"vr": "PN"}}),
    ("short tag", {"0010": {"vr": "PN"}}),
    ("not hex", {"0010001G": {"vr": "PN"}}),
    ("not an object", {"00100010": "Doe"}),
    ("vr", {"00100010": {"vr": "XX", "Value": ["a"]}}),
    ("vr that is an object", {"00100010": {"vr": {"a": 1}}}),
    ("vr that is a list", {"00100010": {"vr": ["PN"]}}),
    ("two kinds", {"00420011": {"vr": "OB", "InlineBinary": "AA==", "BulkDataURI": "x"}}),
    ("base64", {"00420011": {"vr": "OB", "InlineBinary": "*"}}),
    ("base64 type", {"00420011": {"vr": "OB", "InlineBinary": 5}}),
    ("too large", {"00280010": {"vr": "US", "Value": [65536]}}),
    ("negative", {"00280010": {"vr": "US", "Value": [-1]}}),
    ("fraction", {"00280010": {"vr": "US", "Value": [1.5]}}),
    ("text number", {"00280010": {"vr": "US", "Value": ["x"]}}),
    ("object number", {"00280010": {"vr": "US", "Value": [{}]}}),
    ("null number", {"00280010": {"vr": "US", "Value": [None]}}),
    ("number text", {"00081030": {"vr": "LO", "Value": [5]}}),
    ("bool", {"00200013": {"vr": "IS", "Value": [True]}}),
    ("list", {"00081030": {"vr": "LO", "Value": "x"}}),
    ("items", {"00081140": {"vr": "SQ", "Value": [1]}}),
    ("sequence", {"00081140": {"vr": "SQ", "Value": {"a": 1}}}),
    ("name", {"00100010": {"vr": "PN", "Value": [["x"]]}}),
    ("name group", {"00100010": {"vr": "PN", "Value": [{"Alphabetic": 1}]}}),
    ("binary value", {"00420011": {"vr": "OB", "Value": [1]}}),
    ("tag value", {"00280009": {"vr": "AT", "Value": ["x"]}}),
    ("nan", {"00281050": {"vr": "DS", "Value": [float("nan")]}}),
]


@pytest.mark.parametrize("data", [case for _, case in NOT_THE_MODEL], ids=[name for name, _ in NOT_THE_MODEL])
def test_what_is_not_the_model_is_refused(data: Any) -> None:
    with pytest.raises(InstanceRejected) as refused:
        encode_data_set(data, no_bulk)
    assert refused.value.reason == 0xC000


def test_nesting_is_bounded() -> None:
    data: dict[str, Any] = {}
    for _ in range(80):
        data = {"00081140": {"vr": "SQ", "Value": [data]}}
    with pytest.raises(InstanceRejected):
        encode_data_set(data, no_bulk)


def test_values_too_long_for_their_vr_are_unknown() -> None:
    """PS3.5 6.2.2: what a 16-bit length cannot say goes out as UN."""
    part = encode_data_set({"00281050": {"vr": "DS", "Value": [1.0] * 40_000}}, no_bulk)
    assert part[4:6] == b"UN"


def model(inner: str) -> bytes:
    return f"<NativeDicomModel>{inner}</NativeDicomModel>".encode()


HOSTILE_XML = {
    "entity bomb": b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><NativeDicomModel>&b;</NativeDicomModel>',
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><NativeDicomModel>&x;</NativeDicomModel>',
    "external document type": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd"><NativeDicomModel/>',
    "parameter entity": b'<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><NativeDicomModel/>',
    "undefined entity": b"<NativeDicomModel>&x;</NativeDicomModel>",
    "empty": b"",
    "junk": b"\xff\xfe\x00",
    "not closed": b"<NativeDicomModel>",
    "unknown encoding": b'<?xml version="1.0" encoding="x-none"?><NativeDicomModel/>',
    "other model": b"<html/>",
    "value outside": b"<NativeDicomModel><Value number='1'/></NativeDicomModel>",
    "no tag": b"<NativeDicomModel><DicomAttribute vr='LO'/></NativeDicomModel>",
    "twice": model("<DicomAttribute tag='00100010' vr='PN'/>" * 2),
    "number 0": model("<DicomAttribute tag='00080008' vr='CS'><Value number='0'>A</Value></DicomAttribute>"),
    "huge number": model("<DicomAttribute tag='00080008' vr='CS'><Value number='9999999'>A</Value></DicomAttribute>"),
    "backwards": model(
        "<DicomAttribute tag='00080008' vr='CS'><Value number='2'/><Value number='1'/></DicomAttribute>"
    ),
    "deep": b"<NativeDicomModel>" + b"<DicomAttribute tag='00081140' vr='SQ'><Item number='1'>" * 500,
    "deep junk": b"<a>" * 100_000,
}


@pytest.mark.parametrize("document", HOSTILE_XML.values(), ids=HOSTILE_XML.keys())
def test_hostile_xml_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidInput):
        from_xml(document)
