"""Phantom cases on the network's grid, rendered once into a cache outside the repository."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from wetread.core.detector import FrameRef, Volume
from wetread.detection.evaluation.cases import Case, CaseTruth
from wetread.detection.evaluation.localisation import Lesion
from wetread.testing.phantoms import SPLITS, BleedType, HeadSpec, make, to_volume
from wetread.testing.phantoms.series import series_of

HERE = Path(__file__).parent
VISIBLE_HU = 40.0
"""Blood under this, smoothed and in a head whose brain measures 32 HU, looks like brain."""
DROWNED_HU = 120.0
"""Blood over this is drowned in bone."""
FACTS = ("thickness_mm", "noise_hu", "kernel", "kvp", "tilt_deg")


def load_detector_module() -> ModuleType:
    """Import the detector.py of this folder under a name of its own."""
    name = "wetread_model_ich_detector"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, HERE / "detector.py")
    if found is None or found.loader is None:
        raise ImportError("detector.py is missing")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def case(split: str, seed: int, **options: Any) -> Case:
    """Make the head of a seed with its truth; options are those of `HeadSpec`, bleeds by name."""
    bleeds = options.pop("bleeds", None)
    kinds = None if bleeds is None else tuple(BleedType[name] for name in bleeds)
    phantom = make(seed, HeadSpec(split=split, bleeds=kinds, **options))
    volume, mask = to_volume(phantom)
    truth = CaseTruth(
        phantom.positive,
        (mask > 0).astype(np.uint8),
        tuple(Lesion(b.centre_lps_mm, float(np.cbrt(b.volume_ml * 750 / np.pi))) for b in phantom.bleeds),
        {"intracranial_hemorrhage.volume": phantom.volume_ml} if phantom.positive else {},
    )
    facts: dict[str, str | float | int | bool] = {name: phantom.tags[name] for name in FACTS if name in phantom.tags}
    facts |= {"sex": "FM"[seed % 2], "age": 91 - seed % 60}
    return Case(split, seed, volume, truth, facts, modality="CT", body_part="HEAD")


def good_objects() -> list[bytes]:
    """Return a skull around brain, without anything in it: what the table of bad input breaks. Needs no rendering."""
    axis = (np.arange(128) - 63.5) * 1.6
    radius = np.hypot(axis[None, :] / 70, axis[:, None] / 88)
    slab = np.where(radius < 1, 30.0, np.where(radius < 1.1, 1000.0, -1000.0)).astype(np.float32)
    head = Volume(
        voxels=np.repeat(slab[None], 30, axis=0),
        origins=np.column_stack([np.full((30, 2), axis[0]), 5.0 * np.arange(30)]),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_spacing=(1.6, 1.6),
        weights_mm=np.full(30, 5.0),
        frames=tuple(FrameRef(f"1.2.{k}") for k in range(30)),
    )
    return series_of(head, seed=1, modality="CT", body_part="HEAD")


def slab_labels(volume: Volume, mask: npt.NDArray[np.uint8], slabs: Any, slab_mm: float) -> npt.NDArray[np.uint8]:
    """Type codes on the slabs: blood on at least 40 % of the slab at that pixel."""
    size = slabs.hu.shape[-1]
    half = volume.weights_mm / 2
    heights = slabs.plane_heights_mm
    out = np.zeros(slabs.hu.shape, dtype=np.uint8)
    for index, centre in enumerate(slabs.heights_mm):
        low = np.maximum(heights - half, centre - slab_mm / 2)
        weight = np.clip(np.minimum(heights + half, centre + slab_mm / 2) - low, 0, None)
        if weight.sum() <= 0:
            weight[np.abs(heights - centre).argmin()] = 1.0
        weight /= weight.sum()
        share = np.zeros((6, size, size), dtype=np.float32)
        for plane in np.flatnonzero(weight > 1e-6):
            if not mask[plane].any():
                continue
            rows = np.rint(slabs.row0[plane] + np.arange(size) * slabs.row_step).astype(int)
            columns = np.rint(slabs.column0[plane] + np.arange(size) * slabs.column_step).astype(int)
            image = mask[plane][np.clip(rows, 0, mask.shape[1] - 1)]
            image = image[:, np.clip(columns, 0, mask.shape[2] - 1)]
            for kind in range(1, 6):
                share[kind] += np.float32(weight[plane]) * (image == kind)
        blood = share[1:].sum(axis=0)
        out[index] = np.where(blood >= 0.4, 1 + share[1:].argmax(axis=0), 0)
    return out


def render(seed: int, split: str, tier: str, folder: Path, thickness_mm: float | None = None) -> Path:
    """Render one case into `folder` unless it is there; returns the file.

    `thickness_mm` overrides what the seed draws: 5 mm is what the network sees, at a tenth of the cost of thin slices.
    """
    path = folder / f"{split}-{tier}" / f"{seed:07d}.npz"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    module = load_detector_module()
    # projecting hundreds of thin slices takes minutes: the physics tier is sampled at 5 mm
    slab = 5.0 if tier == "physics" else thickness_mm
    spec = HeadSpec(split=split, tier=tier, thickness_mm=slab, step_mm=slab)  # type: ignore[arg-type]
    phantom = make(seed, spec)
    volume, mask = to_volume(phantom)
    slabs = module.make_slabs(volume)
    labels = slab_labels(volume, mask, slabs, module.SLAB_MM)
    facts = {
        "seed": seed,
        "split": split,
        "tier": tier,
        "bleeds": [[b.type.name, float(b.volume_ml), float(b.mean_hu), b.side] for b in phantom.bleeds],
        "midline_shift_mm": phantom.midline_shift_mm,
        "mask_ml": float((mask > 0).sum(axis=(1, 2)) @ volume.voxel_volumes_ml),
        "head": bool(module.looks_like_head(slabs.hu)),
        "tags": {k: (v if isinstance(v, str | bool) else float(v)) for k, v in phantom.tags.items()},
    }
    part = path.with_suffix(".part.npz")
    np.savez(part, hu=np.rint(slabs.hu).astype(np.int16), labels=labels, facts=json.dumps(facts))
    part.rename(path)
    return path


def in_hu(channel: Any, window: tuple[float, float]) -> Any:
    """Undo a window of the input, for arrays and tensors alike: -1..1 back to HU."""
    low, high = window
    return (channel + 1) * ((high - low) / 2) + low


def shown(smooth_hu: Any, hu: Any) -> Any:
    """Where blood would be seen, for arrays and tensors alike: brighter than brain and not drowned in bone."""
    return (smooth_hu >= VISIBLE_HU) & (hu <= DROWNED_HU)


def visible(hu: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Blood of a head's slabs that a picture can show."""
    module = load_detector_module()
    hu = hu + np.float32(module.BRAIN_HU - module.brain_level(hu, module.brain_depth(hu)))
    seen: npt.NDArray[np.bool_] = (labels > 0) & shown(in_hu(module.smoothed(hu), module.SMOOTH_WINDOW_HU), hu)
    return seen


def read(path: Path) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], dict[str, Any]]:
    """Give HU slabs, labels and facts of a cached case."""
    with np.load(path) as stored:
        return stored["hu"], stored["labels"], json.loads(str(stored["facts"]))


def seeds(split: str, first: int, count: int, stride: int, offset: int) -> Iterator[int]:
    """Seeds first .. first+count of a split; every stride-th for parallel workers."""
    for index in range(first + offset, first + count, stride):
        yield SPLITS[split].start + index


def main() -> None:
    """Render a range: `cases.py CACHE --split s1 --count 200`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--split", default="train", choices=list(SPLITS))
    parser.add_argument("--tier", default="fast", choices=["fast", "physics"])
    parser.add_argument("--thickness", type=float, help="mm of every slice, instead of what the seed draws")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    options = parser.parse_args()
    for seed in seeds(options.split, options.first, options.count, options.stride, options.offset):
        render(seed, options.split, options.tier, options.cache, options.thickness)
        sys.stdout.write(f"{options.split} {seed}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
