"""What lossless syntaxes can carry: asked before anything is promised to a client (PS3.5 8.2, A.4)."""

from __future__ import annotations

from typing import Final

from wetread.core.dicom import transfer_syntax as ts
from wetread.core.dicom.attributes import Attributes, integer, text

JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
HTJ2K: Final = "1.2.840.10008.1.2.4.201"
HTJ2K_RPCL: Final = "1.2.840.10008.1.2.4.202"

LOSSLESS: Final = frozenset({ts.RLE, JPEG_LS, JPEG_2000, HTJ2K, HTJ2K_RPCL})
"""Compressed syntaxes that stored pixels may be put into."""

_ALLOCATED: Final = frozenset({8, 16})

_SUBSAMPLED: Final = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"})


def obstacle(data: Attributes, target: str) -> str:
    """Return why the pixels that *data* (DICOM JSON) describes cannot be put into *target*; empty when they can.

    An object without pixels can be in every syntax: nothing of it is compressed.
    """
    if any("BulkDataURI" in data.get(tag, {}) for tag in ("7FE00008", "7FE00009")):
        return "floating point pixel data cannot be compressed"
    if "BulkDataURI" not in data.get("7FE00010", {}):
        return ""
    return layout_obstacle(
        target, integer(data, "00280100") or 0, integer(data, "00280002") or 1, text(data, "00280004").strip()
    )


def layout_obstacle(target: str, bits_allocated: int, samples: int, photometric: str) -> str:
    """Return why frames of this layout cannot be put into *target*; empty when they can."""
    if target not in LOSSLESS or bits_allocated not in _ALLOCATED:
        return f"{bits_allocated} bits allocated do not fit the transfer syntax"
    if samples not in (1, 3):
        return f"{samples} samples per pixel do not fit the transfer syntax"
    # Their chrominance is stored for every other pixel: no lossless syntax says so (PS3.5 8.2).
    return "subsampled colour does not fit the transfer syntax" if photometric in _SUBSAMPLED else ""
