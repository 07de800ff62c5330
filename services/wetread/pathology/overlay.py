"""Pictures for people: the tissue mask, and the map of one class over the slide with scale bar and legend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.ruo import RUO_SHORT
from wetread.pathology.overview import Overview
from wetread.pathology.plan import Geometry
from wetread.pathology.tissue import Tissue

_BAR_CHOICES_UM: Final = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_FOOT: Final = 34


def save_mask(tissue: Tissue, path: Path) -> None:
    """Write the mask as a grey PNG: white is tissue."""
    from PIL import Image

    Image.fromarray(tissue.mask.astype(np.uint8) * 255).save(path)


def save_overlay(overview: Overview, geometry: Geometry, grid: npt.NDArray[np.float32], label: str, path: Path) -> None:
    """Write the map ``grid[row, column]`` (0..1, NaN: not analysed) over the overview."""
    from PIL import Image, ImageDraw

    picture = overview.pixels.astype(np.float32)
    rows, columns = picture.shape[:2]
    step = [geometry.stride * geometry.target_mpp / mpp for mpp in overview.mpp]
    column = np.minimum(((np.arange(columns) + 0.5) / step[0]).astype(int), geometry.columns - 1)
    row = np.minimum(((np.arange(rows) + 0.5) / step[1]).astype(int), geometry.rows - 1)
    score = grid[row[:, None], column[None, :]]
    known = np.isfinite(score)
    weight = np.where(known, 0.25 + 0.4 * np.nan_to_num(score), 0.0)[..., None]
    mixed = picture * (1 - weight) + colours(np.nan_to_num(score)) * weight
    canvas = np.full((rows + _FOOT, max(columns, 320), 3), 255, dtype=np.uint8)
    canvas[:rows, :columns] = mixed.astype(np.uint8)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    _foot(draw, rows, canvas.shape[1], overview.mpp[0], label)
    image.save(path)


def colours(score: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return blue-white-red colours float32[..., 3] of scores 0..1; readable with red-green blindness."""
    stops = np.array([[49, 84, 166], [235, 235, 235], [178, 24, 43]], dtype=np.float32)
    place = np.clip(score, 0, 1) * 2
    low = np.minimum(place.astype(int), 1)
    part = (place - low)[..., None]
    return np.asarray(stops[low] * (1 - part) + stops[low + 1] * part, dtype=np.float32)


def _foot(draw: Any, top: int, width: int, mpp: float, label: str) -> None:
    fitting = [um for um in _BAR_CHOICES_UM if um / mpp < width / 4]
    bar_um = max(fitting, default=_BAR_CHOICES_UM[0])
    length = round(bar_um / mpp)
    draw.rectangle((8, top + 8, 8 + length, top + 11), fill=(0, 0, 0))
    text = f"{bar_um} um" if bar_um < 1000 else f"{bar_um // 1000} mm"
    draw.text((14 + length, top + 3), text, fill=(0, 0, 0))
    ramp = colours(np.linspace(0, 1, 64, dtype=np.float32)).astype(int)
    start = width - 80
    for step, colour in enumerate(ramp.tolist()):
        draw.line((start + step, top + 5, start + step, top + 13), fill=tuple(colour))
    draw.text((start - 6 * len(label) - 8, top + 3), label, fill=(0, 0, 0))
    draw.text((8, top + 18), RUO_SHORT, fill=(90, 90, 90))
