"""A coarse contrast passage: what the table of bad input breaks."""

from __future__ import annotations

from wetread.testing.phantoms.perfusion import perfusion_phantom
from wetread.testing.phantoms.perfusion_dicom import perfusion_images
from wetread.testing.sections import part10


def good_objects() -> list[bytes]:
    """Return a dynamic series that is quick to render and to read."""
    phantom = perfusion_phantom(2_900_002, matrix=64, planes=4, step_mm=8.0, interval_s=2.0, duration_s=50.0)
    return [part10(image) for image in perfusion_images(phantom)]
