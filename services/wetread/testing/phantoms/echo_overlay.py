"""What a scanner writes on its pictures: text, depth marks, a grey or colour bar, and the electrocardiogram."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wetread.testing.phantoms.echo_anatomy import Chance
from wetread.testing.phantoms.echo_heart import Floats
from wetread.testing.phantoms.echo_parameters import EchoSpec
from wetread.testing.phantoms.echo_scan import Bytes, Screen

_TEXT: Final = (215, 215, 215)
_TRACE: Final = (90, 230, 80)
_SWEEP_S: Final = 3.0


def decorate(spec: EchoSpec, layout: Screen, grey: Bytes, times: Floats, chance: Chance) -> Bytes:
    """Return colour pictures [time, row, column, 3] with what *spec* asks to be written on them."""
    out = np.repeat(grey[..., None], 3, axis=3)
    still = _still(spec, layout, chance)
    written = still.max(axis=2) > 0
    out[:, written] = still[written]
    if spec.ecg:
        _trace(spec, layout, out, times)
    return out


def _still(spec: EchoSpec, layout: Screen, chance: Chance) -> Bytes:
    canvas = Image.new("RGB", (layout.columns, layout.rows))
    draw = ImageDraw.Draw(canvas)
    rows, columns = layout.rows, layout.columns
    if spec.overlay:
        font = ImageFont.load_default(max(8, rows // 26))
        index = chance.between(60, 0.8, 1.6)
        lines = ("PHANTOM", f"{spec.frame_rate:.0f} Hz", f"{spec.depth_mm / 10:.0f} cm", f"MI {index:.1f}")
        for number, line in enumerate(lines):
            draw.text((4, 4 + number * rows // 20), line, fill=_TEXT, font=font)
        for centimetre in range(0, int(spec.depth_mm / 10), 5):
            row = layout.box[0] + centimetre * 10 / layout.mm_per_pixel
            draw.line((columns - 10, row, columns - 4, row), fill=_TEXT)
    if spec.colour_bar:
        bar = np.linspace(255, 0, rows // 3).astype(np.uint8)
        hue = (1.0, 1.0, 1.0) if chance.between(61, 0, 1) < 0.5 else (1.0, 0.6, 0.2)
        for number, level in enumerate(bar):
            draw.line(
                (columns - 24, rows // 10 + number, columns - 16, rows // 10 + number),
                fill=tuple(max(1, int(level * share)) for share in hue),
            )
    return np.asarray(canvas, dtype=np.uint8)


def _trace(spec: EchoSpec, layout: Screen, out: Bytes, times: Floats) -> None:
    """Draw the electrocardiogram as it grows from left to right, then over itself."""
    columns = np.arange(int(0.15 * layout.columns), int(0.85 * layout.columns))
    when = (columns - columns[0]) / len(columns) * _SWEEP_S
    phase = (when * spec.heart_rate / 60 + spec.start) % 1
    height = 0.05 * layout.rows
    curve = np.exp(-(((phase - 0.5) / 0.012) ** 2)) - 0.25 * np.exp(-(((phase - 0.53) / 0.012) ** 2))
    curve += 0.22 * np.exp(-(((phase - 0.8) / 0.05) ** 2)) + 0.12 * np.exp(-(((phase - 0.35) / 0.03) ** 2))
    rows = np.clip(0.965 * layout.rows - height * curve, 0, layout.rows - 2).astype(np.intp)
    for k, now in enumerate(times):
        drawn = when <= now % _SWEEP_S if now < _SWEEP_S else np.ones(len(when), bool)
        for below in (0, 1):
            out[k, rows[drawn] + below, columns[drawn]] = _TRACE
