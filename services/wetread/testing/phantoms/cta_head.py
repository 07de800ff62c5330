"""Head CT angiogram phantoms: skull, brain and arteries with a known occlusion, or none.

NumPy and SciPy only. Vessels are tubes with partial volume; noise is that of a soft kernel. Set s5 comes from another
generator (``cta_second``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.core.detector import FrameRef, Volume
from wetread.testing.phantoms import cta_artefacts, cta_second
from wetread.testing.phantoms.cta_parameters import CtaSpec, draw_cta
from wetread.testing.phantoms.cta_stamp import Grid, stamp
from wetread.testing.phantoms.cta_vessels import VesselTree, build_vessels, skull_radius
from wetread.testing.phantoms.series import series_of

BRAIN_HU: Final = 36.0
BLOOD_HU: Final = 45.0
SKULL_HU: Final = 1000.0
SCALP_HU: Final = 45.0
FLUID_HU: Final = 8.0
CALCIUM_HU: Final = 800.0
MARGIN_MM: Final = 16.0
CONTRAST_AGENT: Final = "Iohexol"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CtaPhantom:
    """A finished phantom: HU [plane, row, column], where its grid lies, and the truth."""

    spec: CtaSpec
    hu: NDArray[np.float32]
    grid: Grid
    tree: VesselTree
    stop_lps_mm: tuple[float, float, float] | None
    """Where the occlusion begins."""

    def to_volume(self) -> Volume:
        """Return the phantom as a detector gets it, without a detour over DICOM."""
        grid, planes = self.grid, len(self.hu)
        origins = np.stack([grid.places(plane, 0, 0) for plane in range(planes)])
        return Volume(
            voxels=self.hu,
            origins=origins,
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, np.cos(grid.tilt), -np.sin(grid.tilt)]),
            pixel_spacing=(self.spec.pixel_mm, self.spec.pixel_mm),
            weights_mm=np.full(planes, self.spec.step_mm * np.cos(grid.tilt)),
            frames=tuple(FrameRef(f"2.25.{self.spec.seed + 1}{plane + 1:05d}") for plane in range(planes)),
            tilt_deg=abs(self.spec.tilt_deg),
        )

    def to_objects(self) -> list[bytes]:
        """Return the phantom as a DICOM series (PS3.10 objects in plane order)."""
        return series_of(
            self.to_volume(),
            seed=self.spec.seed,
            body_part="HEAD",
            description="CTA HEAD 1.0 MM",
            attributes={"ContrastBolusAgent": CONTRAST_AGENT},
        )


def cta_phantom(seed: int, *, split: str = "s0", **overrides: Any) -> CtaPhantom:
    """Make one phantom of a split. Raises PhantomSpecError and PhantomSeedError."""
    return render_cta(draw_cta(seed, split=split, **overrides))


def occlusion_of(spec: CtaSpec) -> tuple[float, float, float] | None:
    """Return where the occlusion of *spec* begins, LPS mm; None without one. Renders nothing."""
    tree = cta_second.build_vessels(spec) if spec.split == "s5" else build_vessels(spec)
    if tree.stop is None:
        return None
    x, y, z = (float(v) for v in head_to_lps(spec, tree.stop))
    return x, y, z


def head_to_lps(spec: CtaSpec, points: Floats) -> Floats:
    """Return points [..., 3] along the head's own axes as LPS mm."""
    return np.asarray(points @ _rotation(spec) + np.array([spec.shift_mm, 0.0, 0.0]), dtype=np.float64)


def without_contrast(spec: CtaSpec) -> CtaSpec:
    """Return the same head before contrast was given."""
    return replace(spec, lumen_hu=BLOOD_HU)


def render_cta(spec: CtaSpec) -> CtaPhantom:
    """Render *spec*: the same spec gives the same image."""
    grid = _grid(spec)
    to_head = _rotation(spec)
    other = spec.split == "s5"
    tree = cta_second.build_vessels(spec) if other else build_vessels(spec)
    hu = cta_second.tissue(spec, grid, to_head) if other else _tissue(spec, grid, to_head)
    cover, enhanced = stamp(tree.branches, grid, to_head, soft_mm=0.35 if other else 0.0)
    hu = hu * (1 - cover) + BLOOD_HU * cover + enhanced * np.float32(spec.lumen_hu - BLOOD_HU)
    if spec.calcium:
        _calcify(hu, tree, grid, to_head, spec)
    sigma = (spec.blur_mm / spec.step_mm, *(2 * [spec.blur_mm / spec.pixel_mm]))
    hu = ndimage.gaussian_filter(hu, sigma, truncate=3.0)
    hu = cta_artefacts.spoil(hu, spec, grid)
    hu += cta_second.noise(spec, hu) if other else _noise(spec, hu.shape)
    kept = len(hu) - round(spec.cut_mm / spec.step_mm)
    stored = np.clip(hu[:kept], -1024.0, 3071.0).astype(np.float32)  # what a scanner can store
    return CtaPhantom(spec, stored, grid, tree, occlusion_of(spec))


def _grid(spec: CtaSpec) -> Grid:
    reach_x, reach_y = spec.half_width_mm + MARGIN_MM, spec.half_length_mm + MARGIN_MM
    lean = np.deg2rad(abs(spec.tilt_deg))
    slack = reach_y * np.sin(lean) * 0.5
    return Grid(
        z=np.arange(-spec.below_mm, spec.height_mm + 14.0 + slack, spec.step_mm),
        y=np.arange(-reach_y, reach_y, spec.pixel_mm),
        x=np.arange(-reach_x, reach_x, spec.pixel_mm) + spec.shift_mm,
        tilt=float(np.deg2rad(spec.tilt_deg)),
        shift=spec.shift_mm,
    )


def _rotation(spec: CtaSpec) -> Floats:
    """Return the matrix from scanner to head axes: a turn about z, a roll about y, a nod about x."""
    turn, roll, nod = np.deg2rad(spec.turn_deg), np.deg2rad(spec.roll_deg), np.deg2rad(spec.nod_deg)
    about_z = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(nod), np.sin(nod)], [0, -np.sin(nod), np.cos(nod)]])
    return np.asarray(about_x @ about_y @ about_z, dtype=np.float64)


def _tissue(spec: CtaSpec, grid: Grid, to_head: Floats) -> NDArray[np.float32]:
    hx, hy, hz = grid.head_axes(to_head)
    radius = skull_radius(np.stack([hx, hy, hz], axis=-1), spec)
    depth = ((1.0 - radius) * spec.half_width_mm).astype(np.float32)
    hu = np.full(depth.shape, -1000.0, np.float32)
    hu[depth > -12.0] = SCALP_HU
    hu[depth > -7.0] = SKULL_HU
    hu[depth > 0.0] = FLUID_HU
    hu[depth > 2.5] = BRAIN_HU
    ventricle = (((np.abs(hx) - 8) / 6) ** 2 + ((hy - 2) / 24) ** 2 + ((hz - 22) / 9) ** 2) < 1.0
    fissure = (np.abs(np.abs(hx) - 36.0 - 0.15 * hz) < 3.0) & (np.abs(hy + 6) < 16) & (hz > -4) & (hz < 26)
    hu[(ventricle | fissure) & (hu == BRAIN_HU)] = FLUID_HU
    if spec.old_infarct:
        sign = 1.0 if spec.other_side == "left" else -1.0
        scar = (((sign * hx - 50) / 14) ** 2 + ((hy + 26) / 20) ** 2 + ((hz - 36) / 18) ** 2) < 1.0
        hu[scar & (hu == BRAIN_HU)] = 14.0
    # Skull base: floor under the frontal lobes with sphenoid air, clinoids beside the siphons, petrous bones.
    floor = (hz < -14.0 - 0.12 * np.minimum(hy, 0)) & (hy < 2.0) & (depth > -7.0)
    petrous = (hz < -10.0) & (np.abs(np.abs(hx) - 36.0 - 0.35 * hy) < 8.0) & (hy > 0) & (hy < 40) & (depth > -7.0)
    clinoid = ((np.abs(hx) - 15.5) ** 2 + (hy + 17.0) ** 2 + (hz + 8.0) ** 2) < 9.0
    hu[floor | petrous | clinoid] = 700.0
    sinus = (np.abs(hx) < 9.0) & (hy < -6.0) & (hy > -26.0) & (hz < -20.0) & (hz > -36.0)
    hu[sinus] = -1000.0
    return hu


def _noise(spec: CtaSpec, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rng = np.random.default_rng([spec.seed, 93])
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, 0.5, 0.5), truncate=2.0)
    return np.asarray(noise * np.float32(spec.noise_hu / max(float(noise.std()), 1e-9)), dtype=np.float32)


def _calcify(hu: NDArray[np.float32], tree: VesselTree, grid: Grid, to_head: Floats, spec: CtaSpec) -> None:
    """Plaques on the walls of both siphons, one to three each."""
    rng = np.random.default_rng([spec.seed, 94])
    for branch in tree.branches:
        if not branch.name.startswith("ICA"):
            continue
        for _ in range(int(rng.integers(1, 4))):
            index = int(rng.integers(len(branch.points) // 3, len(branch.points)))
            place = branch.points[index] + rng.normal(0, 1.0, 3)
            grid.ball(hu, place @ to_head, float(rng.uniform(1.0, 2.0)), CALCIUM_HU)
