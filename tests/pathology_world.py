"""Synthetic slides for tests, written once per run and folder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from wetread.pathology.slide.open import local_sources, open_native
from wetread.pathology.slide.slide import Slide
from wetread.testing.phantoms.slide import Planted, SlideSpec
from wetread.testing.phantoms.slide_files import TiffOptions, write_slide_tiff

SMALL = SlideSpec(1344, 1088, planted=(Planted(384, 320, 256),), texture=256)
"""Edges that no tile size divides; levels of 4 and 16 with whole downsample."""


def written(folder: Path, options: TiffOptions | None = None, spec: SlideSpec = SMALL, name: str = "slide.svs") -> Path:
    """Write *spec* and return the file."""
    path = folder / name
    write_slide_tiff(spec, path, options)
    return path


def native(path: Path) -> Slide:
    """Open with the native reader, unchecked."""
    return open_native(local_sources(path))


@cache
def bigger(**changes: object) -> SlideSpec:
    """Return a slide of 2048 pixels with a planted square; the same one each time, as its textures cost most."""
    spec = SlideSpec(2048, 2048, planted=(Planted(1024, 768, 512),), texture=512)
    return replace(spec, **changes)
