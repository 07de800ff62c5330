"""Which series a detector reads: named, tested rules over header facts, with a typed reason when there is none.

A rule is named in the manifest (``input.select``). Every refusal maps to one reason of the state table
(``docs/detectors.md`` lists them).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wetread.core.detector import Applicability, InputSet
from wetread.core.dicom.kernels import kernel_class
from wetread.core.dicom.repeats import Repeats, repeats_of
from wetread.core.dicom.stacking import DUPLICATE_MM, Stack, StackGeometry, is_projection, stacks
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.core.manifest import BodyPart, InputNeeds, LossyPolicy, SeriesNeeds

_BODY_PARTS: Final = frozenset(
    [
        "ABDOMEN",
        "ANKLE",
        "ARM",
        "BLADDER",
        "BREAST",
        "CALF",
        "CARDIAC",
        "CHEST",
        "CLAVICLE",
        "COLON",
        "CSPINE",
        "ELBOW",
        "EYE",
        "FEMUR",
        "FINGER",
        "FOOT",
        "FOREARM",
        "HAND",
        "HEAD",
        "HEART",
        "HIP",
        "BRAIN",
        "SKULL",
        "JAW",
        "KIDNEY",
        "KNEE",
        "LEG",
        "LIVER",
        "LSPINE",
        "LUNG",
        "LUNGS",
        "MANDIBLE",
        "NECK",
        "ORBIT",
        "PELVIS",
        "PROSTATE",
        "SHOULDER",
        "SINUS",
        "SPINE",
        "TSPINE",
        "THIGH",
        "THORAX",
        "TIBIA",
        "TOE",
        "UTERUS",
        "WRIST",
    ]
)
"""Body parts of PS3.16 annex L as they turn up in descriptions."""


_APICAL: Final = re.compile(r"\bA[24]C\b|\b[24]\s*-?\s*CH|APICAL|\bAP[24]\b", re.IGNORECASE)
"""How series say that they show the heart from its apex, in two or four chambers."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a series is out. ``stage`` orders refusals: the one that came furthest explains best."""

    stage: int
    error: type[NotApplicable | NotProcessable]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    stack: Stack
    series: SeriesFacts
    lacking: str
    enough: bool


def applicable(needs: InputNeeds, study: StudyFacts) -> Applicability:
    """Decide from headers whether any series could be a case: modality, body part, contrast.

    A series that is one but cannot be read (planes too far apart) is applicable: ``select`` says why not.
    """
    refusals = []
    for series in study.series:
        if series.detector_result:
            continue
        refusal = _refuse_series(needs, study, series)
        if refusal is None:
            return Applicability(applicable=True)
        refusals.append(refusal)
    if not refusals:
        return Applicability(applicable=False, reason="no_suitable_series", detail="the study has no images")
    furthest = max(refusals, key=lambda r: r.stage)
    if furthest.error is NotProcessable:
        return Applicability(applicable=True)
    return Applicability(applicable=False, reason=furthest.reason, detail=furthest.detail)


def select(needs: InputNeeds, study: StudyFacts) -> InputSet:
    """Select the input by the manifest's rule.

    Raises NotApplicable (modality, body_part, contrast, no_suitable_series) or NotProcessable (no_geometry,
    mixed_orientation, lossy_not_allowed, slice_spacing where contrast agent rules out more planes); ConfigurationError
    when no rule has that name. What more images may still cure is not an error: the input set is ``incomplete`` and
    ``lacking`` names the reason it would end with.
    """
    try:
        rule = RULES[needs.select]
    except KeyError:
        msg = f"no selection rule is called {needs.select!r}"
        raise ConfigurationError(msg) from None
    return rule(needs, study)


def thinnest_soft(needs: InputNeeds, study: StudyFacts) -> InputSet:
    """Select the thinnest stack of a preferred kernel with enough coverage; ties by series UID.

    In this order: a stack that can be run, a preferred kernel (then an unknown, then a sharp one), an original
    acquisition before a reformat, no holes, the smaller step. Localizers, renderings and our own results are out.
    """
    candidates: list[_Candidate] = []
    refusals: list[_Refusal] = []
    for series in study.series:
        if series.detector_result:
            continue
        refusal = _refuse_series(needs, study, series)
        outcome = _best_stack(needs, series) if refusal is None else refusal
        if isinstance(outcome, _Candidate):
            candidates.append(outcome)
        else:
            refusals.append(outcome)
    if not candidates:
        if not refusals:
            raise NotApplicable("no_suitable_series", "the study has no images")
        furthest = max(refusals, key=lambda r: r.stage)
        raise furthest.error(furthest.reason, furthest.detail)
    best = min(candidates, key=lambda c: _rank(needs, c))
    return _input_set(best, len(candidates))


def longest_dynamic(needs: InputNeeds, study: StudyFacts) -> InputSet:
    """Select the series that images its planes most often, all of its images; ties by planes, then by series UID.

    How much time lies between the images is seen when they are opened (``dynamic.assemble_dynamic``).
    """
    least = needs.time.min_points if needs.time else 2
    found: list[tuple[Repeats, SeriesFacts]] = []
    refusals: list[_Refusal] = []
    for series in study.series:
        if series.detector_result:
            continue
        refusal = _refuse_series(needs, study, series)
        outcome = _repeats(needs, series) if refusal is None else refusal
        if isinstance(outcome, Repeats):
            found.append((outcome, series))
        else:
            refusals.append(outcome)
    if not found:
        if not refusals:
            raise NotApplicable("no_suitable_series", "the study has no images")
        furthest = max(refusals, key=lambda r: r.stage)
        raise furthest.error(furthest.reason, furthest.detail)
    best, series = min(found, key=lambda f: (-f[0].most, -f[0].planes, f[1].series_instance_uid))
    lacking = "too_few_time_points" if best.most < least else "" if best.even else "missing_time_points"
    return InputSet(
        series.series_instance_uid,
        best.sop_instance_uids,
        "enough" if not lacking and best.numbers_closed else "incomplete",
        f"{best.planes} planes imaged {best.most} times, best of {len(found)}",
        lacking,
    )


def named_or_longest_cine(needs: InputNeeds, study: StudyFacts) -> InputSet:
    """Select one clip: of a series whose name says apical view, then the one with most frames; ties by UID.

    Headers rarely name the view of a clip; whether it is the wanted one is seen when it is opened. Raises
    NotApplicable, also with ``still_images`` when there is no multi-frame object.
    """
    least = needs.cine.min_frames if needs.cine else 2
    found: list[tuple[bool, int, str, str]] = []
    refusals: list[_Refusal] = []
    for series in study.series:
        if series.detector_result:
            continue
        refusal = _refuse_series(needs, study, series)
        if refusal is not None:
            refusals.append(refusal)
            continue
        clips = [i for i in series.instances if i.number_of_frames >= 2]
        if not clips:
            refusals.append(_Refusal(4, NotApplicable, "still_images", "no clip, only single images"))
        allowed = [i for i in clips if not refuses_lossy(needs.lossy, lossy=i.lossy, ratio=i.lossy_ratio)]
        if clips and not allowed:
            refusals.append(_Refusal(8, NotProcessable, "lossy_not_allowed", "compressed beyond what is accepted"))
        named = bool(_APICAL.search(f"{series.description} {series.protocol}"))
        uid = series.series_instance_uid
        found += [(named, i.number_of_frames, uid, i.sop_instance_uid) for i in allowed]
    if not found:
        if not refusals:
            raise NotApplicable("no_suitable_series", "the study has no images")
        furthest = max(refusals, key=lambda r: r.stage)
        raise furthest.error(furthest.reason, furthest.detail)
    named, frames, series_uid, sop_uid = min(found, key=lambda f: (not f[0], -f[1], f[2], f[3]))
    return InputSet(
        series_uid,
        (sop_uid,),
        "enough",
        f"clip of {frames} frames, {'its series says apical view' if named else 'the longest'}, of {len(found)}",
        "" if frames >= least else "too_few_frames",
    )


def _repeats(needs: InputNeeds, series: SeriesFacts) -> Repeats | _Refusal:
    outcome = _best_stack(needs, series)
    if isinstance(outcome, _Refusal):
        return outcome
    repeats = repeats_of(series, outcome.stack)
    if repeats.most < 2:
        return _Refusal(9, NotApplicable, "no_suitable_series", "no series images its planes more than once")
    return repeats


RULES: Final[dict[str, Callable[[InputNeeds, StudyFacts], InputSet]]] = {
    "thinnest_soft": thinnest_soft,
    "longest_dynamic": longest_dynamic,
    "named_or_longest_cine": named_or_longest_cine,
}
"""Selection rules by the name that a manifest uses."""


def shortfall(geometry: StackGeometry, needs: SeriesNeeds) -> tuple[str, str] | None:
    """Return (reason, detail) of what a stack lacks, or None. The same check before and after assembly."""
    planes, largest, median = len(geometry.order), geometry.largest_step_mm, geometry.median_step_mm
    limit = math.inf if needs.max_step_mm is None else needs.max_step_mm
    ratio = math.inf if needs.max_step_ratio is None else needs.max_step_ratio
    coverage, tilt = geometry.coverage_mm, geometry.tilt_deg
    checks = (
        # First, for it also says why planes are few: a thick stack covers the same head with fewer of them.
        (median > limit + DUPLICATE_MM, "slice_spacing", f"planes {median:.2f} mm apart, at most {limit:g} mm allowed"),
        (planes < needs.min_slices, "missing_slices", f"{planes} planes of at least {needs.min_slices}"),
        (largest > limit + DUPLICATE_MM, "missing_slices", f"a hole of {largest:.2f} mm, at most {limit:g} mm allowed"),
        (
            planes > 1 and largest > ratio * median + DUPLICATE_MM,
            "missing_slices",
            f"a hole of {largest:.2f} mm where planes are {median:.2f} mm apart",
        ),
        (
            needs.coverage_mm is not None and coverage < needs.coverage_mm,
            "incomplete_coverage",
            f"{coverage:.0f} mm covered, less than the {needs.coverage_mm} mm needed",
        ),
        (
            needs.max_tilt_deg is not None and tilt > needs.max_tilt_deg,
            "gantry_tilt",
            f"tilt of {tilt:.1f} degrees, at most {needs.max_tilt_deg} allowed",
        ),
    )
    return next(((reason, detail) for failed, reason, detail in checks if failed), None)


def refuses_lossy(policy: LossyPolicy, *, lossy: bool, ratio: float | None) -> bool:
    """Return whether lossy compression rules the images out; an unknown ratio is not held against them."""
    if not lossy:
        return False
    return not policy.allowed or (ratio is not None and policy.max_ratio is not None and ratio > policy.max_ratio)


def body_part_fits(needs: BodyPart, study: StudyFacts, series: SeriesFacts) -> bool:
    """Return whether tags name a wanted body part, or name none and the image itself will be asked.

    Body Part Examined may carry a compound term (HEADNECK); descriptions are read word by word.
    """
    wanted = {part.upper() for part in needs.any}
    tag = series.body_part.strip().upper()
    words = _words(series.description) | _words(series.protocol) | _words(study.description)
    if any(tag.startswith(part) for part in wanted) or words & wanted:
        return True
    if tag or words & _BODY_PARTS:
        return False
    return "image_content" in needs.sources


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Z]+", text.upper()))


def _refuse_series(needs: InputNeeds, study: StudyFacts, series: SeriesFacts) -> _Refusal | None:
    if series.modality not in needs.modality:
        return _Refusal(0, NotApplicable, "modality", f"no series of modality {', '.join(needs.modality)}")
    if needs.body_part is not None and not body_part_fits(needs.body_part, study, series):
        return _Refusal(1, NotApplicable, "body_part", "another body part")
    if needs.contrast == "present" and series.contrast is False:
        return _Refusal(3, NotApplicable, "contrast", "no contrast agent is named")
    if needs.contrast == "absent" and series.contrast is True:
        return _too_coarse(needs, series) or _Refusal(3, NotApplicable, "contrast", "a contrast agent is named")
    return None


def _too_coarse(needs: InputNeeds, series: SeriesFacts) -> _Refusal | None:
    """Refuse a series whose planes are too far apart: the same images without contrast agent could not be read either.

    A missing agent that a detector needs is asked first: without it the series is another examination.
    """
    outcome = _best_stack(needs, series)
    if isinstance(outcome, _Refusal) or outcome.lacking != "slice_spacing":
        return None
    step = outcome.stack.geometry.median_step_mm if outcome.stack.geometry else math.nan
    return _Refusal(2, NotProcessable, "slice_spacing", f"planes {step:.2f} mm apart")


def _best_stack(needs: InputNeeds, series: SeriesFacts) -> _Candidate | _Refusal:
    sections = [i for i in series.instances if not is_projection(i.image_type)]
    if not sections:
        return _Refusal(4, NotApplicable, "no_suitable_series", "only localizers or renderings")
    found = stacks(series)
    if not found:
        return _Refusal(5, NotProcessable, "no_geometry", "images without a position in the patient")
    stack = next((s for s in found if s.plane is None or needs.series.orientation in {"any", s.plane}), None)
    if stack is None:
        return _Refusal(6, NotApplicable, "no_suitable_series", f"no {needs.series.orientation} images")
    offered = sum(i.number_of_frames for i in sections)
    if len(found) > 1 and stack.planes < needs.series.min_slices <= offered:
        return _Refusal(7, NotProcessable, "mixed_orientation", "the images do not form one stack")
    if any(refuses_lossy(needs.lossy, lossy=i.lossy, ratio=i.lossy_ratio) for i in stack.instances):
        return _Refusal(8, NotProcessable, "lossy_not_allowed", "compressed beyond what the detector accepts")
    return _candidate(needs.series, series, stack)


def _candidate(needs: SeriesNeeds, series: SeriesFacts, stack: Stack) -> _Candidate:
    if stack.geometry is None:
        missing = stack.planes < needs.min_slices
        return _Candidate(stack, series, "missing_slices" if missing else "", enough=not missing)
    lack = shortfall(stack.geometry, needs)
    enough = lack is None and stack.geometry.gap_free and (stack.numbers_closed or not _numbered(stack))
    return _Candidate(stack, series, lack[0] if lack else "", enough)


def _numbered(stack: Stack) -> bool:
    return any(i.instance_number is not None for i in stack.instances)


def _rank(needs: InputNeeds, candidate: _Candidate) -> tuple[object, ...]:
    stack, preferred = candidate.stack, needs.series.kernels_prefer
    kind = kernel_class(candidate.series.kernel, candidate.series.description)
    group = 0 if kind in preferred or not preferred else 2 if kind == "sharp" else 1
    step = stack.geometry.median_step_mm if stack.geometry else stack.thickness_mm or 0.0
    return (
        bool(candidate.lacking),
        group,
        not stack.original,
        not candidate.enough,
        round(step, 2),
        preferred.index(kind) if kind in preferred else len(preferred),
        -stack.planes,
        stack.series_instance_uid,
    )


def _input_set(candidate: _Candidate, of: int) -> InputSet:
    stack = candidate.stack
    step = f"{stack.geometry.median_step_mm:.2f} mm steps" if stack.geometry else "multi-frame"
    kind = kernel_class(candidate.series.kernel, candidate.series.description)
    return InputSet(
        stack.series_instance_uid,
        tuple(i.sop_instance_uid for i in stack.instances),
        "enough" if candidate.enough else "incomplete",
        f"{stack.planes} planes, {step}, {kind} kernel, best of {of}",
        candidate.lacking,
    )
