"""Reads centrelines from VTK polyline files (XML, ASCII) as VMTK and SimVascular write them."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

import numpy as np

from .errors import FfrDocumentInvalid
from .science.polylines import Polyline, tree_of_polylines
from .science.problems import Problem
from .science.tree import FloatArray, RadiusKind, VesselTree
from .science.units import M_PER_MM

_RADIUS_ARRAYS: Final[dict[str, RadiusKind]] = {
    "radius_mm": "area",
    "MaximumInscribedSphereRadius": "inscribed",
    "Radius": "inscribed",
}


def tree_of_vtp(data: bytes) -> VesselTree:
    """Build the vessel tree of a VTP file in mm (LPS); the aorta is cut off, shared starts are merged.

    Raises :class:`FfrDocumentInvalid` (``schema_invalid``) for binary or compressed arrays, a missing
    radius array, and anything that is not PolyData.
    """
    piece = _piece(data)
    points = _numbers(piece, "Points/DataArray", "points").reshape(-1, 3) * M_PER_MM
    radius, kind = _radius(piece)
    if len(radius) != len(points):
        raise _invalid(f"{len(radius)} radii for {len(points)} points")
    connectivity = _numbers(piece, "Lines/DataArray[@Name='connectivity']", "lines").astype(np.int64)
    offsets = _numbers(piece, "Lines/DataArray[@Name='offsets']", "line offsets").astype(np.int64)
    if not len(offsets) or offsets[-1] != len(connectivity) or bool((np.diff(offsets, prepend=0) < 2).any()):
        raise _invalid("the polylines are not consistent")
    if len(connectivity) and not 0 <= int(connectivity.min()) <= int(connectivity.max()) < len(points):
        raise _invalid("a polyline names a point that is not there")
    lines = [Polyline(points[ids], radius[ids]) for ids in np.split(connectivity, offsets[:-1])]
    return tree_of_polylines(lines, kind)


def _invalid(advice: str) -> FfrDocumentInvalid:
    return FfrDocumentInvalid((Problem("schema_invalid", "", f"VTP: {advice}"),))


def _piece(data: bytes) -> ET.Element:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise _invalid("document type declarations are refused")
    try:
        root = ET.fromstring(data)  # noqa: S314 - entities cannot occur: declarations were refused above
    except ET.ParseError as error:
        raise _invalid("not XML") from error
    piece = root.find("PolyData/Piece")
    if root.get("type") != "PolyData" or piece is None:
        raise _invalid("not a PolyData file")
    return piece


def _radius(piece: ET.Element) -> tuple[FloatArray, RadiusKind]:
    for name, kind in _RADIUS_ARRAYS.items():
        path = f"PointData/DataArray[@Name='{name}']"
        if piece.find(path) is not None:
            return _numbers(piece, path, name) * M_PER_MM, kind
    raise _invalid(f"needs a point array named one of {', '.join(_RADIUS_ARRAYS)}")


def _numbers(piece: ET.Element, path: str, what: str) -> FloatArray:
    element = piece.find(path)
    if element is None:
        raise _invalid(f"{what} missing")
    if element.get("format") != "ascii":
        raise _invalid(f"{what}: only ASCII arrays are read; save the file as ASCII")
    try:
        # Writers put child elements behind the numbers: only the text before them counts.
        return np.array((element.text or "").split(), dtype=np.float64)
    except ValueError as error:
        raise _invalid(f"{what}: not numbers") from error
