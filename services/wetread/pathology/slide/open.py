"""Opening a slide: which format, which reader, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wetread.core.errors import WetreadError
from wetread.core.identifiers import digest
from wetread.pathology.errors import SlideUnreadable
from wetread.pathology.slide.cache import DEFAULT_CACHE_BYTES
from wetread.pathology.slide.dicom import open_dicom
from wetread.pathology.slide.fallback import OpenSlideReader
from wetread.pathology.slide.index import OpenedSlide
from wetread.pathology.slide.selfcheck import Verdict, compare
from wetread.pathology.slide.slide import Reader, Slide
from wetread.pathology.slide.source import LocalFile, RangeSource
from wetread.pathology.slide.tiff import NotNative, is_tiff, open_tiff

Choice = Literal["auto", "native", "openslide"]
_SAMPLED_TILES = 32


@dataclass(frozen=True, slots=True)
class ChosenReader:
    """The reader that a slide gets, and how it was chosen."""

    reader: Reader
    native: bool
    verdict: Verdict
    reason: str
    """Why it is not the native reader; empty when it is."""


def dicom_files(folder: Path) -> list[Path]:
    """Return the files of *folder* that begin like DICOM, by name."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    found.append(path)
    return found


def local_sources(path: Path) -> list[RangeSource]:
    """Return the files of a slide: the file itself, or the DICOM files of a folder. Raises SlideUnreadable."""
    if not path.exists():
        raise SlideUnreadable("there is no such slide")
    if path.is_dir():
        files = dicom_files(path)
        if not files:
            raise SlideUnreadable("the folder holds no DICOM files")
        return [LocalFile(file) for file in files]
    return [LocalFile(path)]


def open_native(sources: Sequence[RangeSource], *, cache_bytes: int = DEFAULT_CACHE_BYTES) -> Slide:
    """Open with the native reader. Raises SlideUnreadable, SeriesNotSuitable, or NotNative for another format."""
    return Slide(index(sources), cache_bytes=cache_bytes)


def index(sources: Sequence[RangeSource]) -> OpenedSlide:
    """Read the header of a slide. Raises like ``open_native``."""
    start = sources[0].read(0, 132)
    if not start:
        raise SlideUnreadable("the slide file is empty")
    if start[128:132] == b"DICM":
        return open_dicom(sources)
    if is_tiff(start):
        return open_tiff(sources[0])
    raise NotNative("neither TIFF nor DICOM")


def open_slide(
    sources: Sequence[RangeSource],
    choice: Choice = "auto",
    *,
    check: bool = True,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> ChosenReader:
    """Open a slide with the reader that gives the right pixels.

    ``auto``: the native reader when its pixels equal OpenSlide's, else OpenSlide; ``native`` stays native and reports
    the comparison. Without ``check``, or where OpenSlide cannot open the slide, nothing is compared.
    Raises SlideUnreadable, SeriesNotSuitable.
    """
    path = sources[0].path
    native: Slide | None = None
    why = ""
    if choice != "openslide":
        try:
            native = open_native(sources, cache_bytes=cache_bytes)
        except NotNative as foreign:
            why = str(foreign)
    if native is None:
        if path is None or choice == "native":
            raise SlideUnreadable(f"the native reader does not know this slide: {why}")
        return ChosenReader(OpenSlideReader(path), native=False, verdict=Verdict(0, why), reason=why or "as asked")
    if not check or path is None:
        return ChosenReader(native, native=True, verdict=Verdict(0), reason="")
    other: OpenSlideReader | None = None
    with suppress(WetreadError, ImportError):
        other = OpenSlideReader(path)
    if other is None:
        return ChosenReader(native, native=True, verdict=Verdict(0), reason="")
    verdict = compare(native, other)
    if verdict.equal or choice == "native":
        other.close()
        return ChosenReader(native, native=True, verdict=verdict, reason="")
    native.close()
    return ChosenReader(other, native=False, verdict=verdict, reason=verdict.reason)


def slide_digest(reader: Reader, sources: Sequence[RangeSource]) -> str:
    """Return the identity of a slide: sizes, tile tables and the bytes of 32 tiles (or of 32 blocks of the file)."""
    if isinstance(reader, Slide):
        sha = hashlib.sha256()
        for number, level in enumerate(reader.pyramid.levels):
            count = level.columns * level.rows
            step = max(count // _SAMPLED_TILES, 1)
            for body in reader.raw_tiles(number, range(0, count, step)[:_SAMPLED_TILES]):
                sha.update(body)
        return digest("wetread.slide/1", reader.header_digest(), sha.hexdigest())
    sha = hashlib.sha256()
    for source in sources:
        step = max(source.size // _SAMPLED_TILES, 1)
        for at in range(0, source.size, step):
            sha.update(source.read(at, 4096))
    return digest("wetread.slide/1", [source.size for source in sources], sha.hexdigest())
