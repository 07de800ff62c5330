"""Text of a data set: Specific Character Set with code extensions (PS3.5 6.1.2; PS3.3 C.12.1.1.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

DEFAULT: Final[tuple[str, ...]] = ("iso8859",)
_ESCAPE: Final = b"\x1b"


@lru_cache(maxsize=256)
def encodings_of(value: bytes) -> tuple[str, ...]:
    """Return the Python codecs of a raw (0008,0005) value; unknown terms fall back to the default repertoire."""
    terms = [term.strip(" \0") for term in value.decode("latin-1").split("\\")]
    if not any(terms):
        return DEFAULT
    try:
        return tuple(convert_encodings(terms))
    except (LookupError, ValueError):
        return DEFAULT


def decode_text(value: bytes, encodings: tuple[str, ...]) -> tuple[str, bool]:
    """Return (text, True when every byte had a meaning). Never raises: undecodable bytes become U+FFFD."""
    if _ESCAPE not in value:
        if value.isascii():
            return value.decode("ascii"), True
        try:
            return value.decode(encodings[0]), True
        except (UnicodeError, LookupError):
            return value.decode("ascii", errors="replace"), False
    try:
        text = decode_bytes(value, encodings, TEXT_VR_DELIMS)
    except (UnicodeError, LookupError, ValueError):
        return value.decode("ascii", errors="replace"), False
    return text, "\ufffd" not in text
