"""Where bytes lie, by URL: segment files in the data folder, or an S3 bucket with a read cache on local disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from wetread.core.ports import ArtifactStore, ObjectStore
from wetread.core.ports.objects import Erasable

if TYPE_CHECKING:
    from wetread.adapters.objectstore.s3_bucket import BucketAddress
    from wetread.settings import Settings


class ClosableObjectStore(ObjectStore, Erasable, Protocol):
    """An object store that a composition root opens and closes."""

    def close(self) -> None:
        """Let go of files and connections."""

    def check(self) -> None:
        """Raise Unavailable or StorageFull when nothing can be stored."""


def bucket_address(settings: Settings) -> BucketAddress | None:
    """Return the configured bucket; None: the data folder. Raises ConfigurationError."""
    from wetread.adapters.objectstore.s3_bucket import BucketAddress

    if settings.object_store_url is None:
        return None
    return BucketAddress.of_url(
        settings.object_store_url,
        endpoint=settings.object_store_endpoint,
        region=settings.object_store_region,
        storage_class=settings.object_store_class,
    )


def object_store(
    settings: Settings, writer: str, *, counted: Callable[[int, int], None] = lambda _hits, _misses: None
) -> ClosableObjectStore:
    """Return the store of instances; *writer* names the files or objects that this process alone writes.

    ``counted``: told of blocks that the read cache before a bucket had, and had not.
    """
    address = bucket_address(settings)
    if address is None:
        from wetread.adapters.objectstore.segments import SegmentStore

        return SegmentStore(settings.data / "segments", shard=writer)
    from wetread.adapters.objectstore.read_cache import BlockCache
    from wetread.adapters.objectstore.s3 import S3ObjectStore
    from wetread.adapters.objectstore.s3_bucket import Bucket

    folder = settings.read_cache or settings.data / "cache"
    room = settings.read_cache_bytes
    cache = BlockCache(folder, capacity=room, counted=counted) if room else None
    return S3ObjectStore(Bucket(address), writer=writer, cache=cache)


def artifact_store(settings: Settings) -> ArtifactStore:
    """Return the store of computed blobs."""
    address = bucket_address(settings)
    if address is None:
        from wetread.adapters.objectstore.artifacts import FileArtifactStore

        return FileArtifactStore(settings.data / "artifacts")
    from wetread.adapters.objectstore.s3_artifacts import S3ArtifactStore
    from wetread.adapters.objectstore.s3_bucket import Bucket

    return S3ArtifactStore(Bucket(address))
