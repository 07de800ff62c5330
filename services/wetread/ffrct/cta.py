"""A CT angiogram answered: tree, result, findings, label mask and pictures. No file, clock or network in here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from wetread.core.detector import Attachment, LabelArray, Measure, Observation, Volume
from wetread.core.errors import ComputationFailed, NotApplicable, NotProcessable

from .angiogram import tree_document
from .api_models import TreeDocument
from .documents import canonical_seed, case_of
from .emulator_file import shipped_emulator
from .imaging.chain import Extraction, extract
from .imaging.image import CtImage
from .imaging.quality import Refusal
from .outputs.curved_mpr import curved_mpr
from .outputs.curves import Curve, curves_of, from_ostium
from .outputs.gltf import glb
from .outputs.result_json import result_document
from .outputs.tree_png import tree_png
from .outputs.vtp import vtp_text
from .parsing import validate
from .physiology_file import shipped_physiology
from .science.engine import Solution, solve
from .series import image_of

MAIN: Final = ("LM", "LAD", "LCx", "RCA")
SIDE_LABEL: Final = 5
CALCIUM_LABEL: Final = 6
CALCIUM_OVER_LUMEN_HU: Final = 150.0
METHOD: Final = "ffr_method"
NOT_APPLICABLE: Final = frozenset({"not_ct", "not_cardiac"})
OUR_FAULT: Final = frozenset({"solver_diverged", "tier_unavailable"})
CONCEPTS: Final = {"LM": "left_main_artery", "LAD": "lad_artery", "LCx": "lcx_artery", "RCA": "right_coronary_artery"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything about one angiogram: documents ``tree`` and ``result``, what was extracted, and the chain's image."""

    image: CtImage
    extraction: Extraction
    tree: dict[str, Any]
    solution: Solution
    result: dict[str, Any]


def refuse(refusal: Refusal) -> NotApplicable | NotProcessable | ComputationFailed:
    """The error of a refusal: another kind of study, our own failure, or an image that cannot be used."""
    if refusal.code in NOT_APPLICABLE:
        return NotApplicable(refusal.code, refusal.advice)
    if refusal.code in OUR_FAULT:
        return ComputationFailed(refusal.code, refusal.advice)
    return NotProcessable(refusal.code, refusal.advice)


def answer(volume: Volume, request: dict[str, Any]) -> Answer:
    """Run the chain and solve; *request* holds ``patient``, ``bc`` and ``options`` of a tree document.

    Raises NotApplicable, NotProcessable or ComputationFailed with the stable code as reason; FfrDocumentInvalid for a
    request that is none.
    """
    image = image_of(volume)
    if isinstance(image, Refusal):
        raise refuse(image)
    extraction = extract(image)
    if isinstance(extraction, Refusal):
        raise refuse(extraction)
    return solved(image, extraction, request)


def solved(image: CtImage, extraction: Extraction, request: dict[str, Any]) -> Answer:
    """Solve what was extracted from *image*. Raises like ``answer``."""
    document = tree_document(extraction.arteries, **{k: request.get(k) for k in ("patient", "bc", "options")})
    tree = validate(TreeDocument, document)
    physiology, emulator = shipped_physiology(), shipped_emulator()
    seed = canonical_seed(tree.model_dump(mode="json", by_alias=True))
    solution = solve(case_of(tree), physiology, np.random.default_rng(seed), emulator.emulator)
    if isinstance(solution, tuple):
        raise refuse(Refusal(solution[0].code, solution[0].advice))
    result = result_document(solution, physiology, emulator.sha256, 0.0)
    del result["timings_s"]  # an answer is a function of the images alone; the run record holds the seconds
    result["flags"] = [*extraction.flags, *(flag for flag in _image_flags(extraction))]
    return Answer(image, extraction, document, solution, result)


def _image_flags(extraction: Extraction) -> list[str]:
    calcified = any(bool(artery.calcium.any()) for artery in extraction.arteries)
    unsure = any(bool((a.radius_sd_mm > 0.2 * a.radius_mm).mean() > 0.2) for a in extraction.arteries)
    return (["calcified"] if calcified else []) + (["low_confidence"] if unsure else [])


# --- findings ------------------------------------------------------------------------------------------------------


def observations(found: Answer) -> tuple[Observation, ...]:
    """One observation per main artery and one per lesion; never an FFR for a closed vessel."""
    curves = {curve.id: curve for curve in curves_of(found.tree, found.result)}
    by_id = {vessel["id"]: vessel for vessel in found.result["vessels"]}
    out = [_artery(found, curves[v["id"]], v) for v in found.result["vessels"] if v["label"] in MAIN]
    out += [_lesion(found, lesion, curves[lesion["vessel"]], by_id) for lesion in found.result["lesions"]]
    return tuple(out)


def _artery(found: Answer, curve: Curve, vessel: dict[str, Any]) -> Observation:
    known = np.flatnonzero(~np.isnan(curve.ffr))
    measures: tuple[Measure, ...] = ()
    site = f"{curve.label}: {vessel['reason'] or 'end of vessel'}"
    at = known[-1] if len(known) else len(curve.points) // 2
    if len(known):
        measures = _ffr(float(curve.ffr[at]), float(curve.p5[at]), float(curve.p95[at]))
    return Observation(
        code=CONCEPTS[curve.label],
        state="measured",
        measures=measures,
        label=MAIN.index(curve.label) + 1,
        key_plane=_plane(found, curve.points[int(at)]),
        site=site,
    )


def _lesion(found: Answer, lesion: dict[str, Any], curve: Curve, by_id: dict[str, Any]) -> Observation:
    s = np.array(by_id[lesion["vessel"]]["s_mm"])
    point = curve.points[int(np.argmin(np.abs(s - lesion["s_throat_mm"])))]
    measures = [
        Measure("lumen_diameter_stenosis", lesion["diameter_stenosis_pct"], "%"),
        Measure("lumen_area_stenosis", lesion["area_stenosis_pct"], "%"),
        Measure("stenotic_lesion_length", lesion["length_mm"], "mm"),
        Measure("lumen_area", lesion["mla_mm2"], "mm2"),
    ]
    if lesion["ffr_distal_20mm"] is not None:
        low, high = lesion["ffr_p5"], lesion["ffr_p95"]
        measures += _ffr(lesion["ffr_distal_20mm"], low, high)
    where = "occluded" if lesion["reason"] == "occluded" else "FFR 20 mm distal to the lesion"
    return Observation(
        code="coronary_stenosis",
        state="measured",
        measures=tuple(measures),
        label=MAIN.index(curve.label) + 1 if curve.label in MAIN else SIDE_LABEL,
        key_plane=_plane(found, point),
        site=f"{curve.label} at {lesion['s_throat_mm']:.0f} mm: {where}",
    )


def _ffr(value: float, low: float | None, high: float | None) -> tuple[Measure, ...]:
    measures = [Measure("fractional_flow_reserve", value, "1", METHOD)]
    for name, bound in (("ffr_p5", low), ("ffr_p95", high)):
        if bound is not None and np.isfinite(bound):
            measures.append(Measure(name, bound, "1", METHOD))
    return tuple(measures)


def _plane(found: Answer, point: npt.NDArray[np.float64]) -> int:
    plane = round(float(found.image.index_of(point)[0]))
    return int(np.clip(plane, 0, len(found.image.hu) - 1))


# --- mask ----------------------------------------------------------------------------------------------------------


def label_mask(found: Answer) -> LabelArray:
    """Lumen per main artery (1-4), of side branches (5), and calcium (6) on the planes of the scan."""
    image = found.image
    mask = np.zeros(image.hu.shape, dtype=np.uint8)
    limit = found.extraction.blood.hu + CALCIUM_OVER_LUMEN_HU
    lookups = []
    for artery in found.extraction.arteries:
        label = MAIN.index(artery.label) + 1 if artery.label in MAIN else SIDE_LABEL
        lookups.append((label, artery, cKDTree(artery.points_mm)))
    for label, artery, lookup in sorted(lookups, key=lambda item: -item[0]):
        index = image.index_of(artery.points_mm)
        reach = (float(artery.radius_mm.max()) + 1.5) / image.step_mm
        for first in range(0, len(index), 40):  # stretches of 10 mm keep the boxes small
            part = index[first : first + 41]
            low = np.maximum(np.floor(part.min(axis=0) - reach), 0).astype(int)
            high = np.minimum(np.ceil(part.max(axis=0) + reach) + 1, image.hu.shape).astype(int)
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
            distance, nearest = lookup.query(image.points_of(grid.reshape(-1, 3)), workers=1)
            radius = artery.radius_mm[nearest]
            inside = (distance <= radius).reshape(grid.shape[:3])
            hard = ((distance <= radius + 1.5) & artery.calcium[nearest]).reshape(grid.shape[:3])
            region = mask[box]
            region[inside] = label
            region[hard & (image.hu[box] > limit)] = CALCIUM_LABEL
    return mask


def calcium_observation(mask: LabelArray) -> Observation | None:
    """Calcium as a finding of its own when the mask holds some."""
    voxels = mask == CALCIUM_LABEL
    if not voxels.any():
        return None
    return Observation(code="calcification", state="measured", label=CALCIUM_LABEL)


# --- attachments ---------------------------------------------------------------------------------------------------


def attachments(found: Answer) -> tuple[Attachment, ...]:
    """Result and tree as JSON, the coloured tree, GLB, VTP, and a curved picture per main artery (a capture)."""
    curves = curves_of(found.tree, found.result)
    status = found.result["bc"]["status"]
    out = [
        Attachment("ffr.json", "application/json", _json(found.result)),
        Attachment("tree.json", "application/json", _json(found.tree)),
        Attachment("tree.png", "image/png", tree_png(curves, status)),
        Attachment("tree.glb", "model/gltf-binary", glb(curves)),
        Attachment("tree.vtp", "application/xml", vtp_text(found.solution, found.result).encode()),
    ]
    for vessel in found.result["vessels"]:
        if vessel["label"] not in MAIN[1:]:
            continue
        curve = from_ostium(curves, vessel["id"])
        start = float(_length(curve) - vessel["s_mm"][-1])
        marks = [_mark(lesion, start) for lesion in found.result["lesions"] if lesion["vessel"] == vessel["id"]]
        picture = curved_mpr(found.image, curve, marks, status)
        out.append(Attachment(f"mpr-{vessel['id']}.png", "image/png", picture, capture=True))
    return tuple(out)


def _mark(lesion: dict[str, Any], start: float) -> dict[str, Any]:
    value = lesion["ffr_distal_20mm"]
    after = lesion["reason"] if value is None else f"FFR {value:.2f}"
    return {
        "start_mm": start + lesion["s_start_mm"],
        "throat_mm": start + lesion["s_throat_mm"],
        "end_mm": start + lesion["s_end_mm"],
        "text": f"{lesion['diameter_stenosis_pct']:.0f} %, {after}",
    }


def _length(curve: Curve) -> float:
    return float(np.linalg.norm(np.diff(curve.points, axis=0), axis=1).sum())


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
