"""The read cache: the same bytes as the object, few requests, bounded room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wetread.adapters.objectstore.read_cache import BlockCache

DATA = bytes(range(251)) * 4


class Remote:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        self.asked.append((start, length))
        return DATA[start : start + length]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 400)), min_size=1, max_size=8), st.integers(1, 300)
)
def test_any_reads_give_the_bytes_of_the_object(
    tmp_path_factory: pytest.TempPathFactory, reads: list[tuple[int, int]], block: int
) -> None:
    cache, remote = BlockCache(tmp_path_factory.mktemp("c"), capacity=1 << 20, block_bytes=block), Remote()
    for start, length in [*reads, *reads]:
        assert cache.read("k", start, length, remote) == DATA[start : start + length]
    blocks = [start // block for start, _ in remote.asked]
    assert len(blocks) == len(set(blocks)), "no block is fetched twice"


def test_neighbours_come_with_one_request(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    remote = Remote()
    cache = BlockCache(tmp_path, capacity=1 << 20, block_bytes=10, counted=lambda *counts: told.append(counts))
    assert cache.read("k", 15, 30, remote) == DATA[15:45]
    assert remote.asked == [(10, 40)]
    cache.read("k", 0, 60, remote)
    assert remote.asked[1:] == [(0, 10), (50, 10)]
    assert told == [(0, 4), (4, 2)]


def test_another_process_uses_the_same_blocks(tmp_path: Path) -> None:
    remote = Remote()
    for _ in range(2):
        BlockCache(tmp_path, capacity=1 << 20, block_bytes=10).read("k", 0, 10, remote)
    assert len(remote.asked) == 1


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache, remote = BlockCache(tmp_path, capacity=50, block_bytes=10), Remote()
    for number in range(5):
        cache.read("k", number * 10, 10, remote)
        for age, path in enumerate(sorted(tmp_path.glob("*/*"))):
            os.utime(path, (age, age))
    cache.read("k", 0, 10, remote)  # used now
    cache.read("k", 50, 10, remote)
    assert cache.used_bytes() <= 50
    remote.asked.clear()
    cache.read("k", 0, 10, remote)
    assert remote.asked == []


def test_a_disk_that_is_full_costs_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache, remote = BlockCache(tmp_path / "file", capacity=50, block_bytes=10), Remote()
    assert cache.read("k", 5, 10, remote) == DATA[5:15]
    assert cache.read("k", 5, 10, remote) == DATA[5:15]
    assert len(remote.asked) == 2


def test_forgetting_one_object_leaves_the_others(tmp_path: Path) -> None:
    cache, remote = BlockCache(tmp_path, capacity=1 << 20, block_bytes=10), Remote()
    for key in "ab":
        cache.read(key, 0, 30, remote)
    cache.forget("a")
    assert cache.used_bytes() == 30
    assert cache.fill("b", 0, 30, remote) == 0
    assert cache.fill("a", 0, 30, remote) == 30
