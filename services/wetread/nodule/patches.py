"""What the network sees of a candidate: 32 mm around it at 1 mm, and 64 mm around it at 2 mm."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import FloatArray
from wetread.nodule.candidates import halved

SIZE: Final = 32
WINDOW_HU: Final = (-1000.0, 400.0)


def patches(hu: FloatArray, index: npt.NDArray[np.float64]) -> FloatArray:
    """[n, 2, 32, 32, 32] of candidates at *index* [n, (z, y, x)] of the 1 mm grid, -1 to 1 over the window."""
    out = np.empty((len(index), 2, SIZE, SIZE, SIZE), dtype=np.float32)
    low, high = WINDOW_HU
    image = np.clip(hu, low, high)
    for channel, step in enumerate((1, 2)):
        if step == 2:
            image = halved(image)
        padded = np.pad(image, SIZE // 2, mode="edge")
        corner = np.rint((index - (step - 1) / 2) / step).astype(int)
        corner = np.clip(corner, 0, np.array(image.shape) - 1)
        for number, (z, y, x) in enumerate(corner):
            out[number, channel] = padded[z : z + SIZE, y : y + SIZE, x : x + SIZE]
    out -= np.float32((low + high) / 2)
    out /= np.float32((high - low) / 2)
    return out
