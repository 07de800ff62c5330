"""Brain perfusion from a dynamic CT or MR series: deconvolution, maps, core and mismatch. No network.

Research use only; verified on phantoms, never on patients (see model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator

from wetread.core.detector import (
    Applicability,
    BaseDetector,
    Context,
    DynamicVolume,
    InputSet,
    Request,
    Result,
    Tensors,
    Volume,
)
from wetread.core.dicom import selection
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.facts import StudyFacts
from wetread.perfusion.analysis import analyse
from wetread.perfusion.answer import result_of

_ALONG_ROWS = 0.8


class Detector(BaseDetector):
    """CBF, CBV, MTT and Tmax of the brain, ischaemic core and mismatch."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want a head series with contrast that images its planes again and again."""
        found = selection.applicable(self.manifest.input, study)
        if not found.applicable:
            return found
        try:
            selection.select(self.manifest.input, study)
        except NotApplicable as refusal:
            return Applicability(applicable=False, reason=refusal.reason, detail=refusal.detail)
        except NotProcessable:
            pass  # a case for this detector, even if it cannot be computed
        return found

    def select(self, study: StudyFacts) -> InputSet:
        """Take the series with most time points (the manifest's rule)."""
        found = self.applicable(study)
        if not found.applicable:
            raise NotApplicable(found.reason or "no_suitable_series", found.detail)
        return selection.select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Compute everything in one go: there is no network to ask."""
        yield from ()
        del context  # nothing can be set yet
        if not isinstance(volume, DynamicVolume):
            raise NotProcessable("too_few_time_points", "every plane was imaged once")
        if abs(float(volume.row_direction[0])) < _ALONG_ROWS:
            raise NotProcessable("mixed_orientation", "the rows of the images do not run from side to side")
        return result_of(analyse(volume), volume)
