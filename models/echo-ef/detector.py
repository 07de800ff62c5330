"""Left ventricular ejection fraction from one apical ultrasound clip: view, outline on every frame, discs, beats.

Research use only; trained and measured on phantoms, never on patients (model-card.json).
"""

from __future__ import annotations

from collections.abc import Generator

from wetread.core.detector import (
    Applicability,
    BaseDetector,
    Cine,
    Context,
    InputSet,
    Request,
    Result,
    Tensors,
    Volume,
)
from wetread.core.dicom import selection
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.facts import StudyFacts
from wetread.echo.analysis import analyse, band_of, prepare
from wetread.echo.answer import result_of


class Detector(BaseDetector):
    """Ejection fraction with its band; volumes only where the header's millimetres can be believed."""

    def applicable(self, study: StudyFacts) -> Applicability:
        """Want ultrasound with a clip in it; which view it shows is not in the headers."""
        try:
            selection.select(self.manifest.input, study)
        except NotApplicable as refusal:
            return Applicability(applicable=False, reason=refusal.reason, detail=refusal.detail)
        except NotProcessable:
            pass  # a case for this detector, even if it cannot be computed
        return Applicability(applicable=True)

    def select(self, study: StudyFacts) -> InputSet:
        """Take one clip (the manifest's rule)."""
        return selection.select(self.manifest.input, study)

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Outline the ventricle on every frame that is read, then measure."""
        del context  # nothing can be set yet
        if not isinstance(volume, Cine):
            raise NotProcessable("too_few_frames", "no clip")
        model = (self.card.model_extra or {}).get("echo_model")
        if not model:
            msg = "the card of echo-ef has no thresholds"
            raise ConfigurationError(msg)
        clip = prepare(volume)
        outputs = yield Request(self.manifest.name, {"frames": clip.tensor})
        found = analyse(volume, clip, outputs, view_threshold=float(model["view_threshold"]))
        return result_of(found, volume, band_of(found, model))
