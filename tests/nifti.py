"""Reads the NIfTI-1 files of the shared data: single file, gzip, placed by the qform."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from wetread.core.detector import FrameRef, Volume

_TYPES = {2: np.uint8, 4: np.int16, 16: np.float32, 512: np.uint16}


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return [x, y, z] values and the qform affine (index -> RAS mm)."""
    data = gzip.decompress(path.read_bytes())
    size, kind = struct.unpack("<8h", data[40:56]), struct.unpack("<h", data[70:72])[0]
    step, start = struct.unpack("<8f", data[76:108]), int(struct.unpack("<f", data[108:112])[0])
    b, c, d, *shift = struct.unpack("<6f", data[256:280])
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * (step[1], step[2], step[3] * (step[0] or 1.0))
    affine[:3, 3] = shift
    count = int(np.prod(size[1:4]))
    return np.frombuffer(data, _TYPES[kind], count, start).reshape(size[1:4], order="F"), affine


def as_volume(values: np.ndarray, affine: np.ndarray) -> Volume:
    """Return [x, y, z] with its RAS affine as planes of the third axis."""
    lps = affine.copy()
    lps[:2] *= -1
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    if np.dot(np.cross(lps[:3, 0], lps[:3, 1]), lps[:3, 2]) < 0:  # planes along their normal
        lps[:3, 3] += lps[:3, 2] * (values.shape[2] - 1)
        lps[:3, 2] *= -1
        values = values[:, :, ::-1]
    count = values.shape[2]
    return Volume(
        voxels=np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32),
        origins=lps[:3, 3] + np.arange(count)[:, None] * lps[:3, 2],
        row_direction=lps[:3, 0] / steps[0],
        column_direction=lps[:3, 1] / steps[1],
        pixel_spacing=(float(steps[1]), float(steps[0])),
        weights_mm=np.full(count, steps[2]),
        frames=tuple(FrameRef(f"2.25.7{k}") for k in range(count)),
    )
