"""Computed blobs on local disks: one file per key, written beside and renamed, so a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from pathlib import Path

from wetread.core.errors import NotFound, StorageFull, Unavailable


class FileArtifactStore:
    """Files are named by a hash of tenant and key: neither ever becomes part of a path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, tenant: str, key: str, data: bytes) -> None:
        """Store atomically and durably. Raises StorageFull or Unavailable."""
        path = self._path(tenant, key)
        scratch = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
            self._sync_directory(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                msg = "the artifact store's disk is full"
                raise StorageFull(msg) from error
            msg = "the artifact store cannot be written"
            raise Unavailable(msg) from error

    def get(self, tenant: str, key: str) -> bytes:
        """Return the blob. Raises NotFound."""
        try:
            return self._path(tenant, key).read_bytes()
        except FileNotFoundError as error:
            msg = "no such artifact"
            raise NotFound(msg) from error

    def _path(self, tenant: str, key: str) -> Path:
        name = hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()
        return self._root / name[:2] / name

    @staticmethod
    def _sync_directory(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
