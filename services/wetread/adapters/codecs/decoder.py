"""Compressed frames to stored values: pydicom drives OpenJPEG, CharLS, GDCM, Pillow and its own RLE decoder.

JPEG lossless comes from GDCM. ``pylibjpeg-libjpeg`` is GPL-3.0 and is never asked for.
"""

from __future__ import annotations

from typing import Any, Final

from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from wetread.core.detector import Array
from wetread.core.dicom.codestream import image_size
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout

_PREFERENCE: Final = ("pylibjpeg", "pyjpegls", "gdcm", "pillow", "pydicom")
_JPEG_LS: Final = frozenset({JPEGLSLossless, JPEGLSNearLossless})
_END_OF_IMAGE: Final = b"\xff\xd9"
"""Asked of JPEG-LS before decoding: CharLS was measured to spend seconds on a stream cut off inside a scan."""


class PydicomFrameDecoder:
    """``FrameDecoder`` over pydicom's decoder plugins."""

    def decode(self, frame: bytes, transfer_syntax_uid: str, layout: FrameLayout) -> Array:
        """Return the stored values of one frame (see the port)."""
        check_frame(frame, transfer_syntax_uid, layout)
        if transfer_syntax_uid in _JPEG_LS and not frame.rstrip(b"\0").endswith(_END_OF_IMAGE):
            raise NotProcessable("decode_error", "the JPEG-LS frame is truncated")
        try:
            decoder = get_decoder(UID(transfer_syntax_uid))
            plugins: list[str] = [p for p in _PREFERENCE if p in decoder.available_plugins]
            return self._first(decoder, plugins, frame, layout)
        except NotProcessable:
            raise
        except Exception as error:
            raise NotProcessable("decode_error", "compressed pixel data cannot be decoded") from error

    @staticmethod
    def _first(decoder: Any, plugins: list[str], frame: bytes, layout: FrameLayout) -> Array:
        failure: Exception | None = None
        for plugin in plugins:
            try:
                values, _ = decoder.as_array(
                    encapsulate([frame]),
                    index=0,
                    raw=True,
                    decoding_plugin=plugin,
                    number_of_frames=1,
                    rows=layout.rows,
                    columns=layout.columns,
                    samples_per_pixel=layout.samples,
                    bits_allocated=layout.bits_allocated,
                    bits_stored=layout.bits_stored,
                    pixel_representation=int(layout.signed),
                    photometric_interpretation=layout.photometric,
                    planar_configuration=layout.planar_configuration,
                    pixel_keyword="PixelData",
                )
            except Exception as error:  # noqa: BLE001 - plugins raise whatever their library raises
                failure = error
            else:
                return _array(values)
        raise NotProcessable("decode_error", "no decoder reads this compressed frame") from failure


def check_frame(frame: bytes, transfer_syntax_uid: str, layout: FrameLayout) -> None:
    """Refuse a frame that declares another size than *layout*, before a decoder allocates anything for it.

    Raises NotProcessable("decode_error").
    """
    if transfer_syntax_uid == RLELossless:
        _check_rle(frame, layout)
    else:
        _check_size(frame, layout)


def _array(values: Any) -> Array:
    array: Array = values
    return array


def _check_size(frame: bytes, layout: FrameLayout) -> None:
    size = image_size(frame)
    declared = (size.rows, size.columns, size.components)
    if declared != (layout.rows, layout.columns, layout.samples) or size.bits > layout.bits_allocated:
        raise NotProcessable("decode_error", "the compressed frame is not of the declared size")


def _check_rle(frame: bytes, layout: FrameLayout) -> None:
    """Refuse RLE frames whose segment count does not fit, or that are too short to hold the image.

    A run of two bytes stands for at most 128 (PS3.5 annex G.3).
    """
    segments = int.from_bytes(frame[:4], "little")
    if segments != layout.samples * layout.bits_allocated // 8 or len(frame) < 64:
        raise NotProcessable("decode_error", "the RLE frame is not of the declared layout")
    if (len(frame) - 64) * 64 < layout.frame_bytes:
        raise NotProcessable("decode_error", "the RLE frame is too short for the declared size")
