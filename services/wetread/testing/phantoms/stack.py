"""The slice stack of one scan: where slices lie, how thick they are, what went wrong in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.spec import FloatArray, HeadSpec


@dataclass(frozen=True, slots=True)
class Stack:
    """Geometry of a scan in patient space (LPS mm).

    heights: table positions of the slices. planes: evenly spaced heights at which tissue is
    rendered; slices are box averages of planes. pose: 3x3 head -> patient rotation. centre:
    head origin in patient space.
    """

    heights: NDArray[np.float64]
    planes: NDArray[np.float64]
    thickness_mm: float
    tilt_deg: float
    pixel_mm: float
    render_mm: float
    size: int
    render_size: int
    pose: NDArray[np.float64]
    centre: NDArray[np.float64]
    irregular: bool

    @property
    def column(self) -> NDArray[np.float64]:
        """Direction of increasing row index (a tilted gantry tips it out of the axial plane)."""
        angle = np.radians(self.tilt_deg)
        return np.array([0.0, np.cos(angle), np.sin(angle)])

    def corner(self, height: float, pixel_mm: float, size: int) -> NDArray[np.float64]:
        """Centre of the first pixel of a slice at `height`."""
        half = (size - 1) / 2 * pixel_mm
        out: NDArray[np.float64] = np.array([0.0, 0.0, height]) - half * np.array([1.0, 0.0, 0.0]) - half * self.column
        return out

    def weights(self) -> FloatArray:
        """[slices, planes] box-average weights of the slab of each slice."""
        step = self.planes[1] - self.planes[0]
        half = max(self.thickness_mm, step) / 2
        distance = np.abs(self.heights[:, None] - self.planes[None, :])
        weight = np.clip((half - distance) / step + 0.5, 0.0, 1.0)
        weight /= weight.sum(axis=1, keepdims=True)
        out: FloatArray = weight.astype(np.float32)
        return out


def draw_stack(draw: Draw, spec: HeadSpec) -> Stack:
    """Draw the geometry of one scan within what `spec` fixes."""
    rng = draw.rng
    thickness = spec.thickness_mm or float(draw("scan.thickness_mm"))
    step = spec.step_mm or thickness * (1.0 if rng.random() < 0.8 else float(rng.uniform(0.8, 1.3)))
    bottom, top = draw.num("scan.bottom_mm"), draw.num("scan.top_mm")
    if spec.coverage_mm is not None:
        bottom = top - spec.coverage_mm
    tilted = draw.coin("scan.tilt")
    tilt = draw.num("scan.tilt_deg") if tilted else 0.0
    if spec.tilt_deg is not None:
        tilt = spec.tilt_deg
    if not -30.0 <= tilt <= 30.0:
        raise PhantomSpecError(f"gantry tilt {tilt} deg is outside -30..30")
    if not 0.3 <= step <= 15.0:
        raise PhantomSpecError(f"slice distance {step} mm is outside 0.3..15")
    heights = np.arange(bottom, top, step)
    irregular = draw.coin("stack.irregular") and not spec.regular
    if irregular:
        switch = int(len(heights) * rng.uniform(0.3, 0.6))
        other = step * float(rng.uniform(1.2, 1.9))
        upper = np.arange(heights[switch] + other, top, other)
        heights = np.concatenate([heights[: switch + 1], upper])
        heights = heights + rng.uniform(-0.1, 0.1, heights.size) * step
        heights.sort()
    if not spec.regular and draw.coin("stack.hole") and heights.size > 16 and step <= 6:
        heights = np.delete(heights, int(rng.integers(4, heights.size - 4)))
    if not spec.regular and draw.coin("stack.double"):
        twin = int(rng.integers(2, heights.size - 2))
        heights = np.insert(heights, twin, heights[twin])
    angles = [np.radians(draw.num(f"pose.{name}_deg")) for name in ("pitch", "roll", "yaw")]
    cos, sin = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    about_y = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    field_mm = draw.num("scan.field_mm")
    centre = np.array([draw.num("pose.offset_mm") * 0.5, draw.num("pose.offset_mm") * 0.5, 0.0])
    # tissue is rendered coarser than it is shown: the scanner's blur hides the difference
    render_size = 208 if spec.matrix == 256 else 256
    spacing = float(np.clip(thickness / 3, 1.1, 1.8))
    planes = np.arange(heights[0] - thickness / 2 - spacing, heights[-1] + thickness / 2 + spacing, spacing)
    return Stack(
        heights=heights,
        planes=planes,
        thickness_mm=thickness,
        tilt_deg=tilt,
        pixel_mm=field_mm / spec.matrix,
        render_mm=field_mm / render_size,
        size=spec.matrix,
        render_size=render_size,
        pose=about_z @ about_y @ about_x,
        centre=centre,
        irregular=irregular,
    )
