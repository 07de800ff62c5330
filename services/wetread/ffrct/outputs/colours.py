"""The one colour scale of FFR: orange to blue from 0.50 to 1.00, told apart by every kind of colour vision."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

LOWEST: Final = 0.5
_AT: Final = (0.5, 0.7, 0.8, 0.9, 1.0)
_RGB: Final = ((140, 45, 4), (236, 112, 20), (254, 227, 145), (116, 169, 207), (4, 90, 141))
GREY: Final = (128, 128, 128)


def colours(ffr: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """RGB (..., 3) of FFR (...); grey where there is none (NaN)."""
    known = np.nan_to_num(ffr, nan=1.0)
    channels = [np.interp(known, _AT, [rgb[c] for rgb in _RGB]) for c in range(3)]
    out = np.stack(channels, axis=-1)
    out[np.isnan(ffr)] = GREY
    return np.rint(out).astype(np.uint8)
