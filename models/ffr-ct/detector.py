"""CT-derived FFR: CT angiogram -> coronary tree -> pressure along every artery. No network; see ``wetread.ffrct``.

Research use only; verified on phantoms and against numerical references, never on patients (see model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator

from wetread.core.detector import Applicability, BaseDetector, Context, InputSet, Request, Result, Tensors, Volume
from wetread.core.dicom import selection
from wetread.core.errors import NotApplicable
from wetread.core.facts import StudyFacts
from wetread.ffrct.cta import answer, attachments, calcium_observation, label_mask, observations


class Detector(BaseDetector):
    """Fractional flow reserve (SCT 371842003) along the coronary arteries, computed from CT."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want CT of the heart or chest; whether it holds an angiogram is seen in the image."""
        return selection.applicable(self.manifest.input, study)

    def select(self, study: StudyFacts) -> InputSet:
        """Take the thinnest soft-kernel axial series (the manifest's rule)."""
        found = self.applicable(study)
        if not found.applicable:
            raise NotApplicable(found.reason or "no_suitable_series", found.detail)
        return selection.select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Compute everything in one go: there is no network to ask."""
        yield from ()
        given = {k: v for k, v in context.parameters.items() if v is not None}
        options = {k: given.pop(k) for k in ("tier", "uq_draws") if k in given}
        found = answer(volume, {"patient": given, "options": options})
        mask = label_mask(found)
        seen = observations(found)
        calcium = calcium_observation(mask)
        return Result(
            state="measured",
            observations=(*seen, calcium) if calcium else seen,
            mask=mask,
            flags=tuple(found.result["flags"]),
            attachments=attachments(found),
        )
