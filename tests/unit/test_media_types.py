"""Accept parsing and matching (PS3.18 8.7, RFC 9110 12.5.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.dicomweb.media_types import DICOM, DICOM_JSON, MediaType, accepts, parse_accept, parse_media_type
from wetread.core.errors import InvalidInput


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
