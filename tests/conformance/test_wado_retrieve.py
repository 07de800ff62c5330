"""WADO-RS (PS3.18 10.4): instances, frames, metadata, bulk data, rendered images, thumbnails, negotiation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from tests.gateway_support import Parts, dataset, encoded, instance, running, split_response
from tests.json_oracle import normalised, oracle_json

from wetread.gateway.settings import GatewaySettings

NATIVE = "1.2.840.10008.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def site(tmp_path: Path):
    with running(tmp_path) as parts:
        yield parts


def put(site: Parts, part: bytes) -> str:
    """Store *part* and return the path of the instance."""
    response = site.store(part)
    assert response.status_code in (200, 202), response.text
    url: str = response.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    return url.removeprefix("http://testserver/dicom-web")


def compressed(syntax: str, **changes: Any) -> bytes:
    data = dataset(BitsStored=16, HighBit=15, **changes)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(syntax, generate_instance_uid=False)
    return encoded(data, syntax)


def test_10_4_3_study_series_instance_are_multipart(site: Parts) -> None:
    files = [instance(InstanceNumber=n) for n in (1, 2)]
    site.store(*files)
    uid = pydicom.dcmread(io.BytesIO(files[0])).SOPInstanceUID
    for path, count in (("/studies/1.2.3", 2), ("/studies/1.2.3/series/1.2.3.1", 2)):
        response = site.get(path)
        assert response.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
        assert int(response.headers["content-length"]) == len(response.content)
        parts = split_response(response)
        assert [body for _, body in parts] == files[:count]
        assert parts[0][0]["content-type"] == f"application/dicom; transfer-syntax={NATIVE}"
    path = f"/studies/1.2.3/series/1.2.3.1/instances/{uid}"
    ((headers, body),) = split_response(site.get(path))
    assert (body, headers["content-location"]) == (files[0], f"http://testserver/dicom-web{path}")
    single = site.get(path, "application/dicom")
    assert (single.content, single.headers["content-type"]) == (
        files[0],
        f"application/dicom; transfer-syntax={NATIVE}",
    )


@pytest.mark.parametrize(
    "path",
    [
        "/studies/9.9",
        "/studies/1.2.3/series/9",
        "/studies/1.2.3/series/1.2.3.1/instances/9",
        "/studies/9.9/metadata",
        "/studies/9.9/rendered",
    ],
)
def test_unknown_is_404(site: Parts, path: str) -> None:
    site.store(instance())
    response = site.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


def test_single_part_is_ignored_for_many(site: Parts) -> None:
    site.store(instance())
    assert site.get("/studies/1.2.3", "application/dicom").status_code == 406
    assert site.get("/studies/1.2.3", "application/dicom, multipart/related; type=application/dicom").status_code == 200


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_8_7_3_default_is_explicit_little_endian(site: Parts, syntax: str) -> None:
    part = encoded(dataset(), syntax)
    path = put(site, part)
    response = site.get(path, "application/dicom")
    assert response.headers["content-type"] == f"application/dicom; transfer-syntax={NATIVE}"
    found = pydicom.dcmread(io.BytesIO(response.content))
    assert found.file_meta.TransferSyntaxUID == NATIVE
    assert np.array_equal(found.pixel_array, dataset_pixels(part))
    assert found.PatientName == "Doe^Jane"
    stored = site.get(path, f"application/dicom; transfer-syntax={syntax}")
    assert stored.content == part, "the stored syntax, asked for, is byte-identical"
    anything = site.get(path, "application/dicom; transfer-syntax=*")
    if syntax == DeflatedExplicitVRLittleEndian:
        assert anything.content == part
    else:
        assert anything.content == response.content, "implicit and big endian stay off the wire"


def dataset_pixels(part: bytes) -> np.ndarray:
    return pydicom.dcmread(io.BytesIO(part)).pixel_array


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_lossless_compression_is_undone_exactly(site: Parts, syntax: str) -> None:
    part = compressed(syntax)
    path = put(site, part)
    plain = site.get(path, "application/dicom")
    assert pydicom.dcmread(io.BytesIO(plain.content)).file_meta.TransferSyntaxUID == NATIVE
    assert np.array_equal(dataset_pixels(plain.content), dataset_pixels(part))
    assert site.get(path, "application/dicom; transfer-syntax=*").content == part
    frame = site.get(f"{path}/frames/1", "application/octet-stream")
    assert frame.content == dataset_pixels(part).astype("<u2").tobytes()
    ((headers, body),) = split_response(
        site.get(f"{path}/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*")
    )
    media = {RLELossless: "image/dicom-rle", JPEGLSLossless: "image/jls"}[syntax]
    assert headers["content-type"] == f"{media}; transfer-syntax={syntax}"
    assert body in part


def test_impossible_syntax_is_406(site: Parts) -> None:
    path = put(site, instance())
    response = site.get(path, "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.51")
    assert (response.status_code, response.headers["content-type"]) == (406, "application/problem+json")
    assert site.get(f"{path}/frames/1", "image/jxl").status_code == 406
    assert site.get(f"{path}/frames/1", "image/jpeg").status_code == 406, "lossless JPEG cannot be made here"


def test_undecodable_pixels_are_406_or_as_stored(site: Parts) -> None:
    data = dataset()
    data.PixelData = encapsulate([b"\xff\xd8 this is no picture"])
    data["PixelData"].is_undefined_length = True
    path = put(site, encoded(data, JPEGLSLossless))
    assert site.get(path, f"application/dicom; transfer-syntax={NATIVE}").status_code == 406
    assert site.get(f"{path}/frames/1", f"application/octet-stream; transfer-syntax={NATIVE}").status_code == 406
    assert site.get(f"{path}/rendered").status_code == 406
    assert site.get(f"{path}/thumbnail").status_code == 200
    assert site.get(path, "application/dicom").status_code == 200, "the default falls back to what is stored"


def test_frames_of_a_native_multi_frame(site: Parts) -> None:
    values = np.arange(3 * 48, dtype="<u2").reshape(3, 8, 6)
    path = put(site, instance(NumberOfFrames=3, PixelData=values.tobytes()))
    parts = split_response(site.get(f"{path}/frames/3,1,3"))
    assert [body for _, body in parts] == [values[n].tobytes() for n in (2, 0, 2)]
    assert parts[0][0]["content-location"].endswith("/frames/3")
    assert parts[0][0]["content-type"] == f"application/octet-stream; transfer-syntax={NATIVE}"
    assert site.get(f"{path}/frames/4").status_code == 404
    for junk in ("0", "-1", "a", "1,,2", "1;2", "1,0"):
        assert site.get(f"{path}/frames/{junk}").status_code == 400, junk


def test_frames_of_single_bit_pixels(site: Parts) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (5, 3, 5), dtype=np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    packed += b"\0" if len(packed) % 2 else b""
    part = instance(NumberOfFrames=5, Rows=3, Columns=5, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    path = put(site, part)
    for number in range(1, 6):
        frame = site.get(f"{path}/frames/{number}", "application/octet-stream").content
        unpacked = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:15]
        assert np.array_equal(unpacked.reshape(3, 5), bits[number - 1])


@pytest.mark.parametrize("has_bot", [True, False])
def test_frames_of_many_fragments(site: Parts, has_bot: bool) -> None:
    frames = [b"\xff\xd8" + bytes([n]) * (40 + n * 2) for n in range(4)]
    data = dataset(NumberOfFrames=4)
    data.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=has_bot)
    data["PixelData"].is_undefined_length = True
    path = put(site, encoded(data, "1.2.840.10008.1.2.4.50"))
    parts = split_response(site.get(f"{path}/frames/1,2,3,4", "multipart/related; type=image/jpeg"))
    assert [body.rstrip(b"\0") for _, body in parts] == [frame.rstrip(b"\0") for frame in frames]


def test_frames_from_an_extended_offset_table(site: Parts) -> None:
    from pydicom.encaps import encapsulate_extended

    frames = [b"\xff\xd8" + bytes([n]) * (40 + n * 2) for n in range(3)]
    data = dataset(NumberOfFrames=3)
    data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    data["PixelData"].is_undefined_length = True
    path = put(site, encoded(data, "1.2.840.10008.1.2.4.50"))
    ((_, body),) = split_response(site.get(f"{path}/frames/2", "multipart/related; type=image/jpeg"))
    assert body == frames[1]


def test_colour_planes_agree_with_the_metadata(site: Parts) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    colour = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "Rows": 4,
        "Columns": 5,
        "PlanarConfiguration": 0,
        "SOPClassUID": SECONDARY_CAPTURE,
    }
    data = dataset(**colour, PixelData=rgb.tobytes())
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(RLELossless, generate_instance_uid=False)
    path = put(site, encoded(data, RLELossless))
    planar = site.get(f"{path}/metadata").json()[0]["00280006"]["Value"][0]
    frame = np.frombuffer(site.get(f"{path}/frames/1", "application/octet-stream").content, np.uint8)
    assert np.array_equal(frame.reshape(3, 4, 5).transpose(1, 2, 0) if planar else frame.reshape(4, 5, 3), rgb)
    picture = Image.open(io.BytesIO(site.get(f"{path}/rendered", "image/png").content))
    assert np.array_equal(np.asarray(picture), rgb)


def test_metadata_equals_pydicom_and_points_to_bulk_data(site: Parts) -> None:
    data = dataset()
    block = data.private_block(0x0029, "WETREAD TEST", create=True)
    big = bytes(range(256)) * 40
    block.add_new(1, "OB", big)
    item = Dataset()
    item.add_new(0x00420011, "OB", big)
    data.ReferencedImageSequence = Sequence([Dataset(), item])
    part = encoded(data)
    path = put(site, part)
    response = site.get(f"{path}/metadata")
    assert response.headers["content-type"] == "application/dicom+json"
    (found,) = response.json()
    assert normalised(found) == normalised(oracle_json(part))
    for uri, value in (
        (found["00291001"]["BulkDataURI"], big),
        (found["00081140"]["Value"][1]["00420011"]["BulkDataURI"], big),
        (found["7FE00010"]["BulkDataURI"], data.PixelData),
    ):
        assert uri.startswith(f"http://testserver/dicom-web{path}/bulkdata/")
        single = site.client.get(uri, headers={"Accept": "application/octet-stream"})
        assert (single.status_code, single.content) == (200, value)
        ((headers, body),) = split_response(
            site.client.get(uri, headers={"Accept": 'multipart/related; type="application/octet-stream"'})
        )
        assert (body, headers["content-location"]) == (value, uri)


@pytest.mark.parametrize("tail", ["7FE00011", "00081140/9/00420011", "00081140"])
def test_unknown_bulk_data_is_404(site: Parts, tail: str) -> None:
    path = put(site, instance(ReferencedImageSequence=Sequence([Dataset()])))
    assert site.get(f"{path}/bulkdata/{tail}").status_code == 404


@pytest.mark.parametrize("tail", ["x", "../../../etc/passwd", "7FE00010/", "7FE00010/0", "7FE0001"])
def test_ill_formed_bulk_data_path(site: Parts, tail: str) -> None:
    path = put(site, instance())
    assert site.get(f"{path}/bulkdata/{tail}").status_code in (400, 404)


def test_metadata_of_a_series_is_ordered_and_tagged(site: Parts) -> None:
    site.store(*[instance(InstanceNumber=n) for n in (3, 1, 2)])
    response = site.get("/studies/1.2.3/series/1.2.3.1/metadata")
    assert [item["00200013"]["Value"][0] for item in response.json()] == [1, 2, 3]
    same = site.get("/studies/1.2.3/series/1.2.3.1/metadata", **{"If-None-Match": response.headers["etag"]})
    assert same.status_code == 304
    site.store(instance(InstanceNumber=4))
    fresh = site.get("/studies/1.2.3/series/1.2.3.1/metadata", **{"If-None-Match": response.headers["etag"]})
    assert (fresh.status_code, len(fresh.json())) == (200, 4), "right from the first request after the STOW answer"
    assert len(site.get("/studies/1.2.3/metadata").json()) == 4


def test_base_url_is_part_of_what_is_tagged(site: Parts) -> None:
    path = put(site, instance())
    first = site.get(f"{path}/metadata", Host="a.example:8042")
    other = site.get(f"{path}/metadata", Host="b.example")
    assert first.json()[0]["7FE00010"]["BulkDataURI"].startswith("http://a.example:8042/dicom-web/")
    assert first.headers["etag"] != other.headers["etag"]


@pytest.mark.parametrize("suffix", ["", "/frames/1", "/rendered", "/bulkdata/7FE00010", "/metadata", "/thumbnail"])
def test_conditional_requests(site: Parts, suffix: str) -> None:
    path = put(site, instance())
    first = site.get(path + suffix)
    again = site.get(path + suffix, **{"If-None-Match": f'"x", {first.headers["etag"]}'})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_boundary_is_repeatable(site: Parts) -> None:
    path = put(site, instance())
    assert site.get(path).content == site.get(path).content


def picture(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


def test_rendered_window(site: Parts) -> None:
    values = np.arange(48, dtype="<u2").reshape(8, 6) * 40
    path = put(site, instance(PixelData=values.tobytes()))
    grey = picture(site.get(f"{path}/rendered?window=0,1000,linear", "image/png")).astype(int)
    hounsfield = values.astype(float) - 1024
    expected = np.clip((hounsfield + 0.5) / 999 + 0.5, 0, 1) * 255
    assert np.abs(grey - expected).max() <= 1
    sigmoid = picture(site.get(f"{path}/rendered?window=0,1000,sigmoid", "image/png")).astype(int)
    assert np.abs(sigmoid - 255 / (1 + np.exp(-4 * hounsfield / 1000))).max() <= 1
    exact = picture(site.get(f"{path}/rendered?window=0,1000,linear-exact", "image/png")).astype(int)
    assert np.abs(exact - np.clip(hounsfield / 1000 + 0.5, 0, 1) * 255).max() <= 1


def test_rendered_uses_the_stored_window_and_inverts_monochrome1(site: Parts) -> None:
    values = np.arange(48, dtype="<u2") * 40
    common = {"PixelData": values.tobytes(), "WindowCenter": 0, "WindowWidth": 1000}
    plain = picture(site.get(put(site, instance(**common)) + "/rendered", "image/png"))
    assert np.array_equal(
        plain, picture(site.get(put(site, instance(**common)) + "/rendered?window=0,1000", "image/png"))
    )
    inverse = picture(
        site.get(put(site, instance(**common, PhotometricInterpretation="MONOCHROME1")) + "/rendered", "image/png")
    )
    assert np.array_equal(inverse, 255 - plain)


def test_rendered_types_and_viewport(site: Parts) -> None:
    path = put(site, instance())
    for accept, kind in (("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF"), ("*/*", "JPEG")):
        assert Image.open(io.BytesIO(site.get(f"{path}/rendered", accept).content)).format == kind
    assert picture(site.get(f"{path}/rendered?viewport=60,60")).shape == (60, 45), "aspect kept"
    whole = picture(site.get(f"{path}/rendered?window=-1000,48", "image/png"))
    cut = picture(site.get(f"{path}/rendered?window=-1000,48&viewport=3,4,3,4,3,4", "image/png"))
    assert np.array_equal(cut, whole[4:8, 3:6])
    flipped = picture(site.get(f"{path}/rendered?window=-1000,48&viewport=6,8,0,0,-6,8", "image/png"))
    assert np.array_equal(flipped, whole[:, ::-1])
    assert site.get(f"{path}/rendered", "application/dicom").status_code == 406


@pytest.mark.parametrize(
    "query",
    [
        "window=1",
        "window=a,b",
        "window=1,0",
        "window=1,2,cubic",
        "viewport=0,0",
        "viewport=1",
        "viewport=9,9,a,b,c,d",
        "quality=0",
        "quality=101",
        "quality=x",
        "viewport=9,9,100,100,5,5",
    ],
)
def test_ill_formed_rendering_parameters(site: Parts, query: str) -> None:
    assert site.get(put(site, instance()) + f"/rendered?{query}").status_code == 400


def test_unsupported_annotation_is_told(site: Parts) -> None:
    response = site.get(put(site, instance()) + "/rendered?annotation=patient")
    assert response.status_code == 200
    assert response.headers["warning"].startswith("299 ")


def test_rendered_of_all_frames_and_of_one(site: Parts) -> None:
    values = np.arange(3 * 48, dtype="<u2")
    path = put(site, instance(NumberOfFrames=3, PixelData=values.tobytes()))
    parts = split_response(site.get(f"{path}/rendered", "multipart/related; type=image/png"))
    assert len(parts) == 3
    assert picture(site.get(f"{path}/frames/2/rendered", "image/png")).shape == (8, 6)
    assert site.get(f"{path}/frames/4/rendered").status_code == 404


def test_nothing_to_render_is_404_and_has_an_icon(site: Parts) -> None:
    data = dataset(Modality="SR", PixelData=None, Rows=None, Columns=None)
    path = put(site, encoded(data))
    assert site.get(f"{path}/rendered").status_code == 404
    assert site.get(f"{path}/frames/1").status_code == 404
    assert picture(site.get(f"{path}/thumbnail")).shape == (128, 128)
    assert picture(site.get("/studies/1.2.3/thumbnail")).shape == (128, 128)


def test_thumbnail_shows_the_middle(site: Parts) -> None:
    site.store(
        *[
            instance(
                InstanceNumber=n, PixelData=np.full(48, n * 100, "<u2").tobytes(), WindowCenter=-824, WindowWidth=400
            )
            for n in range(5)
        ]
    )
    values = picture(site.get("/studies/1.2.3/thumbnail"))
    assert values.shape == (128, 96)
    assert abs(int(values.mean()) - 128) <= 3


def test_cache_and_isolation_headers(site: Parts) -> None:
    response = site.get(put(site, instance()))
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_other_tenants_objects_do_not_exist(site: Parts) -> None:
    from wetread.core.errors import NotFound
    from wetread.core.facts import Source

    site.ingest.store("other", [instance(StudyInstanceUID="5.5", SeriesInstanceUID="5.5.1")], source=Source())
    for suffix in ("", "/metadata", "/series/5.5.1", "/rendered", "/thumbnail"):
        assert site.get(f"/studies/5.5{suffix}").status_code == 404
    with site.database.read() as tx, pytest.raises(NotFound):
        site.archive.instances(tx, "default", "5.5")


def test_ps3_18_8_7_5_negotiation_to_the_letter_by_configuration(tmp_path: Path) -> None:
    both, of_values = "application/dicom, image/jpeg, */*", ("/frames/1", "/bulkdata/7FE00010", "/pixeldata")
    with running(tmp_path, settings=GatewaySettings(strict_negotiation=True)) as site:
        site.client.headers.pop("accept")
        stored = site.store(instance(), Accept="application/dicom+json")
        assert stored.status_code == 200
        path = stored.json()["00081199"]["Value"][0]["00081190"]["Value"][0].partition("/dicom-web")[2]
        for resource in ("", "/metadata", *of_values, "/rendered", "/thumbnail", "/frames/1/rendered"):
            assert site.get(path + resource).status_code == 406, resource
            assert site.get(path + resource, both).status_code == (200 if resource in of_values else 400), resource
            assert site.get(path + resource, "*/*").status_code == 200
        for query in ("/studies", "/studies?accept=application/dicom%2Bjson"):
            assert site.get(query).status_code == 406, "the parameter does not stand for the header"
        assert site.store(instance()).status_code == 406
        assert len(site.get("/instances", "application/dicom+json").json()) == 1
