"""Perfusion phantoms: a head imaged again and again while a bolus passes, with flow, volume and delay known per voxel.

NumPy and SciPy only; about half a second for 8 planes of 128 x 128. CT in HU, MR as signal of a gradient-echo
sequence. ``wetread.testing.phantoms.perfusion_dicom`` writes one as a DICOM series.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.core.detector import DynamicVolume, FrameRef
from wetread.testing.phantoms import tracer
from wetread.testing.phantoms.perfusion_head import AIR, FLUID, GREY, SCALP, SKULL, WHITE, Head, build_head
from wetread.testing.phantoms.perfusion_parameters import PerfusionSpec, draw_perfusion

_HU: Final = {AIR: -1000.0, SCALP: 45.0, SKULL: 900.0, FLUID: 8.0, GREY: 37.0, WHITE: 29.0}
_SIGNAL: Final = {AIR: 0.0, SCALP: 700.0, SKULL: 60.0, FLUID: 900.0, GREY: 600.0, WHITE: 500.0}
_BLOOD_HU: Final = 45.0
_MR_RATE: Final = 1.0 / 110.0
"""-ln(S/S0) per unit of the arterial curve: a CT peak of 320 HU becomes a drop of 95 %."""
_BINS: Final = 16
"""Healthy delays are rendered in this many steps."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PerfusionTruth:
    """What is true at every voxel, [plane, row, column]; NaN outside brain tissue.

    ``tmax_s``: delay behind the arteries at the base, and the time that dispersion adds until the residue is highest.
    ``core`` and ``hypoperfused``: by the thresholds that the literature uses, on the true values.
    """

    cbf: Floats
    cbv: Floats
    mtt_s: Floats
    tmax_s: Floats
    hypoperfused: NDArray[np.bool_]
    core: NDArray[np.bool_]
    vessels: NDArray[np.bool_]
    voxel_ml: float

    @property
    def core_ml(self) -> float:
        """Volume of the core."""
        return float(self.core.sum()) * self.voxel_ml

    @property
    def hypoperfused_ml(self) -> float:
        """Volume of tissue with Tmax above 6 s, the core included."""
        return float(self.hypoperfused.sum()) * self.voxel_ml


@dataclass(frozen=True, slots=True)
class PerfusionPhantom:
    """A finished phantom: its images [time, plane, row, column], the seconds of each, and the truth."""

    spec: PerfusionSpec
    images: NDArray[np.float32]
    times_s: Floats
    truth: PerfusionTruth
    arterial: Floats
    """Undiluted arterial curve at the times of the first plane."""

    def to_volume(self) -> DynamicVolume:
        """Return the phantom as a detector gets it, without a detour over DICOM."""
        spec = self.spec
        pixel = spec.field_mm / spec.matrix
        corner = -(spec.matrix - 1) / 2 * pixel
        heights = np.arange(spec.planes) * spec.step_mm
        return DynamicVolume(
            voxels=self.images[0],
            origins=np.stack([np.full(spec.planes, corner), np.full(spec.planes, corner), heights], axis=1),
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, 1.0, 0.0]),
            pixel_spacing=(pixel, pixel),
            weights_mm=np.full(spec.planes, spec.step_mm),
            frames=tuple(FrameRef(f"2.25.{spec.seed + 1}{plane + 1:05d}") for plane in range(spec.planes)),
            dynamic=self.images,
            times_s=self.times_s,
            modality=spec.modality,
        )


def perfusion_phantom(seed: int, *, split: str = "s0", **overrides: Any) -> PerfusionPhantom:
    """Make one phantom of a split. Raises PhantomSpecError and PhantomSeedError."""
    return render_perfusion(draw_perfusion(seed, split=split, **overrides))


def render_perfusion(spec: PerfusionSpec) -> PerfusionPhantom:
    """Render *spec*: the same spec gives the same images."""
    head = build_head(spec)
    end = spec.duration_s if spec.cut_after_s is None else min(spec.duration_s, spec.cut_after_s)
    times = _times(spec, end)
    grid = tracer.time_grid(spec.duration_s + spec.start_late_s + 2.0)
    arterial = tracer.bolus(
        grid,
        arrival_s=spec.arrival_s,
        alpha=spec.alpha,
        beta_s=spec.beta_s,
        peak=spec.peak if spec.bolus else 0.0,
        recirculation=spec.recirculation,
    )
    flow, volume, delay = _flow_maps(spec, head)
    enhancement = _enhancement(spec, head, arterial, grid, times + spec.start_late_s, (flow, volume, delay))
    images = _with_noise(spec, _moved(spec, _values(spec, head, enhancement)))
    truth = _truth(spec, head, flow, volume, delay)
    return PerfusionPhantom(spec, images, times, truth, np.interp(times[:, 0] + spec.start_late_s, grid, arterial))


def _times(spec: PerfusionSpec, end_s: float) -> Floats:
    starts = np.arange(0.0, end_s, spec.interval_s)
    if spec.lost_points:
        middle = len(starts) // 2
        starts = np.delete(starts, slice(middle, middle + spec.lost_points))
    within = np.arange(spec.planes) / spec.planes * spec.interval_s if spec.shuttle else np.zeros(spec.planes)
    return np.asarray(starts[:, None] + within[None], dtype=np.float64)


def _flow_maps(spec: PerfusionSpec, head: Head) -> tuple[Floats, Floats, Floats]:
    """Return CBF, CBV and delay of every voxel; zero flow outside tissue."""
    flow, volume = np.zeros(head.tissue.shape), np.zeros(head.tissue.shape)
    for kind, (cbf, cbv) in ((GREY, spec.grey), (WHITE, spec.white)):
        flow[head.tissue == kind], volume[head.tissue == kind] = cbf, cbv
    flow, volume = flow * head.scale, volume * head.scale
    delay = np.round(head.delay * _BINS) / _BINS * spec.delay_s
    for label, of_flow, of_volume in ((1, spec.penumbra_flow, 1.0), (2, spec.core_flow, spec.core_volume)):
        inside = head.lesion == label
        flow[inside] *= of_flow
        volume[inside] *= of_volume
        delay[inside] = spec.lesion_delay_s + 0.5 * (label - 1)
    return flow, volume, delay


def _enhancement(
    spec: PerfusionSpec, head: Head, arterial: Floats, grid: Floats, times: Floats, maps: tuple[Floats, Floats, Floats]
) -> Floats:
    """Return the enhancement [time, plane, row, column]: tissue, then vessels over it."""
    flow, volume, delay = maps
    shape = (len(times), *head.tissue.shape)
    out = np.zeros(shape)
    for members, mtt in _groups(head, flow, volume):
        smear = spec.lesion_dispersion_s if head.lesion[members].any() else 0.0
        curve = tracer.tissue(tracer.dispersed(arterial, smear), tracer.residue(grid, spec.residue, mtt), 1.0)
        for late in np.unique(delay[members]):
            for plane in range(spec.planes):
                chosen = members[plane] & (delay[plane] == late)
                if chosen.any():
                    sampled = np.interp(times[:, plane] - late, grid, curve, left=0.0)
                    out[:, plane, chosen] = sampled[:, None] * flow[plane, chosen][None]
    vein = tracer.dispersed(tracer.delayed(arterial, spec.vein_delay_s), 2.5)
    vein *= arterial.sum() / max(vein.sum(), 1e-12) if spec.bolus else 1.0
    vessels = [(a, tracer.delayed(arterial, d)) for a, d in zip(head.arteries, head.artery_delay_s, strict=True)]
    for filled, curve in (*vessels, (head.vein, vein)):
        for plane in range(spec.planes):
            share = filled[plane]
            at = share > 0
            sampled = np.interp(times[:, plane], grid, curve)
            out[:, plane, at] = out[:, plane, at] * (1 - share[at]) + sampled[:, None] * share[at]
    return out


def _groups(head: Head, flow: Floats, volume: Floats) -> list[tuple[NDArray[np.bool_], float]]:
    """Return voxels that share a mean transit time, and that time."""
    found = []
    for kind in (GREY, WHITE):
        for label in range(3):
            members = (head.tissue == kind) & (head.lesion == label)
            if members.any():
                found.append((members, 60.0 * float(np.median(volume[members] / flow[members]))))
    return found


def _values(spec: PerfusionSpec, head: Head, enhancement: Floats) -> Floats:
    table = _HU if spec.modality == "CT" else _SIGNAL
    base = np.vectorize(table.__getitem__, otypes=[np.float64])(head.tissue)
    if spec.modality == "CT":
        for filled in (*head.arteries, head.vein):
            base = base * (1 - filled) + _BLOOD_HU * filled
        return np.asarray(base[None] + enhancement, dtype=np.float64)
    return np.asarray(base[None] * np.exp(-enhancement * _MR_RATE), dtype=np.float64)


def _moved(spec: PerfusionSpec, images: Floats) -> Floats:
    """Shift and turn the head in plane: slowly there and back (``motion_mm``), or once for good (``jump_mm``)."""
    if spec.motion_mm == 0.0 and spec.jump_mm == 0.0:
        return images
    rng = np.random.default_rng([spec.seed, 85])
    heading, pixel = rng.uniform(0, 2 * np.pi), spec.field_mm / spec.matrix
    out = np.empty_like(images)
    centre = (spec.matrix - 1) / 2
    for index, stack in enumerate(images):
        progress = index / max(len(images) - 1, 1)
        amount = spec.motion_mm * max(0.0, np.sin(2 * np.pi * (progress - 0.25))) + spec.jump_mm * (index % 2)
        turn = np.deg2rad(amount * 0.6)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        shift = np.array([np.sin(heading), np.cos(heading)]) * amount / pixel
        offset = np.full(2, centre) - matrix @ (np.full(2, centre) + shift)
        for plane, image in enumerate(stack):
            out[index, plane] = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
    return out


def _with_noise(spec: PerfusionSpec, images: Floats) -> NDArray[np.float32]:
    """Add noise of the given standard deviation that is slightly smooth in plane (a soft kernel's)."""
    rng = np.random.default_rng([spec.seed, 86])
    white = rng.standard_normal(images.shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, (0, 0, 0.5, 0.5), truncate=2.0)
    smooth *= spec.noise / max(float(smooth.std()), 1e-9)
    if spec.modality == "CT":
        return np.asarray(images + smooth, dtype=np.float32)
    other = rng.standard_normal(images.shape, dtype=np.float32) * np.float32(spec.noise)
    return np.asarray(np.hypot(images + smooth, other), dtype=np.float32)


def _truth(spec: PerfusionSpec, head: Head, flow: Floats, volume: Floats, delay: Floats) -> PerfusionTruth:
    inside = flow > 0
    vessels = (sum(head.arteries) + head.vein) > 0
    inside = inside & ~vessels
    cbf, cbv = np.where(inside, flow, np.nan), np.where(inside, volume, np.nan)
    mtt = 60.0 * cbv / cbf
    tmax = np.where(inside, delay, np.nan)
    if spec.lesion_dispersion_s > 0:
        grid = tracer.time_grid(40.0)
        for members, transit in _groups(head, flow, volume):
            if head.lesion[members].any():
                smeared = tracer.dispersed(tracer.residue(grid, spec.residue, transit), spec.lesion_dispersion_s)
                tmax[members & inside] += grid[int(smeared.argmax())]
    reference = np.where(head.tissue == GREY, spec.grey[0], spec.white[0]) * head.scale
    hypoperfused = inside & (np.nan_to_num(tmax) > 6.0)
    core = hypoperfused & (flow < 0.3 * reference)
    pixel = spec.field_mm / spec.matrix
    return PerfusionTruth(
        cbf, cbv, mtt, tmax, hypoperfused, core, np.asarray(vessels), pixel * pixel * spec.step_mm / 1000.0
    )


def without_noise(spec: PerfusionSpec) -> PerfusionSpec:
    """Return the same head without noise, for closed-form checks."""
    return replace(spec, noise=0.0)
