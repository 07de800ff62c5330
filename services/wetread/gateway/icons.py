"""The pictures of what has none: fixed, of our own drawing, without any text (PS3.18 10.4.3.3.4)."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

from PIL import Image, ImageDraw

from wetread.gateway.documents import Category

_GROUND: Final = 32
_SHEET: Final = 96
_INK: Final = 176


@lru_cache(maxsize=32)
def icon(kind: Category, side: int) -> bytes:
    """Return the JPEG icon of a category, *side* pixels wide and high.

    A report is a sheet with lines, a document a sheet with a folded corner, a video a frame with a triangle; a picture
    that cannot be shown is a frame with hills; anything else an empty sheet.
    """
    image = Image.new("L", (side, side), _GROUND)
    draw = ImageDraw.Draw(image)
    low, high = side / 5, side * 4 / 5
    if kind in (Category.VIDEO, Category.IMAGE):
        draw.rectangle((low / 2, low, side - low / 2, high), fill=_SHEET)
        middle, third = side / 2, side / 7
        if kind is Category.VIDEO:
            draw.polygon(
                [(middle - third, middle - third), (middle - third, middle + third), (middle + third, middle)], _INK
            )
        else:
            draw.polygon(
                [(low, high - third / 2), (middle - third / 2, middle), (middle + third, high - third / 2)], _INK
            )
            draw.ellipse((middle + third, low + third / 2, middle + 2 * third, low + third * 1.5), fill=_INK)
    else:
        draw.rectangle((low, low / 2, high, side - low / 2), fill=_SHEET)
        if kind is Category.REPORT:
            for line in range(4):
                top = low + line * side / 6
                draw.rectangle((low * 1.4, top, high - low * (0.4 + line % 2), top + side / 40), fill=_INK)
        elif kind is Category.DOCUMENT:
            corner = side / 5
            draw.polygon([(high - corner, low / 2), (high, low / 2), (high, low / 2 + corner)], _GROUND)
            draw.polygon([(high - corner, low / 2), (high - corner, low / 2 + corner), (high, low / 2 + corner)], _INK)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=80)
    return target.getvalue()
