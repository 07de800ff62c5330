"""Gives the disk room of deleted studies back while a long run goes on.

``wetread index reclaim`` leaves a deleted study's bytes for an hour while a server runs: somebody may still be reading
them. Here nobody is, and the run may send more than the disk holds before an hour is over. So it empties, in its own
temporary data folder, those segment files all of whose studies have been checked and deleted; the server is not told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_SEGMENT: Final = re.compile(r"(?P<shard>[a-z0-9]+)-(?P<number>[0-9]{8})\.seg")

_CLOCKS_DIFFER: Final = 1.0
"""Seconds: files are stamped by a coarser clock than studies."""


def reclaim(folder: Path, open_since: Iterable[float]) -> int:
    """Empty finished segments below *folder*; *open_since*: first byte of each undeleted study, in Unix seconds.

    Returns the bytes given back. A segment is finished when its shard has a newer one; it holds nothing of a study
    whose first byte came after its last write.
    """
    oldest = min(open_since, default=float("inf")) - _CLOCKS_DIFFER
    freed = 0
    for path in _finished(folder):
        state = path.stat()
        if state.st_size and state.st_mtime < oldest:
            os.truncate(path, 0)
            freed += state.st_size
    return freed


def stored_bytes(folder: Path) -> int:
    """Return the size of all files below *folder*."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _finished(folder: Path) -> list[Path]:
    newest: dict[tuple[Path, str], int] = {}
    found: list[tuple[Path, str, int]] = []
    for path in folder.rglob("*.seg"):
        if match := _SEGMENT.fullmatch(path.name):
            found.append((path, match["shard"], int(match["number"])))
            key = path.parent, match["shard"]
            newest[key] = max(newest.get(key, 0), int(match["number"]))
    return [path for path, shard, number in found if number < newest[path.parent, shard]]
