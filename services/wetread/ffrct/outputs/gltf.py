"""The tree as glTF 2.0 binary: one swept tube per vessel, coloured by FFR. Metres, X left, Y up, Z to the front."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct.imaging.curves import frames

from .colours import colours
from .curves import Curve
from .disclaimer import FFR_DISCLAIMER

SIDES: Final = 12
_FLOAT, _UINT, _UBYTE = 5126, 5125, 5121


def glb(curves: tuple[Curve, ...]) -> bytes:
    """GLB bytes; ``extras.ffr`` of each mesh holds FFR per ring (null where there is none)."""
    blob = bytearray()
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    meshes: list[dict[str, Any]] = []

    def add(data: npt.NDArray[Any], target: int, kind: int, shape: str, **extra: Any) -> int:
        raw = np.ascontiguousarray(data).tobytes()
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(raw), "target": target})
        blob.extend(raw + b"\0" * (-len(raw) % 4))
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": kind, "count": len(data), "type": shape, **extra}
        )
        return len(accessors) - 1

    for curve in curves:
        position, normal = _tube(curve)
        colour = np.repeat(colours(curve.ffr), SIDES, axis=0)
        rgba = np.concatenate([colour, np.full((len(colour), 1), 255, dtype=np.uint8)], axis=1)
        attributes = {
            "POSITION": add(
                position, 34962, _FLOAT, "VEC3", min=position.min(axis=0).tolist(), max=position.max(axis=0).tolist()
            ),
            "NORMAL": add(normal, 34962, _FLOAT, "VEC3"),
            "COLOR_0": add(rgba, 34962, _UBYTE, "VEC4", normalized=True),
        }
        indices = add(_faces(len(curve.points)), 34963, _UINT, "SCALAR")
        meshes.append(
            {
                "name": curve.label,
                "primitives": [{"attributes": attributes, "indices": indices, "material": 0}],
                "extras": {"ffr": [None if v != v else round(v, 4) for v in curve.ffr.tolist()]},  # noqa: PLR0124 - NaN
            }
        )
    document = {
        "asset": {"version": "2.0", "generator": "wetread", "copyright": f"{RUO_STATEMENT} {FFR_DISCLAIMER}"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [{"mesh": number, "name": mesh["name"]} for number, mesh in enumerate(meshes)],
        "meshes": meshes,
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}, "doubleSided": True}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(blob)
    head = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(blob), b"BIN\0") + bytes(blob)


def _tube(curve: Curve) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    _, first, second = frames(curve.points)
    angle = 2.0 * np.pi * np.arange(SIDES) / SIDES
    out = np.cos(angle)[None, :, None] * first[:, None, :] + np.sin(angle)[None, :, None] * second[:, None, :]
    points = curve.points[:, None, :] + curve.radius[:, None, None] * out
    return _axes(points.reshape(-1, 3)) / np.float32(1000.0), _axes(out.reshape(-1, 3))


def _axes(lps: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return np.stack([lps[:, 0], lps[:, 2], -lps[:, 1]], axis=1).astype(np.float32)


def _faces(rings: int) -> npt.NDArray[np.uint32]:
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(SIDES), indexing="ij")
    following = (side + 1) % SIDES
    a, b = ring * SIDES + side, ring * SIDES + following
    faces = np.stack([a, b, a + SIDES, b, b + SIDES, a + SIDES], axis=-1)
    return faces.reshape(-1).astype(np.uint32)
