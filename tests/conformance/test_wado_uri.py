"""WADO-URI (PS3.18 9): the same answers as the RESTful resources, by query parameters."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless
from tests.gateway_support import Parts, instance, running

GREY = np.arange(64 * 48, dtype="<u2").reshape(64, 48)


@dataclass
class Held:
    """A gateway with two frames of 64 rows and 48 columns, a report, and something deleted."""

    site: Parts
    picture: bytes

    def wado(self, name: str = "1.2.3.1.1", accept: str = "*/*", **parameters: str) -> object:
        named = {"requestType": "WADO", "studyUID": "1.2.3", "seriesUID": "1.2.3.1", "objectUID": name} | parameters
        given = {key: value for key, value in named.items() if value != "LEFT OUT"}
        return self.site.get(f"/wado?{urlencode(given)}", accept)

    def rest(self, below: str, accept: str) -> object:
        return self.site.get(f"/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1{below}", accept)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    frames = np.stack([GREY, GREY[::-1]])
    picture = instance(SOPInstanceUID="1.2.3.1.1", Rows=64, Columns=48, NumberOfFrames=2, PixelData=frames.tobytes())
    with running(tmp_path_factory.mktemp("uri")) as site:
        gone = instance(SOPInstanceUID="1.2.3.1.3")
        assert site.store(picture, instance(SOPInstanceUID="1.2.3.1.2", PixelData=None), gone).status_code == 200
        assert site.client.delete("/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.3").status_code == 204
        yield Held(site, picture)


@pytest.mark.parametrize("syntax", ["", ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_9_4_an_instance_as_dicom(held: Held, syntax: str) -> None:
    asked = {"contentType": "application/dicom"} | ({"transferSyntax": syntax} if syntax else {})
    answer = held.wado(**asked)
    restful = held.rest("", "application/dicom" + (f"; transfer-syntax={syntax}" if syntax else ""))
    assert answer.status_code == restful.status_code == 200
    assert answer.content == restful.content
    for name in ("content-type", "etag", "cache-control"):
        assert answer.headers[name] == restful.headers[name]
    stored = pydicom.dcmread(io.BytesIO(answer.content))
    assert syntax in ("", stored.file_meta.TransferSyntaxUID)
    assert np.array_equal(stored.pixel_array[0], GREY)
    if syntax in ("", ExplicitVRLittleEndian):
        assert answer.content == held.picture


def test_9_4_what_accept_ranks_first_is_meant_without_a_content_type(held: Held) -> None:
    assert held.wado(accept="application/dicom, */*;q=0.5").content == held.picture
    assert held.wado(accept="*/*").headers["content-type"] == "image/jpeg"
    assert held.wado(accept="image/png").headers["content-type"] == "image/png"
    assert held.wado(contentType="image/gif", accept="image/png").headers["content-type"] == "image/gif"
    assert held.wado(accept='multipart/related; type="image/png"').status_code == 406


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/gif"])
@pytest.mark.parametrize(
    ("parameters", "restful"),
    [
        ({}, ""),
        ({"windowCenter": "100", "windowWidth": "50.5"}, "?window=100,50.5"),
        ({"rows": "32"}, "?viewport=8192,32"),
        ({"columns": "24"}, "?viewport=24,8192"),
        ({"rows": "20", "columns": "24"}, "?viewport=24,20"),
        ({"region": "0,0,0.5,0.25"}, "?viewport=24,8192,0,0,24,16"),
        ({"region": "0.5,0.5,1,1", "rows": "16"}, "?viewport=8192,16,24,32,24,32"),
        ({"imageQuality": "5", "someVendorsOwn": "x"}, "?quality=5"),
    ],
)
def test_9_5_rendered_as_the_restful_resource_renders_it(
    held: Held, kind: str, parameters: dict[str, str], restful: str
) -> None:
    for frame in ("1", "2"):
        answer = held.wado(contentType=kind, frameNumber=frame, **parameters)
        same = held.rest(f"/frames/{frame}/rendered{restful}", kind)
        assert answer.status_code == same.status_code == 200, answer.text
        assert answer.headers["content-type"] == kind
        assert answer.content == same.content


def test_9_5_1_2_4_and_5_size_and_region(held: Held) -> None:
    def size(**parameters: str) -> tuple[int, int]:
        return Image.open(io.BytesIO(held.wado(contentType="image/png", **parameters).content)).size

    assert size() == (48, 64)
    assert size(rows="32", columns="1000") == (24, 32), "the shape is kept"
    assert size(region="0.25,0,0.75,0.5") == (24, 32), "as large as it is stored"
    assert size(region="0.25,0,0.75,0.5", columns="12") == (12, 16)


def test_9_5_answers_are_conditional_and_head_has_no_body(held: Held) -> None:
    answer = held.wado(contentType="image/png")
    path = str(answer.url)
    again = held.site.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = held.site.client.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"requestType": "LEFT OUT"},
        {"requestType": "wado"},
        {"studyUID": "LEFT OUT"},
        {"seriesUID": "1.2.x"},
        {"objectUID": "../../etc/passwd"},
        {"objectUID": "1" * 65},
        {"frameNumber": "0"},
        {"frameNumber": "1,2"},
        {"frameNumber": "-1"},
        {"frameNumber": "\u0661"},
        {"windowCenter": "1"},
        {"windowWidth": "1"},
        {"windowCenter": "1,2", "windowWidth": "sigmoid"},
        {"windowCenter": "nan", "windowWidth": "1"},
        {"windowCenter": "1", "windowWidth": "0"},
        {"rows": "0"},
        {"rows": "8193"},
        {"columns": "1e3"},
        {"region": "0,0,1"},
        {"region": "0,0,0,1"},
        {"region": "0.5,0,0.25,1"},
        {"region": "0,0,1.5,1"},
        {"region": "nan,0,1,1"},
        {"region": "-0,0,1,1"},
        {"region": "0,0,0.001,0.001"},
        {"imageQuality": "0"},
        {"imageQuality": "101"},
        {"imageQuality": "\u0665"},
        {"anonymize": "yes"},
        {"anonymize": "no"},
        {"presentationUID": "1.2", "presentationSeriesUID": "1.3"},
        {"contentType": "*/*"},
        {"contentType": "image/*"},
        {"contentType": "nonsense"},
        {"contentType": "application/dicom,image/jpeg"},
        {"contentType": "application/dicom", "frameNumber": "1"},
        {"contentType": "application/dicom", "windowCenter": "1", "windowWidth": "1"},
        {"contentType": "application/dicom", "transferSyntax": "*"},
        {"contentType": "image/jpeg", "transferSyntax": ExplicitVRLittleEndian},
        {"charset": "iso-8859-1"},
    ],
)
def test_9_4_and_9_5_what_is_missing_ill_formed_or_refused_is_400(held: Held, wrong: dict[str, str]) -> None:
    answer = held.wado(**wrong)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), answer.text


def test_8_3_1_a_parameter_is_not_repeated(held: Held) -> None:
    path = "/wado?requestType=WADO&studyUID=1.2.3&seriesUID=1.2.3.1&objectUID=1.2.3.1.1&objectUID=1.2.3.1.2"
    assert held.site.get(path).status_code == 400


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("1.2.9", {}, 404),
        ("1.2.3.1.3", {}, 410),
        ("1.2.3.1.3", {"contentType": "application/dicom"}, 410),
        ("1.2.3.1.2", {}, 404),
        ("1.2.3.1.1", {"frameNumber": "3"}, 404),
        ("1.2.3.1.1", {"contentType": "video/mp4"}, 406),
        ("1.2.3.1.1", {"contentType": "application/dicom", "transferSyntax": "1.2.840.10008.1.2.4.50"}, 406),
    ],
)
def test_9_4_3_what_is_not_there_or_cannot_be_had(
    held: Held, name: str, parameters: dict[str, str], status: int
) -> None:
    assert held.wado(name, **parameters).status_code == status


def test_9_5_1_2_2_annotation_is_told_as_not_supported(held: Held) -> None:
    answer = held.wado(contentType="image/jpeg", annotation="patient")
    assert answer.status_code == 200
    assert answer.headers["warning"].startswith("299 http://testserver/dicom-web: The parameter annotation")
