"""Vendor slide to DICOM: every JPEG frame is the tile of the source, checked one by one, or nothing is kept.

Our own writer: it knows nothing but the levels, so labels, macro images and the vendor's description (names,
barcodes) cannot get into the result.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from wetread.pathology.errors import PassThroughLost, TileUnreadable
from wetread.pathology.slide import jpeg
from wetread.pathology.slide.dicom import JPEG_BASELINE, open_dicom
from wetread.pathology.slide.slide import BACKGROUND, Reader, Slide
from wetread.pathology.slide.source import LocalFile
from wetread.pathology.wsm import JPEG_2000, LevelFacts, SlideIdentity, level_header, write_level

_REENCODE_QUALITY: Final = 90
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class ConvertedLevel:
    """One written instance. ``identical``: frames that are their source tile byte for byte."""

    path: Path
    sop_instance_uid: str
    width: int
    height: int
    frames: int
    identical: int
    """... the others have the level's tables put in, or are background that the source leaves out."""
    reencoded: bool


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """``acquired_at``: Unix seconds written as acquisition time (the source file's)."""

    base_mpp: tuple[float, float]
    digest: str
    acquired_at: float
    identity: SlideIdentity = field(default_factory=SlideIdentity)
    allow_reencode: bool = False


def convert(
    reader: Reader, folder: Path, options: ConvertOptions, *, report: Callable[[int, int], None] = lambda *_: None
) -> list[ConvertedLevel]:
    """Write every level into *folder*, the coarsest first, and check every frame against its source.

    Raises PassThroughLost; then nothing of this conversion is left in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: list[ConvertedLevel] = []
    levels = reader.pyramid.levels
    total = sum(level.columns * level.rows for level in levels)
    count = 0
    try:
        for number in reversed(range(len(levels))):
            done.append(_convert_level(reader, number, folder, options))
            if isinstance(reader, Slide) and not done[-1].reencoded:
                check_pass_through(reader, number, done[-1].path)
            count += done[-1].frames
            report(count, total)
    except BaseException:
        for path in [level.path for level in done] + list(folder.glob("level-*.dcm.tmp")):
            path.unlink(missing_ok=True)
        raise
    return done


def _convert_level(reader: Reader, number: int, folder: Path, options: ConvertOptions) -> ConvertedLevel:
    level = reader.pyramid.levels[number]
    whole = isinstance(reader, Slide) and level.codec in {"jpeg", "jpeg2000"}
    if not whole and not options.allow_reencode:
        raise PassThroughLost(f"level {number} holds no JPEG tiles: frames would be encoded anew (--allow-reencode)")
    source = _Tiles(reader, number, whole=whole)
    lengths = [len(frame) for frame in source.frames()]
    header = level_header(
        LevelFacts(
            level=level,
            number=number,
            base_mpp=options.base_mpp,
            base=reader.pyramid.levels[0],
            photometric=source.photometric,
            transfer_syntax=JPEG_2000 if whole and level.codec == "jpeg2000" else JPEG_BASELINE,
            digest=options.digest,
            acquired_at=options.acquired_at,
            compressed_bytes=sum(lengths),
            derivation="" if whole else f"Decoded and encoded anew as JPEG, quality {_REENCODE_QUALITY}",
        ),
        options.identity,
    )
    path = folder / f"level-{number}.dcm"
    write_level(header, source.frames(), lengths, path)
    return ConvertedLevel(
        path, str(header.SOPInstanceUID), level.width, level.height, len(lengths), source.identical, not whole
    )


class _Tiles:
    """Frames of one level, as often as they are asked for: once for their lengths, once to be written."""

    def __init__(self, reader: Reader, number: int, *, whole: bool) -> None:
        self._reader, self._number, self._whole = reader, number, whole
        self._level = reader.pyramid.levels[number]
        self.identical = 0
        self.photometric = self._photometric()

    def frames(self) -> Iterator[bytes]:
        level = self._level
        count = level.columns * level.rows
        if not self._whole:
            yield from (self._encoded(tile) for tile in range(count))
            return
        assert isinstance(self._reader, Slide)
        self.identical = 0
        for start in range(0, count, _BATCH):
            for body in self._reader.raw_tiles(self._number, range(start, min(start + _BATCH, count))):
                if not body:
                    yield self._background()
                    continue
                self.identical += not level.prefix
                yield jpeg.whole_stream(body, level.prefix)

    def _photometric(self) -> str:
        if not self._whole:
            return "YBR_FULL"
        if self._level.colour == "rgb":
            return "RGB"
        if self._level.codec == "jpeg2000":
            return "YBR_FULL"
        assert isinstance(self._reader, Slide)
        for tile in range(self._level.columns * self._level.rows):
            stream = self._reader.stream(self._number, tile)
            if stream:
                factors = jpeg.sampling(stream)[4]
                return "YBR_FULL" if len(set(factors)) == 1 else "YBR_FULL_422"
        return "YBR_FULL"

    def _encoded(self, tile: int) -> bytes:
        level = self._level
        pixels = np.empty((level.tile_height, level.tile_width, 3), dtype=np.uint8)
        x, y = tile % level.columns * level.tile_width, tile // level.columns * level.tile_height
        self._reader.read_into(pixels, self._number, x, y)
        return _encode(pixels)

    def _background(self) -> bytes:
        level = self._level
        if level.codec != "jpeg" or level.colour != "ycbcr":
            raise PassThroughLost(f"level {self._number} leaves tiles out that cannot be written as they are")
        return _encode(np.full((level.tile_height, level.tile_width, 3), BACKGROUND, dtype=np.uint8))


def _encode(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    from simplejpeg import encode_jpeg

    stream: bytes = encode_jpeg(pixels, quality=_REENCODE_QUALITY, colorspace="RGB", colorsubsampling="444")
    return stream


def check_pass_through(reader: Slide, number: int, path: Path) -> int:
    """Read *path* back and compare every frame with its source tile; return how many are byte-identical.

    A tile with its own tables: equal bytes but for the pad byte. A tile completed with the level's tables: equal
    entropy-coded data, tables and frame header (component numbers apart). Raises PassThroughLost.
    """
    level = reader.pyramid.levels[number]
    identical = 0
    with Slide(open_dicom([LocalFile(path)])) as written:
        count = level.columns * level.rows
        for start in range(0, count, _BATCH):
            tiles = range(start, min(start + _BATCH, count))
            pairs = zip(tiles, reader.raw_tiles(number, tiles), written.raw_tiles(0, tiles), strict=True)
            for tile, body, frame in pairs:
                if not body:
                    continue
                if not level.prefix:
                    if frame != body and frame != body + b"\0":
                        raise PassThroughLost(f"level {number}, tile {tile}: the frame is not the tile")
                    identical += 1
                elif _essence(frame) != _essence(jpeg.whole_stream(body, level.prefix)):
                    raise PassThroughLost(f"level {number}, tile {tile}: coded data or tables differ")
    return identical


def _essence(stream: bytes) -> tuple[object, ...]:
    """Return what decides a JPEG's pixels: tables, frame header without component numbers, coded data."""
    tables, frame, coded = [], b"", b""
    try:
        for marker, payload in jpeg.segments(stream):
            if marker in {0xDB, 0xC4}:
                tables.append((marker, payload))
            elif marker == 0:
                coded = payload.rstrip(b"\0")
            elif marker == 0xC0:
                ids = bytearray(payload)
                for component in range(ids[5]):
                    ids[6 + 3 * component] = 0
                frame = bytes(ids)
    except (TileUnreadable, IndexError, struct.error) as error:
        raise PassThroughLost("a frame is no JPEG stream") from error
    return sorted(tables), frame, coded
