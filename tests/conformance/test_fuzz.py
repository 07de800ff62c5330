"""Fuzzing of all that comes from outside: a sample always, over 100,000 cases in ``make test-slow``."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import fuzzing
from tests.gateway_support import CODECS, Parts, instance, multipart, running, stow_headers

from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout

SEED = int(os.environ.get("WETREAD_FUZZ_SEED", "20240131"))


@pytest.fixture(scope="module")
def corpus(shared: Path) -> fuzzing.Corpus:
    return fuzzing.corpus(shared)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with running(tmp_path_factory.mktemp("fuzz")) as parts:
        yield parts


@pytest.mark.parametrize("name", fuzzing.CASES)
def test_sample(corpus: fuzzing.Corpus, name: str) -> None:
    assert fuzzing.run(name, corpus, seed=SEED, share=100) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzzing.CASES)
@pytest.mark.timeout(3600)
def test_whole(corpus: fuzzing.Corpus, name: str) -> None:
    assert fuzzing.run(name, corpus, seed=SEED + 1) >= 10_000


def acknowledged(site: Parts, response: Any) -> None:
    """What a store answer says is stored can be had, with metadata and frames that give an answer."""
    for item in response.json().get("00081199", {}).get("Value", []):
        url = item["00081190"]["Value"][0]
        assert site.client.get(url, headers={"Accept": "application/dicom; transfer-syntax=*"}).status_code in (
            200,
            406,
        )
        assert site.client.get(f"{url}/metadata").status_code == 200
        for suffix in ("/frames/1", "/rendered", "/thumbnail", "/bulkdata/7FE00010"):
            assert site.client.get(url + suffix).status_code < 500, suffix


def stores(site: Parts, corpus: fuzzing.Corpus, count: int, seed: int) -> None:
    small = [part for part in corpus.parts if len(part) < 6000] or corpus.parts
    for number in range(count):
        dice = random.Random(f"{seed}/store/{number}")
        files = [fuzzing.mutated(dice, dice.choice(small)) for _ in range(dice.randrange(1, 3))]
        body = multipart([*files, instance()])
        if dice.random() < 0.3:
            body = fuzzing.mutated(dice, body)
        response = site.client.post("/dicom-web/studies", content=body, headers=stow_headers())
        assert response.status_code in (200, 202, 400, 409, 413), (number, response.text)
        if response.status_code in (200, 202):
            acknowledged(site, response)


def requests(site: Parts, count: int, seed: int) -> None:
    """Random queries, Accept headers and parameters on every resource: never a 5xx."""
    reference = site.store(instance()).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    below = (
        "",
        "/metadata",
        "/frames/1",
        "/frames/1,2",
        "/frames/x",
        "/rendered",
        "/thumbnail",
        "/bulkdata/7FE00010",
        "/bulkdata/a/b",
    )
    searches = ("/studies", "/series", "/instances", "/studies/1.2.3/series", "/changefeed")
    for number in range(count):
        dice = random.Random(f"{seed}/request/{number}")
        words = [fuzzing._word(dice).replace("#", "") for _ in range(4)]
        accept = ", ".join(dice.choice(fuzzing._RANGES) for _ in range(dice.randrange(4)))
        if dice.random() < 0.5:
            url = "/dicom-web" + dice.choice(searches) + f"?{words[0]}={words[1]}&{words[2]}={words[3]}"
        else:
            parameters = (
                f"window={words[0]}",
                f"viewport={words[1]}",
                f"quality={words[2]}",
                f"accept={words[3]}",
                "viewport=1,1,0,0,9,9",
                "window=1,-1",
            )
            url = reference + dice.choice(below) + "?" + dice.choice(parameters)
        headers = {"Accept": accept, "Range": dice.choice(("bytes=0-5", "bytes=-0", "bytes=9-1", "x", "bytes=1-2,3-4"))}
        # What no client can send is not a case.
        if not url.isascii() or not url.isprintable():
            url = url.encode("ascii", "replace").decode()
            url = "".join(character for character in url if character.isprintable())
        response = site.client.get(url, headers=headers)
        assert response.status_code < 500, (number, url, accept, response.text)


def test_stores_sample(site: Parts, corpus: fuzzing.Corpus) -> None:
    stores(site, corpus, 10, SEED)


def test_requests_sample(site: Parts) -> None:
    requests(site, 120, SEED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_stores_whole(site: Parts, corpus: fuzzing.Corpus) -> None:
    stores(site, corpus, 3000, SEED + 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_requests_whole(site: Parts) -> None:
    requests(site, 10_000, SEED + 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_code_streams(shared: Path) -> None:
    """Damaged frames decode or do not; a codec that ends its process costs that frame only."""
    layout = FrameLayout(40, 36, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")
    values = random.Random(1).randbytes(2880)
    grey = bytes(byte if at % 2 == 0 else byte & 0x0F for at, byte in enumerate(values))
    decoded = refused = 0
    for uid in sorted(CODECS.targets):
        good = CODECS.pack(grey, layout, uid)
        for number in range(400):
            frame = fuzzing.mutated(random.Random(f"{SEED}/{uid}/{number}"), good)
            try:
                CODECS.unpack(frame, uid, layout, rgb=False)
                decoded += 1
            except NotProcessable:
                refused += 1
        assert CODECS.unpack(good, uid, layout, rgb=False).values == grey
    assert decoded
    assert refused
