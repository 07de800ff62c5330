"""The summary picture: maps of some planes with their scales, core and hypoperfused tissue, both vessel curves.

For any viewer, as Secondary Capture: few of them show Parametric Maps. Pure Pillow, with the font inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wetread.core.ruo import RUO_STATEMENT
from wetread.perfusion.analysis import Perfusion

PLANES: Final = 6
TILE: Final = 150
LEFT, TOP, BAR, GRAPH = 96, 34, 12, 130
_TEXT: Final = (235, 235, 235)
_CORE: Final = (214, 60, 150)
_LATE: Final = (90, 200, 120)
_ARTERY: Final = (230, 90, 80)
_VEIN: Final = (110, 150, 240)
_SCALE: Final = ((0, 0, 40), (40, 60, 160), (40, 160, 150), (150, 200, 60), (250, 220, 80), (255, 245, 220))
"""Dark to bright at every step, so that the order survives a grey printer."""

Floats = npt.NDArray[np.float64]
Rgb = npt.NDArray[np.uint8]


def summary_png(found: Perfusion, to_left: Floats) -> bytes:
    """Draw the summary. *to_left* [1, 1, column] tells where the patient's left is."""
    planes = _planes(found)
    rows = (
        ("CBF", "mL/100 g/min", found.cbf, 80.0),
        ("CBV", "mL/100 g", found.cbv, 7.0),
        ("MTT", "s", found.mtt_s, 14.0),
        ("Tmax", "s", found.tmax_s, 12.0),
    )
    height = TOP + (len(rows) + 1) * TILE + GRAPH + 70
    canvas = Image.new("RGB", (LEFT + PLANES * TILE + 8, height), (0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    left_is_right = bool(to_left[0, 0, -1] > 0)
    sides = ("R", "L") if left_is_right else ("L", "R")
    draw.text((8, 8), f"Perfusion   image left: {sides[0]}, image right: {sides[1]}", fill=_TEXT, font=font)
    for number, (name, unit, values, top) in enumerate(rows):
        y = TOP + number * TILE
        _scale(canvas, draw, (name, unit, top), y, (font, small))
        for place, plane in enumerate(planes):
            canvas.paste(_tile(_coloured(values[plane] / top), found), (LEFT + place * TILE, y))
    y = TOP + len(rows) * TILE
    draw.text((4, y + 20), "core", fill=_CORE, font=font)
    draw.text((4, y + 40), "Tmax > 6 s", fill=_LATE, font=font)
    draw.text((4, y + 62), "artery", fill=_ARTERY, font=font)
    draw.text((4, y + 82), "vein", fill=_VEIN, font=font)
    for place, plane in enumerate(planes):
        canvas.paste(_tile(_regions(found, plane), found), (LEFT + place * TILE, y))
    _graph(draw, found, TOP + (len(rows) + 1) * TILE + 8, small)
    _words(draw, found, height - 62, (font, small))
    with BytesIO() as buffer:
        canvas.save(buffer, "PNG")
        return buffer.getvalue()


def _planes(found: Perfusion) -> list[int]:
    """Return up to PLANES planes, evenly spread."""
    count = found.tissue.shape[0]
    return sorted({round(p) for p in np.linspace(0, count - 1, min(PLANES, count))})


def _coloured(share: Floats) -> Rgb:
    at = np.linspace(0.0, 1.0, len(_SCALE))
    known = np.clip(np.nan_to_num(share), 0.0, 1.0)
    out = np.stack([np.interp(known, at, [rgb[c] for rgb in _SCALE]) for c in range(3)], axis=-1)
    out[np.isnan(share)] = 0
    return np.rint(out).astype(np.uint8)


def _regions(found: Perfusion, plane: int) -> Rgb:
    image = found.series.images[0, plane]
    low, high = (0.0, 80.0) if found.series.modality == "CT" else (0.0, float(np.percentile(image, 99)))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255
    out = np.repeat(np.asarray(grey, dtype=np.uint8)[:, :, None], 3, axis=2)
    out[found.stroke.hypoperfused[plane]] = _LATE
    out[found.stroke.core[plane]] = _CORE
    for vessel, colour in ((found.vessels.artery, _ARTERY), (found.vessels.vein, _VEIN)):
        here = vessel.voxels[vessel.voxels[:, 0] == plane]
        out[here[:, 1], here[:, 2]] = colour
    return out


def _tile(rgb: Rgb, found: Perfusion) -> Image.Image:
    tall = rgb.shape[0] * found.series.pixel_mm[0]
    wide = rgb.shape[1] * found.series.pixel_mm[1]
    size = (round(TILE * wide / max(tall, wide)), round(TILE * tall / max(tall, wide)))
    return Image.fromarray(rgb).resize(size, Image.Resampling.NEAREST)


def _scale(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, what: tuple[str, str, float], y: int, fonts: Sequence[object]
) -> None:
    name, unit, top = what
    font, small = fonts
    draw.text((4, y + 6), name, fill=_TEXT, font=font)  # type: ignore[arg-type]
    draw.text((4, y + 24), unit, fill=_TEXT, font=small)  # type: ignore[arg-type]
    ramp = _coloured(np.linspace(1.0, 0.0, 80)[:, None].repeat(BAR, axis=1))
    canvas.paste(Image.fromarray(ramp), (6, y + 46))
    draw.text((22, y + 42), f"{top:g}", fill=_TEXT, font=small)  # type: ignore[arg-type]
    draw.text((22, y + 116), "0", fill=_TEXT, font=small)  # type: ignore[arg-type]


def _graph(draw: ImageDraw.ImageDraw, found: Perfusion, y: int, font: object) -> None:
    width, height = PLANES * TILE - 20, GRAPH - 30
    series = found.series
    top = max(float(found.vessels.vein.curve.max()), float(found.vessels.artery.curve.max()), 1e-6)
    draw.rectangle((LEFT, y, LEFT + width, y + height), outline=(90, 90, 90))
    count = len(found.vessels.artery.curve)
    for vessel, colour in ((found.vessels.artery, _ARTERY), (found.vessels.vein, _VEIN)):
        points = [
            (LEFT + k / max(count - 1, 1) * width, y + height * (1 - max(float(v), 0.0) / top))
            for k, v in enumerate(vessel.curve)
        ]
        draw.line(points, fill=colour, width=2)
    unit = "HU" if series.modality == "CT" else "-ln(S/S0)"
    draw.text((4, y), f"{top:.3g} {unit}", fill=_TEXT, font=font)  # type: ignore[arg-type]
    end = series.start_s + (count - 1) * series.step_s
    draw.text((LEFT, y + height + 2), f"{series.start_s:.0f} s", fill=_TEXT, font=font)  # type: ignore[arg-type]
    draw.text((LEFT + width - 30, y + height + 2), f"{end:.0f} s", fill=_TEXT, font=font)  # type: ignore[arg-type]


def _words(draw: ImageDraw.ImageDraw, found: Perfusion, y: int, fonts: Sequence[object]) -> None:
    stroke = found.stroke
    ratio = "-" if stroke.ratio is None else f"{stroke.ratio:.1f}"
    font, small = fonts
    line = (
        f"Tmax > 6 s: {stroke.hypoperfused_ml:.0f} mL   core: {stroke.core_ml:.0f} mL   "
        f"mismatch: {stroke.mismatch_ml:.0f} mL, ratio {ratio}"
    )
    draw.text((8, y), line, fill=_TEXT, font=font)  # type: ignore[arg-type]
    first, second = RUO_STATEMENT[: RUO_STATEMENT.index("Bundled")], RUO_STATEMENT[RUO_STATEMENT.index("Bundled") :]
    draw.text((8, y + 24), first.strip(), fill=_TEXT, font=small)  # type: ignore[arg-type]
    draw.text((8, y + 40), second, fill=_TEXT, font=small)  # type: ignore[arg-type]
