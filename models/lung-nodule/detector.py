"""Nodules of the lung on chest CT: classical candidates, a 32^3 network against false ones, sizes by region growing.

Lungs closed over what sits on the pleura, balls of 3 to 30 mm by a multi-scale Laplacian, two patches of each to the
network, then volume, axial diameters and density of what it keeps. Research use only; trained on phantoms (see
model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from wetread.core.detector import (
    Applicability,
    BaseDetector,
    Context,
    InputSet,
    Request,
    Result,
    Tensors,
    Volume,
)
from wetread.core.dicom import selection
from wetread.core.errors import ConfigurationError, NotApplicable
from wetread.core.facts import StudyFacts
from wetread.nodule.answer import MOST, result_of
from wetread.nodule.reading import marks_of, read

LEAST_AGE_YEARS = 18.0


class Detector(BaseDetector):
    """Suspected nodules of the lung (SCT 27925004), positive or negative."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want chest CT of adults, with or without contrast agent; headers only."""
        if study.patient_age_years is not None and study.patient_age_years < LEAST_AGE_YEARS:
            return Applicability(applicable=False, reason="patient_age", detail="not for patients under 18 years")
        return selection.applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the thinnest axial chest series (the manifest's rule)."""
        answer = self.applicable(study)
        if not answer.applicable:
            raise NotApplicable(answer.reason or "no_suitable_series", answer.detail)
        return selection.select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Candidates, one request to the network, marks, and what became of them since earlier results."""
        parameters = {**self.manifest.parameters, **context.parameters}
        mean_error = float(parameters["volume_error"])
        point = self.card.operating_point()
        if point is None:
            raise ConfigurationError("the card of lung-nodule has no operating point")
        reading = read(volume)
        if not len(reading.candidates):
            return result_of(reading, (), point.threshold, 0.0, None, mean_error=mean_error, priors=context.priors)
        outputs = yield Request(self.manifest.name, {"patches": reading.patches()})
        logits = np.asarray(outputs["logit"], dtype=np.float64)[:, 0]
        scores = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        marks = marks_of(reading, scores, point.threshold, MOST + 1)
        return result_of(
            reading,
            marks,
            point.threshold,
            float(scores.max()),
            outputs.get("cam"),
            mean_error=mean_error,
            priors=context.priors,
        )
