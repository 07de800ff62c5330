"""Plots of an evaluation as SVG (ROC, FROC, calibration) and PNG (examples), drawn without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from wetread.core.detector import FloatArray, LabelArray
from wetread.core.ruo import RUO_SHORT
from wetread.detection.evaluation.classification import ReliabilityBin, Scores

_SIZE: Final = 320
_LEFT: Final = 56
_COLOURS: Final = ("#1f5fa8", "#b3422f", "#3d7d3a", "#7a4b9a", "#a87a1f", "#2f8f8f", "#555555", "#c2457f")
Series = Mapping[str, tuple[Scores, Scores]]


def _document(title: str, axes: tuple[str, str], right: float, body: Sequence[str], names: Sequence[str]) -> str:
    """Frame, axes, legend, title and the statement of research use around the drawn body."""
    height = _SIZE + 110
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIZE + 220} {height}" font-family="sans-serif">',
        f'<rect width="{_SIZE + 220}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{escape(title)}</text>',
        f'<rect x="{_LEFT}" y="36" width="{_SIZE}" height="{_SIZE}" fill="none" stroke="#333"/>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + tick * _SIZE, 36 + (1 - tick) * _SIZE
        parts.append(
            f'<text x="{x:.0f}" y="{36 + _SIZE + 16}" font-size="10" text-anchor="middle">{tick * right:g}</text>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3:.0f}" font-size="10" text-anchor="end">{tick:g}</text>')
    middle = 36 + _SIZE / 2
    turned = f'transform="rotate(-90 14 {middle})"'
    parts += [
        *body,
        f'<text x="{_LEFT + _SIZE / 2}" y="{_SIZE + 70}" font-size="12" text-anchor="middle">{escape(axes[0])}</text>',
        f'<text x="14" y="{middle}" font-size="12" text-anchor="middle" {turned}>{escape(axes[1])}</text>',
    ]
    for k, name in enumerate(names):
        colour = _COLOURS[k % len(_COLOURS)]
        parts.append(
            f'<text x="{_LEFT + _SIZE + 12}" y="{50 + 16 * k}" font-size="11" fill="{colour}">{escape(name)}</text>'
        )
    parts.append(f'<text x="{_LEFT}" y="{_SIZE + 98}" font-size="10">Phantom figures. {escape(RUO_SHORT)}</text></svg>')
    return "\n".join(parts) + "\n"


def _line(x: Scores, y: Scores, right: float, colour: str, *, steps: bool) -> str:
    across = _LEFT + np.clip(x / right, 0, 1) * _SIZE
    down = 36 + (1 - np.clip(y, 0, 1)) * _SIZE
    points = [(across[0], down[0])]
    for k in range(1, len(x)):
        if steps:
            points.append((across[k], down[k - 1]))
        points.append((across[k], down[k]))
    text = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _curves(title: str, axes: tuple[str, str], series: Series, right: float, *, steps: bool) -> str:
    body = [
        _line(x, y, right, _COLOURS[k % len(_COLOURS)], steps=steps)
        for k, (x, y) in enumerate(series.values())
        if len(x)
    ]
    return _document(title, axes, right, body, list(series))


def roc_svg(series: Series) -> str:
    """ROC curves by name: false-positive rate, true-positive rate."""
    return _curves("ROC", ("1 - specificity", "sensitivity"), series, 1.0, steps=False)


def froc_svg(series: Series) -> str:
    """FROC curves by name: false positives per case (to 8), lesion sensitivity."""
    return _curves("FROC", ("false positives per case", "lesion sensitivity"), series, 8.0, steps=True)


def calibration_svg(bins: Sequence[ReliabilityBin]) -> str:
    """Reliability diagram: mean score and share of positives of every bin, the diagonal dashed."""
    body = [f'<line x1="{_LEFT}" y1="{36 + _SIZE}" x2="{_LEFT + _SIZE}" y2="36" stroke="#999" stroke-dasharray="4 4"/>']
    for item in bins:
        x, y = _LEFT + item.mean_score * _SIZE, 36 + (1 - item.share_positive) * _SIZE
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_COLOURS[0]}"/>')
    return _document("Calibration", ("mean score", "share of positives"), 1.0, body, [f"{len(bins)} bins"])


def example_png(plane: FloatArray, found: LabelArray | None, truth: LabelArray | None, caption: str) -> bytes:
    """One plane in grey (1 to 99 % of its values): found region outlined in red, truth in green, caption below."""
    low, high = np.percentile(plane, (1, 99))
    grey = np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1) * 255
    rgb = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    factor = max(1, 320 // max(rgb.shape[:2]))
    rgb = rgb.repeat(factor, 0).repeat(factor, 1)
    for mask, colour in ((truth, (60, 200, 60)), (found, (230, 60, 60))):
        if mask is not None and mask.any():
            large = (mask > 0).repeat(factor, 0).repeat(factor, 1)
            inner = large.copy()
            inner[1:-1, 1:-1] = (
                large[1:-1, 1:-1] & large[:-2, 1:-1] & large[2:, 1:-1] & large[1:-1, :-2] & large[1:-1, 2:]
            )
            rgb[large & ~inner] = colour
    canvas = Image.new("RGB", (max(rgb.shape[1], 320), rgb.shape[0] + 34), (0, 0, 0))
    canvas.paste(Image.fromarray(rgb), (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((4, rgb.shape[0] + 2), caption, fill=(255, 255, 255))
    draw.text((4, rgb.shape[0] + 18), RUO_SHORT, fill=(200, 200, 200))
    with BytesIO() as buffer:
        canvas.save(buffer, "PNG")
        return buffer.getvalue()
