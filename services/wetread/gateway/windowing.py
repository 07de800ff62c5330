"""From stored values to grey levels or RGB for display (PS3.3 C.11.1, C.11.2; PS3.4 N.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wetread.core.dicom.attributes import Attributes, as_float, items, number, numbers, text, values
from wetread.core.errors import InvalidInput

Function = Literal["linear", "linear-exact", "sigmoid"]

_FUNCTIONS: Final[Mapping[str, Function]] = {
    "LINEAR": "linear",
    "LINEAR_EXACT": "linear-exact",
    "SIGMOID": "sigmoid",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in output units of the modality LUT (HU for CT)."""

    center: float
    width: float
    function: Function = "linear"


def parse_window(value: str) -> Window:
    """Parse the ``window`` query parameter ``center,width[,function]`` (PS3.18 8.3.5.1.4). Raises InvalidInput."""
    parts = [part.strip() for part in value.split(",")]
    center, width = (as_float(part) for part in [*parts, "", ""][:2])
    function: Function | None = "linear"
    if len(parts) > 2:
        function = _FUNCTIONS.get(parts[2].upper().replace("-", "_"))
    if len(parts) not in (2, 3) or center is None or width is None or function is None:
        msg = "window must be center,width[,linear|linear-exact|sigmoid]"
        raise InvalidInput(msg)
    if width < 1 if function == "linear" else width <= 0:
        msg = "the window's width is too small"
        raise InvalidInput(msg)
    return Window(center, width, function)


def frame_attributes(data: Attributes, frame: int) -> dict[str, Any]:
    """Return the attributes that apply to *frame* (1-based): the instance's, overlaid by its functional groups."""
    flat = dict(data)
    groups = items(data, "52009229")[:1] + items(data, "52009230")[frame - 1 : frame]
    for group in groups:
        for macro in ("00289132", "00289145"):  # Frame VOI LUT, Pixel Value Transformation
            for item in items(group, macro)[:1]:
                flat.update(item)
    return flat


def modality_values(samples: NDArray[Any], data: Attributes) -> NDArray[np.float32]:
    """Apply the modality LUT or rescale (PS3.3 C.11.1)."""
    for item in items(data, "00283000")[:1]:
        table = _lut(item)
        if table is not None:
            first, entries = table
            index = np.clip(samples.astype(np.int64) - first, 0, len(entries) - 1)
            return entries[index].astype(np.float32)
    slope, intercept = number(data, "00281053"), number(data, "00281052")
    result = samples.astype(np.float32)
    if slope is not None and slope != 0:
        result *= slope
    if intercept is not None:
        result += intercept
    return result


def voi_window(data: Attributes) -> Window | None:
    """Return the first window that the instance carries."""
    center, width = number(data, "00281050"), number(data, "00281051")
    if center is None or width is None or width <= 0:
        return None
    function = _FUNCTIONS.get(text(data, "00281056").strip().upper(), "linear")
    return Window(center, max(width, 1.0) if function == "linear" else width, function)


def automatic_window(samples: NDArray[np.float32], usable: NDArray[np.bool_]) -> Window:
    """Return a window over the values in use, padding left out and one percent of outliers cut at each end."""
    chosen = samples[usable] if usable.any() else samples.reshape(-1)
    low, high = (float(value) for value in np.percentile(chosen, (0.5, 99.5)))
    if high <= low:
        low, high = float(chosen.min()), float(chosen.max())
    return Window((low + high) / 2 + 0.5, max(high - low, 1.0))


def padding_mask(stored: NDArray[Any], data: Attributes) -> NDArray[np.bool_]:
    """Return where stored values are image, not padding ((0028,0120), (0028,0121); PS3.3 C.7.5.1.1.2)."""
    padding = number(data, "00280120")
    if padding is None:
        return np.ones(stored.shape, bool)
    limit = number(data, "00280121")
    low, high = sorted((padding, padding if limit is None else limit))
    return ~((stored >= low) & (stored <= high))


def apply_voi_lut(samples: NDArray[np.float32], data: Attributes) -> NDArray[np.uint8] | None:
    """Apply the first VOI LUT, scaled to 8 bits; None when the instance has none (PS3.3 C.11.2.1.1)."""
    for item in items(data, "00283010")[:1]:
        table = _lut(item)
        if table is not None:
            first, entries = table
            index = np.clip(samples.astype(np.int64) - first, 0, len(entries) - 1)
            span = max(int(entries.max()), 1)
            return np.asarray(entries[index] * (255.0 / span), np.uint8)
    return None


def apply_window(samples: NDArray[np.float32], window: Window) -> NDArray[np.uint8]:
    """Map to 0..255 (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    if window.function == "sigmoid":
        exponent = np.clip(-4 * (samples - window.center) / window.width, -80, 80)
        return np.asarray(255.0 / (1 + np.exp(exponent)) + 0.5, np.uint8)
    if window.function == "linear":
        scaled = (samples - (window.center - 0.5)) / max(window.width - 1, 1e-6) + 0.5
    else:
        scaled = (samples - window.center) / window.width + 0.5
    return np.asarray(np.clip(scaled, 0, 1) * 255 + 0.5, np.uint8)


def palette_rgb(samples: NDArray[Any], data: Attributes) -> NDArray[np.uint8] | None:
    """Look colours up (PALETTE COLOR, PS3.3 C.7.6.3.1.5); None when a table is missing or not inline."""
    planes = []
    for descriptor, table in (("00281101", "00281201"), ("00281102", "00281202"), ("00281103", "00281203")):
        found = numbers(data, descriptor, 3)
        raw = _inline(data, table)
        if found is None or raw is None:
            return None
        count = int(found[0]) or 65536
        entries = np.frombuffer(raw, np.uint8 if len(raw) < count * 2 else "<u2")[:count].astype(np.float64)
        if not len(entries):
            return None
        if len(raw) >= count * 2 and found[2] > 8:
            entries = entries / 257.0
        index = np.clip(samples.astype(np.int64) - int(found[1]), 0, len(entries) - 1)
        planes.append(np.asarray(np.clip(entries, 0, 255) + 0.0, np.uint8)[index])
    return np.stack(planes, axis=-1)


def _lut(item: Attributes) -> tuple[int, NDArray[np.float64]] | None:
    """Return (first mapped value, entries) of a LUT item."""
    descriptor = numbers(item, "00283002", 3)
    if descriptor is None:
        return None
    count = int(descriptor[0]) or 65536
    raw = _inline(item, "00283006")
    if raw is not None:
        entries = np.frombuffer(raw, "<u2" if len(raw) >= count * 2 else np.uint8)[:count].astype(np.float64)
    else:
        entries = np.array([as_float(value) or 0.0 for value in values(item, "00283006")][:count])
    return (int(descriptor[1]), entries) if len(entries) else None


def _inline(data: Attributes, tag: str) -> bytes | None:
    import base64
    import binascii

    encoded = data.get(tag, {}).get("InlineBinary")
    if not isinstance(encoded, str):
        return None
    try:
        return base64.b64decode(encoded)
    except binascii.Error:
        return None
