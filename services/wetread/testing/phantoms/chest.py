"""Chest-CT phantoms with known nodules: `make_chest(seed, spec)`; NumPy and SciPy only, a few seconds each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import Volume
from wetread.testing.phantoms import chest_variant as variant
from wetread.testing.phantoms.chest_anatomy import Floats, grow_trees, make_body, render_body
from wetread.testing.phantoms.chest_lesions import NoduleTruth, Occupied, add_confounders, add_nodule, nodule_shape
from wetread.testing.phantoms.chest_parameters import ChestDraw
from wetread.testing.phantoms.chest_scan import Slices, acquire, as_volume, draw_slices
from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.seeds import require_split
from wetread.testing.phantoms.series import series_of

_KERNEL_NAMES: Final = {"smooth": "B20f", "soft": "B30f", "standard": "B45f", "sharp": "B70f"}


@dataclass(frozen=True, slots=True)
class ChestSpec:
    """What to render. ``given``: parameters of the table by name, instead of drawing them.

    coverage_mm: height of the grid. shrink: makes the whole chest smaller, for quick tests; nodules keep their size.
    """

    split: str = "s0"
    coverage_mm: float | None = None
    shrink: float = 1.0
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScannedNodule:
    """A nodule of the scan: its truth, and its centre in LPS mm."""

    truth: NoduleTruth
    centre_lps_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ChestPhantom:
    """A rendered chest. ``mask`` [plane, row, column]: k + 1 where nodule k fills at least half of the voxel."""

    seed: int
    spec: ChestSpec
    volume: Volume
    mask: npt.NDArray[np.uint8]
    nodules: tuple[ScannedNodule, ...]
    tags: Mapping[str, str | float | int | bool]

    @property
    def positive(self) -> bool:
        """Whether there is a nodule."""
        return bool(self.nodules)


def make_chest(seed: int, spec: ChestSpec | None = None) -> ChestPhantom:
    """Render the chest of a seed. Raises PhantomSeedError for another split's seed, PhantomSpecError for a bad spec."""
    spec = spec or ChestSpec()
    require_split(seed, spec.split)
    if not 0.35 <= spec.shrink <= 1.0 or (spec.coverage_mm is not None and spec.coverage_mm < 30):
        raise PhantomSpecError("a chest shrinks to 0.35 at most and covers 30 mm at least")
    rng = np.random.default_rng([seed, 51])
    draw = ChestDraw(rng, spec.split, spec.given)
    other = spec.split == "s5"
    body = (variant.make_body if other else make_body)(rng, draw, spec.coverage_mm, spec.shrink)
    trees = (variant.grow_trees if other else grow_trees)(rng, draw, body, spec.shrink)
    hu = render_body(rng, draw, body, trees)
    taken = Occupied([], [])
    labels = np.zeros(body.shape, dtype=np.uint8)
    truths: list[NoduleTruth] = []
    shape_of = variant.nodule_shape if other else nodule_shape
    for _ in range(int(draw("nodule.count")) if draw.coin("nodule") else 0):
        made = add_nodule(rng, draw, hu, body, trees, taken, shape_of)
        if made is not None:
            truth, where, share = made
            truths.append(truth)
            labels[where][share > 0.5] = len(truths)
    confounders = add_confounders(rng, draw, hu, body, trees, taken)
    slices = draw_slices(draw, body.shape)
    image, mask, noise = acquire(draw, hu, labels, slices, rough=other)
    volume = as_volume(seed, image, slices, body.shape)
    nodules = tuple(
        ScannedNodule(truth, _centre(volume, mask == k + 1, truth, body.shape)) for k, truth in enumerate(truths)
    )
    return ChestPhantom(seed, spec, volume, mask, nodules, _tags(seed, draw, slices, noise, confounders))


def chest_series(phantom: ChestPhantom, **changes: Any) -> list[bytes]:
    """The phantom as PS3.10 CT images in plane order; *changes* override header attributes (None takes one out)."""
    tags = phantom.tags
    attributes = {
        "ConvolutionKernel": _KERNEL_NAMES[str(tags["kernel"])],
        "SliceThickness": f"{float(tags['thickness_mm']):g}",
        "ProtocolName": "Chest low dose",
        "ContrastBolusAgent": "SYNTHETIC" if tags["contrast"] else None,
        "ScanOptions": "HELICAL MODE",
    }
    return series_of(
        phantom.volume,
        seed=phantom.seed,
        body_part="CHEST",
        description="CT CHEST",
        attributes=attributes | changes,
    )


def _centre(volume: Volume, marked: npt.NDArray[np.bool_], truth: NoduleTruth, shape: tuple[int, ...]) -> tuple[
    float, float, float
]:  # fmt: skip
    """The centroid as scanned: breathing moves a nodule; one that fills no voxel keeps the centre of the anatomy."""
    index = np.argwhere(marked)
    if not len(index):
        z, y, x = truth.centre
        return x - (shape[2] - 1) / 2, y - (shape[1] - 1) / 2, z
    plane, row, column = index.mean(axis=0)
    corner = volume.origins[0]
    step = volume.pixel_spacing
    height = float(np.interp(plane, np.arange(len(volume.origins)), volume.origins[:, 2]))
    return float(corner[0] + column * step[1]), float(corner[1] + row * step[0]), height


def _tags(
    seed: int, draw: ChestDraw, slices: Slices, noise: float, confounders: Mapping[str, int]
) -> dict[str, str | float | int | bool]:
    return {
        "sex": "FM"[seed % 2],
        "age": 91 - seed % 60,
        "kernel": slices.kernel,
        "thickness_mm": slices.thickness_mm,
        "pixel_mm": round(slices.pixel_mm, 3),
        "noise_hu": round(noise, 1),
        "scale": round(float(draw.drawn["body.scale"]), 3),
        "contrast": bool(draw.drawn["lung.contrast"]),
        "motion": bool(draw.drawn["motion"]),
        **confounders,
    }


__all__ = ["ChestPhantom", "ChestSpec", "Floats", "ScannedNodule", "chest_series", "make_chest"]
