"""PNG and GIF bulk data as pixel values: formats that DICOM does not store (PS3.18 table 10.5.2-1)."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wetread.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Picture:
    """Uncompressed little endian values, colour by pixel."""

    rows: int
    columns: int
    samples: int
    bits: int
    values: bytes


def read_picture(file: bytes, limit: int) -> Picture:
    """Return the pixels of a PNG or the first frame of a GIF. ``limit``: bytes it may decode to.

    Raises InvalidInput for what is damaged, too large, or has transparency, which would be lost.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(file), formats=("PNG", "GIF"))
        usable = image.width * image.height * 4 <= limit and image.mode not in ("LA", "RGBA", "PA")
        if usable and image.mode.startswith("I"):
            return Picture(image.height, image.width, 1, 16, np.asarray(image).astype("<u2").tobytes())
        if usable:
            plain = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
            return Picture(plain.height, plain.width, len(plain.getbands()), 8, plain.tobytes())
    except Exception as error:
        # The library's readers raise whatever they raise on damaged files.
        msg = "a picture cannot be read"
        raise InvalidInput(msg) from error
    msg = "a picture is too large or has transparency"
    raise InvalidInput(msg)
