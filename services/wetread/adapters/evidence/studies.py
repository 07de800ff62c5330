"""``StudyEncoder``: every result of a study, of volumes and of whole slides, through the encoder that it needs."""

from __future__ import annotations

from pydicom import Dataset

from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.evidence.reference_header import reference_view
from wetread.adapters.evidence.stamp import encoded
from wetread.core.errors import ComputationFailed
from wetread.core.ports import EncodedObject, EvidenceInput
from wetread.core.slide_file import unpack


class StudyEncoder:
    """Port ``EvidenceEncoder``. Holds no state."""

    def __init__(self) -> None:
        self._volumes = Encoder()

    @property
    def version(self) -> str:
        """Version of the encodings of volumes; that of slides is in their own result keys."""
        return self._volumes.version

    def encode(self, evidence: EvidenceInput) -> list[EncodedObject]:
        """Return the objects of a result. Raises like ``Encoder`` and ``SlideEncoder``; CorruptRecord."""
        if evidence.slide is None:
            return self._volumes.encode(evidence)
        from wetread.adapters.evidence.slide import SlideEncoder

        objects = SlideEncoder().encode(unpack(evidence.slide, evidence.headers))
        return [*objects, *(encoded(capture, "sc") for capture in _pictures(evidence))]


def _pictures(evidence: EvidenceInput) -> list[Dataset]:
    from wetread.adapters.evidence.sc import picture_captures

    try:
        view = reference_view(evidence.headers, evidence.result.run.study_uid)
        return picture_captures(evidence.result, view, evidence.captures, first=1)
    except (ValueError, TypeError, AttributeError, LookupError) as broken:
        msg = f"the picture of a slide could not be written as DICOM ({type(broken).__name__})"
        raise ComputationFailed("crashed", msg) from broken
