"""Objects of an S3 store by byte range (obstore, extra ``s3``): slides are read where they lie.

The object's ETag is pinned when it is opened and sent with every request: a replaced object is an error, never a mix
of two. Endpoint, region and credentials come from the usual ``AWS_*`` variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wetread.core.errors import ConfigurationError, Conflict, NotFound, Unavailable


class ObjectRanges:
    """Random access to one object. ``merge``: turns wanted ranges into requests and cuts the answers up again."""

    path: Path | None = None

    def __init__(self, store: Any, key: str, *, merge: Any) -> None:
        self._store, self._key, self._merge = store, key, merge
        try:
            head = store.head(key)
        except FileNotFoundError as error:
            raise NotFound("there is no such object") from error
        except Exception as error:
            raise Unavailable("the object store cannot be reached") from error
        self._size, self._etag = int(head["size"]), head["e_tag"]
        self.requests = 0
        self.bytes_read = 0

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return one range, shorter at the end. Raises Conflict (slide changed), Unavailable."""
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        return self._get(offset, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each range; neighbours share a request."""
        found: list[bytes] = self._merge(ranges, lambda wanted: [self._get(*span) for span in wanted])
        return found

    def close(self) -> None:
        """Nothing is held open."""

    def _get(self, offset: int, length: int) -> bytes:
        self.requests += 1
        self.bytes_read += length
        try:
            answer = self._store.get(self._key, options={"range": (offset, offset + length), "if_match": self._etag})
            body, etag = bytes(answer.bytes()), answer.meta["e_tag"]
        except Exception as error:
            if "recondition" in type(error).__name__ or "recondition" in str(error):
                raise Conflict("the object changed while it was read") from error
            raise Unavailable("the object store did not answer") from error
        if etag != self._etag:  # a store that knows no If-Match
            raise Conflict("the object changed while it was read")
        return body


def open_object(url: str, *, merge: Any) -> ObjectRanges:
    """Open ``s3://bucket/key``. Raises ConfigurationError (extra missing), NotFound, Unavailable."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise ConfigurationError("reading from S3 needs obstore: pip install 'wetread[s3]'") from error
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise ConfigurationError("an object is named s3://bucket/key")
    return ObjectRanges(S3Store(bucket), key, merge=merge)
