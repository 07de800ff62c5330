"""The coloured tree from the front and from the left, with its scale, as PNG."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wetread.core.ruo import RUO_STATEMENT

from .colours import LOWEST, colours
from .curves import Curve
from .disclaimer import FFR_DISCLAIMER

SIDE: Final = 440
_INK, _PAPER = (230, 230, 230), (16, 18, 22)


def tree_png(curves: tuple[Curve, ...], status: str) -> bytes:
    """Draw the tree; *status* says how the boundary conditions were found and stands beside the scale."""
    image = Image.new("RGB", (2 * SIDE + 90, SIDE + 96), _PAPER)
    draw = ImageDraw.Draw(image)
    points = np.concatenate([curve.points for curve in curves])
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    scale = (SIDE - 60) / float(max(np.ptp(points, axis=0).max(), 1.0))
    for number, (axis, sign, title) in enumerate(((0, 1.0, "from the front"), (1, 1.0, "from the left"))):
        left = number * SIDE
        draw.text((left + 12, 28), title, fill=_INK, font=_font(14))
        depth = [float((curve.points[:, 1] if axis == 0 else -curve.points[:, 0]).mean()) for curve in curves]
        labels = [_vessel(draw, curves[index], axis, sign, middle, scale, left) for index in np.argsort(depth)[::-1]]
        for place, text in labels:  # over all vessels
            draw.text(place, text, fill=_INK, font=_font(12), stroke_width=2, stroke_fill=_PAPER)
    _scale(draw, 2 * SIDE + 20)
    draw.text((12, 8), f"CT-derived FFR, boundary conditions {status}", fill=_INK, font=_font(15))
    _statement(draw, 12, SIDE + 36, 2 * SIDE + 60)
    return png(image)


def _vessel(
    draw: ImageDraw.ImageDraw, curve: Curve, axis: int, sign: float, middle: Any, scale: float, left: int
) -> tuple[tuple[float, float], str]:
    """Draw one vessel; returns where its label goes, and the label."""
    x = left + SIDE / 2 + sign * (curve.points[:, axis] - middle[axis]) * scale
    y = SIDE / 2 + 30 - (curve.points[:, 2] - middle[2]) * scale
    width = np.maximum(2, np.rint(2.0 * curve.radius * scale)).astype(int)
    rgb = colours(curve.ffr)
    for i in range(len(x) - 1):
        draw.line((x[i], y[i], x[i + 1], y[i + 1]), fill=tuple(rgb[i].tolist()), width=int(width[i]))
        half = width[i] / 2
        draw.ellipse((x[i] - half, y[i] - half, x[i] + half, y[i] + half), fill=tuple(rgb[i].tolist()))
    last = curve.ffr[~np.isnan(curve.ffr)]
    text = f"{curve.label} {last[-1]:.2f}" if len(last) else f"{curve.label} no FFR"
    right = left + SIDE + 16 - draw.textlength(text, font=_font(12))  # not into the scale
    return (min(float(x[-1] + width[-1] / 2 + 2), right), float(y[-1] - 6)), text


def _scale(draw: ImageDraw.ImageDraw, left: int) -> None:
    """Bar from 0.50 to 1.00 with marks at 0.75 and 0.80."""
    top, height = 60, SIDE - 80
    for row in range(height):
        value = 1.0 - (1.0 - LOWEST) * row / (height - 1)
        draw.line((left, top + row, left + 16, top + row), fill=tuple(colours(np.array(value)).tolist()))
    for value in (1.0, 0.9, 0.8, 0.75, 0.6, LOWEST):
        y = top + (1.0 - value) / (1.0 - LOWEST) * (height - 1)
        draw.line((left + 16, y, left + 22, y), fill=_INK)
        draw.text((left + 25, y - 7), f"{value:.2f}", fill=_INK, font=_font(12))


def _statement(draw: ImageDraw.ImageDraw, left: int, top: int, width: int) -> None:
    for number, line in enumerate(wrapped(f"{RUO_STATEMENT} {FFR_DISCLAIMER}", width, 12)):
        draw.text((left, top + 15 * number), line, fill=_INK, font=_font(12))


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Break *text* into lines of *width* pixels."""
    font, lines = _font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def png(image: Image.Image) -> bytes:
    """PNG bytes of a picture."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
