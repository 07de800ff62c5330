"""Transfer syntaxes: how the header is encoded, what the frames are, what may be done with them (PS3.5 A, PS3.6 A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

IMPLICIT_LE: Final = "1.2.840.10008.1.2"
EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
DEFLATED_LE: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """``media_type``: of one frame on the wire (PS3.18 table 8.7.3-2); None where a frame has no type of its own."""

    uid: str
    explicit: bool = True
    little_endian: bool = True
    deflated: bool = False
    encapsulated: bool = True
    lossy: bool = False
    media_type: str | None = None

    @property
    def on_the_wire(self) -> bool:
        """False for syntaxes that PS3.18 8.7.3 keeps off the wire unless a client asks for exactly them."""
        return self.explicit and self.little_endian and not self.deflated


def _table() -> dict[str, TransferSyntax]:
    known = [
        TransferSyntax(IMPLICIT_LE, explicit=False, encapsulated=False, media_type="application/octet-stream"),
        TransferSyntax(EXPLICIT_LE, encapsulated=False, media_type="application/octet-stream"),
        TransferSyntax(DEFLATED_LE, deflated=True, encapsulated=False, media_type="application/octet-stream"),
        TransferSyntax(EXPLICIT_BE, little_endian=False, encapsulated=False, media_type="application/octet-stream"),
        TransferSyntax(RLE, media_type="image/dicom-rle"),
    ]
    jpeg = "1.2.840.10008.1.2.4."
    encapsulated = {
        "image/jpeg": ("50!", "51!", "57", "70"),
        "image/jls": ("80", "81!"),
        "image/jp2": ("90", "91!"),
        "image/jpx": ("92", "93!"),
        "image/jphc": ("201", "202", "203!"),
        "image/jxl": ("110", "111!", "112!"),
        "video/mpeg": ("100!", "101!"),
        "video/mp4": ("102!", "103!", "104!", "105!", "106!"),
        "video/H265": ("107!", "108!"),
    }
    for media_type, suffixes in encapsulated.items():
        known += [
            TransferSyntax(jpeg + suffix.rstrip("!"), lossy=suffix.endswith("!"), media_type=media_type)
            for suffix in suffixes
        ]
    return {syntax.uid: syntax for syntax in known}


_KNOWN: Final = _table()


def transfer_syntax(uid: str) -> TransferSyntax:
    """Return what is known of *uid*; an unknown (private) one is opaque: explicit little endian, encapsulated."""
    return _KNOWN.get(uid) or TransferSyntax(uid)


def known_syntaxes() -> tuple[TransferSyntax, ...]:
    """Return everything in the table, in the order of PS3.6."""
    return tuple(_KNOWN.values())


def is_known(uid: str) -> bool:
    """Return whether frames of *uid* can be described by media type."""
    return uid in _KNOWN
