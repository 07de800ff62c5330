"""Suspected large-vessel occlusion on head CT angiograms: what one side's vessels lack. No network.

Head frame by symmetry, bone removal, vessel tree, left-right comparison by territory, abrupt end -> logistic score,
whose coefficients and threshold are the card's. Research use only; fitted and measured on phantoms (model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator

from wetread.core.detector import Applicability, BaseDetector, Context, InputSet, Request, Result, Tensors, Volume
from wetread.core.dicom import selection
from wetread.core.errors import ConfigurationError, NotApplicable
from wetread.core.facts import StudyFacts
from wetread.lvo.analysis import analyse
from wetread.lvo.answer import result_of
from wetread.lvo.score import side_score

MIN_AGE_YEARS = 18.0


class Detector(BaseDetector):
    """Occlusion of the terminal internal carotid artery, M1 or M2, its side, segment and end point."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want a head CT of an adult with contrast agent; headers only."""
        if study.patient_age_years is not None and study.patient_age_years < MIN_AGE_YEARS:
            return Applicability(applicable=False, reason="patient_age", detail="not for patients under 18 years")
        return selection.applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the thinnest soft-kernel axial series (the manifest's rule)."""
        answer = self.applicable(study)
        if not answer.applicable:
            raise NotApplicable(answer.reason or "no_suitable_series", answer.detail)
        return selection.select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Compute everything in one go: there is no network to ask."""
        yield from ()
        del context  # nothing can be set yet
        model = (self.card.model_extra or {}).get("side_model", {})
        point = self.card.operating_point()
        if point is None:
            msg = "the card of lvo has no operating point"
            raise ConfigurationError(msg)
        found = analyse(volume)
        left, right = (side_score(side, model) for side in found.sides)
        return result_of(found, volume, (left, right), point.threshold, model)
