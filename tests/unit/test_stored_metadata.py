"""Stored metadata: any zlib reads it, and pieces of many instances make one gzip member without compressing again."""

from __future__ import annotations

import gzip
import zlib

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.core.dicomweb.stored_metadata import addressed, gzip_array, pack, unpack

VALUES = st.one_of(
    st.fixed_dictionaries({"vr": st.just("LO"), "Value": st.lists(st.text(max_size=300), max_size=3)}),
    st.fixed_dictionaries({"vr": st.just("OW"), "BulkDataURI": st.just("/bulkdata/7FE00010")}),
    st.fixed_dictionaries({"vr": st.just("LO"), "Value": st.just(['"BulkDataURI":"not an address'])}),
)
OBJECTS = st.dictionaries(st.integers(0, 0xFFFFFFFF).map(lambda tag: f"{tag:08X}"), VALUES, max_size=6).map(
    orjson.dumps
)
URL = b"http://host:8042/dicom-web/studies/1.2/series/1.3/instances/1.4"


@given(OBJECTS)
def test_any_zlib_reads_a_stored_object(json: bytes) -> None:
    stored = pack(json)
    assert zlib.decompress(stored) == unpack(stored) == json
    found = orjson.loads(addressed(stored, URL))
    addresses = [entry["BulkDataURI"] for entry in found.values() if "BulkDataURI" in entry]
    assert all(address.startswith(URL.decode() + "/bulkdata/") for address in addresses)
    assert len(addresses) == json.count(b'"BulkDataURI":"/')


@settings(max_examples=60)
@given(st.lists(st.tuples(OBJECTS, st.booleans()), max_size=8))
def test_gzip_of_pieces_is_the_gzip_of_the_array(objects: list[tuple[bytes, bool]]) -> None:
    stored = [pack(json) if packed else zlib.compress(json) for json, packed in objects]
    answer = gzip_array((one, URL) for one in stored)
    wanted = b"[" + b",".join(addressed(one, URL) for one in stored) + b"]"
    assert gzip.decompress(answer) == wanted
    # Clients that stop at the end of the first member have all of it.
    single = zlib.decompressobj(31)
    assert single.decompress(answer) == wanted
    assert single.eof
    assert not single.unused_data


def test_pieces_are_sent_as_they_are_stored() -> None:
    json = orjson.dumps(
        {"00080018": {"vr": "UI", "Value": ["1.2.3"]}, "00104000": {"vr": "LT", "Value": ["x y " * 400]}}
    )
    stored = pack(json)
    assert len(stored) < len(json) / 5
    assert len(gzip_array([(stored, URL)] * 100)) < 110 * len(stored)
