"""From stored values to physical ones: bit depth, modality LUT, rescale, padding (PS3.3 C.7.6.3, C.11.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset

from wetread.core.detector import Array, FloatArray
from wetread.core.dicom.dataset import first_number, first_text, whole
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout

AIR_HU: Final = -1024.0
"""Lowest CT number of a 12-bit scale: whatever lies below is padding outside the reconstruction circle, so air."""
_AIR_LIKE_HU: Final = -900.0
_DENSEST_HU: Final = 30_000.0
"""Above every extended CT scale: a padding value up here is no tissue."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """How one plane's stored values become physical values."""

    slope: float
    intercept: float
    lut: Array | None = None
    """Modality LUT: physical value of stored value ``lut_first + index``."""
    lut_first: int = 0
    padding: tuple[int, int] | None = None
    """Inclusive range of stored values that mean "no data" (PS3.3 C.7.5.1.1.2)."""
    invert: bool = False
    """MONOCHROME1 without a physical unit: larger shall mean brighter."""
    floor: float | None = None
    """Physical values below are raised to this (CT padding becomes air)."""
    flags: tuple[str, ...] = ()


def rescale_of(header: Dataset, layout: FrameLayout, *, modality: str) -> Rescale:
    """Read the transform of one image (or of one frame, its functional groups merged into *header*).

    Raises NotProcessable("rescale_missing") for CT without slope, intercept or LUT: its numbers have no unit.
    """
    slope, intercept = first_number(header, "RescaleSlope"), first_number(header, "RescaleIntercept")
    lut, lut_first = _modality_lut(header, signed=layout.signed)
    flags = []
    if lut is None and modality == "CT" and (slope is None or intercept is None):
        raise NotProcessable("rescale_missing", "CT numbers without Rescale Slope and Intercept have no unit")
    if slope == 0:
        raise NotProcessable("rescale_missing", "Rescale Slope is 0")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    padding = _padding(header, layout)
    is_ct = modality == "CT" and first_text(header, "RescaleType").upper() in {"", "HU"}
    if is_ct and padding is not None:
        # CT padding below air is handled by the floor; padding inside the tissue range would eat real voxels.
        values = [bound * slope + intercept for bound in padding]
        if max(values) <= _AIR_LIKE_HU:
            padding = None
        elif min(values) < _DENSEST_HU:
            padding = None
            flags.append("padding_ambiguous")
    invert = layout.photometric == "MONOCHROME1" and modality not in {"CT", "PT"}
    if layout.photometric == "MONOCHROME1":
        flags.append("monochrome1")
    return Rescale(slope, intercept, lut, lut_first, padding, invert, AIR_HU if is_ct else None, tuple(flags))


def apply(stored: Array, rescale: Rescale, layout: FrameLayout, out: FloatArray) -> None:
    """Write the physical values of one plane of *stored* values into *out* (same shape, float32)."""
    stored = effective_bits(stored, layout)
    if rescale.lut is not None:
        index = np.clip(stored.astype(np.int64) - rescale.lut_first, 0, len(rescale.lut) - 1)
        out[...] = rescale.lut[index]
    else:
        np.multiply(stored, np.float32(rescale.slope), out=out, casting="unsafe")
        if rescale.intercept:
            np.add(out, np.float32(rescale.intercept), out=out)
    blank = None
    if rescale.padding is not None:
        blank = (stored >= rescale.padding[0]) & (stored <= rescale.padding[1])
    if rescale.invert:
        lowest, highest = _stored_range(layout)
        ends = (lowest + highest) * rescale.slope + 2 * rescale.intercept
        np.subtract(np.float32(ends), out, out=out)
    if rescale.floor is not None:
        np.maximum(out, np.float32(rescale.floor), out=out)
    if blank is not None and blank.any():
        valid = out[~blank]
        lowest_valid = float(valid.min()) if valid.size else 0.0
        out[blank] = lowest_valid if rescale.floor is None else rescale.floor


def effective_bits(stored: Array, layout: FrameLayout) -> Array:
    """Return the values of the stored bits alone: overlays and rubbish in the other bits are cut off."""
    bits = layout.bits_stored
    if bits >= layout.bits_allocated or not np.issubdtype(stored.dtype, np.integer):
        return stored
    shift = layout.high_bit + 1 - bits
    width = stored.dtype.itemsize * 8
    if layout.signed:
        if shift == 0 and _within(stored, -(1 << (bits - 1)), (1 << (bits - 1)) - 1):
            return stored
        up = width - bits - shift
        return np.asarray((stored << up) >> (width - bits))
    if shift == 0 and _within(stored, 0, (1 << bits) - 1):
        return stored
    mask = (1 << bits) - 1
    return np.asarray((stored >> shift) & stored.dtype.type(mask))


def _within(stored: Array, lowest: int, highest: int) -> bool:
    return stored.size == 0 or bool(stored.max() <= highest and stored.min() >= lowest)


def _stored_range(layout: FrameLayout) -> tuple[int, int]:
    if layout.signed:
        return -(1 << (layout.bits_stored - 1)), (1 << (layout.bits_stored - 1)) - 1
    return 0, (1 << layout.bits_stored) - 1


def _padding(header: Dataset, layout: FrameLayout) -> tuple[int, int] | None:
    value = whole(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(header, "PixelPaddingRangeLimit")
    bounds = sorted(_as_stored(v, layout) for v in (value, value if limit is None else limit))
    return bounds[0], bounds[1]


def _as_stored(value: int, layout: FrameLayout) -> int:
    """Return *value* in the signedness of the pixels: -2000 is often written as the unsigned 63536."""
    span = 1 << layout.bits_allocated
    value %= span
    return value - span if layout.signed and value >= span // 2 else value


def _modality_lut(header: Dataset, *, signed: bool) -> tuple[Array | None, int]:
    sequence = header.get("ModalityLUTSequence")
    if not sequence:
        return None, 0
    item = sequence[0]
    try:
        entries, first, bits = (int(v) for v in item.LUTDescriptor)
        data = item.LUTData
        values = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    except (AttributeError, TypeError, ValueError) as error:
        raise NotProcessable("decode_error", "Modality LUT cannot be read") from error
    entries = entries or 1 << 16
    first = first - (1 << 16) if signed and first >= 1 << 15 else first
    if len(values) * 2 == entries and bits == 8:
        values = values.astype("<u2").view(np.uint8)
    if len(values) < entries:
        raise NotProcessable("decode_error", "Modality LUT is shorter than its descriptor says")
    return values[:entries].astype(np.float32), first
