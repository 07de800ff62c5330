"""Computed blobs in an S3 bucket, one object per key."""

from __future__ import annotations

import hashlib

from wetread.adapters.objectstore.s3_bucket import Bucket
from wetread.core.errors import NotFound


class S3ArtifactStore:
    """Objects are named by a hash of tenant and key, spread over prefixes: neither ever becomes part of a name."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def put(self, tenant: str, key: str, data: bytes) -> None:
        """Store atomically and durably. Raises StorageFull or Unavailable."""
        self._bucket.replace(_name(tenant, key), data)

    def get(self, tenant: str, key: str) -> bytes:
        """Return the blob. Raises NotFound or Unavailable."""
        try:
            return self._bucket.get(_name(tenant, key))
        except NotFound as error:
            msg = "no such artifact"
            raise NotFound(msg) from error


def _name(tenant: str, key: str) -> str:
    name = hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()
    return f"a/{name[:2]}/{name}"
