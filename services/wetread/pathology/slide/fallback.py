"""OpenSlide behind the same face: every vendor format, at its own speed. The only module that imports it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wetread.pathology.errors import SlideUnreadable, TileUnreadable
from wetread.pathology.slide.index import Level, Pixels, Pyramid


class OpenSlideReader:
    """A slide read by OpenSlide. Regions are asked in level-0 coordinates, as its interface wants."""

    def __init__(self, path: Path) -> None:
        import openslide

        self._failure: type[Exception] = openslide.OpenSlideError
        try:
            self._slide: Any = openslide.OpenSlide(os.fspath(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideUnreadable("this is not a slide: no reader knows the file, or it is broken") from error
        self.name = f"openslide/{openslide.__library_version__}"
        properties = self._slide.properties
        mpp: tuple[float, float] | None = None
        with suppress(KeyError, ValueError):
            mpp = (float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"]))
        levels = []
        for number, (width, height) in enumerate(self._slide.level_dimensions):
            tile = [int(properties.get(f"openslide.level[{number}].tile-{side}", 256)) for side in ("width", "height")]
            levels.append(Level(width, height, tile[0], tile[1], "none", "rgb"))
        vendor = str(properties.get("openslide.vendor", "unknown"))
        self._pyramid = Pyramid(tuple(levels), mpp, "dicom" if vendor == "dicom" else "tiff", vendor)

    @property
    def pyramid(self) -> Pyramid:
        """Levels, resolution, identity."""
        return self._pyramid

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill *out*; transparent pixels (outside the image) become white. Raises TileUnreadable."""
        base, at = self._pyramid.levels[0], self._pyramid.levels[level]
        x0 = round(x * base.width / at.width)
        y0 = round(y * base.height / at.height)
        height, width = out.shape[:2]
        try:
            region = np.asarray(self._slide.read_region((x0, y0), level, (width, height)))
        except self._failure as error:
            raise TileUnreadable("OpenSlide cannot decode a region") from error
        out[...] = region[..., :3]
        clear = region[..., 3] == 0
        if clear.any():
            out[clear] = 255

    def prefetch(self, level: int, corners: npt.NDArray[np.int64], size: tuple[int, int]) -> None:
        """Do nothing: OpenSlide reads files itself."""

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()
