"""Slides where they lie: behind the gateway frame by frame, in S3 by range. The pixels are those of the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time

import httpx
import numpy as np
import pytest
from tests.gateway_support import running, split_response
from tests.pathology_world import SMALL, bigger, native, written

from wetread.adapters.dicomweb.frames import FRAMES_PER_REQUEST, GatewayTiles, SeriesFrames
from wetread.bootstrap.slides import SlideLocation, gateway_slide, sources_of
from wetread.core.errors import ConfigurationError, Conflict, NotFound, Unavailable
from wetread.core.identifiers import derived_uid
from wetread.pathology.convert import ConvertOptions, convert
from wetread.pathology.errors import SeriesNotSuitable
from wetread.pathology.slide.open import local_sources, open_native, slide_digest
from wetread.testing.phantoms.slide_files import TiffOptions
from wetread.testing.servers.process import free_port

pytestmark = pytest.mark.server("openslide")
DIGEST = "cd" * 32


def whole(reader, level):
    at = reader.pyramid.levels[level]
    out = np.empty((at.height, at.width, 3), np.uint8)
    reader.read_into(out, level, 0, 0)
    return out


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A converted slide in a gateway, with the file it came from."""
    folder = tmp_path_factory.mktemp("gateway")
    path = written(folder, TiffOptions(tables=False))
    with native(path) as slide:
        levels = convert(slide, folder / "dicom", ConvertOptions((0.5, 0.5), DIGEST, 1_700_000_000.0))
        with running(folder) as parts:
            answer = parts.store(*(level.path.read_bytes() for level in levels))
            assert answer.status_code == 200, answer.text
            study = derived_uid("slide-study", DIGEST)
            yield parts, slide, levels, f"/studies/{study}/series/{derived_uid('slide-series', DIGEST, study)}"


def test_gateway_serves_frames_as_the_tiles_they_are(stored):
    parts, slide, levels, series = stored
    base = next(level for level in levels if level.width == SMALL.width)
    tiles = slide.raw_tiles(0, range(base.frames))
    assert any(len(tile) % 2 for tile in tiles)  # some were padded to be stored, and the pad is not the image's
    for start in range(0, base.frames, 10):
        numbers = range(start, min(start + 10, base.frames))
        answer = parts.get(
            f"{series}/instances/{base.sop_instance_uid}/frames/{','.join(str(n + 1) for n in numbers)}",
            'multipart/related; type="image/jpeg"; transfer-syntax=*',
        )
        assert answer.status_code == 200
        for number, (headers, body) in zip(numbers, split_response(answer), strict=True):
            assert headers["content-type"].startswith("image/jpeg")
            assert body == tiles[number] or body == tiles[number] + b"\0"


def client_of(parts, series):
    parts.client.base_url = httpx.URL(f"http://testserver/dicom-web{series}/")
    return parts.client


def test_reader_behind_the_gateway_sees_the_files_pixels(stored):
    parts, slide, _, series = stored
    remote, headers = gateway_slide(client_of(parts, series))
    assert remote.pyramid.mpp == (0.5, 0.5)
    assert [h.TotalPixelMatrixColumns for h in headers] == [1344, 336, 84]
    for level in range(3):
        assert np.array_equal(whole(remote, level), whole(slide, level))
    frames = remote._bytes._frames
    before = frames.requests
    corners = np.array([(x, y) for y in range(0, 1024, 256) for x in range(0, 1280, 256)], np.int64)
    remote.prefetch(0, corners, (256, 256))
    for x, y in corners.tolist():
        remote.read_into(np.empty((256, 256, 3), np.uint8), 0, x, y)
    assert frames.requests - before == 1  # twenty tiles, one request
    assert slide_digest(remote, []) == slide_digest(remote, [])
    assert FRAMES_PER_REQUEST == 32


def test_gateway_refusals_are_typed(stored):
    parts, _, _, series = stored
    frames = SeriesFrames(client_of(parts, series))
    with pytest.raises(NotFound):
        frames.frames("1.2.3", [1])
    down = SeriesFrames(
        httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(503)), base_url="http://x/"),
        sleep=lambda _: None,
    )
    with pytest.raises(Unavailable):
        down.frames("1.2.3", [1])
    text = httpx.MockTransport(lambda _: httpx.Response(200, text="hello"))
    with pytest.raises(Unavailable, match="multipart"):
        GatewayTiles(SeriesFrames(httpx.Client(transport=text, base_url="http://x/")), ["1"], [[0]]).fetch_one(0, 0)
    nothing = httpx.MockTransport(lambda _: httpx.Response(200, json=[]))
    with pytest.raises(SeriesNotSuitable):
        gateway_slide(httpx.Client(transport=nothing, base_url="http://x/"))
    assert GatewayTiles(frames, ["1"], [[-1]]).fetch(0, [0]) == [b""]


def test_a_busy_server_is_asked_again_and_a_dead_one_is_given_up():
    slept: list[float] = []
    answers = [httpx.Response(503, headers={"Retry-After": "5"}), httpx.ConnectError("refused"), httpx.Response(502)]

    def answer(request):
        one = answers.pop(0) if answers else httpx.Response(200, json=[])
        if isinstance(one, Exception):
            raise one
        return one

    def frames_of(handler):
        client = httpx.Client(transport=httpx.MockTransport(handler), base_url="http://x/")
        return SeriesFrames(client, sleep=slept.append)

    assert frames_of(answer).metadata() == []
    assert slept == [5.0, 2.0, 8.0]
    slept.clear()
    dead = frames_of(lambda _: httpx.Response(500))
    with pytest.raises(Unavailable, match="500"):
        dead.metadata()
    assert (slept, dead.requests) == ([0.5, 2.0, 8.0], 4)


def test_locations_are_told_apart(tmp_path):
    with pytest.raises(ConfigurationError):
        sources_of("ftp://host/slide.svs")
    place = SlideLocation("https://host/dicom-web/studies/1/series/2")
    assert (place.remote, place.is_dicom, place.sources) == (True, True, [])
    with pytest.raises(ConfigurationError):
        place.open("openslide")
    with SlideLocation(str(written(tmp_path))) as local:
        assert not local.is_dicom
        assert local.level_headers() == []


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A moto server with one bucket, and obstore's way to it."""
    port = free_port()
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    process = subprocess.Popen(
        [shutil.which("moto_server"), "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            httpx.get(url, timeout=1)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    changes = {
        "AWS_ENDPOINT": url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    httpx.put(f"{url}/slides")
    yield
    process.terminate()
    process.wait(10)
    log.close()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
@pytest.mark.server("moto")
def test_slide_in_s3_gives_the_files_pixels_for_little_more_than_its_bytes(tmp_path):
    from obstore.store import S3Store

    path = written(tmp_path, TiffOptions(share=False, tile=64))
    S3Store("slides").put("a.svs", path.read_bytes())
    (source,) = sources_of("s3://slides/a.svs")
    with native(path) as local, open_native([source]) as remote:
        level = local.pyramid.levels[0]
        tiles = [
            t for t in range(level.columns * level.rows) if (t // level.columns // 3 + t % level.columns // 3) % 3 == 0
        ]
        before, requests = source.bytes_read, source.requests
        needed = 0
        for start in range(0, len(tiles), 32):
            some = tiles[start : start + 32]
            corners = np.array([(t % level.columns * 64, t // level.columns * 64) for t in some], np.int64)
            remote.prefetch(0, corners, (64, 64))
            needed += sum(map(len, local.raw_tiles(0, some)))
            for x, y in corners.tolist():
                got, due = np.empty((64, 64, 3), np.uint8), np.empty((64, 64, 3), np.uint8)
                remote.read_into(got, 0, x, y)
                local.read_into(due, 0, x, y)
                assert np.array_equal(got, due)
        assert source.requests - requests < len(tiles) / 2
        assert source.bytes_read - before <= 1.5 * needed
        assert slide_digest(remote, [source]) == slide_digest(local, local_sources(path))
    with pytest.raises(NotFound):
        sources_of("s3://slides/none.svs")
    (source,) = sources_of("s3://slides/a.svs")
    S3Store("slides").put("a.svs", path.read_bytes()[::-1])
    with pytest.raises(Conflict):
        source.read(0, 100)


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
@pytest.mark.server("moto")
def test_a_batch_into_s3_keeps_parts_there_and_goes_on_from_them(tmp_path):
    from obstore.store import S3Store
    from typer.testing import CliRunner

    from wetread.cli import app

    slide = written(tmp_path, spec=bigger())
    (tmp_path / "list.txt").write_text(f"{slide}\n")
    command = ["pathology", "batch", str(tmp_path / "list.txt"), "--out", "s3://slides/results", "--no-dicom"]
    store = S3Store("slides", prefix="results/slide-00000")

    def result():
        ran = CliRunner().invoke(app, [*command, "--executor", "inline"])
        assert ran.exit_code == 0, ran.output
        return json.loads(bytes(store.get("result.json").bytes()))

    first = result()
    names = sorted(item["path"] for page in store.list() for item in page)
    assert {"overlay.png", "plan.json", "result.json", "tiles.parquet"} <= set(names)
    parts = [name for name in names if name.startswith(f"parts/{first['plan_hash']}/")]
    assert len(parts) >= 2
    # A machine that never saw the slide, and a part that was never sent: only that one is computed.
    lost = sum(int(name.rsplit("-", 1)[1].split(".")[0]) for name in parts[:1])
    store.delete(parts[:1])
    again = result()
    assert again["tiles"]["resumed"] == again["tiles"]["planned"] - lost
    assert {**again, "tiles": None} == {**first, "tiles": None}
    refused = CliRunner().invoke(app, [*command[:3], "--out", "s3://none", "--no-dicom", "--executor", "inline"])
    assert refused.exit_code != 0
