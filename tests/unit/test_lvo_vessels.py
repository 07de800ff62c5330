"""Vessels with contrast on a drawn head: what is bright and long is one; bone and calcium are bright and short."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.core.errors import NotApplicable
from wetread.lvo.vessels import find_vessels


def head() -> np.ndarray:
    """A ball of brain in a shell of bone, with two islands of bone inside, 1 mm voxels."""
    z, y, x = np.ogrid[-48:49, -48:49, -48:49]
    far = np.sqrt(z * z + y * y + x * x)
    hu = np.select([far < 40, far < 46], [36.0, 1000.0], -1000.0).astype(np.float32)
    for side in (-12, 12):
        hu[(z + 8) ** 2 + (y + 16) ** 2 + (x - side) ** 2 < 20] = 800.0
    return hu + np.random.default_rng(3).normal(0.0, 5.0, hu.shape).astype(np.float32)


def test_islands_of_bone_are_no_contrast_and_no_measure_of_it() -> None:
    hu = head()
    with pytest.raises(NotApplicable) as caught:
        find_vessels(hu)
    assert caught.value.reason == "contrast"
    hu[20:75, 52:57, 46:51] = 250.0
    found = find_vessels(hu)
    assert found.lumen_hu == pytest.approx(250.0, abs=15.0)
    assert found.brain_hu == pytest.approx(36.0, abs=1.0)
    assert found.mask[22:73, 53:56, 47:50].all()


def test_short_vessels_alone_are_no_angiogram() -> None:
    hu = head()
    for y in (30, 45, 60):
        hu[45:65, y : y + 6, 46:52] = 250.0
    with pytest.raises(NotApplicable) as caught:
        find_vessels(hu)
    assert caught.value.reason == "contrast"
