"""One frame between its compressed and its native form, with pydicom's plugins and OpenJPH.

Runs in a codec process (``adapters.codecs.worker``): these libraries hold the interpreter lock for as long as they
work, and some end their process on damaged input (ADR 0206).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from wetread.adapters.codecs.decoder import check_frame
from wetread.core.dicom.lossless import HTJ2K, HTJ2K_RPCL, JPEG_2000, JPEG_LS, layout_obstacle
from wetread.core.dicom.transfer_syntax import RLE
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout, FrameSamples

_ENCODERS: Final = {RLE: "pydicom", JPEG_LS: "pyjpegls", JPEG_2000: "pylibjpeg"}
"""The plugin of each syntax. GDCM's RLE encoder was seen to read beyond its input."""

_JPEG_LS: Final = frozenset({JPEG_LS, "1.2.840.10008.1.2.4.81"})
_END_OF_IMAGE: Final = b"\xff\xd9"

_OPENJPH: Final = "imagecodecs"
_THUMBNAIL_SIDE: Final = 64
"""The lowest resolution of an RPCL stream is at most this wide or high (PS3.5 10.18)."""


def targets() -> frozenset[str]:
    """Return the syntaxes that this installation can encode."""
    found = {uid for uid, plugin in _ENCODERS.items() if plugin in get_encoder(UID(uid)).available_plugins}
    return frozenset(found | ({HTJ2K, HTJ2K_RPCL} if find_spec(_OPENJPH) else set()))


def decode_frame(frame: bytes, transfer_syntax_uid: str, layout: FrameLayout, *, rgb: bool) -> FrameSamples:
    """Return the values of a compressed frame (see ``core.ports.pixels.FrameCodecs.unpack``)."""
    check_frame(frame, transfer_syntax_uid, layout)
    if transfer_syntax_uid in _JPEG_LS and not frame.rstrip(b"\0").endswith(_END_OF_IMAGE):
        # A stream that is cut off keeps CharLS busy for minutes; one that merely lacks its end decodes with it.
        frame += _END_OF_IMAGE
    try:
        # As an array even where bytes are wanted: only there the library extends the sign of code streams without one.
        values, found = get_decoder(UID(transfer_syntax_uid)).as_array(
            encapsulate([frame], has_bot=False), index=0, raw=not rgb, **_options(layout)
        )
    except Exception as error:
        # Codecs are C code behind many exception types; whatever they say, the frame cannot be decoded here.
        raise NotProcessable("decode_error", "the stored pixel data cannot be decoded") from error
    photometric = str(found.get("photometric_interpretation", layout.photometric))
    if not rgb and layout.bits_allocated > 1:
        values = np.asarray(values, _type(layout))
    little = np.asarray(values, values.dtype.newbyteorder("<"))
    return FrameSamples(little.tobytes(), little.dtype.str, little.shape, photometric)


def encode_frame(values: bytes, layout: FrameLayout, transfer_syntax_uid: str) -> bytes:
    """Return native *values* as a losslessly compressed frame (``core.ports.pixels.FrameCodecs.pack``)."""
    obstacle = layout_obstacle(transfer_syntax_uid, layout.bits_allocated, layout.samples, layout.photometric)
    if obstacle:
        raise NotProcessable("encode_error", obstacle)
    try:
        samples = _array(values, layout)
        fits = transfer_syntax_uid == RLE or _within(samples, layout)
        if fits and transfer_syntax_uid in (HTJ2K, HTJ2K_RPCL):
            return _htj2k(samples, layout)
        if fits:
            return _encoded(samples, layout, transfer_syntax_uid)
    except Exception as error:
        raise NotProcessable("encode_error", "the pixel data cannot be compressed") from error
    raise NotProcessable("encode_error", "values beyond Bits Stored would be lost in the transfer syntax")


def _encoded(samples: NDArray[Any], layout: FrameLayout, transfer_syntax_uid: str) -> bytes:
    """RLE, JPEG-LS and JPEG 2000 by the plugins of pydicom, what they cannot do by imagecodecs."""
    plugin = _ENCODERS[transfer_syntax_uid]
    options = _options(layout) | {"planar_configuration": 0}
    options["photometric_interpretation"] = compressed_photometric(layout.photometric, transfer_syntax_uid)
    try:
        return bytes(get_encoder(UID(transfer_syntax_uid)).encode(samples, encoding_plugin=plugin, **options))
    except RuntimeError:
        if transfer_syntax_uid == RLE:
            raise
    # Noise outgrows the buffer of the JPEG-LS plugin, and images below 32 pixels the resolutions of the other one.
    import imagecodecs

    if transfer_syntax_uid == JPEG_LS:
        return bytes(imagecodecs.jpegls_encode(samples))
    colour = layout.photometric == "RGB"
    return bytes(
        imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k", reversible=True, mct=colour, resolutions=1)
    )


def compressed_photometric(photometric: str, transfer_syntax_uid: str) -> str:
    """Return the photometric interpretation of frames in a lossless syntax: RGB is decorrelated by JPEG 2000."""
    if photometric == "RGB" and transfer_syntax_uid in (JPEG_2000, HTJ2K, HTJ2K_RPCL):
        return "YBR_RCT"
    return photometric


def _array(values: bytes, layout: FrameLayout) -> NDArray[Any]:
    """Return rows x columns [x samples]."""
    flat = np.frombuffer(values[: layout.frame_bytes], _type(layout))
    if layout.samples == 1:
        return flat.reshape(layout.rows, layout.columns)
    if layout.planar_configuration == 0:
        return flat.reshape(layout.rows, layout.columns, layout.samples)
    return np.ascontiguousarray(flat.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0))


def _type(layout: FrameLayout) -> np.dtype[Any]:
    return np.dtype(f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")


def _within(samples: NDArray[Any], layout: FrameLayout) -> bool:
    """Return whether Bits Stored holds every value: overlays in unused bits would be lost otherwise."""
    if not samples.size or layout.bits_stored >= layout.bits_allocated:
        return True
    top = 1 << (layout.bits_stored - (1 if layout.signed else 0))
    low = -top if layout.signed else 0
    return bool(int(samples.min()) >= low and int(samples.max()) < top)


def _htj2k(samples: NDArray[Any], layout: FrameLayout) -> bytes:
    """OpenJPH writes RPCL order; with tile-part lengths and enough decompositions a stream fits both syntaxes."""
    import imagecodecs

    levels = 5
    while min(-(-layout.rows >> levels), -(-layout.columns >> levels)) > _THUMBNAIL_SIDE:
        levels += 1
    colour = layout.photometric == "RGB"
    return bytes(imagecodecs.htj2k_encode(samples, reversible=True, tlm=True, rgb=colour, resolutions=levels))


def _options(layout: FrameLayout) -> dict[str, Any]:
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": layout.photometric,
        "planar_configuration": layout.planar_configuration,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
