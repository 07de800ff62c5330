"""The summary picture: end of diastole and end of systole with the outline, and the volume curve with its beats.

For any viewer, as Secondary Capture. Pure Pillow, with the font inside it.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wetread.core.detector import Cine
from wetread.core.ruo import RUO_STATEMENT
from wetread.echo.analysis import VIEWS, Echo
from wetread.echo.outline import line_of, on_screen

SIDE: Final = 420
TOP, GAP, CURVE, BOTTOM = 66, 12, 150, 64
_TEXT: Final = (235, 235, 235)
_LINE: Final = (255, 210, 70)
_CURVE: Final = (90, 190, 255)


def summary_png(found: Echo, cine: Cine, headline: str) -> bytes:
    """Draw both frames of the shown beat and the curve; *headline* says the result."""
    wide = 2 * SIDE + 3 * GAP
    canvas = Image.new("RGB", (wide, TOP + SIDE + CURVE + 2 * GAP + BOTTOM), (0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    draw.text((GAP, 8), headline, fill=_TEXT, font=font)
    view = VIEWS[found.view]
    draw.text((GAP, 34), f"{view} view, single-plane discs. Line: outline by the detector.", fill=_TEXT, font=small)
    frames = (("end of diastole", found.shown.diastole), ("end of systole", found.shown.systole))
    for number, (title, frame) in enumerate(frames):
        left = GAP + number * (SIDE + GAP)
        canvas.paste(_frame(found, cine, frame), (left, TOP))
        text = f"{title}: frame {found.clip.chosen[frame] + 1}, {found.clip.times_s[frame]:.2f} s"
        draw.text((left + 4, TOP + 4), text, fill=_LINE, font=small)
    _draw_curve(draw, found, (GAP, TOP + SIDE + GAP, wide - GAP, TOP + SIDE + GAP + CURVE), small)
    for number, line in enumerate(_wrapped(RUO_STATEMENT, 110)):
        draw.text((GAP, canvas.height - BOTTOM + 8 + 16 * number), line, fill=_TEXT, font=small)
    with BytesIO() as buffer:
        canvas.save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()


def _frame(found: Echo, cine: Cine, frame: int) -> Image.Image:
    square = found.clip.sector.square
    pixels = cine.voxels[found.clip.chosen[frame]]
    region = on_screen(found.probability[frame], square, (pixels.shape[0], pixels.shape[1]))
    top, left = round(square.top), round(square.left)
    side = max(1, round(square.step * 128))
    shown = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")
    shown = shown.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    zoom = SIDE / side
    points = [((x - left + 0.5) * zoom, (y - top + 0.5) * zoom) for x, y in line_of(region)]
    if points:
        ImageDraw.Draw(shown).line([*points, points[0]], fill=_LINE, width=2)
    return shown


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    found: Echo,
    box: tuple[int, int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = box
    times, curve = found.clip.times_s, found.curve / found.curve.max()
    x = left + (times - times[0]) / max(float(times[-1] - times[0]), 1e-6) * (right - left)
    y = bottom - curve * (bottom - top - 16)
    draw.rectangle(box, outline=(70, 70, 70))
    draw.line(_points(x, y), fill=_CURVE, width=2)
    for beat in found.beats:
        for frame in (beat.diastole, beat.systole):
            draw.ellipse((x[frame] - 4, y[frame] - 4, x[frame] + 4, y[frame] + 4), outline=_LINE, width=2)
    text = f"volume by discs over {times[-1] - times[0]:.1f} s; rings: ends of diastole and systole of full beats"
    draw.text((left + 6, top + 2), text, fill=_TEXT, font=font)


def _points(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
