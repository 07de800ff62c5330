"""Reconstruction kernels as classes: soft, standard or sharp, from the vendors' own names.

Convolution Kernel (0018,1210) is free text. The rules below follow the naming schemes that scanners of GE, Siemens,
Philips and Canon/Toshiba write; a name outside them stays unknown. Used to prefer a series, never to refuse one.
"""

from __future__ import annotations

import re
from typing import Final, Literal

KernelClass = Literal["soft", "standard", "sharp", "unknown"]

_WORDS: Final[dict[str, KernelClass]] = {
    "SOFT": "soft",
    "SMOOTH": "soft",
    "BRAIN": "soft",
    "STANDARD": "standard",
    "STD": "standard",
    "STND": "standard",
    "DETAIL": "sharp",
    "BONE": "sharp",
    "BONEPLUS": "sharp",
    "LUNG": "sharp",
    "CHEST": "sharp",
    "CHST": "sharp",
    "EDGE": "sharp",
    "ULTRA": "sharp",
    "SHARP": "sharp",
    "INNER": "sharp",
    "YA": "sharp",
    "YB": "sharp",
    "YC": "sharp",
    "YD": "sharp",
    "A": "soft",
    "UA": "soft",
    "B": "standard",
    "UB": "standard",
    "UC": "standard",
    "C": "standard",
    "D": "sharp",
    "E": "sharp",
    "L": "sharp",
}
_SIEMENS = re.compile(r"[ABCDHIJQSTU][A-Z]{0,2}(\d{2})[A-Z]?")
_CANON = re.compile(r"FC(\d{2})")


def kernel_class(kernel: str, description: str = "") -> KernelClass:
    """Return the class of a kernel name; *description* (Series Description) helps only where the name is empty."""
    name = kernel.strip().upper()
    if not name:
        words = set(re.findall(r"[A-Z]+", description.upper()))
        if words & {"BONE", "LUNG", "SHARP", "EDGE"}:
            return "sharp"
        return "soft" if words & {"SOFT", "BRAIN"} else "unknown"
    first = re.split(r"[^A-Z0-9]", name, maxsplit=1)[0]
    if first in _WORDS:
        return _WORDS[first]
    if canon := _CANON.match(first):
        return _canon_class(int(canon[1]))
    if siemens := _SIEMENS.fullmatch(first):
        # The number is the sharpness (roughly the resolution at 50 % MTF): 10-39 smooth, 40-49 medium, 50-99 sharp.
        number = int(siemens[1])
        return "soft" if number < 40 else "standard" if number < 50 else "sharp"
    return "unknown"


def _canon_class(number: int) -> KernelClass:
    # FC01-09 and FC20-29 are the smooth body and head families, FC10-19 the standard one, FC30-39 bone,
    # FC50-59 lung and FC80-89 high resolution.
    if number < 10 or 20 <= number < 30:
        return "soft"
    if 10 <= number < 20:
        return "standard"
    return "sharp" if 30 <= number < 40 or 50 <= number < 60 or 80 <= number < 90 else "unknown"
