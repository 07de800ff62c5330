"""Which way is left: patient directions of an image's sides, from its orientation (PS3.3 C.7.6.1.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset

_POSITIVE, _NEGATIVE = "LPH", "RAF"


def directions(image: Dataset) -> tuple[str, str, str, str]:
    """Return the patient directions at the left, right, top and bottom of *image*; empty without an orientation.

    Letters by falling weight (``LP``: mostly left, partly posterior); parts under 0.3 are left out.
    """
    orientation = image.get("ImageOrientationPatient")
    if orientation is None:
        return ("", "", "", "")
    row, column = [float(v) for v in orientation[:3]], [float(v) for v in orientation[3:]]
    return (
        direction([-v for v in row]),
        direction(row),
        direction([-v for v in column]),
        direction(column),
    )


def direction(vector: Sequence[float]) -> str:
    """Return the letters of a direction in patient space (LPS): Left/Right, Posterior/Anterior, Head/Foot."""
    ranked = sorted(range(3), key=lambda axis: -abs(vector[axis]))
    return "".join((_POSITIVE if vector[axis] > 0 else _NEGATIVE)[axis] for axis in ranked if abs(vector[axis]) >= 0.3)
