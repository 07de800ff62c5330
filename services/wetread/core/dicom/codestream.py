"""What a compressed frame says about itself, read before a decoder allocates anything for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wetread.core.errors import NotProcessable

_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers of JPEG (T.81 table B.1) and JPEG-LS (T.87 C.1.1): all but DHT, JPG and DAC."""
_J2K_START: Final = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE: Final = b"\x00\x00\x00\x0cjP  "


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Dimensions declared by a code stream."""

    rows: int
    columns: int
    components: int
    bits: int


def image_size(frame: bytes) -> ImageSize:
    """Return the size declared in the header of a JPEG, JPEG-LS or JPEG 2000 code stream.

    Raises NotProcessable("decode_error") when there is no such header.
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    if frame[:8] == _JP2_SIGNATURE:
        at = frame.find(_J2K_START)
        return _j2k_size(frame, at if at >= 0 else len(frame))
    return _j2k_size(frame, 0)


def _jpeg_size(frame: bytes) -> ImageSize:
    at = 2
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME:
            body = frame[at + 4 : at + 10]
            if len(body) < 6:
                break
            return ImageSize(int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5], body[0])
        at += 2 + max(length, 2)
    raise NotProcessable("decode_error", "JPEG frame without a header")


def _j2k_size(frame: bytes, at: int) -> ImageSize:
    siz = frame[at : at + 43]
    if len(siz) < 43 or siz[:4] != _J2K_START:
        raise NotProcessable("decode_error", "compressed frame of an unknown kind")
    # SIZ (T.800 A.5.1): Lsiz Rsiz Xsiz Ysiz XOsiz YOsiz XTsiz YTsiz XTOsiz YTOsiz Csiz Ssiz.
    right, bottom, left, top = (int.from_bytes(siz[k : k + 4], "big") for k in (8, 12, 16, 20))
    return ImageSize(bottom - top, right - left, int.from_bytes(siz[40:42], "big"), (siz[42] & 0x7F) + 1)


def syntax_of(frame: bytes) -> str:
    """Return the transfer syntax that a JPEG, JPEG-LS, JPEG 2000 or HTJ2K code stream is of, by its own markers.

    Empty for anything else. A reversible JPEG 2000 stream is taken as lossless (PS3.5 A.4.4).
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_syntax(frame)
    at = 0 if frame[:4] == _J2K_START else frame.find(_J2K_START) if frame[:8] == _JP2_SIGNATURE else -1
    if at < 0:
        return ""
    style = frame.find(b"\xff\x52", at)
    if style < 0 or style + 14 > len(frame):
        return ""
    reversible = frame[style + 13] == 1
    if b"\xff\x50" in frame[at:style]:  # CAP: high-throughput block coding (T.814)
        return "1.2.840.10008.1.2.4.201" if reversible else "1.2.840.10008.1.2.4.203"
    return "1.2.840.10008.1.2.4.90" if reversible else "1.2.840.10008.1.2.4.91"


def _jpeg_syntax(frame: bytes) -> str:
    at, frame_kind = 2, 0
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = max(int.from_bytes(frame[at + 2 : at + 4], "big"), 2)
        if marker in _START_OF_FRAME:
            frame_kind = marker
        elif marker == 0xDA:
            # SOS: component count, two bytes each, then the selection value or NEAR (T.81 B.2.3, T.87 C.2.3)
            components = frame[at + 4] if at + 4 < len(frame) else 0
            position = at + 5 + components * 2
            parameter = frame[position] if position < len(frame) else 0
            usual, with_parameter = _JPEG_SYNTAXES.get(frame_kind, ("", ""))
            return with_parameter if parameter == (1 if frame_kind == 0xC3 else 0) else usual
        at += 2 + length
    return ""


_JPEG_SYNTAXES: Final = {
    0xC0: ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.50"),
    0xC1: ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.51"),
    0xC3: ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),
    0xF7: ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.80"),
}
"""Start-of-frame marker to transfer syntax: in general, and with selection value 1 (lossless JPEG) or NEAR 0."""
