"""A windowed plane with the region's line drawn on it: for the Secondary Capture and for thumbnails. Pure Pillow.

Text stands in bands above and below the image and never on anatomy. The font is the one inside Pillow, so nothing
depends on what a machine has installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wetread.adapters.evidence.outline import edges
from wetread.core.detector import FloatArray, LabelArray
from wetread.core.errors import InvalidInput

LINE = (255, 64, 64)
TINT = (70, 185, 255)
"""Blue takes red away from grey: told from the red line by everybody, and brightness below it stays readable."""
_TINT_MOST = 0.4
_TEXT = (240, 240, 240)
_BAND = (16, 16, 16)
_MARK = (250, 220, 90)

RgbArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Caption:
    """Text around the image: lines above, lines below, and the directions at its left, right, top and bottom."""

    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    directions: tuple[str, str, str, str] = ("", "", "", "")


def windowed(plane: FloatArray, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Map *plane* to 8 bit grey by window (centre, width), linear-exact (PS3.3 C.11.2.1.3.2); NaN becomes black."""
    centre, width = window
    grey = (np.nan_to_num(plane, nan=-np.inf) - (centre - width / 2)) / max(width, 1e-6)
    return np.asarray(np.clip(grey, 0.0, 1.0) * 255.0 + 0.5, dtype=np.uint8)


def overlay_image(
    plane: FloatArray,
    mask: LabelArray | npt.NDArray[np.bool_] | None,
    window: tuple[float, float],
    caption: Caption,
    *,
    width: int = 512,
    pixel_aspect: float = 1.0,
    tint: FloatArray | None = None,
) -> RgbArray:
    """Draw the plane [row, column] *width* pixels wide and return RGB [row, column, 3], bands included.

    ``pixel_aspect``: mm between rows divided by mm between columns. The line is drawn at the final size, so it stays
    one pixel wide and is never blurred away. ``tint``: a coarser map 0..1 that covers the plane, laid over it in blue.

    Raises InvalidInput when plane and mask differ in shape or there is no plane.
    """
    if plane.ndim != 2 or 0 in plane.shape or (mask is not None and mask.shape != plane.shape):
        msg = "an overlay needs a plane and a mask of the same shape"
        raise InvalidInput(msg)
    rows, columns = plane.shape
    size = (width, max(1, round(rows * pixel_aspect * width / columns)))
    shrinks = width < columns
    smooth = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
    rgb = np.repeat(_resized(windowed(plane, window), size, smooth)[:, :, None], 3, axis=2)
    if tint is not None and tint.any():
        rgb = _tinted(rgb, tint, size)
    if mask is not None and mask.any():
        area = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
        # A quarter of a pixel covered is enough: a small bleed must not vanish from a thumbnail.
        rgb[edges(_resized((mask > 0).astype(np.uint8) * 255, size, area) >= 64)] = LINE
    return np.asarray(_framed(Image.fromarray(rgb), caption), dtype=np.uint8)


def render_overlay(
    plane_hu: FloatArray,
    mask_plane: LabelArray | npt.NDArray[np.bool_] | None,
    window: tuple[float, float],
    caption: str,
    *,
    width: int = 512,
    pixel_aspect: float = 1.0,
    fmt: Literal["PNG", "JPEG"] = "PNG",
) -> bytes:
    """Return the overlay as PNG or JPEG bytes, *width* pixels wide, with *caption* below it (the worklist thumbnail).

    The caller's caption carries the research-use statement. Raises InvalidInput like ``overlay_image``.
    """
    text = Caption(below=(caption,) if caption else ())
    rgb = overlay_image(plane_hu, mask_plane, window, text, width=width, pixel_aspect=pixel_aspect)
    with BytesIO() as buffer:
        # Full colour resolution: JPEG's usual 4:2:0 washes a line of one pixel out.
        Image.fromarray(rgb).save(buffer, fmt, quality=90, subsampling=0)
        return buffer.getvalue()


def _tinted(rgb: RgbArray, tint: FloatArray, size: tuple[int, int]) -> RgbArray:
    """Colour grey by the map. Multiplying leaves every edge below it in place, and black stays black."""
    level = _resized((tint * 255.0 + 0.5).astype(np.uint8), size, Image.Resampling.BILINEAR) / np.float32(255.0)
    away = (1.0 - np.asarray(TINT, dtype=np.float32) / 255.0) * _TINT_MOST
    return np.asarray(rgb * (1.0 - level[:, :, None] * away) + 0.5, dtype=np.uint8)


def _resized(array: npt.NDArray[np.uint8], size: tuple[int, int], method: Image.Resampling) -> npt.NDArray[np.uint8]:
    """Resize [row, column] to (width, height)."""
    if (array.shape[1], array.shape[0]) == size:
        return array
    return np.asarray(Image.fromarray(array).resize(size, method), dtype=np.uint8)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _framed(image: Image.Image, caption: Caption) -> Image.Image:
    size = max(10, min(24, image.width // 36))
    font = _font(size)
    above = _wrapped(caption.above, image.width, font, size)
    below = _wrapped(caption.below, image.width, font, size)
    line = round(size * 1.35)
    top, bottom = _band(len(above), line, size), _band(len(below), line, size)
    canvas = Image.new("RGB", (image.width, top + image.height + bottom), _BAND)
    canvas.paste(image, (0, top))
    draw = ImageDraw.Draw(canvas)
    for lines, start in ((above, size // 2), (below, top + image.height + size // 2)):
        for index, text in enumerate(lines):
            draw.text((size // 2, start + index * line), text, font=font, fill=_TEXT)
    middle = top + image.height // 2
    left, right, upper, lower = caption.directions
    for text, spot, anchor in (
        (left, (size // 2, middle), "lm"),
        (right, (image.width - size // 2, middle), "rm"),
        (upper, (image.width // 2, top + size // 2), "mt"),
        (lower, (image.width // 2, top + image.height - size // 2), "mb"),
    ):
        if text:
            draw.text(spot, text, font=font, fill=_MARK, anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))
    return canvas


def _band(lines: int, line: int, size: int) -> int:
    return lines * line + size if lines else 0


def _wrapped(
    paragraphs: tuple[str, ...], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: int
) -> list[str]:
    """Break text into lines that fit; characters outside the font's Latin range show as '?'."""
    lines = []
    for paragraph in paragraphs:
        current = ""
        for word in paragraph.encode("latin-1", "replace").decode("latin-1").split():
            longer = f"{current} {word}".strip()
            if current and font.getlength(longer) > width - size:
                lines.append(current)
                current = word
            else:
                current = longer
        lines.append(current)
    return lines
