"""Assembly of an ultrasound clip: one multi-frame object, in grey or colour, becomes a ``Cine`` (PS3.3 A.7).

Brightness is kept, colour is only marked. Pixel sizes are believed when the region that they belong to lies inside
the picture (PS3.3 C.8.5.5): exporters scale pictures and leave the calibration of the original behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from wetread.core.detector import Array, Cine, CineCalibration, FloatArray, FrameRef
from wetread.core.dicom.dataset import first_number, first_text, numbers, texts, whole
from wetread.core.dicom.planes import PixelElement, open_object
from wetread.core.dicom.selection import refuses_lossy
from wetread.core.errors import NotProcessable
from wetread.core.manifest import CineNeeds, InputNeeds
from wetread.core.ports.pixels import FrameDecoder, FrameLayout

MAX_PIXELS: Final = 1 << 28
"""1 GiB of float32; frames beyond are left out."""
USUAL_FRAME_S: Final = 1 / 30
COLOUR: Final = 48
"""Difference between the samples of a pixel from which it counts as coloured, of 255."""
MARKED_SHARE: Final = 0.25
"""Share of frames in which a pixel is coloured for it to be marked so."""
_CENTIMETRES: Final = 3
_TISSUE: Final = 1
_PLANE: Final = 1
_YBR: Final = frozenset({"YBR_FULL", "YBR_FULL_422"})
_RGB: Final = frozenset({"RGB", "YBR_RCT", "YBR_ICT"})
"""What decoders give as red, green and blue: JPEG 2000 undoes its own transform."""
_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_TAGS: Final = (
    "SOPInstanceUID",
    "NumberOfFrames",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "RecommendedDisplayFrameRate",
    "SequenceOfUltrasoundRegions",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RedPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
)


def assemble_cine(
    objects: Sequence[bytes], decoder: FrameDecoder, needs: InputNeeds, cine: CineNeeds, *, threads: int = 1
) -> Cine:
    """Assemble the one clip of *objects* (PS3.10 bytes).

    Raises NotProcessable: decode_error, too_few_frames, several_clips, lossy_not_allowed, too_large.
    """
    if len(objects) != 1:
        raise NotProcessable("several_clips", f"{len(objects)} objects where one clip is expected")
    header, data, offset = open_object(objects[0], _TAGS)
    layout = _layout(header)
    count = whole(header, "NumberOfFrames") or 1
    if count < cine.min_frames:
        raise NotProcessable("too_few_frames", f"{count} frames of at least {cine.min_frames}")
    flags = []
    kept = min(count, cine.max_frames, MAX_PIXELS // (layout.rows * layout.columns))
    if kept < cine.min_frames:
        raise NotProcessable("too_large", "a frame is larger than any clip")
    if kept < count:
        flags.append("frames_left_out")
    flags += _lossy(header, needs)
    pixels = PixelElement(data, header, offset, layout, decoder)
    brightness, coloured, tinted = _read(pixels, header, layout, kept, threads)
    if tinted:
        flags.append("tinted")
    times, timed = frame_times(header, kept)
    if not timed:
        flags.append("frame_time_missing")
    calibration, doubt = calibration_of(header, layout.rows, layout.columns)
    if doubt:
        flags.append(doubt)
    return cine_of(
        brightness,
        coloured,
        times,
        uid=first_text(header, "SOPInstanceUID"),
        timed=timed,
        calibration=calibration,
        flags=tuple(flags),
    )


def cine_of(
    brightness: FloatArray,
    coloured: npt.NDArray[np.bool_],
    times_s: npt.NDArray[np.float64],
    *,
    uid: str,
    timed: bool = True,
    calibration: CineCalibration | None = None,
    flags: tuple[str, ...] = (),
) -> Cine:
    """Return the clip of *brightness* [frame, row, column], all of it of one object."""
    count = len(brightness)
    return Cine(
        voxels=brightness,
        origins=np.full((count, 3), np.nan),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_spacing=(float("nan"), float("nan")),
        weights_mm=np.full(count, np.nan),
        frames=tuple(FrameRef(uid, number + 1) for number in range(count)),
        flags=flags,
        times_s=times_s,
        timed=timed,
        coloured=coloured,
        calibration=calibration,
    )


def frame_times(header: Dataset, count: int) -> tuple[npt.NDArray[np.float64], bool]:
    """Return seconds of *count* frames since the first, and whether a header says so (PS3.3 C.7.6.5)."""
    vector = numbers(header, "FrameTimeVector", count)
    if vector is not None and min(vector[1:count], default=1.0) > 0:
        return np.concatenate([[0.0], np.cumsum(vector[1:count])]) / 1000.0, True
    step = (first_number(header, "FrameTime") or 0.0) / 1000.0
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = first_number(header, keyword) or 0.0
        if step <= 0 < rate:
            step = 1.0 / rate
    return np.arange(count, dtype=np.float64) * (step if step > 0 else USUAL_FRAME_S), step > 0


def calibration_of(header: Dataset, rows: int, columns: int) -> tuple[CineCalibration | None, str]:
    """Return the pixel size of the largest two-dimensional tissue region, or why it is not believed."""
    found: list[CineCalibration] = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        units = [whole(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
        kind = (whole(region, "RegionSpatialFormat"), whole(region, "RegionDataType"))
        if kind != (_PLANE, _TISSUE) or units != [_CENTIMETRES, _CENTIMETRES]:
            continue
        box = [whole(region, f"RegionLocation{name}") for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
        across, down = (abs(first_number(region, f"PhysicalDelta{axis}") or 0.0) * 10 for axis in "XY")
        if None in box or min(across, down) <= 0:
            continue
        top, left, bottom, right = (int(v or 0) for v in box)
        found.append(CineCalibration((down, across), (top, left, bottom, right)))
    if not found:
        return None, "calibration_missing"
    best = max(found, key=lambda c: (c.box[2] - c.box[0]) * (c.box[3] - c.box[1]))
    top, left, bottom, right = best.box
    if not (0 <= top < bottom < rows and 0 <= left < right < columns):
        return None, "calibration_outside_image"
    return best, ""


def split_colour(samples: Array, *, ybr: bool) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return brightness [row, column] of a colour frame [row, column, 3], and where it is coloured."""
    values = samples.astype(np.float32)
    if ybr:
        colour = np.abs(values[..., 1:] - 128).max(axis=-1) * 2
        return np.ascontiguousarray(values[..., 0]), colour > COLOUR
    return np.asarray(values @ _LUMA, dtype=np.float32), (values.max(axis=-1) - values.min(axis=-1)) > COLOUR


def without_colour(brightness: FloatArray, coloured: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], bool]:
    """Blacken the coloured pixels [frame, row, column] of *brightness*; return the marked ones [row, column].

    A picture in one tint throughout has no coloured pixels: also returned is whether it is tinted.
    """
    bright = brightness > 2 * COLOUR
    tinted = bool(coloured[bright].mean() > 0.5) if bright.any() else False
    if tinted:
        return np.zeros(coloured.shape[1:], dtype=bool), True
    brightness[coloured] = 0.0
    return coloured.mean(axis=0) >= MARKED_SHARE, False


def _read(
    pixels: PixelElement, header: Dataset, layout: FrameLayout, count: int, threads: int
) -> tuple[FloatArray, npt.NDArray[np.bool_], bool]:
    shape = (count, layout.rows, layout.columns)
    brightness = np.empty(shape, dtype=np.float32)
    colour = layout.samples == 3 or layout.photometric == "PALETTE COLOR"
    coloured = np.zeros(shape if colour else (1, 1, 1), dtype=bool)
    palette = _palette(header) if layout.photometric == "PALETTE COLOR" else None
    scale = np.float32(255.0 / ((1 << layout.bits_stored) - 1))

    def fill(index: int) -> None:
        stored = pixels.frame(index)
        if palette is not None:
            stored = palette[np.minimum(stored, len(palette) - 1)]
        if colour:
            brightness[index], coloured[index] = split_colour(stored, ybr=layout.photometric in _YBR)
            return
        np.multiply(stored, scale, out=brightness[index], casting="unsafe")
        if layout.photometric == "MONOCHROME1":
            np.subtract(np.float32(255), brightness[index], out=brightness[index])

    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="decode") as pool:
        for _ in pool.map(fill, range(count)):
            pass
    if not colour:
        return brightness, np.zeros(shape[1:], dtype=bool), False
    marked, tinted = without_colour(brightness, coloured)
    return brightness, marked, tinted


def _palette(header: Dataset) -> npt.NDArray[np.uint8]:
    """Return the colours of the stored values, [value, 3] (PS3.3 C.7.6.3.1.5)."""
    descriptor = numbers(header, "RedPaletteColorLookupTableDescriptor", 3)
    tables = [header.get(f"{name}PaletteColorLookupTableData") for name in ("Red", "Green", "Blue")]
    if descriptor is None or not all(isinstance(table, bytes) for table in tables):
        raise NotProcessable("decode_error", "the colour table cannot be read")
    entries, first, bits = int(descriptor[0]) or 1 << 16, int(descriptor[1]), int(descriptor[2])
    wide = len(tables[0]) >= 2 * entries
    columns = []
    for table in tables:
        values = np.frombuffer(table, "<u2" if wide else "u1")[:entries]
        columns.append((values >> (8 if wide and bits > 8 else 0)).astype(np.uint8))
    if len({len(column) for column in columns}) != 1 or not len(columns[0]):
        raise NotProcessable("decode_error", "the colour tables differ in length")
    colours = np.stack(columns, axis=1)
    return np.concatenate([np.repeat(colours[:1], max(first, 0), axis=0), colours])


def _layout(header: Dataset) -> FrameLayout:
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    allocated = whole(header, "BitsAllocated")
    if not rows or not columns or allocated is None:
        raise NotProcessable("decode_error", "no image")
    samples = whole(header, "SamplesPerPixel") or 1
    photometric = first_text(header, "PhotometricInterpretation").upper() or "MONOCHROME2"
    known = {3: _YBR | _RGB, 1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}}.get(samples, frozenset())
    stored = whole(header, "BitsStored") or allocated
    if photometric not in known or allocated not in {8, 16} or not 1 <= stored <= allocated:
        raise NotProcessable("decode_error", "pixels of an unknown kind")
    if samples == 3 and allocated != 8:
        raise NotProcessable("decode_error", "colour of more than 8 bits")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if photometric == "YBR_FULL_422" and syntax is not None and not syntax.is_encapsulated:
        raise NotProcessable("decode_error", "uncompressed pixels with shared colour")
    return FrameLayout(
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=whole(header, "HighBit") or stored - 1,
        signed=whole(header, "PixelRepresentation") == 1,
        photometric=photometric,
        planar_configuration=whole(header, "PlanarConfiguration") or 0,
    )


def _lossy(header: Dataset, needs: InputNeeds) -> list[str]:
    lossy = any(text == "01" for text in texts(header, "LossyImageCompression"))
    ratios = numbers(header, "LossyImageCompressionRatio")
    if refuses_lossy(needs.lossy, lossy=lossy, ratio=max(ratios) if ratios else None):
        raise NotProcessable("lossy_not_allowed", "compressed beyond what the detector accepts")
    return ["lossy"] if lossy and needs.lossy.flag else []
