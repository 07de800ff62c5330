"""A bucket by URL: the one place that imports obstore, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wetread.core.errors import ConfigurationError, NotFound, StorageFull, Unavailable

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

MULTIPART_BYTES: Final = 64 << 20
"""From this size on an object goes up in parts; below, one conditional request."""
_PART_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Where objects lie. ``endpoint`` None: AWS. Credentials come from the environment (AWS_*, roles of pods)."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    storage_class: str = "STANDARD"

    @classmethod
    def of_url(
        cls, url: str, *, endpoint: str | None = None, region: str | None = None, storage_class: str = "STANDARD"
    ) -> BucketAddress:
        """Return the address of ``s3://bucket/prefix``. Raises ConfigurationError for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            msg = "an object store URL is s3://bucket or s3://bucket/prefix"
            raise ConfigurationError(msg)
        return cls(parts.netloc, parts.path.strip("/"), endpoint, region, storage_class)


class AlreadyThere(Exception):  # noqa: N818 - a state, told to the caller in this package
    """A conditional create met an object."""


class Bucket:
    """Objects by key below the prefix of a bucket. Thread-safe; connects on first use."""

    def __init__(self, address: BucketAddress) -> None:
        self.address = address
        self._store: S3Store | None = None

    @property
    def store(self) -> S3Store:
        """The client. Raises ConfigurationError when the extra ``s3`` or the credentials are missing."""
        if self._store is None:
            self._store = _client(self.address)
        return self._store

    def create(self, key: str, data: bytes) -> None:
        """Store a new object, durable on return. Raises AlreadyThere, StorageFull, Unavailable."""
        import obstore

        attributes = {"Content-Type": "application/octet-stream", "Storage-Class": self.address.storage_class}
        with _translated():
            if len(data) < MULTIPART_BYTES:
                obstore.put(self.store, key, data, attributes=attributes, mode="create", use_multipart=False)
                return
            # A multipart upload cannot be conditional here; keys hold the writer's name and time, so nobody races.
            if self.size(key) is not None:
                raise AlreadyThere(key)
            obstore.put(self.store, key, data, attributes=attributes, use_multipart=True, chunk_size=_PART_BYTES)

    def replace(self, key: str, data: bytes) -> None:
        """Store an object, replacing what is there. Raises StorageFull, Unavailable."""
        import obstore

        with _translated():
            obstore.put(self.store, key, data, attributes={"Storage-Class": self.address.storage_class})

    def size(self, key: str) -> int | None:
        """Return the length of an object; None: there is none."""
        import obstore

        try:
            with _translated():
                return int(obstore.head(self.store, key)["size"])
        except NotFound:
            return None

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound, Unavailable."""
        import obstore

        with _translated():
            return obstore.get(self.store, key).bytes().to_bytes()

    def range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes of an object; fewer at its end. Raises NotFound, Unavailable."""
        import obstore

        with _translated():
            return obstore.get_range(self.store, key, start=start, length=length).to_bytes()

    def ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """Return several ranges of an object in parallel requests. Raises NotFound, Unavailable."""
        import obstore

        with _translated():
            found = obstore.get_ranges(self.store, key, starts=starts, lengths=lengths)
            return [part.to_bytes() for part in found]

    def keys(self, prefix: str, *, after: str | None = None) -> Iterator[tuple[str, int]]:
        """Yield (key, size) below *prefix* in the order of their names, beginning behind *after*."""
        import obstore

        with _translated():
            for page in obstore.list(self.store, prefix, offset=after, chunk_size=1000):
                yield from ((str(item["path"]), int(item["size"])) for item in page)

    def folders(self, prefix: str | None = None) -> list[str]:
        """Return the names directly below *prefix*, without it."""
        import obstore

        with _translated():
            found = obstore.list_with_delimiter(self.store, prefix)["common_prefixes"]
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones are no error. Raises Unavailable."""
        import obstore

        if keys:
            with _translated():
                obstore.delete(self.store, list(keys))

    def check(self) -> None:
        """Raise when the bucket does not answer, or refuses us."""
        import obstore

        with _translated():
            obstore.list_with_delimiter(self.store, "check")


def _client(address: BucketAddress) -> S3Store:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        msg = "s3:// needs the extra s3: pip install 'wetread[s3]'"
        raise ConfigurationError(msg) from error
    # Path style: what compatible stores (MinIO, Ceph, test doubles) understand; AWS wants the bucket in the host.
    config: S3Config = {"virtual_hosted_style_request": address.endpoint is None}
    if address.endpoint is not None:
        config["endpoint"] = address.endpoint
    if address.region is not None:
        config["region"] = address.region
    plain = address.endpoint is not None and address.endpoint.startswith("http://")
    try:
        return S3Store(
            address.bucket,
            prefix=address.prefix or None,
            config=config,
            client_options={"allow_http": plain, "timeout": timedelta(seconds=60), "connect_timeout": "5s"},
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
        )
    except BaseError as error:
        msg = "the object store's settings are not usable"
        raise ConfigurationError(msg) from error


@contextmanager
def _translated() -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise AlreadyThere from error
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        msg = "no such object"
        raise NotFound(msg) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        msg = "the object store refuses our credentials"
        raise Unavailable(msg) from error
    except (exceptions.BaseError, OSError) as error:
        # Compatible stores with a quota say so by status 507 or this code; S3 itself has no end.
        if "QuotaExceeded" in str(error) or "507 Insufficient" in str(error):
            msg = "the object store is full"
            raise StorageFull(msg) from error
        if "403 Forbidden" in str(error):  # a listing that is refused comes without a type
            msg = "the object store refuses our credentials"
            raise Unavailable(msg) from error
        msg = "the object store does not answer"
        raise Unavailable(msg) from error
