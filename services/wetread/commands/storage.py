"""``wetread storage``: the bucket of the object store, set up and its tiers moved."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wetread.core.errors import ConfigurationError, NotFound, StorageFull, Unavailable
from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.adapters.objectstore.s3_bucket import BucketAddress
    from wetread.core.ports.objects import ObjectRef


def run_setup() -> int:
    """Create and configure the bucket. Returns the exit code."""

    def set_up(_settings: Settings, address: BucketAddress) -> int:
        from wetread.adapters.objectstore.s3_administration import BucketAdministration

        BucketAdministration(address).set_up()
        print(f"bucket {address.bucket} is private, encrypted and tiered")
        return 0

    return _with_bucket(set_up)


def run_prefetch(studies: Sequence[str], *, tenant: str, priors: bool) -> int:
    """Bring studies, or the priors of their patients, into the hot class and this machine's cache."""

    def prefetch(settings: Settings, address: BucketAddress) -> int:
        from wetread.adapters.objectstore.read_cache import BlockCache
        from wetread.adapters.objectstore.s3 import S3ObjectStore
        from wetread.adapters.objectstore.s3_administration import BucketAdministration
        from wetread.adapters.objectstore.s3_bucket import Bucket

        refs = _refs(settings, studies, tenant, priors=priors)
        cache = BlockCache(settings.read_cache or settings.data / "cache", capacity=settings.read_cache_bytes)
        store = S3ObjectStore(Bucket(address), writer="prefetch", cache=cache if settings.read_cache_bytes else None)
        moved = BucketAdministration(address).move(store.keys_of(refs), settings.object_store_class)
        fetched = store.prefetch(refs)
        print(f"{len(refs)} instances: {moved} objects moved, {fetched / 2**20:.1f} MiB fetched")
        return 0

    return _with_bucket(prefetch)


def _refs(settings: Settings, studies: Sequence[str], tenant: str, *, priors: bool) -> list[ObjectRef]:
    from wetread.adapters.index.database import SqlDatabase
    from wetread.adapters.index.priors import prior_studies
    from wetread.adapters.index.studies import SqlArchive

    database, archive = SqlDatabase(settings.database), SqlArchive()
    try:
        with database.read() as tx:
            wanted = prior_studies(tx, tenant, studies) if priors else list(studies)
            return [found.ref for study in wanted for found in archive.instances(tx, tenant, study)]
    finally:
        database.close()


def _with_bucket(work: Callable[[Settings, BucketAddress], int]) -> int:
    from wetread.bootstrap.stores import bucket_address

    try:
        settings = Settings()
        address = bucket_address(settings)
        if address is None:
            print("wetread: WETREAD_OBJECT_STORE_URL is not set", file=sys.stderr)
            return 2
        return work(settings, address)
    except (ValueError, ConfigurationError, NotFound) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    except (Unavailable, StorageFull) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 3
