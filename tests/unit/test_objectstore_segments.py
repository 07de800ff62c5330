"""Segment files: torn tails, corruption, failed syncs, full disks, one writer per shard."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.adapters.objectstore.artifacts import FileArtifactStore
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.core.errors import ConfigurationError, CorruptRecord, NotFound, StorageFull, Unavailable


def only_segment(root: Path) -> Path:
    (path,) = root.glob("*/*.seg")
    return path


def contents(store: SegmentStore) -> list[bytes]:
    return [store.read(ref) for _, _, ref in store.scan()]


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(1, 400))
def test_torn_tail_is_cut_and_writing_goes_on(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    root = tmp_path_factory.mktemp("torn")
    store = SegmentStore(root)
    store.append("t", [(b"1", [b"a" * 100])])
    kept = only_segment(root).stat().st_size
    store.append("t", [(b"2", [b"b" * 100]), (b"3", [b"c" * 100])])
    store.close()
    path = only_segment(root)
    size = path.stat().st_size
    os.truncate(path, max(size - cut, kept))
    again = SegmentStore(root)
    before = contents(again)
    assert before[0] == b"a" * 100
    again.append("t", [(b"4", [b"d"])])
    assert contents(again) == [*before, b"d"]
    assert len(list(root.glob("*/*.seg"))) == 1
    again.close()


def test_damage_in_the_middle_is_not_a_torn_tail(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    refs = store.append("t", [(b"%d" % n, [bytes([n]) * 50]) for n in range(4)])
    store.close()
    path = only_segment(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[int(refs[1].locator.rpartition(":")[2])] ^= 1
    path.write_bytes(damaged)
    again = SegmentStore(tmp_path)
    with pytest.raises(CorruptRecord):
        again.read(refs[1])
    again.append("t", [(b"5", [b"new"])])
    assert path.read_bytes() == damaged, "acknowledged records behind the damage stay where they are"
    assert contents(again) == [bytes([0]) * 50, bytes([2]) * 50, bytes([3]) * 50, b"new"]
    again.close()


def test_damaged_head_is_stepped_over(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    store.append("t", [(b"%d" % n, [bytes([n]) * 50]) for n in range(3)])
    store.close()
    path = only_segment(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[5] ^= 0xFF
    path.write_bytes(damaged)
    again = SegmentStore(tmp_path)
    assert contents(again) == [bytes([1]) * 50, bytes([2]) * 50]


def test_record_inside_a_payload_is_not_replayed_for_another_tenant(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path / "a")
    store.append("victim", [(b"forged", [b"payload"])])
    store.close()
    forged = only_segment(tmp_path / "a").read_bytes()
    store = SegmentStore(tmp_path / "b")
    store.append("attacker", [(b"1", [forged])])
    store.close()
    path = only_segment(tmp_path / "b")
    damaged = bytearray(path.read_bytes())
    damaged[8] ^= 0xFF  # the outer head is lost, the search for the next one finds the forged record
    path.write_bytes(damaged)
    assert list(SegmentStore(tmp_path / "b").scan()) == []


def failing(number: int) -> Callable[[int], None]:
    state = {"left": 1}

    def sync(descriptor: int) -> None:
        if state["left"]:
            state["left"] -= 1
            raise OSError(number, os.strerror(number))
        os.fdatasync(descriptor)

    return sync


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, Unavailable), (errno.ENOSPC, StorageFull)])
def test_failed_sync_is_never_acknowledged(tmp_path: Path, number: int, error: type[Exception]) -> None:
    store = SegmentStore(tmp_path, sync=failing(number))
    with pytest.raises(error):
        store.append("t", [(b"1", [b"lost"])])
    (ref,) = store.append("t", [(b"2", [b"kept"])])
    assert store.read(ref) == b"kept"
    assert contents(store) == [b"kept"]
    store.close()


def test_one_writer_per_shard(tmp_path: Path) -> None:
    first = SegmentStore(tmp_path, shard="web")
    first.append("t", [(b"1", [b"x"])])
    second = SegmentStore(tmp_path, shard="web")
    with pytest.raises(ConfigurationError):
        second.append("t", [(b"2", [b"y"])])
    other = SegmentStore(tmp_path, shard="worker")
    (ref,) = other.append("t", [(b"3", [b"z"])])
    assert first.read(ref) == b"z", "any process reads any shard"
    for store in (first, second, other):
        store.close()


def test_segments_are_closed_at_their_size(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, segment_bytes=1000)
    refs = [store.append("t", [(b"", [bytes([n]) * 400])])[0] for n in range(9)]
    assert len(list(tmp_path.glob("*/*.seg"))) == 3
    assert [store.read(ref) for ref in refs] == [bytes([n]) * 400 for n in range(9)]
    store.close()


@pytest.mark.parametrize("shard", ["", "../x", "WEB", "a" * 17])
def test_shard_names_are_plain(tmp_path: Path, shard: str) -> None:
    with pytest.raises(ConfigurationError):
        SegmentStore(tmp_path, shard=shard)


@given(st.text(max_size=40), st.binary(max_size=40))
@settings(deadline=None, max_examples=30)
def test_no_name_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, tenant: str, description: bytes) -> None:
    root = tmp_path_factory.mktemp("names")
    store = SegmentStore(root / "inside")
    try:
        store.append(tenant, [(description, [b"x"])])
    except UnicodeEncodeError:
        return
    finally:
        store.close()
    names = [path.relative_to(root / "inside") for path in (root / "inside").rglob("*")]
    assert [path.name for path in root.iterdir()] == ["inside"]
    assert all(re.fullmatch(r"web\.lock|[0-9a-f]{16}(/web-[0-9]{8}\.seg)?", str(name)) for name in names)


def test_artifacts_come_back_and_are_replaced(tmp_path: Path) -> None:
    store = FileArtifactStore(tmp_path)
    store.put("t", "mask/../../x", b"one")
    store.put("t", "mask/../../x", b"two")
    store.put("other", "mask/../../x", b"three")
    assert store.get("t", "mask/../../x") == b"two"
    with pytest.raises(NotFound):
        store.get("t", "absent")
    assert all(re.fullmatch(r"[0-9a-f]{64}", path.name) for path in tmp_path.rglob("*") if path.is_file())


def test_artifacts_say_when_they_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable):
        FileArtifactStore(tmp_path / "file").put("t", "k", b"x")
