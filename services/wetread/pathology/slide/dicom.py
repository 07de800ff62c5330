"""DICOM whole-slide microscopy (PS3.3 A.32.8): instances of a series to one pyramid, frames by byte range.

A level is one VOLUME instance, or several that are one concatenation (PS3.3 C.7.6.16.2.2.4). Frames are found through
the Extended or Basic Offset Table (PS3.5 A.4) and, when both are empty, by walking the item headers once.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from wetread.pathology.errors import SeriesNotSuitable, SlideUnreadable
from wetread.pathology.slide.index import Codec, Colour, Level, OpenedSlide, Pyramid, check_table, checked_level
from wetread.pathology.slide.jpeg import tables_prefix
from wetread.pathology.slide.source import RangeSource, as_file
from wetread.pathology.slide.tiff import RangedTiles

WSM_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
_CODECS: Final[dict[str, Codec]] = {
    JPEG_BASELINE: "jpeg",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
    "1.2.840.10008.1.2.1": "none",
}
_ITEM: Final = 0xE000FFFE
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM_HEADER: Final = 8
Spans = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]


def open_dicom(sources: Sequence[RangeSource]) -> OpenedSlide:
    """Index the instances of one series.

    Raises SeriesNotSuitable (no pyramid in them), SlideUnreadable (broken).
    """
    read = [(source, *_header(source)) for source in sources]
    volumes = [(source, header, at) for source, header, at in read if is_level(header)]
    if not volumes:
        kinds = sorted({"\\".join(_values(header, "ImageType")) or "no image type" for _, header, _ in read})
        raise SeriesNotSuitable(f"no VOLUME instance among {len(read)}: {'; '.join(kinds)[:200]}")
    frames_of_reference = {str(header.get("FrameOfReferenceUID", "")) for _, header, _ in volumes}
    if len(frames_of_reference) > 1:
        raise SeriesNotSuitable("the levels lie in several frames of reference")
    volumes.sort(key=lambda entry: -int(entry[1].TotalPixelMatrixColumns))
    widths = [int(header.TotalPixelMatrixColumns) for _, header, _ in volumes]
    if len(set(widths)) != len(widths):
        raise SeriesNotSuitable("several instances hold the same level (concatenations are not supported)")
    levels = [level_of(header) for _, header, _ in volumes]
    spans = [_table(source, header, level, at) for (source, header, at), level in zip(volumes, levels, strict=True)]
    finest = volumes[0][1]
    pyramid = Pyramid(
        levels=tuple(levels),
        mpp=mpp_of(finest),
        kind="dicom",
        vendor="dicom",
        properties={},
        instances=tuple(str(header.SOPInstanceUID) for _, header, _ in volumes),
    )
    return OpenedSlide(
        pyramid,
        RangedTiles([source for source, _, _ in volumes], spans, framed=True, owner=range(len(volumes))),
    )


def read_dicom_header(source: RangeSource) -> Dataset:
    """Return the attributes of an instance without its pixels. Raises SlideUnreadable."""
    return _header(source)[0]


def _header(source: RangeSource) -> tuple[Dataset, int]:
    """Return attributes and the position of the pixel data element."""
    file = as_file(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values in headers are common and may be patient data
            header = dcmread(file, stop_before_pixels=True)
        return header, file.tell()
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        raise SlideUnreadable("a DICOM header cannot be read") from error


def _values(header: Dataset, keyword: str) -> list[str]:
    value = header.get(keyword)
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def is_level(header: Dataset) -> bool:
    """Return whether an instance is a pyramid level: whole-slide class, ImageType value 3 VOLUME."""
    kind = _values(header, "ImageType")
    return str(header.get("SOPClassUID", "")) == WSM_SOP_CLASS and len(kind) >= 3 and kind[2] == "VOLUME"


def level_of(header: Dataset) -> Level:
    """Return the geometry and coding of one level. Raises SeriesNotSuitable or SlideUnreadable."""
    syntax = str(UID(header.file_meta.get("TransferSyntaxUID", ""))) if hasattr(header, "file_meta") else ""
    syntax = syntax or str(header.get("AvailableTransferSyntaxUID", ""))
    codec = _CODECS.get(syntax)
    if codec is None:
        raise SeriesNotSuitable(f"frames are coded in a transfer syntax that is not read ({syntax[:64] or 'none'})")
    try:
        samples, bits = int(header.SamplesPerPixel), int(header.BitsAllocated)
        sizes = [
            int(header[keyword].value)
            for keyword in ("TotalPixelMatrixColumns", "TotalPixelMatrixRows", "Columns", "Rows")
        ]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise SlideUnreadable("a level does not say its size") from error
    if (samples, bits) != (3, 8):
        raise SeriesNotSuitable(f"{samples} samples of {bits} bits: only 8-bit colour is read")
    photometric = str(header.get("PhotometricInterpretation", ""))
    colour: Colour = "rgb" if photometric in {"RGB", "YBR_ICT", "YBR_RCT"} else "ycbcr"
    prefix = tables_prefix(b"", rgb=photometric == "RGB") if codec == "jpeg" else b""
    return checked_level(Level(sizes[0], sizes[1], sizes[2], sizes[3], codec=codec, colour=colour, prefix=prefix))


def mpp_of(header: Dataset) -> tuple[float, float] | None:
    """Return micrometres per pixel along x and y: Pixel Spacing is (row, column) in mm (PS3.3 10.7.1.3)."""
    try:
        spacing = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        rows, columns = float(spacing[0]) * 1000, float(spacing[1]) * 1000
        if rows > 0 and columns > 0:
            return columns, rows
    except (AttributeError, IndexError, TypeError, ValueError):
        pass
    try:
        width = float(header.ImagedVolumeWidth) * 1000 / int(header.TotalPixelMatrixColumns)
        height = float(header.ImagedVolumeHeight) * 1000 / int(header.TotalPixelMatrixRows)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def frame_grid(header: Dataset, level: Level) -> npt.NDArray[np.int64]:
    """Return the 0-based frame of each tile in rows, -1 for a tile without a frame.

    TILED_FULL: frames follow the tiles (PS3.3 C.7.6.17.3); of several focal planes and optical paths the first ones
    are taken. TILED_SPARSE: each frame says where it lies (C.8.12.4.1). Raises SlideUnreadable.
    """
    count = int(header.get("NumberOfFrames", 1) or 1)
    tiles = level.columns * level.rows
    if str(header.get("DimensionOrganizationType", "")) == "TILED_FULL" or (
        count == tiles and "PerFrameFunctionalGroupsSequence" not in header
    ):
        if count < tiles:
            raise SlideUnreadable(f"a level has {count} frames for {tiles} tiles")
        return np.arange(tiles, dtype=np.int64)
    grid = np.full(tiles, -1, dtype=np.int64)
    try:
        for number, groups in enumerate(header.PerFrameFunctionalGroupsSequence):
            place = groups.PlanePositionSlideSequence[0]
            column = (int(place.ColumnPositionInTotalImagePixelMatrix) - 1) // level.tile_width
            row = (int(place.RowPositionInTotalImagePixelMatrix) - 1) // level.tile_height
            if 0 <= column < level.columns and 0 <= row < level.rows and grid[row * level.columns + column] < 0:
                grid[row * level.columns + column] = number
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise SlideUnreadable("frames of a sparse level do not say where they lie") from error
    return grid


def _table(source: RangeSource, header: Dataset, level: Level, at: int) -> Spans:
    """Return the byte span of each tile, with the item headers of its fragments."""
    count = int(header.get("NumberOfFrames", 1) or 1)
    if level.codec == "none":
        raise SeriesNotSuitable("uncompressed levels are not read natively")
    head = source.read(at, 12)
    if len(head) < 12:
        raise SlideUnreadable("the pixel data is cut off")
    tag, vr, _, length = struct.unpack("<I2sHI", head)
    if tag != 0x00107FE0 or vr != b"OB" or length != _UNDEFINED:
        raise SlideUnreadable("the pixel data is not encapsulated")
    start = at + 12
    table_head = source.read(start, _ITEM_HEADER)
    if len(table_head) < _ITEM_HEADER or struct.unpack("<I", table_head[:4])[0] != _ITEM:
        raise SlideUnreadable("the pixel data has no offset table item")
    (table_length,) = struct.unpack_from("<I", table_head, 4)
    first = start + _ITEM_HEADER + table_length
    offsets, lengths = _frame_spans(source, header, count, first, (start + _ITEM_HEADER, table_length))
    grid = frame_grid(header, level)
    present = grid >= 0
    tile_offsets = np.zeros(len(grid), dtype=np.uint64)
    tile_lengths = np.zeros(len(grid), dtype=np.uint64)
    tile_offsets[present] = offsets[grid[present]]
    tile_lengths[present] = lengths[grid[present]]
    check_table(level, tile_offsets, tile_lengths, source.size)
    return tile_offsets, tile_lengths


def _frame_spans(source: RangeSource, header: Dataset, count: int, first: int, table: tuple[int, int]) -> Spans:
    extended: Any = header.get("ExtendedOffsetTable")
    starts: npt.NDArray[np.uint64] | None = None
    if isinstance(extended, bytes) and len(extended) >= 8 * count:
        starts = np.frombuffer(extended, dtype="<u8", count=count).astype(np.uint64)
    elif 0 < table[1] == 4 * count:
        starts = np.frombuffer(source.read(*table), dtype="<u4").astype(np.uint64)
    if starts is None:
        return _walked(source, count, first)
    if count > 1 and not bool((np.diff(starts.astype(np.int64)) > 0).all()):
        raise SlideUnreadable("the offset table of a level is not in order")
    begin = starts + np.uint64(first)
    # The last frame has no successor: its one item says how long it is; fragments follow until the delimiter.
    end = int(begin[-1])
    while True:
        head = source.read(end, _ITEM_HEADER)
        if len(head) < _ITEM_HEADER or struct.unpack_from("<I", head)[0] != _ITEM:
            break
        end += _ITEM_HEADER + struct.unpack_from("<I", head, 4)[0]
    ends = np.append(begin[1:], np.uint64(end))
    return begin, (ends - begin).astype(np.uint64)


def _walked(source: RangeSource, count: int, first: int) -> Spans:
    """Read item headers one after the other: both tables are empty, so every item is taken as one frame."""
    begin: list[int] = []
    at = first
    with as_file(source) as file:
        while True:
            file.seek(at)
            head = file.read(_ITEM_HEADER)
            if len(head) < _ITEM_HEADER or struct.unpack_from("<I", head)[0] != _ITEM:
                break
            begin.append(at)
            at += _ITEM_HEADER + struct.unpack_from("<I", head, 4)[0]
    if len(begin) < count:
        raise SlideUnreadable(f"a level has {len(begin)} frames of {count}: it is cut off")
    if len(begin) > count:
        raise SlideUnreadable("a level has fragmented frames and no offset table")
    starts = np.asarray(begin, dtype=np.uint64)
    return starts, (np.append(starts[1:], np.uint64(at)) - starts).astype(np.uint64)
