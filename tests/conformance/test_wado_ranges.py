"""Range requests on instances, frames and bulk data (RFC 9110 14, PS3.18 8.6.1): 206, 416, If-Range."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from tests.gateway_support import Parts, instance, running, split_response

from wetread.gateway.ranges import RangeNotSatisfiable, asked_range

FRAME = "application/octet-stream"


@pytest.fixture
def site(tmp_path: Path):
    with running(tmp_path) as parts:
        yield parts


def put(site: Parts, part: bytes) -> str:
    url: str = site.store(part).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    return url.removeprefix("http://testserver/dicom-web")


def resources(site: Parts) -> dict[str, tuple[str, bytes]]:
    part = instance()
    path = put(site, part)
    pixels = pydicom.dcmread(io.BytesIO(part)).PixelData
    return {
        path: ("application/dicom", part),
        f"{path}/frames/1": (FRAME, pixels),
        f"{path}/bulkdata/7FE00010": (FRAME, pixels),
    }


@pytest.mark.parametrize(
    ("header", "cut"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-5", slice(5, 6)),
        ("bytes=20-", slice(20, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=0-999999", slice(None)),
        ("bytes=-999999", slice(None)),
    ],
)
def test_14_one_range_is_206_of_that_part(site: Parts, header: str, cut: slice) -> None:
    for path, (accept, whole) in resources(site).items():
        response = site.get(path, accept, Range=header)
        assert (response.status_code, response.content) == (206, whole[cut]), path
        first = range(len(whole))[cut][0]
        assert response.headers["content-range"] == f"bytes {first}-{first + len(whole[cut]) - 1}/{len(whole)}"
        plain = site.get(path, accept)
        assert (plain.status_code, plain.content, plain.headers["accept-ranges"]) == (200, whole, "bytes")
        for name in ("content-type", "etag"):
            assert response.headers[name] == plain.headers[name]


def test_15_5_17_nothing_in_the_range_is_416(site: Parts) -> None:
    for path, (accept, whole) in resources(site).items():
        for header in (f"bytes={len(whole)}-", "bytes=-0"):
            response = site.get(path, accept, Range=header)
            assert (response.status_code, response.headers["content-range"]) == (416, f"bytes */{len(whole)}")
            assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=9-3", "lines=0-1", "bytes", "bytes=-", "bytes=a-b", ""])
def test_14_2_what_is_not_one_range_is_ignored(site: Parts, header: str) -> None:
    for path, (accept, whole) in resources(site).items():
        response = site.get(path, accept, Range=header)
        assert (response.status_code, response.content) == (200, whole)


def test_13_1_5_if_range(site: Parts) -> None:
    for path, (accept, whole) in resources(site).items():
        etag = site.get(path, accept).headers["etag"]
        same = site.get(path, accept, Range="bytes=0-3", **{"If-Range": etag})
        assert (same.status_code, same.content) == (206, whole[:4])
        for other in ('"other"', f"W/{etag}", "Wed, 31 Jan 2024 10:30:15 GMT"):
            changed = site.get(path, accept, Range="bytes=0-3", **{"If-Range": other})
            assert (changed.status_code, changed.content) == (200, whole)


def test_transcoded_instance_has_ranges_of_what_is_sent(site: Parts) -> None:
    from pydicom.uid import ImplicitVRLittleEndian
    from tests.gateway_support import dataset, encoded

    path = put(site, encoded(dataset(), ImplicitVRLittleEndian))
    whole = site.get(path, "application/dicom").content
    parts = [site.get(path, "application/dicom", Range=f"bytes={at}-{at + 199}") for at in range(0, len(whole), 200)]
    assert {part.status_code for part in parts} == {206}
    assert b"".join(part.content for part in parts) == whole


def test_8_6_1_2_multipart_frames_have_a_stable_body(site: Parts) -> None:
    path = put(site, instance(NumberOfFrames=2, PixelData=bytes(range(192))))
    whole = site.get(f"{path}/frames/1,2")
    assert len(split_response(whole)) == 2
    head = site.get(f"{path}/frames/1,2", Range="bytes=0-99")
    tail = site.get(f"{path}/frames/1,2", Range="bytes=100-")
    assert (head.status_code, head.content + tail.content) == (206, whole.content)


def test_head_ignores_ranges(site: Parts) -> None:
    path, (accept, whole) = next(iter(resources(site).items()))
    response = site.client.head(f"/dicom-web{path}", headers={"Accept": accept, "Range": "bytes=0-1"})
    assert (response.status_code, int(response.headers["content-length"])) == (200, len(whole))


@given(header=st.text(alphabet="bytes=-0123456789, ", max_size=30), length=st.integers(0, 2000))
def test_any_header_is_a_range_within_the_body_or_none(header: str, length: int) -> None:
    scope = {"type": "http", "method": "GET", "headers": [(b"range", header.encode())]}
    unsatisfiable = False
    found = None
    try:
        found = asked_range(Request(scope), length, '"e"')
    except RangeNotSatisfiable:
        unsatisfiable = True
    assert unsatisfiable or found is None or (found[0] >= 0 and found[1] >= 1 and sum(found) <= length)
    if unsatisfiable and length:
        number = int(header.strip(" bytes=").strip("-").split("-")[0] or 0)
        assert number == 0 or number >= length
