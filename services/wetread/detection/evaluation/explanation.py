"""What a map of a score's origin is worth: whether it points at the lesion, and whether it depends on the network.

After Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018): a map that stays the same when the weights are
shuffled shows the image, not the network.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wetread.core.detector import Array, Explanation, Volume


def strongest_cell(explanation: Explanation) -> tuple[int, int, int] | None:
    """Return (plane, row, column) of the map's maximum, the first of equals; None of an empty map."""
    if not explanation.values.any():
        return None
    plane, row, column = np.unravel_index(int(explanation.values.argmax()), explanation.values.shape)
    return int(plane), int(row), int(column)


def points_at(explanation: Explanation, volume: Volume, lesion: Array) -> bool:
    """Whether the strongest cell of the map holds a voxel of the true *lesion* [plane, row, column]."""
    strongest = strongest_cell(explanation)
    index = np.argwhere(lesion)
    if strongest is None or not len(index):
        return False
    places = (
        volume.origins[index[:, 0]]
        + index[:, 2:3] * volume.pixel_spacing[1] * volume.row_direction
        + index[:, 1:2] * volume.pixel_spacing[0] * volume.column_direction
    )
    within = np.abs(explanation.cells(places) - strongest)
    # Planes stand for half the way to their neighbours: of thick ones, none needs to have its middle in the cell.
    reach = 0.5 + np.maximum(0.0, volume.weights_mm[index[:, 0]] / explanation.spacing_mm[0] - 1.0) / 2
    return bool(((within[:, 0] <= reach) & (within[:, 1] <= 0.5) & (within[:, 2] <= 0.5)).any())


def correlation(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Pearson's correlation of two maps; 0 when one of them says the same everywhere, or says no number."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()) or one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one.ravel().astype(np.float64), other.ravel().astype(np.float64))[0, 1])


def shuffled(weights: bytes, *, seed: int) -> bytes:
    """Return an ONNX network with the numbers of every weight tensor in another order (extra ``torch``).

    Each layer keeps its distribution of weights and loses what it learned. Integers (shapes, axes) stay.
    """
    import onnx
    from onnx import numpy_helper

    rng = np.random.default_rng(seed)
    model = onnx.load_model_from_string(weights)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size > 1 and np.issubdtype(values.dtype, np.floating):
            mixed = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(mixed), tensor.name))
    return bytes(model.SerializeToString())
