"""Writes the tree with its FFR as VTK polylines (XML, ASCII), for ParaView and the like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from wetread.ffrct.science.engine import Solution
from wetread.ffrct.science.tree import FloatArray
from wetread.ffrct.science.units import M_PER_MM

_POINT_ARRAYS = ("ffr", "ffr_low", "ffr_head", "ffr_p5", "ffr_p95", "p_mmhg")


def vtp_text(solution: Solution, result: dict[str, Any]) -> str:
    """VTP of all vessels: points in mm (LPS), radius and the result's arrays per point; NaN where null."""
    vessels = solution.case.tree.vessels
    points = np.concatenate([vessel.points_m for vessel in vessels]) / M_PER_MM
    arrays = {"radius_mm": np.concatenate([vessel.radius_m for vessel in vessels]) / M_PER_MM}
    for name in _POINT_ARRAYS:
        parts = [
            _floats(document[name], len(vessel.points_m))
            for document, vessel in zip(result["vessels"], vessels, strict=True)
        ]
        arrays[name] = np.concatenate(parts)
    offsets = np.cumsum([len(vessel.points_m) for vessel in vessels])
    data = "\n".join(_array(name, values) for name, values in arrays.items())
    return (
        '<?xml version="1.0"?>\n'
        f"<!-- {escape(result['disclaimer'])} -->\n"
        '<VTKFile type="PolyData" version="0.1" byte_order="LittleEndian">\n<PolyData>\n'
        f'<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="{len(vessels)}" '
        'NumberOfStrips="0" NumberOfPolys="0">\n'
        f"<PointData>\n{data}\n</PointData>\n"
        f"<Points>\n{_array('Points', points.ravel(), components=3)}\n</Points>\n"
        f"<Lines>\n{_integers('connectivity', range(len(points)))}\n"
        f"{_integers('offsets', offsets.tolist())}\n</Lines>\n"
        "</Piece>\n</PolyData>\n</VTKFile>\n"
    )


def _floats(values: Sequence[float | None] | None, count: int) -> FloatArray:
    if values is None:
        return np.full(count, np.nan)
    return np.array([np.nan if value is None else value for value in values])


def _array(name: str, values: FloatArray, components: int = 1) -> str:
    body = " ".join(repr(value) for value in values.tolist())
    head = f'<DataArray type="Float64" Name="{name}" NumberOfComponents="{components}" format="ascii">'
    return f"{head}{body}</DataArray>"


def _integers(name: str, values: Sequence[int] | range) -> str:
    body = " ".join(str(value) for value in values)
    return f'<DataArray type="Int64" Name="{name}" format="ascii">{body}</DataArray>'
