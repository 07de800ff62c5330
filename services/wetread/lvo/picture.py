"""The summary picture: maximum projections of the vessels without bone, from above and from the front, with the mark.

For any viewer, as Secondary Capture. Pure Pillow, with the font inside it.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wetread.core.ruo import RUO_STATEMENT
from wetread.lvo.analysis import Analysis
from wetread.lvo.asymmetry import SideReading

ZOOM: Final = 3
SLAB_MM: Final = (-12, 32)
"""Planes below and above the circle of Willis that the projection from above holds."""
TALL_MM: Final = (-25, 75)
DEEP_MM: Final = 45
TOP, GAP, BOTTOM = 62, 12, 64
RING_MM: Final = 7
_TEXT: Final = (235, 235, 235)
_MARK: Final = (255, 210, 70)
_MISSING: Final = (90, 190, 255)

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def summary_png(found: Analysis, worse: SideReading, score: float, threshold: float) -> bytes:
    """Draw both projections; *worse* is marked when its *score* reaches *threshold*. The patient's right is left."""
    positive = score >= threshold
    vessels, marks = found.vessels, found.marks
    planes = slice(max(marks.plane + SLAB_MM[0], 0), marks.plane + SLAB_MM[1])
    tall = slice(max(marks.plane + TALL_MM[0], 0), marks.plane + TALL_MM[1])
    rows = slice(max(marks.row - DEEP_MM, 0), marks.row + DEEP_MM)
    missing = worse.missing if positive else np.zeros_like(worse.missing)
    above = _projection(vessels.weight[planes].max(axis=0), np.any(missing[planes], axis=0))
    front = _projection(vessels.weight[tall, rows].max(axis=1)[::-1], np.any(missing[tall, rows], axis=1)[::-1])
    wide = above.width + front.width + 3 * GAP
    canvas = Image.new("RGB", (wide, TOP + max(above.height, front.height) + BOTTOM), (0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    canvas.paste(above, (GAP, TOP))
    canvas.paste(front, (2 * GAP + above.width, TOP))
    if positive and worse.end is not None:
        plane, row, column = worse.end
        across = ZOOM * column
        _ring(draw, GAP + across, TOP + ZOOM * row)
        _ring(draw, 2 * GAP + above.width + across, TOP + ZOOM * (tall.stop - plane))
    verdict = f"SUSPECTED OCCLUSION, {worse.side.upper()} {worse.site or ''}" if positive else "no occlusion suspected"
    draw.text((GAP, 8), f"lvo: {verdict}   score {score:.2f} (threshold {threshold:.2f})", fill=_TEXT, font=font)
    key = "ring: end point   blue: mirror image of vessels that this side lacks" if positive else ""
    draw.text((GAP, 34), f"Maximum projections without bone. {key}", fill=_TEXT, font=small)
    for start, title in ((GAP, "from above"), (2 * GAP + above.width, "from the front")):
        draw.text((start + 4, TOP + 4), f"R   {title}", fill=_MARK, font=small)
        draw.text((start + above.width - 16, TOP + 4), "L", fill=_MARK, font=small)
    for number, line in enumerate(_wrapped(RUO_STATEMENT, 100)):
        draw.text((GAP, canvas.height - BOTTOM + 8 + 16 * number), line, fill=_TEXT, font=small)
    with BytesIO() as buffer:
        canvas.save(buffer, "PNG")
        return buffer.getvalue()


def _projection(weight: npt.NDArray[np.float32], missing: Mask) -> Image.Image:
    """Return a grey picture with the missing vessels in colour; columns run from the patient's right to the left."""
    rgb = np.repeat(np.rint(np.clip(weight, 0, 1) * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    rgb[missing] = _MISSING
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.BICUBIC)


def _ring(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    reach = RING_MM * ZOOM
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=_MARK, width=3)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
