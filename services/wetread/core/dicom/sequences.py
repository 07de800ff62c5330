"""Which MR series are T1-weighted, as far as headers say; the image itself is asked by the detectors."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from wetread.core.detector import Applicability, InputSet
from wetread.core.dicom import selection
from wetread.core.errors import NotApplicable
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.core.manifest import InputNeeds

_OTHER: Final = re.compile(
    r"\bT2|FLAIR|\bDWI|\bADC|\bDTI|\bSWI|\bGRE\b|\bPD\b|\bTOF|ANGIO|\bMRA|PERF|\bASL|BOLD|\bFMRI|LOCALI|SCOUT|TRACE|STIR",
    re.IGNORECASE,
)
_T1: Final = re.compile(r"\bT1|MPRAGE|MP-RAGE|\bSPGR|BRAVO|\bTFE|TFL|FSPGR", re.IGNORECASE)
_AFTER_CONTRAST: Final = re.compile(r"\+C\b|\bC\+|\bPOST\b|\bGD\b|\bKM\b|CONTRAST", re.IGNORECASE)
_WITHOUT: Final = re.compile(r"\bW/?O\b|WITHOUT|\bPRE\b|\bNON", re.IGNORECASE)


def names_another_contrast(series: SeriesFacts) -> bool:
    """Whether description or protocol name another weighting and not T1."""
    words = f"{series.description} {series.protocol}"
    return bool(_OTHER.search(words)) and not _T1.search(words)


def names_contrast_agent(series: SeriesFacts) -> bool:
    """Whether the description says that the series was taken after a contrast agent."""
    return bool(_AFTER_CONTRAST.search(series.description)) and not _WITHOUT.search(series.description)


def t1_candidates(study: StudyFacts) -> StudyFacts:
    """Return the study with only the series that may be T1-weighted without contrast agent; those that say so first."""
    kept = [s for s in study.series if not names_another_contrast(s) and not names_contrast_agent(s)]
    said = [s for s in kept if _T1.search(f"{s.description} {s.protocol}")]
    return replace(study, series=tuple(said or kept))


def t1_applicable(needs: InputNeeds, study: StudyFacts) -> Applicability:
    """Return whether a study has what a detector on T1 series without contrast agent *needs*; headers only."""
    candidates = t1_candidates(study)
    if study.series and not candidates.series:
        return Applicability(applicable=False, reason="sequence", detail="no T1 series without contrast agent")
    return selection.applicable(needs, candidates)


def t1_select(needs: InputNeeds, study: StudyFacts) -> InputSet:
    """Return the series to read among the candidates. Raises NotApplicable, NotProcessable."""
    answer = t1_applicable(needs, study)
    if not answer.applicable:
        raise NotApplicable(answer.reason or "no_suitable_series", answer.detail)
    return selection.select(needs, t1_candidates(study))
