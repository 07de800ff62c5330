"""Quarantine: the source is copied or unpacked into a folder of its own, bounded and hashed; nothing is run."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Final

from wetread.core.identifiers import digest
from wetread.detection.importing.errors import ImportRefused

MAX_FILES: Final = 2000
MAX_BYTES: Final = 4 << 30
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class HeldFile:
    """One file in quarantine; ``path`` is relative to its root."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Held:
    """A source in quarantine. ``digest`` names its whole content, whatever it is called."""

    root: Path
    files: tuple[HeldFile, ...]
    digest: str


@contextmanager
def quarantine(source: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> Iterator[Held]:
    """Hold a file, folder or bundle archive (.zip with ``configs/``, .tar*) for the length of the block.

    Raises ImportRefused: not_found, link, path_outside, too_many_files, too_large, archive_damaged.
    """
    if source.is_symlink():
        raise ImportRefused("link")
    if not source.exists():
        raise ImportRefused("not_found")
    with TemporaryDirectory(prefix="wetread-quarantine-") as scratch:
        root = Path(scratch) / "model"
        root.mkdir(mode=0o700)
        keeper = _Keeper(root, max_files, max_bytes)
        if source.is_dir():
            _copy_folder(source, keeper)
        elif tarfile.is_tarfile(source):
            _unpack_tar(source, keeper)
        elif _is_bundle_zip(source):
            _unpack_zip(source, keeper)
        else:
            with source.open("rb") as file:
                keeper.keep(source.name, file)
        files = tuple(sorted(keeper.files, key=lambda held: held.path))
        yield Held(root, files, digest("wetread.import/1", sorted([f.path, f.sha256] for f in files)))


class _Keeper:
    """Writes files below the root and counts what it writes: sizes in headers are claims."""

    def __init__(self, root: Path, max_files: int, max_bytes: int) -> None:
        self.files: list[HeldFile] = []
        self._root, self._max_files, self._left = root, max_files, max_bytes

    def keep(self, name: str, source: IO[bytes]) -> None:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
            raise ImportRefused("path_outside")
        if len(self.files) >= self._max_files:
            raise ImportRefused("too_many_files")
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        sha, size = hashlib.sha256(), 0
        with target.open("xb") as out:
            while chunk := source.read(_CHUNK):
                self._left -= len(chunk)
                if self._left < 0:
                    raise ImportRefused("too_large")
                sha.update(chunk)
                size += len(chunk)
                out.write(chunk)
        self.files.append(HeldFile(str(path), size, sha.hexdigest()))


def _copy_folder(source: Path, keeper: _Keeper) -> None:
    for folder, folders, names in os.walk(source, followlinks=False):
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise ImportRefused("link")
            if stat.S_ISREG(mode):
                with path.open("rb") as file:
                    keeper.keep(path.relative_to(source).as_posix(), file)
            elif not stat.S_ISDIR(mode):
                raise ImportRefused("unknown_format", "neither a file nor a folder")


def _is_bundle_zip(source: Path) -> bool:
    """Whether a zip is an archive of files: PyTorch's own are zips too, with ``data.pkl`` or ``constants.pkl``."""
    if not zipfile.is_zipfile(source):
        return False
    try:
        with zipfile.ZipFile(source) as archive:
            return not any(PurePosixPath(n).name in {"data.pkl", "constants.pkl"} for n in archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise ImportRefused("archive_damaged") from error


def _unpack_zip(source: Path, keeper: _Keeper) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise ImportRefused("link")
                if not entry.is_dir():
                    with archive.open(entry) as file:
                        keeper.keep(entry.filename, file)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, FileExistsError, OSError) as error:
        raise ImportRefused("archive_damaged") from error


def _unpack_tar(source: Path, keeper: _Keeper) -> None:
    try:
        with tarfile.open(source) as archive:
            for entry in archive:
                if entry.issym() or entry.islnk():
                    raise ImportRefused("link")
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    keeper.keep(entry.name, file)
                elif not entry.isdir():
                    raise ImportRefused("unknown_format", "neither a file nor a folder")
    except (tarfile.TarError, EOFError, FileExistsError, OSError) as error:
        raise ImportRefused("archive_damaged") from error


def copy_out(path: Path, target: Path) -> None:
    """Copy a converted file to where it will be served from."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
