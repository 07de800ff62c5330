"""Accept parsing and matching (PS3.18 8.7, RFC 9110 12.5.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.dicomweb.media_types import DICOM, DICOM_JSON, MediaType, accepts, parse_accept, parse_media_type
from wetread.core.dicomweb.strict import check_strict
from wetread.core.errors import InvalidInput, NotAcceptable


def test_quoted_and_unquoted_parameters_are_the_same() -> None:
    quoted = parse_media_type('multipart/related; type="application/dicom"; boundary="a;b"')
    assert (quoted.payload, quoted.parameters["boundary"]) == (DICOM, "a;b")
    assert parse_media_type("multipart/related;type=application/dicom").payload == DICOM


def test_best_range_first() -> None:
    ranges = parse_accept("*/*, application/dicom;q=0.5, application/dicom+json, image/*")
    assert [media.type for media in ranges] == [DICOM_JSON, "image/*", "*/*", DICOM]


def test_query_parameter_has_priority() -> None:
    assert parse_accept("image/png", "image/jpeg")[0].type == "image/jpeg"


def test_no_accept_is_anything() -> None:
    assert parse_accept(None) == (MediaType("*/*"),)


def test_zero_quality_is_not_acceptable() -> None:
    assert parse_accept("application/dicom;q=0") == ()


@pytest.mark.parametrize("alias", ["application/json", "application/dicom+json"])
def test_aliases(alias: str) -> None:
    assert accepts(parse_accept(alias), DICOM_JSON)


def test_multipart_range_does_not_accept_a_single_part() -> None:
    ranges = parse_accept("multipart/related; type=application/octet-stream; transfer-syntax=*")
    assert not accepts(ranges, "application/octet-stream")
    assert ranges[0].covers("application/octet-stream")
    assert ranges[0].transfer_syntax == "*"


def test_subtype_wildcard() -> None:
    (media,) = parse_accept("image/*")
    assert media.covers("image/png")
    assert not media.covers("video/mp4")


@pytest.mark.parametrize("text", ["", "nonsense", "/x", "x/"])
def test_ill_formed_type_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_media_type(text)


@given(st.text(max_size=200))
def test_any_accept_header_is_survived(text: str) -> None:
    ranges = parse_accept(text)
    assert all(0 < media.quality <= 1 for media in ranges)
    assert [media.quality for media in ranges] == sorted((media.quality for media in ranges), reverse=True)


@pytest.mark.parametrize(
    ("header", "json", "text"),
    [
        ("application/dicom+json;q=0, */*", False, True),
        ("*/*, application/dicom+json;q=0", False, True),
        ("application/*;q=0.9, application/dicom+json;q=0", False, False),
        ("application/dicom+json;q=0.1, */*;q=0", True, False),
        ("*/*;q=0", False, False),
    ],
)
def test_rfc_9110_12_5_1_the_most_specific_range_decides(header: str, json: bool, text: bool) -> None:
    ranges = parse_accept(header)
    assert (accepts(ranges, "application/dicom+json"), accepts(ranges, "text/html")) == (json, text)


def test_a_type_named_with_a_low_quality_is_not_lifted_by_a_wider_range() -> None:
    ranges = parse_accept("*/*;q=0.9, application/dicom+json;q=0.1")
    assert not ranges[0].covers("application/dicom+json")
    assert ranges[1].covers("application/dicom+json")


@pytest.mark.parametrize(
    ("accept", "bulk", "refused"),
    [
        ("application/dicom, image/jpeg", False, True),
        ('multipart/related; type="application/dicom", text/html', False, True),
        ("application/dicom+json, application/pdf;q=0.1", False, True),
        ("image/png, image/jls", False, True),
        ("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50, image/png", True, False),
        ("application/dicom+json, image/jpeg; transfer-syntax=*", False, False),
        ('multipart/related; type="image/jpeg", multipart/related; type="application/octet-stream"', True, False),
        ('multipart/related; type="image/jpeg", multipart/related; type="application/octet-stream"', False, True),
        ("video/mp4, application/octet-stream", True, False),
        ("text/html, application/octet-stream", True, True),
        ("image/jpeg, image/png, application/pdf, text/xml", False, False),
        ("application/dicom, application/dicom+xml, application/zip", False, False),
        ("application/dicom, image/jpeg;q=0", False, False),
        ("application/dicom, */*, image/*", False, False),
        ("image/jpeg, */*", False, False),
        ("x/y, application/dicom", False, False),
    ],
)
def test_ps3_18_8_7_5_dicom_and_rendered_types_are_not_mixed(accept: str, bulk: bool, refused: bool) -> None:
    ranges = parse_accept(accept)
    if refused:
        with pytest.raises(InvalidInput, match="not mixed"):
            check_strict(accept, ranges, bulk=bulk)
    else:
        check_strict(accept, ranges, bulk=bulk)


@pytest.mark.parametrize("header", [None, "", " "])
def test_ps3_18_8_7_5_an_accept_header_has_to_be_there(header: str | None) -> None:
    with pytest.raises(NotAcceptable):
        check_strict(header, parse_accept(header, "application/dicom"), bulk=False)
