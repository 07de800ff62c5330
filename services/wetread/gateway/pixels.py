"""Frames of stored instances: their bytes as stored, as uncompressed values, as sample arrays.

One frame is read and decoded at a time; the decoded size is checked before a decoder may allocate it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from wetread.core.dicom.attributes import Attributes, integer, text
from wetread.core.dicom.frame_table import FrameTable
from wetread.core.dicom.json_model import little_endian
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, transfer_syntax
from wetread.core.errors import NotAcceptable, NotFound, PayloadTooLarge
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.objects import ObjectStore

_KEYWORDS: Final[Mapping[str, str]] = {
    "7FE00010": "PixelData",
    "7FE00008": "FloatPixelData",
    "7FE00009": "DoubleFloatPixelData",
}


class Undecodable(NotAcceptable):
    """No installed decoder understands the stored frames (or they are damaged): they can only be had as stored."""

    slug, title = "undecodable", "The stored pixel data cannot be decoded"


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """Image Pixel attributes of one instance (PS3.3 C.7.6.3)."""

    keyword: str
    vr: str
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    planar: int

    @property
    def frame_bytes(self) -> int:
        """Decoded size of one frame."""
        return -(-self.rows * self.columns * self.samples * self.allocated // 8)


def describe(data: Attributes) -> PixelDescription:
    """Return the pixel description. Raises NotFound when the instance has no pixels."""
    key = next((key for key in _KEYWORDS if "BulkDataURI" in data.get(key, {})), None)
    rows, columns = integer(data, "00280010") or 0, integer(data, "00280011") or 0
    if key is None or rows <= 0 or columns <= 0:
        msg = "the instance has no pixel data"
        raise NotFound(msg)
    allocated = integer(data, "00280100") or 16
    return PixelDescription(
        keyword=_KEYWORDS[key],
        vr=str(data[key]["vr"]),
        rows=rows,
        columns=columns,
        samples=max(integer(data, "00280002") or 1, 1),
        allocated=allocated,
        stored=integer(data, "00280101") or allocated,
        signed=integer(data, "00280103") == 1,
        photometric=text(data, "00280004").strip(),
        planar=integer(data, "00280006") or 0,
    )


class FrameReader:
    """Reads and decodes frames of one instance. ``frame_bytes``: cap on a decoded frame.

    ``attributes`` gives the instance's metadata; it is asked only when frames have to be understood.
    """

    def __init__(
        self,
        objects: ObjectStore,
        instance: ArchivedInstance,
        attributes: Callable[[], Attributes],
        *,
        frame_bytes: int = 1 << 30,
    ) -> None:
        self._objects = objects
        self._instance = instance
        self._attributes = attributes
        self._cap = frame_bytes
        self._inflated: bytes | None = None
        self.table = FrameTable.from_json(instance.frames)
        self.syntax = transfer_syntax(instance.transfer_syntax_uid)

    @property
    def count(self) -> int:
        """Number of frames that can be addressed."""
        return self.table.count

    def stored(self, number: int) -> bytes:
        """Return the bytes of frame *number* (1-based) as stored, without item headers."""
        self._check(number)
        pieces = [self._bytes(start, length) for start, length in self.table.ranges(number)]
        frame = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        bits = self.table.frame_bits
        if not self.table.encapsulated and bits % 8:
            frame = _shift_bits(frame, (number - 1) * bits % 8, bits)
        return frame

    def native(self, number: int) -> bytes:
        """Return frame *number* as uncompressed little endian values (Explicit VR Little Endian)."""
        if not self.table.encapsulated:
            frame = self.stored(number)
            return frame if self.syntax.little_endian else little_endian(frame, self.description.vr, little=False)
        description = self.description
        samples, found = self._decode(number)
        planar = int(found.get("planar_configuration", 0) or 0)
        if description.samples > 1 and planar != description.planar:
            return _replanned(samples, description, planar)
        return samples

    def array(self, number: int) -> tuple[NDArray[Any], str]:
        """Return (samples as rows x columns [x samples], photometric interpretation), colour as RGB where known."""
        description = self.description
        self._check(number)
        runner_options = self._options(description)
        if self.table.encapsulated:
            uid, source = self._instance.transfer_syntax_uid, encapsulate([self.stored(number)], has_bot=False)
        else:
            uid, source = EXPLICIT_LE, self.native(number)
        try:
            values, found = get_decoder(UID(uid)).as_array(source, index=0, **runner_options)
        except Exception as error:
            msg = "the stored pixel data cannot be decoded"
            raise Undecodable(msg) from error
        return values, str(found.get("photometric_interpretation", description.photometric))

    @cached_property
    def description(self) -> PixelDescription:
        """Pixel description, checked against the cap. Raises NotFound, PayloadTooLarge."""
        description = describe(self._attributes())
        if description.frame_bytes > self._cap:
            msg = "a decoded frame would exceed the limit of this server"
            raise PayloadTooLarge(msg)
        return description

    def _decode(self, number: int) -> tuple[bytes, Mapping[str, Any]]:
        description = self.description
        source = encapsulate([self.stored(number)], has_bot=False)
        try:
            decoder = get_decoder(UID(self._instance.transfer_syntax_uid))
            decoded, found = decoder.as_buffer(source, index=0, **self._options(description))
        except Exception as error:
            # Codecs are C code behind many exception types; whatever they say, the frame cannot be decoded here.
            msg = "the stored pixel data cannot be decoded"
            raise Undecodable(msg) from error
        return bytes(decoded), found

    def _options(self, description: PixelDescription) -> dict[str, Any]:
        return {
            "rows": description.rows,
            "columns": description.columns,
            "samples_per_pixel": description.samples,
            "bits_allocated": description.allocated,
            "bits_stored": description.stored,
            "pixel_representation": int(description.signed),
            "photometric_interpretation": description.photometric,
            "planar_configuration": description.planar,
            "number_of_frames": 1,
            "pixel_keyword": description.keyword,
            "pixel_vr": description.vr,
        }

    def _check(self, number: int) -> None:
        if not 1 <= number <= self.table.count:
            msg = "the instance has no such frame"
            raise NotFound(msg)

    def _bytes(self, start: int, length: int) -> bytes:
        if not self.table.embedded:
            return self._objects.read(self._instance.ref, start, length)
        if self._inflated is None:
            deflated = self._objects.read(self._instance.ref)[self.table.offset :]
            self._inflated = zlib.decompressobj(-15).decompress(deflated)
        return self._inflated[start : start + length]


def _shift_bits(data: bytes, first: int, count: int) -> bytes:
    """Return *count* bits from bit *first* on (least significant first, PS3.5 8.1.1), packed to bytes."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[first : first + count]
    return np.packbits(bits, bitorder="little").tobytes()


def _replanned(frame: bytes, description: PixelDescription, planar: int) -> bytes:
    """Change between colour-by-pixel and colour-by-plane so that the frame agrees with the instance's metadata."""
    values = np.frombuffer(frame, np.dtype(f"<u{max(description.allocated // 8, 1)}"))
    rows, columns, samples = description.rows, description.columns, description.samples
    if planar == 0:
        return values.reshape(rows, columns, samples).transpose(2, 0, 1).tobytes()
    return values.reshape(samples, rows, columns).transpose(1, 2, 0).tobytes()
