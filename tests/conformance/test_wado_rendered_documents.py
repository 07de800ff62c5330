"""Rendered reports, documents and videos, and the thumbnails of what is no picture (PS3.18 8.3.5, 8.7.4, 10.4.3.3)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from tests.gateway_support import Parts, dataset, encoded, instance, running, split_response

from wetread.core.dicom.native_xml import from_xml
from wetread.core.ruo import RUO_STATEMENT
from wetread.gateway import rendered

BASIC_TEXT, KEY_OBJECTS, ECG = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("88.11", "88.59", "9.1.1"))
PDF, CDA, STL = (f"1.2.840.10008.5.1.4.1.1.104.{n}" for n in (1, 2, 3))
VIDEO = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
H264, HEVC = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107"

HOSTILE = "\"'></style></title><script>alert(1)</script><img src=x onerror=alert(2)><a href='javascript:x'>\x1b[2J&amp;"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with running(tmp_path_factory.mktemp("documents")) as parts:
        yield parts


def put(site: Parts, part: bytes) -> str:
    """Store *part* and return the path of the instance."""
    response = site.store(part)
    assert response.status_code in (200, 202), response.text
    url: str = response.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    return url.removeprefix("http://testserver/dicom-web")


def plain(kind: str, **attributes: Any) -> Dataset:
    """Return an object without pixels in a study of its own."""
    study = generate_uid()
    data = dataset(PixelData=None, Rows=None, Columns=None, SOPClassUID=kind, StudyInstanceUID=study)
    data.SeriesInstanceUID = f"{study[:60]}.1"
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return data


def code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def content(value_type: str, meaning: str, relationship: str = "CONTAINS", **attributes: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = code("N1", "99TEST", meaning)
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def report(*contents: Dataset, title: str = "Findings", **attributes: Any) -> Dataset:
    data = plain(BASIC_TEXT, ValueType="CONTAINER", Modality="SR", **attributes)
    data.ConceptNameCodeSequence = code("T1", "99TEST", title)
    data.CompletionFlag, data.VerificationFlag = "COMPLETE", "UNVERIFIED"
    data.ContentSequence = Sequence(contents)
    return data


def pdf(size: int = 2001) -> tuple[Dataset, bytes]:
    document = b"%PDF-1.7\n" + b"x" * (size - 9)
    even = document + b"\0" * (size % 2)
    data = plain(PDF, EncapsulatedDocument=even, EncapsulatedDocumentLength=size, Modality="DOC")
    data.MIMETypeOfEncapsulatedDocument = "text/html"  # what the sender calls it is not what it is sent as
    return data, document


class Seen(HTMLParser):
    """What a page holds: elements with their attributes, and its text outside of the style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._styling = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._styling = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._styling = False

    def handle_data(self, data: str) -> None:
        self.words += "" if self._styling else data


def every_item(data: Dataset) -> Iterator[Dataset]:
    for item in data.get("ContentSequence", []):
        yield item
        yield from every_item(item)


def test_nothing_of_a_hostile_report_is_markup(site: Parts) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2", "1.2.3"
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "1.5", code(HOSTILE[:16], HOSTILE[:16], HOSTILE[:60])
    data = report(
        content("TEXT", HOSTILE[:60], TextValue=HOSTILE + "\nPatient: somebody else\r\n1.9 forged"),
        content("CODE", "c", HOSTILE[:16], ConceptCodeSequence=code(HOSTILE[:16], HOSTILE[:16], HOSTILE[:60])),
        content("NUM", "n", MeasuredValueSequence=Sequence([measured])),
        content("PNAME", "p", PersonName=HOSTILE[:60]),
        content("IMAGE", "i", ReferencedSOPSequence=Sequence([reference])),
        content(HOSTILE[:16], "what is this", UID="1.2"),
        content("DATE", "d", Date=None),
        title=HOSTILE[:60],
        PatientName=HOSTILE[:60],
        PatientID=HOSTILE[:60],
        StudyDescription=HOSTILE[:60],
        Manufacturer=HOSTILE[:60],
    )
    with pytest.warns(UserWarning, match="."):
        path = put(site, encoded(data))
    shown = site.get(f"{path}/rendered", "text/html")
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("; sandbox allow-downloads")
    assert "script" not in policy
    assert shown.headers["x-content-type-options"] == "nosniff"
    page = Seen(shown.text)
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "dl"),
        *("dt", "dd", "ul", "li", "bdi", "span", "p", "a"),
    }
    assert {name for _, given in page.elements for name in given} <= {
        *("lang", "charset", "name", "content", "dir", "class", "id", "href", "rel"),
    }
    assert page.words.count(HOSTILE.replace("\x1b", "\ufffd")) == 1, "all of the text is there, as text"
    assert "\x1b" not in shown.text
    text = site.get(f"{path}/rendered", "text/plain").text
    assert "\x1b" not in text
    assert not [line for line in text.split("\n") if line.startswith(("Patient: somebody", "1.9"))]
    assert RUO_STATEMENT not in text, "the statement is ours"


@pytest.mark.parametrize(
    ("charset", "name", "said", "spoken"),
    [
        ("ISO_IR 144", "Иванов^Иван", "Опухоль лёгкого", "Иванов, Иван"),
        ("ISO_IR 127", "قباني^لنزار", "كسر في الجمجمة", "قباني, لنزار"),
        (
            ["", "ISO 2022 IR 87"],
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "頭蓋内出血",
            "Yamada, Tarou (山田 太郎, やまだ たろう)",
        ),
        ("GB18030", "Wang^XiaoDong=王^小东", "颅内出血", "Wang, XiaoDong (王 小东)"),
    ],
)
def test_8_8_every_character_set_comes_out_as_utf_8(
    site: Parts, charset: Any, name: str, said: str, spoken: str
) -> None:
    data = report(content("TEXT", "Finding", TextValue=said), SpecificCharacterSet=charset)
    data.PatientName = name
    path = put(site, encoded(data))
    for accept in ("text/html", "text/plain;charset=iso-8859-1"):
        shown = site.get(f"{path}/rendered?charset=utf-8", accept).content.decode("utf-8")
        assert said in shown
        assert spoken in shown


REAL = (
    "cornerstone/no-pixel-data.dcm",
    "dcmjs/sample-sr.dcm",
    "dcmqi/sr-example/sr.dcm",
    "highdicom/sr_document_with_multiple_groups.dcm",
    "orthanc-tests/MarekLatin2.dcm",
    "pydicom/test_files/reportsi_with_empty_number_tags.dcm",
    "pydicom/test_files/test-SR.dcm",
)


def test_8_7_4_real_reports_as_page_text_and_xml(site: Parts, shared: Path) -> None:
    for name in REAL:
        part = (shared / "dicom-variety" / name).read_bytes()
        data = pydicom.dcmread(io.BytesIO(part))
        path = put(site, part)
        shown = site.get(f"{path}/rendered")
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        words = " ".join(Seen(shown.text).words.split())
        text = site.get(f"{path}/rendered", "text/plain").text
        for item in every_item(data):
            told = item.get("TextValue") or next((c.CodeMeaning for c in item.get("ConceptCodeSequence", [])), "")
            assert " ".join(told.split()) in words, name
            assert all(line.rstrip() in text for line in told.splitlines()), name
        xml = site.get(f"{path}/rendered", "text/xml")
        assert xml.headers["content-disposition"].startswith("attachment")
        (metadata,) = site.get(f"{path}/metadata").json()
        found = from_xml(xml.content)
        assert found.keys() == metadata.keys()
        assert found["0040A730"]["Value"][0].get("0040A043") == metadata["0040A730"]["Value"][0].get("0040A043")


def test_10_4_1_encapsulated_documents_go_out_as_they_are(site: Parts) -> None:
    data, document = pdf()
    path = put(site, encoded(data))
    shown = site.get(f"{path}/rendered")
    assert (shown.content, shown.headers["content-type"]) == (document, "application/pdf")
    assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert shown.headers["content-disposition"] == 'inline; filename="document.pdf"'
    part = site.get(f"{path}/rendered", Range="bytes=0-7")
    assert (part.status_code, part.content) == (206, b"%PDF-1.7")
    letter = b'<?xml version="1.0" encoding="ISO-8859-1"?><ClinicalDocument>\xe9</ClinicalDocument>'
    for kind, media, value in ((CDA, "text/xml", letter), (STL, "model/stl", b"solid x")):
        odd = value + b"\0" * (len(value) % 2)  # no length attribute: an older sender
        shown = site.get(put(site, encoded(plain(kind, EncapsulatedDocument=odd))) + "/rendered")
        assert (shown.content, shown.headers["content-type"]) == (value, media)
        assert shown.headers["content-disposition"].startswith("attachment")
    empty = site.get(put(site, encoded(plain(PDF))) + "/rendered")
    assert (empty.status_code, empty.json()["reason"]) == (404, "no-document")


def video(fragments: list[bytes], syntax: str = H264, frames: int = 250) -> bytes:
    data = dataset(SOPClassUID=VIDEO, NumberOfFrames=frames, PhotometricInterpretation="YBR_PARTIAL_420")
    data.StudyInstanceUID = generate_uid()
    data.SeriesInstanceUID = f"{data.StudyInstanceUID[:60]}.1"
    data.PixelData = encapsulate(fragments, has_bot=False)
    data["PixelData"].is_undefined_length = True
    return encoded(data, syntax)


@pytest.mark.parametrize("frames", [250, 3, 1])
def test_video_is_its_container_and_can_be_sought(site: Parts, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    monkeypatch.setattr(rendered, "_CHUNK", 100)
    fragments = [bytes([n]) * 256 for n in range(3)]
    stream = b"".join(fragments)
    path = put(site, video(fragments, frames=frames))
    whole = site.get(f"{path}/rendered")
    assert (whole.content, whole.headers["content-type"]) == (stream, "video/mp4")
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, start, count in (("0-", 0, 768), ("200-299", 200, 100), ("-300", 468, 300), ("767-9999", 767, 1)):
        part = site.get(f"{path}/rendered", Range=f"bytes={asked}")
        assert (part.status_code, part.content) == (206, stream[start : start + count]), asked
        assert part.headers["content-range"] == f"bytes {start}-{start + count - 1}/768"
        assert part.headers["content-length"] == str(count)
    assert site.get(f"{path}/rendered", Range="bytes=768-").status_code == 416
    frame = site.get(f"{path}/frames/1/rendered")
    assert (frame.status_code, frame.json()["reason"]) == (404, "video-frame")


def test_8_7_negotiation_stays_within_the_category(site: Parts) -> None:
    letter, (document, _) = report(content("TEXT", "Finding", TextValue="none")), pdf()
    slice_, wave = dataset(), plain(ECG)
    for data in (document, slice_, wave):
        data.StudyInstanceUID = letter.StudyInstanceUID
    document.SeriesInstanceUID, slice_.SeriesInstanceUID, wave.SeriesInstanceUID = (generate_uid() for _ in range(3))
    paths = [put(site, encoded(data)) for data in (letter, document, slice_, wave)]
    text, held, picture, nothing = (f"{path}/rendered" for path in paths)
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
    for url, accept, media in (
        (text, "*/*", "text/html; charset=utf-8"),
        (text, "text/html;q=0.5, text/plain", "text/plain; charset=utf-8"),
        (text, "text/html;q=0, */*", "text/plain; charset=utf-8"),
        (text, "image/jpeg, text/xml;q=0.1", "text/xml"),
        (held, browser, "application/pdf"),
        (picture, browser, "image/jpeg"),
        (picture, "image/jpeg;q=0.5, image/png", "image/png"),
        (put(site, video([b"xxxx"], HEVC)) + "/rendered", "video/H265", "video/H265"),
    ):
        shown = site.get(url, accept)
        assert (shown.status_code, shown.headers["content-type"]) == (200, media), accept
        again = site.get(url, accept, **{"If-None-Match": shown.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert site.get(f"{text}?accept=text/plain", "text/html").headers["content-type"].startswith("text/plain")
    for url, accept, available in (
        (text, "image/jpeg", "text/html, text/plain, text/xml"),
        (text, "application/pdf", "text/html, text/plain, text/xml"),
        (held, "text/html", "application/pdf"),
        (picture, "text/html, video/mp4", "image/jpeg, image/png, image/gif"),
    ):
        refused = site.get(url, accept)
        assert (refused.status_code, refused.json()["detail"]) == (406, f"available: {available}")
    refused = site.get(nothing)
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:wetread:problem:not-renderable")
    assert refused.json()["reason"] == "no-pixel-data"
    assert "Waveform" in refused.json()["detail"]
    assert site.get(text.replace("/rendered", "/frames/1/rendered")).json()["reason"] == "no-frames"
    # Parameters that do not apply are ignored (PS3.18 8.3); one with an invalid value is wrong wherever it stands.
    assert site.get(f"{text}?window=40,80&viewport=9,9&annotation=patient&unknown=1").status_code == 200
    assert "warning" not in site.get(f"{text}?annotation=patient").headers
    assert site.get(f"{text}?window=wide").status_code == 400
    assert site.get(f"{text}?charset=koi8-r").status_code == 400
    assert "warning" not in site.get(f"{picture}?iccprofile=no").headers
    study = f"/studies/{letter.StudyInstanceUID}/rendered"
    parts = split_response(site.get(study, "multipart/related; type=*/*"))
    assert sorted(headers["content-type"] for headers, _ in parts) == [
        *("application/pdf", "image/jpeg", "text/html; charset=utf-8"),
    ]
    ((headers, body),) = split_response(site.get(study, 'multipart/related; type="text/plain"'))
    assert (headers["content-type"], b"Finding" in body) == ("text/plain; charset=utf-8", True)
    assert site.get(study).headers["content-type"] == "image/jpeg"
    long = put(site, instance(NumberOfFrames=501, Rows=1, Columns=1, PixelData=bytes(1002)))
    refused = site.get(f"{long}/rendered", "multipart/related; type=image/png")
    assert (refused.status_code, "more than 500 parts" in refused.json()["detail"]) == (400, True)
    assert site.get(f"{long}/rendered").status_code == 200


def test_10_4_3_3_4_thumbnails_of_what_is_no_picture(site: Parts) -> None:
    def thumbnail(data: Dataset | bytes) -> bytes:
        shown = site.get(put(site, data if isinstance(data, bytes) else encoded(data)) + "/thumbnail")
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
        assert Image.open(io.BytesIO(shown.content)).size == (128, 128)
        return bytes(shown.content)

    letters = [report(content("TEXT", "Finding", TextValue=f"text {n}"), PatientName=f"Doe^{n}") for n in range(2)]
    icons = [thumbnail(data) for data in (*letters, pdf()[0], video([b"xxxx"]), plain(ECG))]
    assert icons[0] == icons[1], "nothing of the report is in it"
    assert len(set(icons)) == 4, "one for each kind"
    named = thumbnail(instance(BurnedInAnnotation="YES"))
    assert named == thumbnail(instance(BurnedInAnnotation="YES", PixelData=bytes(96))), "names in the pixels stay out"
    assert named not in icons
    frame = site.get(put(site, encoded(letters[0])) + "/frames/1/thumbnail")
    assert (frame.status_code, frame.json()["reason"]) == (404, "no-frames")


def test_8_9_capabilities_name_what_is_rendered(site: Parts) -> None:
    tree = site.client.options("/dicom-web/", headers={"Accept": "application/json"}).json()
    paths = {each["attributes"]["path"]: each for each in tree["children"][0]["children"]}
    (method,) = (each for each in paths["studies/{study}/rendered"]["children"] if each["name"] == "method")
    request, response = method["children"]
    assert [leaf["attributes"]["name"] for leaf in request["children"]] == [
        *("accept", "charset", "window", "viewport", "quality"),
    ]
    offered = {leaf["attributes"]["mediaType"] for leaf in response["children"]}
    singles = {"image/jpeg", "image/png", "image/gif", "text/html", "text/plain", "text/xml", "application/pdf"}
    assert offered >= {*singles, "video/mp4", "video/mpeg", "video/H265", 'multipart/related; type="text/html"'}
