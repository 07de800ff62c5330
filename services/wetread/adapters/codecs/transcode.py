"""A whole PS3.10 file in another transfer syntax (PS3.18 8.7.3.4): values stay, or it is refused.

What was lossy stays marked as lossy; nothing lossy is ever put into a lossless syntax.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from wetread.adapters.codecs.frames import compressed_photometric, decode_frame, encode_frame
from wetread.core.dicom.json_model import little_endian
from wetread.core.dicom.transfer_syntax import DEFLATED_LE, EXPLICIT_LE, RLE, TransferSyntax, transfer_syntax
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout

_NATIVE: Final = frozenset({EXPLICIT_LE, DEFLATED_LE})
_METHODS: Final = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
"""(0028,2114) of syntaxes that may lose something (PS3.3 C.7.6.1.1.5.1)."""

_ALWAYS_LOSSY: Final = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_OTHER_WORDS: Final = ("OW", "OF", "OL", "OD", "OV")


def transcode(stored: bytes, target: str, *, decoded_bytes: int) -> bytes:
    """Return *stored* in the transfer syntax *target*.

    ``decoded_bytes``: cap on the uncompressed pixel data. Raises NotProcessable.
    """
    try:
        data = pydicom.dcmread(io.BytesIO(stored))
        source = transfer_syntax(str(data.file_meta.TransferSyntaxUID))
        _check_size(data, decoded_bytes)
        _to_native(data, source)
        if target not in _NATIVE:
            _compress(data, source, target)
        data.file_meta.TransferSyntaxUID = UID(target)
        written = io.BytesIO()
        pydicom.dcmwrite(written, data, enforce_file_format=True)
    except NotProcessable:
        raise
    except Exception as error:
        # The library and its codecs raise whatever they raise on odd data.
        raise NotProcessable("decode_error", "the stored instance cannot be converted") from error
    return written.getvalue()


def _check_size(data: pydicom.Dataset, limit: int) -> None:
    layout = _layout(data)
    frames = max(int(data.get("NumberOfFrames") or 1), 1)
    if layout is not None and layout.frame_bytes * frames > limit:
        raise NotProcessable("decode_error", "the instance is too large to be converted as a whole: ask for frames")


def _layout(data: pydicom.Dataset) -> FrameLayout | None:
    if "PixelData" not in data:
        return None
    allocated = int(data.BitsAllocated)
    return FrameLayout(
        rows=int(data.Rows),
        columns=int(data.Columns),
        samples=int(data.get("SamplesPerPixel") or 1),
        bits_allocated=allocated,
        bits_stored=int(data.get("BitsStored") or allocated),
        high_bit=int(data.get("HighBit") or allocated - 1),
        signed=int(data.get("PixelRepresentation") or 0) == 1,
        photometric=str(data.get("PhotometricInterpretation") or ""),
        planar_configuration=int(data.get("PlanarConfiguration") or 0),
    )


def _to_native(data: pydicom.Dataset, source: TransferSyntax) -> None:
    """Bring the data set into little endian order, its pixels decompressed."""
    if source.encapsulated and "PixelData" in data:
        _decompress(data, source.uid)
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            if keyword in data:
                delattr(data, keyword)
        _mark_lossy(data, source.uid)
    swap = data.original_encoding[1] is False
    # Every element is read here: one left raw would be written in the encoding it was read in.
    for element in data.iterall():
        if swap and element.VR in _OTHER_WORDS and isinstance(element.value, bytes):
            element.value = little_endian(element.value, str(element.VR), little=False)


def _decompress(data: pydicom.Dataset, source: str) -> None:
    layout = _layout(data)
    assert layout is not None
    count = max(int(data.get("NumberOfFrames") or 1), 1)
    table = data.get("ExtendedOffsetTable"), data.get("ExtendedOffsetTableLengths")
    offsets = (table[0], table[1]) if table[0] and table[1] else None
    values = []
    photometric = layout.photometric
    for frame in generate_frames(data.PixelData, number_of_frames=count, extended_offsets=offsets):
        decoded = decode_frame(frame, source, layout, rgb=False)
        values.append(decoded.values)
        photometric = decoded.photometric
    native = b"".join(values)
    if layout.bits_allocated == 1:
        # Frames follow each other without padding (PS3.5 8.1.1).
        native = np.packbits(np.frombuffer(native, np.uint8), bitorder="little").tobytes()
    data.PixelData = native + bytes(len(native) % 2)
    data["PixelData"].VR = "OW" if layout.bits_allocated > 8 else "OB"
    data["PixelData"].is_undefined_length = False
    data.PhotometricInterpretation = photometric
    if layout.samples > 1:
        data.PlanarConfiguration = 0


def _mark_lossy(data: pydicom.Dataset, source: str) -> None:
    """Say that the pixels went through lossy compression where only the transfer syntax said so (PS3.3 C.7.6.1.1.5).

    A syntax that may also be used losslessly is believed when the data set says 00.
    """
    method = _METHODS.get(source)
    if method is None:
        return
    said = str(data.get("LossyImageCompression") or "")
    if said == "01" or (said == "00" and source not in _ALWAYS_LOSSY):
        return
    data.LossyImageCompression = "01"
    if not data.get("LossyImageCompressionMethod"):
        data.LossyImageCompressionMethod = method


def _compress(data: pydicom.Dataset, source: TransferSyntax, target: str) -> None:
    if source.lossy:
        raise NotProcessable("encode_error", "what is stored lossy cannot be sent in a lossless syntax")
    if "FloatPixelData" in data or "DoubleFloatPixelData" in data:
        raise NotProcessable("encode_error", "floating point pixel data cannot be compressed")
    layout = _layout(data)
    if layout is None:
        return
    count = max(int(data.get("NumberOfFrames") or 1), 1)
    native, size = bytes(data.PixelData), layout.frame_bytes
    if len(native) < count * size:
        raise NotProcessable("encode_error", "the pixel data are shorter than the frames they should hold")
    frames = [encode_frame(native[at * size : (at + 1) * size], layout, target) for at in range(count)]
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.PhotometricInterpretation = compressed_photometric(layout.photometric, target)
    if layout.samples > 1:
        # RLE segments are planes (PS3.5 G.2), the other code streams interleave (PS3.5 8.2.3, 8.2.4).
        data.PlanarConfiguration = 1 if target == RLE else 0
