"""Arrays of a result as artifacts: ``.npz`` files, byte-identical for the same arrays.

The label mask is one array ``mask``; the parameter maps of a run are one file with an array per quantity; the map of
where a score came from is ``values`` with its ``grid`` (``core.findings.StoredExplanation``).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from wetread.core.detector import Array, Explanation, LabelArray, ParameterMap
from wetread.core.errors import CorruptRecord

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def mask_key(result_key: str) -> str:
    """Return the artifact key of a run's mask."""
    return f"mask/{result_key}.npz"


def maps_key(result_key: str) -> str:
    """Return the artifact key of a run's parameter maps."""
    return f"maps/{result_key}.npz"


def explanation_key(result_key: str) -> str:
    """Return the artifact key of where a run's score came from."""
    return f"explanation/{result_key}.npz"


def mask_bytes(mask: LabelArray) -> bytes:
    """Return the artifact of *mask* [plane, row, column]."""
    return _archive({"mask": mask})


def maps_bytes(maps: Sequence[ParameterMap]) -> bytes:
    """Return the artifact of *maps*, each [plane, row, column] under its name."""
    return _archive({item.name: item.values for item in maps})


def explanation_bytes(explanation: Explanation) -> bytes:
    """Return the artifact of *explanation*."""
    grid = [explanation.origin_mm, explanation.row_direction, explanation.column_direction, explanation.spacing_mm]
    return _archive({"values": explanation.values, "grid": np.asarray(grid, dtype=np.float64)})


def _archive(arrays: Mapping[str, Array]) -> bytes:
    """Write without NumPy's ``savez``: fixed time, and the fastest compression, which is enough for label maps."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry._compresslevel = 1  # type: ignore[attr-defined]  # noqa: SLF001 - public only from Python 3.13 on
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_mask(data: bytes) -> LabelArray:
    """Return the mask of an artifact. Raises CorruptRecord."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            mask: LabelArray = archive["mask"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise CorruptRecord("a stored mask cannot be read") from error
    return mask
