"""A vessel pulled straight: the CT along it, and below it FFR with its spread, stenoses and scale."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct.imaging.curves import arc, even, frames
from wetread.ffrct.imaging.image import CtImage

from .colours import LOWEST, colours
from .curves import Curve
from .disclaimer import FFR_DISCLAIMER
from .tree_png import png, wrapped

STEP_MM: Final = 0.25
HALF_MM: Final = 12.0
ZOOM: Final = 2
STRIP: Final = 150
BAND: Final = 34
MARGIN: Final = 46
WINDOW_HU: Final = (-150.0, 750.0)
_INK, _PAPER, _SHADE = (230, 230, 230), (16, 18, 22), (70, 78, 92)


def curved_mpr(image: CtImage, curve: Curve, lesions: list[dict[str, Any]], status: str) -> bytes:
    """PNG of one vessel from its ostium. *lesions*: ``start_mm, throat_mm, end_mm, text`` along the curve."""
    line = even(curve.points, STEP_MM)
    s = arc(curve.points)
    at = arc(line)
    _, across, _ = frames(line)
    offset = np.arange(-HALF_MM, HALF_MM + 1e-6, STEP_MM)
    points = line[None, :, :] + offset[:, None, None] * across[None, :, :]
    hu = ndimage.map_coordinates(image.hu, image.index_of(points).reshape(-1, 3).T, order=1, mode="nearest")
    low, high = WINDOW_HU
    grey = np.clip((hu.reshape(len(offset), len(line)) - low) / (high - low), 0.0, 1.0) * 255.0
    picture = Image.fromarray(np.rint(grey).astype(np.uint8)).resize(
        (len(line) * ZOOM, len(offset) * ZOOM), Image.Resampling.BILINEAR
    )
    width = max(len(line) * ZOOM, 360) + MARGIN + 10
    statement = wrapped(f"{RUO_STATEMENT} {FFR_DISCLAIMER}", width - 12, 12)
    tall = BAND + picture.height + STRIP + 26 + 15 * len(statement)
    canvas = Image.new("RGB", (width, tall), _PAPER)
    canvas.paste(picture, (MARGIN, BAND))
    draw = ImageDraw.Draw(canvas)
    draw.text((6, 8), f"{curve.label}: CT-derived FFR, boundary conditions {status}", fill=_INK, font=_font(14))
    top = BAND + picture.height + 8
    _strip(draw, curve, s, at, top)
    taken: list[float] = []
    for lesion in sorted(lesions, key=lambda each: float(each["start_mm"])):
        _lesion(draw, lesion, top, taken)
    for number, text in enumerate(statement):
        draw.text((6, tall - 15 * (len(statement) - number) - 2), text, fill=_INK, font=_font(12))
    return png(canvas)


def _strip(draw: ImageDraw.ImageDraw, curve: Curve, s: Any, at: Any, top: int) -> None:
    """FFR over the length: shaded p5 to p95, coloured line, marks at 0.75 and 0.80, millimetres below."""

    def row(value: Any) -> Any:
        return top + (1.0 - np.clip(value, LOWEST, 1.0)) / (1.0 - LOWEST) * (STRIP - 24)

    ffr, p5, p95 = (np.interp(at, s, values) for values in (curve.ffr, curve.p5, curve.p95))
    rgb = colours(ffr)
    for column in range(len(at)):
        x = MARGIN + ZOOM * column
        if np.isfinite(p5[column]) and np.isfinite(p95[column]):
            draw.rectangle((x, row(p95[column]), x + ZOOM - 1, row(p5[column])), fill=_SHADE)
    for value in (1.0, 0.8, 0.75, 0.6, LOWEST):
        y = float(row(value))
        draw.line((MARGIN - 4, y, MARGIN + ZOOM * len(at), y), fill=(90, 90, 90))
        draw.text((6, y - 7), f"{value:.2f}", fill=_INK, font=_font(12))
    for column in range(len(at)):
        if np.isfinite(ffr[column]):
            x, y = MARGIN + ZOOM * column, float(row(ffr[column]))
            draw.rectangle((x, y - 2, x + ZOOM, y + 2), fill=tuple(rgb[column].tolist()))
    for millimetre in range(0, int(at[-1]) + 1, 20):
        mark = MARGIN + ZOOM * millimetre / STEP_MM
        draw.line((mark, top + STRIP - 24, mark, top + STRIP - 18), fill=_INK)
        text, font = f"{millimetre} mm", _font(11)
        last = MARGIN + ZOOM * len(at) + 10 - font.getlength(text)
        draw.text((min(mark - 8, last), top + STRIP - 17), text, fill=_INK, font=font)


def _lesion(draw: ImageDraw.ImageDraw, lesion: dict[str, Any], top: int, taken: list[float]) -> None:
    """Mark a lesion; *taken*: where the text of every line of text ends, so that neighbours do not overlap."""
    left, throat, right = (MARGIN + ZOOM * lesion[k] / STEP_MM for k in ("start_mm", "throat_mm", "end_mm"))
    draw.line((left, BAND + 4, right, BAND + 4), fill=(250, 220, 90), width=2)
    draw.line((throat, BAND + 4, throat, BAND + 14), fill=(250, 220, 90), width=2)
    line = next((n for n, end in enumerate(taken) if end < left), len(taken))
    taken[line : line + 1] = [left + _font(12).getlength(lesion["text"]) + 6]
    draw.text((left, BAND + 16 + 15 * line), lesion["text"], fill=(250, 220, 90), font=_font(12))
    draw.line((throat, top, throat, top + STRIP - 24), fill=(120, 110, 60))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
