"""``wetread viewer install``: fetch the prebuilt OHIF viewer through npm into the folder that ``/viewer`` serves."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "@ohif/app"
VERSION: Final = "3.13.2"
INTEGRITY: Final = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Of the package's archive, as the registry states it: what is served is what was looked at."""

_INSIDE: Final = "package/dist/"
_ROOTED: Final = {
    ".js": [(re.compile(r'(__webpack_require__\.p = )"/"'), r'\1"/viewer/"')],
    ".css": [(re.compile(r"url\(/(?!/)"), "url(/viewer/")],
    ".html": [
        (re.compile(r'((?:href|src)=)"/(?!/)'), r'\1"/viewer/'),
        (re.compile(r'(window\.PUBLIC_URL=)"/"'), r'\1"/viewer/"'),
    ],
}
"""Where the package's files speak of the root of the host, by kind of file."""
_SERVICE_WORKER: Final = re.compile(r"<script[^>]*init-service-worker[^>]*></script>")
_WORTH_COMPRESSING: Final = 4096


class ViewerInstallError(Exception):
    """The viewer could not be fetched; the message says what to do."""


def run_install(folder: Path) -> int:
    """Fetch, check and unpack. Returns the exit code (0 done, 2 not possible here)."""
    if (folder / "index.html").is_file() and _mark(folder) == VERSION:
        print(f"{PACKAGE} {VERSION} is already in {folder}")
        return 0
    print(f"fetching {PACKAGE} {VERSION} (MIT licence, about 50 MB) through npm into {folder}")
    try:
        with tempfile.TemporaryDirectory(prefix="wetread-viewer-") as scratch:
            archive = fetch(Path(scratch))
            check(archive)
            unpack(archive, folder)
    except ViewerInstallError as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    print("done: open a study from the reading list, or /viewer/")
    return 0


def fetch(scratch: Path) -> Path:
    """Return the package's archive in *scratch*. Raises ViewerInstallError without npm or its registry."""
    npm = shutil.which("npm")
    if npm is None:
        msg = "npm is needed to fetch the viewer (Debian package npm); no other part of wetread needs it"
        raise ViewerInstallError(msg)
    command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)  # noqa: S603
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        msg = f"npm could not fetch {PACKAGE} {VERSION}: {done.stderr.strip()[-300:]}"
        raise ViewerInstallError(msg)
    return archives[0]


def check(archive: Path) -> None:
    """Compare the archive with the pinned digest. Raises ViewerInstallError when it is another one."""
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        msg = f"the archive of {PACKAGE} {VERSION} is not the one that this version of wetread was tested with"
        raise ViewerInstallError(msg)


def unpack(archive: Path, folder: Path) -> None:
    """Put the built viewer into *folder*: all or nothing, an older one is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".viewer-") as scratch:
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.isfile() and member.name.startswith(_INSIDE)]
            tar.extractall(scratch, members, filter="data")
        built = Path(scratch) / _INSIDE
        relocate(built)
        compress(built)
        (built / ".version").write_text(VERSION)
        if folder.exists():
            shutil.rmtree(folder)
        built.rename(folder)


def relocate(built: Path) -> None:
    """Move the package below ``/viewer``: it is built for the root of a host, and says so in a few places of its files.

    Its service worker is left out: it would fetch code from elsewhere and answer from a cache after an upgrade. Raises
    ViewerInstallError when the package is not built as expected.
    """
    places = 0
    for path in [*built.glob("*.js"), *built.glob("*.css"), built / "index.html"]:
        text = path.read_text(encoding="utf-8")
        moved = _SERVICE_WORKER.sub("", text)
        for pattern, replacement in _ROOTED[path.suffix]:
            moved, count = pattern.subn(replacement, moved)
            places += count
        if moved != text:
            path.write_text(moved, encoding="utf-8")
    for name in ("sw.js", "init-service-worker.js"):
        (built / name).unlink(missing_ok=True)
    if not places:
        msg = f"{PACKAGE} {VERSION} is not built as expected"
        raise ViewerInstallError(msg)


def compress(built: Path) -> None:
    """Put a gzipped copy beside every large text and program: the script alone has 17 MB, and readers sit far away."""
    for path in [found for kind in ("*.js", "*.css", "*.wasm") for found in built.glob(kind)]:
        if path.stat().st_size > _WORTH_COMPRESSING:
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))


def _mark(folder: Path) -> str:
    mark = folder / ".version"
    return mark.read_text() if mark.is_file() else ""
