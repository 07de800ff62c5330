"""Rendered images: stored frames as JPEG or PNG for people (PS3.18 8.3.5, 10.4.1.1.3)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wetread.core.dicom.attributes import numbers, text
from wetread.core.errors import InvalidInput
from wetread.gateway.pixels import FrameReader
from wetread.gateway.transcoding import Undecodable
from wetread.gateway.windowing import (
    Window,
    apply_voi_lut,
    apply_window,
    automatic_window,
    frame_attributes,
    modality_values,
    padding_mask,
    palette_rgb,
    parse_window,
    voi_window,
)

FORMATS: Final[Mapping[str, str]] = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}
"""Types of rendered single frames (PS3.18 table 8.7.4-1)."""

SIDE_LIMIT: Final = 8192
"""Pixels of a side that may be asked for."""
_QUALITY: Final = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Viewport:
    """Size to fit into, and the source region (x, y, width, height) to show; negative width or height flips."""

    width: int
    height: int
    region: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Query parameters of a rendered resource."""

    window: Window | None = None
    viewport: Viewport | None = None
    quality: int = 90


def parse_options(query: Mapping[str, str]) -> RenderOptions:
    """Parse ``window``, ``viewport`` and ``quality``. Raises InvalidInput for what is ill-formed."""
    window = parse_window(query["window"]) if "window" in query else None
    return RenderOptions(window, _parse_viewport(query.get("viewport")), parse_quality(query.get("quality", "90")))


def parse_quality(value: str) -> int:
    """Parse the quality of a JPEG. Raises InvalidInput."""
    if not _QUALITY.fullmatch(value) or not 1 <= int(value) <= 100:
        msg = "quality must be 1 to 100"
        raise InvalidInput(msg)
    return int(value)


def _parse_viewport(value: str | None) -> Viewport | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    try:
        width, height = int(parts[0]), int(parts[1])
        defaults = [0.0, 0.0, 0.0, 0.0]
        given = [float(part) if part else defaults[at] for at, part in enumerate(parts[2:])]
    except (ValueError, IndexError) as error:
        msg = "viewport must be vw,vh[,sx,sy,sw,sh]"
        raise InvalidInput(msg) from error
    sane = 0 < width <= SIDE_LIMIT and 0 < height <= SIDE_LIMIT and len(parts) in (2, 6)
    if not sane or not all(abs(number) < 1e6 for number in given):
        msg = "viewport must be vw,vh[,sx,sy,sw,sh]"
        raise InvalidInput(msg)
    return Viewport(width, height, (given[0], given[1], given[2], given[3]) if given else None)


def render(
    reader: FrameReader, data: Mapping[str, Mapping[str, Any]], frame: int, options: RenderOptions, media_type: str
) -> bytes:
    """Return frame *frame* (1-based) as an encoded image. Raises NotFound, Undecodable."""
    # Slopes and windows come from the data: what they make infinite is drawn black or white, not warned about.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        image = _fit(to_image(reader, data, frame, options.window), data, options.viewport)
    target = io.BytesIO()
    if media_type == "image/jpeg":
        image.save(target, "JPEG", quality=options.quality)
    else:
        image.save(target, FORMATS[media_type])
    return target.getvalue()


def to_image(
    reader: FrameReader, data: Mapping[str, Mapping[str, Any]], frame: int, window: Window | None
) -> Image.Image:
    """Run the display pipeline: decode, modality LUT, VOI, inversion or colour."""
    samples, photometric = reader.array(frame)
    attributes = frame_attributes(data, frame)
    if samples.ndim == 3 and samples.shape[-1] in (3, 4):
        return Image.fromarray(_eight_bits(samples[..., :3], reader.description.stored), "RGB")
    if samples.ndim != 2:
        msg = "the samples of the frame do not make a picture"
        raise Undecodable(msg)
    if photometric == "PALETTE COLOR":
        colours = palette_rgb(samples, attributes)
        if colours is not None:
            return Image.fromarray(colours, "RGB")
    values = modality_values(samples, attributes)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    grey = None if window is not None else apply_voi_lut(values, attributes)
    if grey is None:
        chosen = window or voi_window(attributes) or automatic_window(values, padding_mask(samples, attributes))
        grey = apply_window(values, chosen)
    inverse = text(attributes, "20500020") == "INVERSE"
    if (photometric == "MONOCHROME1") != inverse and (photometric == "MONOCHROME1" or inverse):
        grey = np.asarray(255 - grey, np.uint8)
    return Image.fromarray(grey, "L")


def _eight_bits(samples: NDArray[Any], stored: int) -> NDArray[np.uint8]:
    if samples.dtype == np.uint8:
        return np.ascontiguousarray(samples)
    return np.asarray(samples.astype(np.float32) * (255.0 / max((1 << stored) - 1, 1)), np.uint8)


def _fit(image: Image.Image, data: Mapping[str, Mapping[str, Any]], viewport: Viewport | None) -> Image.Image:
    """Cut, flip and scale; pixels that are not square are made so (PS3.3 C.7.6.3.1.7)."""
    if viewport is not None and viewport.region is not None:
        image = _cut(image, viewport.region)
    aspect = numbers(data, "00280034", 2) or numbers(data, "00280030", 2)
    tall = aspect[0] / aspect[1] if aspect is not None and min(aspect) > 0 else 1.0
    width, height = float(image.width), image.height * min(max(tall, 0.01), 100.0)
    if viewport is not None:
        scale = min(viewport.width / width, viewport.height / height)
        width, height = width * scale, height * scale
    size = (max(round(width), 1), max(round(height), 1))
    if size != image.size and max(size) <= SIDE_LIMIT * 2:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return image


def _cut(image: Image.Image, region: tuple[float, float, float, float]) -> Image.Image:
    x, y, width, height = region
    width = width or image.width - x
    height = height or image.height - y
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + abs(width), image.width), min(y + abs(height), image.height)
    if right - left < 1 or bottom - top < 1:
        msg = "the viewport's region lies outside of the image"
        raise InvalidInput(msg)
    image = image.crop((round(left), round(top), round(right), round(bottom)))
    if width < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def thumbnail(reader: FrameReader, data: Mapping[str, Mapping[str, Any]], frame: int, side: int) -> bytes:
    """Return a small JPEG without any text."""
    return render(reader, data, frame, RenderOptions(viewport=Viewport(side, side)), "image/jpeg")
