"""Which series of a study is a slide that can be analysed: decided from header facts alone."""

from __future__ import annotations

from collections.abc import Mapping

from wetread.core.detector import Applicability, InputSet
from wetread.core.errors import NotApplicable, NotFound
from wetread.core.facts import InstanceFacts, SeriesFacts, StudyFacts
from wetread.core.ports.inference import DetectorInfo
from wetread.pathology.errors import SeriesNotSuitable
from wetread.pathology.slide.dicom import WSM_SOP_CLASS

MODALITY = "SM"


class SlideChooser:
    """``DetectorChooser`` of tile models."""

    def __init__(self, infos: Mapping[str, DetectorInfo]) -> None:
        self._infos = dict(infos)

    def detectors(self) -> Mapping[str, DetectorInfo]:
        """Return the tile models by name."""
        return self._infos

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        """Want every study with whole-slide images. Raises NotFound."""
        if detector not in self._infos:
            raise NotFound(f"no tile model is called {detector!r}")
        return applicable(study)

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        """Take the slide with the most tiles. Raises NotApplicable, SeriesNotSuitable; NotFound."""
        if detector not in self._infos:
            raise NotFound(f"no tile model is called {detector!r}")
        return select(study)


def applicable(study: StudyFacts) -> Applicability:
    """Return whether the study has whole-slide microscopy at all."""
    if _slides(study):
        return Applicability(applicable=True)
    return Applicability(applicable=False, reason="modality", detail="no whole-slide microscopy")


def select(study: StudyFacts) -> InputSet:
    """Return the levels of one slide; of several series the one with the most frames (workflows fan out over series).

    Raises NotApplicable (no slide), SeriesNotSuitable (only labels, overviews or thumbnails; two frames of reference).
    """
    slides = _slides(study)
    if not slides:
        raise NotApplicable("modality", "no whole-slide microscopy")
    volumes = {s.series_instance_uid: [i for i in s.instances if _volume(i)] for s in slides}
    uid, levels = max(volumes.items(), key=lambda item: (sum(i.number_of_frames for i in item[1]), item[0]))
    if not levels:
        kinds = sorted({"\\".join(i.image_type) or "no image type" for s in slides for i in s.instances})
        raise SeriesNotSuitable(f"no VOLUME instance: {'; '.join(kinds)[:200]}")
    if len({i.frame_of_reference_uid for i in levels}) > 1:
        raise SeriesNotSuitable("the levels lie in several frames of reference")
    ordered = sorted(levels, key=lambda i: (-i.number_of_frames, i.sop_instance_uid))
    return InputSet(uid, tuple(i.sop_instance_uid for i in ordered), "enough", f"{len(ordered)} levels of one slide")


def _slides(study: StudyFacts) -> list[SeriesFacts]:
    return [
        s for s in study.series if not s.detector_result and any(i.sop_class_uid == WSM_SOP_CLASS for i in s.instances)
    ]


def _volume(instance: InstanceFacts) -> bool:
    kind = instance.image_type
    return instance.sop_class_uid == WSM_SOP_CLASS and len(kind) >= 3 and kind[2] == "VOLUME"
