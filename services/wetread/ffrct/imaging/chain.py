"""The whole way from a CT angiogram to named, measured arteries; one call, no file, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from .aorta import find_aorta
from .centreline import trace
from .image import Blood, CtImage
from .lumen import Lumen, measure_branches
from .quality import (
    LEAST_AORTA_HU,
    Refusal,
    check_calcium,
    check_contents,
    check_motion,
    edge_width,
    no_ostia,
    scan_blur,
)
from .resample import blood_pool, cubic
from .tree import Artery, name_arteries
from .vesselness import find_candidates


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in a scan: arteries (parents first), contrast in the aorta, flags."""

    arteries: tuple[Artery, ...]
    lumens: tuple[Lumen, ...]
    blood: Blood
    flags: tuple[str, ...]


def extract(image: CtImage) -> Extraction | Refusal:
    """Extract the coronary tree of *image*; a refusal names the first thing that makes it impossible."""
    refusal = check_contents(image)
    if refusal is not None:
        return refusal
    centre = blood_pool(image)
    if centre is None:
        return Refusal("no_contrast", "no contrast-filled chamber or vessel of 15 mL")
    working = cubic(image, centre)
    aorta = find_aorta(working)
    if aorta is None or aorta.blood.hu < LEAST_AORTA_HU:
        return Refusal("no_contrast", "no ascending aorta of 200 HU or more; send the arterial phase")
    width = edge_width(working, aorta)
    refusal = check_motion(image, width)
    if refusal is not None:
        return refusal
    traced = trace(working, aorta, find_candidates(working, aorta))
    if not traced.branches:
        return no_ostia()
    lumens = measure_branches(image, working, traced, aorta.blood, scan_blur(width, image, working))
    arteries = name_arteries(lumens)
    refusal = check_calcium(lumens)
    if refusal is not None:
        return refusal
    flags = () if len(traced.ostia) == 2 else ("ostia_unusual",)
    return Extraction(arteries, lumens, aorta.blood, flags)
