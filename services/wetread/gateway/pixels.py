"""Frames of stored instances: their bytes as stored, as uncompressed values, as sample arrays.

One frame is read and decoded at a time; the decoded size is checked before a decoder may allocate it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from wetread.core.dicom.attributes import Attributes, integer, text
from wetread.core.dicom.frame_table import FrameTable
from wetread.core.dicom.json_model import little_endian
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, transfer_syntax
from wetread.core.errors import NotFound, PayloadTooLarge
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.objects import ObjectStore
from wetread.core.ports.pixels import FrameLayout, FrameSamples
from wetread.gateway.transcoding import Transcoder, Undecodable

_KEYWORDS: Final[Mapping[str, str]] = {
    "7FE00010": "PixelData",
    "7FE00008": "FloatPixelData",
    "7FE00009": "DoubleFloatPixelData",
}


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
    def layout(self) -> FrameLayout:
        """The same as codecs take it."""
        return FrameLayout(
            rows=self.rows,
            columns=self.columns,
            samples=self.samples,
            bits_allocated=self.allocated,
            bits_stored=self.stored,
            high_bit=self.stored - 1,
            signed=self.signed,
            photometric=self.photometric,
            planar_configuration=self.planar,
        )


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
        transcoder: Transcoder,
        tenant: str,
        instance: ArchivedInstance,
        attributes: Callable[[], Attributes],
        *,
        frame_bytes: int = 1 << 30,
    ) -> None:
        self._objects = objects
        self._transcoder = transcoder
        self._tenant = tenant
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
        """Return frame *number* as uncompressed little endian values, laid out as the metadata say."""
        if not self.table.encapsulated:
            frame = self.stored(number)
            return frame if self.syntax.little_endian else little_endian(frame, self.description.vr, little=False)
        description = self.description
        values = self._unpacked(number, rgb=False).values
        if description.allocated == 1:
            return np.packbits(np.frombuffer(values, np.uint8), bitorder="little").tobytes()
        if description.samples > 1 and description.planar == 1:
            return _by_plane(values, description)
        return values

    def encoded(self, number: int, target: str) -> bytes:
        """Return frame *number* losslessly compressed as *target*. Raises Undecodable."""
        layout = self.description.layout
        if layout.bits_allocated % 8 or self.description.keyword != "PixelData":
            msg = "the pixel data do not fit the transfer syntax"
            raise Undecodable(msg)
        if self.table.encapsulated:
            samples = self._unpacked(number, rgb=False)
            layout = replace(layout, photometric=samples.photometric, planar_configuration=0)
            values = samples.values
        else:
            values = self.native(number)
        return self._transcoder.pack(self._tenant, self._instance, number, values, layout, target)

    def array(self, number: int) -> tuple[NDArray[Any], str]:
        """Return (samples as rows x columns [x samples], photometric interpretation), colour as RGB where known."""
        self._check(number)
        if self.table.encapsulated:
            samples = self._unpacked(number, rgb=True)
            values = np.frombuffer(samples.values, np.dtype(samples.dtype)).reshape(samples.shape)
            return values, samples.photometric
        native = self.native(number)
        try:
            values, found = get_decoder(UID(EXPLICIT_LE)).as_array(native, index=0, **self._options())
        except Exception as error:
            msg = "the stored pixel data cannot be decoded"
            raise Undecodable(msg) from error
        return values, str(found.get("photometric_interpretation", self.description.photometric))

    @cached_property
    def description(self) -> PixelDescription:
        """Pixel description, checked against the cap. Raises NotFound, PayloadTooLarge."""
        description = describe(self._attributes())
        if description.layout.frame_bytes > self._cap:
            msg = "a decoded frame would exceed the limit of this server"
            raise PayloadTooLarge(msg)
        return description

    def _unpacked(self, number: int, *, rgb: bool) -> FrameSamples:
        self._check(number)
        layout = self.description.layout
        return self._transcoder.unpack(
            self._tenant, self._instance, number, lambda: self.stored(number), layout, rgb=rgb
        )

    def _options(self) -> dict[str, Any]:
        description = self.description
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


def _by_plane(frame: bytes, description: PixelDescription) -> bytes:
    """Turn colour-by-pixel into colour-by-plane, so that the frame agrees with the instance's metadata."""
    values = np.frombuffer(frame, np.dtype(f"<u{max(description.allocated // 8, 1)}"))
    pixels = values.reshape(description.rows, description.columns, description.samples)
    return pixels.transpose(2, 0, 1).tobytes()
