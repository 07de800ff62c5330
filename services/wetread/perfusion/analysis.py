"""The whole chain: dynamic series in, maps and stroke out. Arrays only; no file, clock or network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import DynamicVolume, FloatArray
from wetread.perfusion.bolus import tracer_curves
from wetread.perfusion.deconvolution import deconvolve
from wetread.perfusion.grid import Series, reduce
from wetread.perfusion.head import HeadMasks, head_masks
from wetread.perfusion.measures import measure
from wetread.perfusion.motion import register
from wetread.perfusion.stroke import Stroke, find_stroke
from wetread.perfusion.vessels import Vessels, find_vessels

DENSITY_G_PER_ML: Final = 1.04
HAEMATOCRIT_FACTOR: Final = (1 - 0.45) / (1 - 0.25)
"""Tracer is in plasma only: (1 - haematocrit of large vessels) / (1 - that of capillaries), as is usual."""
SMOOTHING_MM: Final = 4.0
"""Full width at half maximum of the filter in plane, within tissue."""
VESSEL_VOLUME: Final = 9.0
"""Blood volume in mL/100 g above which a voxel is a vessel and no tissue."""
MOVED_MM: Final = 0.5
"""With more motion than this, vessels are not sought beside bone."""
LEAST_FLOW: Final = 1.0
LONGEST_S: Final = 30.0
"""Transit times are cut off here: with next to no flow (mL/100 g/min) they have no meaning."""
_SIGMA_PER_WIDTH: Final = 1 / 2.3548

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Perfusion:
    """Maps [plane, row, column] on the working grid, NaN outside tissue, and what they were made with.

    CBF in mL/100 g/min, CBV in mL/100 g, times in seconds. ``moved_mm``: largest displacement that was corrected.
    """

    series: Series
    cbf: Floats
    cbv: Floats
    mtt_s: Floats
    tmax_s: Floats
    tissue: npt.NDArray[np.bool_]
    stroke: Stroke
    vessels: Vessels
    midline: float
    moved_mm: float
    dropped: int


def analyse(volume: DynamicVolume) -> Perfusion:
    """Compute perfusion. Raises NotApplicable (body_part), NotProcessable (motion, no_bolus, truncated_bolus)."""
    series = reduce(volume)
    first = np.asarray(series.images[:2].mean(axis=0), dtype=np.float32)
    masks = head_masks(first, series.pixel_mm, series.modality)
    still = register(series.images, series.pixel_mm, masks.head, masks.inside)
    moved = float(still.displacement_mm[still.used].max())
    sought = _away_from_bone(masks.inside) if moved > MOVED_MM else masks.inside
    bolus = tracer_curves(still.images, sought, series.modality)
    vessels = find_vessels(bolus.curves, sought, series.step_s, series.modality)
    cbf, cbv, tmax, tissue = _maps(bolus.curves, vessels, masks, series)
    midline = _midline(masks.head)
    stroke = find_stroke(cbf, tmax, tissue, midline, series.pixel_mm, series.voxel_ml)
    blank = np.where(tissue, 0.0, np.nan)
    cbf, cbv, tmax = np.maximum(cbf, 0.0), np.maximum(cbv, 0.0), np.maximum(tmax, 0.0)
    mtt = 60.0 * cbv / np.maximum(cbf, LEAST_FLOW)
    return Perfusion(
        series=series,
        cbf=cbf + blank,
        cbv=cbv + blank,
        mtt_s=np.minimum(mtt, LONGEST_S) + blank,
        tmax_s=tmax + blank,
        tissue=tissue,
        stroke=stroke,
        vessels=vessels,
        midline=midline,
        moved_mm=moved,
        dropped=int((~still.used).sum()),
    )


def _maps(
    curves: FloatArray, vessels: Vessels, masks: HeadMasks, series: Series
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Return CBF, CBV and Tmax, and the tissue without vessels."""
    rough = np.asarray(curves.sum(axis=0), dtype=np.float64) / max(float(vessels.input_curve.sum()), 1e-9)
    tissue = masks.tissue & (100.0 * HAEMATOCRIT_FACTOR / DENSITY_G_PER_ML * _local(rough) < VESSEL_VOLUME)
    smooth = _smoothed(curves, tissue, series)
    arterial = vessels.input_curve
    residues = deconvolve(smooth[:, tissue].T.astype(np.float64), arterial, series.step_s)
    found = measure(residues, arterial, series.step_s, tissue, series.pixel_mm)
    factor = HAEMATOCRIT_FACTOR / DENSITY_G_PER_ML
    cbf, cbv, tmax = (np.zeros(tissue.shape) for _ in range(3))
    cbf[tissue] = 6000.0 * factor * found.flow
    cbv[tissue] = 100.0 * factor * found.volume
    tmax[tissue] = found.tmax_s
    return cbf, cbv, tmax, tissue


def _away_from_bone(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Leave out the border: what motion leaves there changes like a vessel."""
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = True
    return np.asarray(ndimage.binary_erosion(inside, flat, iterations=2), dtype=np.bool_)


def _local(values: Floats) -> Floats:
    return np.asarray(ndimage.uniform_filter(values, (1, 3, 3)), dtype=np.float64)


def _smoothed(curves: FloatArray, tissue: npt.NDArray[np.bool_], series: Series) -> FloatArray:
    """Average neighbours in plane, tissue only: vessels and bone do not spill into it."""
    sigma = [SMOOTHING_MM * _SIGMA_PER_WIDTH / size for size in series.pixel_mm]
    weight = ndimage.gaussian_filter(tissue.astype(np.float32), (0, *sigma))
    total = ndimage.gaussian_filter(np.where(tissue[None], curves, np.float32(0)), (0, 0, *sigma), truncate=3.0)
    return np.asarray(total / np.maximum(weight, 1e-6)[None], dtype=np.float32)


def _midline(head: npt.NDArray[np.bool_]) -> float:
    """Return the column about which the head is most symmetric: the middle of its sections."""
    columns = np.arange(head.shape[2])
    return float((head.sum(axis=(0, 1)) * columns).sum() / max(float(head.sum()), 1.0))
