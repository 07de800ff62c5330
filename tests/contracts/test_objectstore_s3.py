"""Objects in S3: the contract of the port on a real server with signatures, and what only S3 has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.gateway_support import instance, running
from tests.s3_buckets import fresh_bucket

from wetread.adapters.objectstore.read_cache import BlockCache
from wetread.adapters.objectstore.s3 import S3ObjectStore
from wetread.adapters.objectstore.s3_administration import BucketAdministration, Tiers
from wetread.adapters.objectstore.s3_artifacts import S3ArtifactStore
from wetread.adapters.objectstore.s3_bucket import MULTIPART_BYTES, AlreadyThere, Bucket, BucketAddress
from wetread.core.errors import ConfigurationError, CorruptRecord, NotFound, Unavailable
from wetread.core.ports.objects import ObjectRef
from wetread.gateway.replay import rebuild
from wetread.testing.contracts.objectstore import ObjectStoreContract
from wetread.testing.servers.moto import S3Server

pytestmark = pytest.mark.server("moto")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return fresh_bucket(s3_server, monkeypatch, prefix="site/one")


class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    def store(self, bucket: Bucket) -> S3ObjectStore:
        return S3ObjectStore(bucket, writer="web")


class TestS3StoreBehindACache(ObjectStoreContract):
    """Blocks smaller than a record: every range crosses some."""

    @pytest.fixture
    def store(self, bucket: Bucket, tmp_path: Path) -> S3ObjectStore:
        return S3ObjectStore(bucket, writer="web", cache=BlockCache(tmp_path, capacity=1 << 20, block_bytes=7))


def contents(store: S3ObjectStore, after: list[str] | None = None) -> list[bytes]:
    return [store.read(ref) for _, _, ref in store.scan(after or [])]


def test_a_group_is_one_object_whose_name_tells_nothing(bucket: Bucket) -> None:
    refs = S3ObjectStore(bucket, writer="web").append("clinic", [(b'{"uid": "1.2.3"}', [b"x" * n]) for n in range(5)])
    [(key, _)] = bucket.keys("t/")
    assert key.startswith("t/")
    assert "clinic" not in key
    assert len({ref.locator.rpartition(":")[0] for ref in refs}) == 1


def test_writers_have_streams_of_their_own_and_marks_hold_for_one(bucket: Bucket) -> None:
    clock = iter(range(1, 100))
    one, two = (S3ObjectStore(bucket, writer=name, clock=lambda: float(next(clock))) for name in ("a", "b"))
    (first,) = one.append("t", [(b"", [b"1"])])
    (second,) = two.append("t", [(b"", [b"2"])])
    one.append("t", [(b"", [b"3"])])
    two.append("t", [(b"", [b"4"])])
    assert contents(one) == [b"1", b"2", b"3", b"4"]
    assert contents(two, [first.locator]) == [b"2", b"3", b"4"]
    assert contents(two, [first.locator, second.locator]) == [b"3", b"4"]


def test_a_name_that_is_taken_is_left_alone(bucket: Bucket) -> None:
    """Two processes under one name and at one moment: nobody's bytes are overwritten."""
    stores = [S3ObjectStore(bucket, writer="web", clock=lambda: 7.0) for _ in range(2)]
    refs = [store.append("t", [(b"", [b"%d" % number])])[0] for number, store in enumerate(stores)]
    assert [stores[0].read(ref) for ref in refs] == [b"0", b"1"]
    with pytest.raises(AlreadyThere):
        bucket.create(stores[0].keys_of(refs)[0], b"other")


def test_an_answer_that_was_lost_is_no_second_object(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client repeats the request and is told that the object exists: it is the one that it sent."""
    create = bucket.create

    def twice(key: str, data: bytes) -> None:
        create(key, data)
        create(key, data)

    monkeypatch.setattr(bucket, "create", twice)
    (ref,) = (store := S3ObjectStore(bucket, writer="web")).append("t", [(b"", [b"once"])])
    assert store.read(ref) == b"once"
    assert len(list(bucket.keys("t/"))) == 1


def test_a_large_group_goes_up_in_parts(bucket: Bucket) -> None:
    store = S3ObjectStore(bucket, writer="web")
    block = bytes(range(256)) * 4096
    refs = store.append("t", [(b"", [block] * (MULTIPART_BYTES // len(block) + 1)), (b"", [b"end"])])
    assert store.read(refs[1]) == b"end"
    assert store.read(refs[0], MULTIPART_BYTES - 3, 6) == block[-3:] + block[:3]


def test_a_damaged_object_is_told_and_its_neighbours_are_found(bucket: Bucket, tmp_path: Path) -> None:
    store = S3ObjectStore(bucket, writer="web", cache=BlockCache(tmp_path, capacity=1 << 20))
    refs = store.append("t", [(b"1", [b"first"]), (b"2", [b"second"])])
    (key,) = store.keys_of(refs)
    bucket.replace(key, bucket.get(key).replace(b"first", b"fIrst"))
    for _ in range(2):
        with pytest.raises(CorruptRecord):
            store.read(refs[0])
    assert [description for _, description, _ in store.scan()] == [b"2"]
    bucket.delete([key, "never/was"])
    with pytest.raises(CorruptRecord, match="missing"):
        S3ObjectStore(bucket, writer="web").read(refs[1])


def test_a_damaged_block_of_the_cache_is_read_anew(bucket: Bucket, tmp_path: Path) -> None:
    store = S3ObjectStore(bucket, writer="web", cache=BlockCache(tmp_path, capacity=1 << 20))
    (ref,) = store.append("t", [(b"", [b"right"])])
    assert store.read(ref) == b"right"
    for block in tmp_path.glob("*/*"):
        block.write_bytes(block.read_bytes().replace(b"right", b"wrong"))
    with pytest.raises(CorruptRecord):
        store.read(ref)
    assert store.read(ref) == b"right"


def test_prefetched_records_are_read_without_the_server(bucket: Bucket, tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, capacity=1 << 20)
    store = S3ObjectStore(bucket, writer="web", cache=cache)
    refs = store.append("t", [(b"", [bytes([n]) * 100]) for n in range(3)])
    assert store.prefetch(refs) > 0
    assert store.prefetch(refs) == 0
    bucket.delete(store.keys_of(refs))
    assert [store.read(ref) for ref in refs] == [bytes([n]) * 100 for n in range(3)]


# --- who may, and what is not there ---


def test_a_wrong_signature_and_a_foreign_bucket_are_refused(
    bucket: Bucket, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.check()
    foreign = Bucket(BucketAddress("elsewhere", endpoint=s3_server.endpoint))
    with pytest.raises(Unavailable, match="credentials"):
        S3ObjectStore(foreign, writer="web").append("t", [(b"", [b"x"])])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = Bucket(bucket.address)
    for act in (refused.check, lambda: refused.create("k", b"x"), lambda: refused.get("k")):
        with pytest.raises(Unavailable, match="credentials"):
            act()


@pytest.mark.parametrize("url", ["https://bucket/x", "s3://", "bucket", "s3://b?versioning=1"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="s3://bucket"):
        BucketAddress.of_url(url)


def test_a_writer_needs_a_plain_name(bucket: Bucket) -> None:
    with pytest.raises(ConfigurationError):
        S3ObjectStore(bucket, writer="../x")


def test_artifacts(bucket: Bucket) -> None:
    store = S3ArtifactStore(bucket)
    with pytest.raises(NotFound):
        store.get("t", "mask")
    for data in (b"one", b"two"):
        store.put("t", "mask", data)
    assert store.get("t", "mask") == b"two"
    with pytest.raises(NotFound):
        store.get("other", "mask")


# --- administration ---


def test_the_bucket_is_private_encrypted_and_tiered(bucket: Bucket) -> None:
    administration = BucketAdministration(bucket.address)
    administration.set_up(Tiers(warm_days=10, cold_days=20))
    client, name = administration._client, bucket.address.bucket
    assert all(client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values())
    [rule] = client.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    images, uploads = client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert images["Filter"]["Prefix"] == "site/one/t/"
    assert [(t["Days"], t["StorageClass"]) for t in images["Transitions"]] == [
        (10, "INTELLIGENT_TIERING"), (20, "GLACIER_IR"),
    ]  # fmt: skip
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}


def test_priors_move_to_the_hot_class_and_stay_the_same_bytes(bucket: Bucket) -> None:
    administration = BucketAdministration(bucket.address)
    store = S3ObjectStore(bucket, writer="web")
    (ref,) = store.append("t", [(b"", [b"prior"])])
    keys = store.keys_of([ref])
    assert administration.move(keys, "GLACIER_IR") == 1
    assert administration.storage_class(keys[0]) == "GLACIER_IR"
    assert administration.move(keys, "STANDARD") == 1
    assert administration.move(keys, "STANDARD") == 0
    assert store.read(ref) == b"prior"
    with pytest.raises(NotFound):
        administration.move(["t/none"], "STANDARD")


# --- recovery ---


def test_the_index_is_rebuilt_from_the_bucket_alone(bucket: Bucket, tmp_path: Path, each_database: str) -> None:
    store = S3ObjectStore(bucket, writer="web")
    with running(tmp_path / "before", objects=store) as site:
        files = [instance(SOPInstanceUID=f"1.2.3.1.{n}", InstanceNumber=n) for n in range(4)]
        assert site.store(*files).status_code == 200
        path = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.2"
        assert site.client.delete(path).status_code == 204
        before = site.get("/studies/1.2.3/metadata").json()
    with running(tmp_path / "after", objects=S3ObjectStore(bucket, writer="second")) as site:
        # A new database beside an old bucket: recovery at start has indexed everything, the deletion included.
        assert site.get("/studies/1.2.3/metadata").json() == before
        report = rebuild(site.database, site.archive, site.objects, site.ingest)
        assert (report.records, report.indexed, report.removals) == (4, 3, 1)
        assert site.get("/studies/1.2.3/metadata").json() == before
        assert site.client.get(path).status_code == 410


_WRITER = """
import sys
from wetread.adapters.objectstore.s3 import S3ObjectStore
from wetread.adapters.objectstore.s3_bucket import Bucket, BucketAddress
store = S3ObjectStore(Bucket(BucketAddress.of_url(sys.argv[1], endpoint=sys.argv[2])), writer="web")
number = 0
while True:
    for ref in store.append("t", [(b"%d" % (number + i), [b"%d" % (number + i)] * 50000) for i in range(3)]):
        print(ref.locator, ref.length, flush=True)
    number += 3
"""


def test_what_was_answered_is_there_after_kill_9(bucket: Bucket, s3_server: S3Server) -> None:
    url = f"s3://{bucket.address.bucket}/{bucket.address.prefix}"
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url, s3_server.endpoint],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT / "services")}, text=True,
    )  # fmt: skip
    answered = [process.stdout.readline() for _ in range(12)]
    time.sleep(0.013)
    process.send_signal(signal.SIGKILL)
    answered += process.communicate(timeout=10)[0].splitlines()
    refs = [ObjectRef(*(kind(part) for kind, part in zip((str, int), line.split(), strict=True))) for line in answered]
    store = S3ObjectStore(bucket, writer="web")
    numbers = [store.read(ref)[:1] for ref in refs]
    assert numbers[0] == b"0"
    assert len(refs) >= 12
    whole = {ref.locator for _, _, ref in store.scan()}
    assert {ref.locator for ref in refs} <= whole
    assert len(whole) % 3 == 0, "a group is there whole or not at all"


def test_an_object_goes_when_nothing_in_it_lives_any_more(bucket: Bucket, tmp_path: Path) -> None:
    store = S3ObjectStore(bucket, writer="web", cache=BlockCache(tmp_path, capacity=1 << 20))
    one, two = store.append("t", [(b"1", [b"one"]), (b"2", [b"two"])])
    assert store.read(one) == b"one"
    assert store.erase([one.locator]).locators == (), "it shares its object"
    assert store.read(two) == b"two"
    done = store.erase([one.locator, two.locator])
    assert (done.locators, list(bucket.keys("t/"))) == ((one.locator, two.locator), [])
    assert done.freed_bytes > 6
    with pytest.raises(CorruptRecord):
        store.read(one)
