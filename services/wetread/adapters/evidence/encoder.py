"""``Encoder``: a result set in, the study's new DICOM objects out."""

from __future__ import annotations

from typing import Final

from pydicom import Dataset

from wetread.adapters.evidence.outline import Outline, largest_outline
from wetread.adapters.evidence.reference_header import ReferenceView, reference_view
from wetread.adapters.evidence.stamp import encoded
from wetread.core.detector import LabelArray
from wetread.core.errors import ComputationFailed, InvalidInput
from wetread.core.findings import ResultSet
from wetread.core.ports import EncodedObject, EvidenceInput

ENCODER_VERSION: Final = "3"
"""Raised when the same result would give other bytes: it is part of every result key."""


class Encoder:
    """Port ``EvidenceEncoder``. Holds no state; highdicom is imported by the first ``encode`` (0.3 s)."""

    @property
    def version(self) -> str:
        """Version of the encodings, part of every result key."""
        return ENCODER_VERSION

    def encode(self, evidence: EvidenceInput) -> list[EncodedObject]:
        """Return SR (always), SEG (a region exists), score origin (SEG FRACTIONAL), maps, SC (flagged), in that order.

        Raises InvalidInput when headers, mask and result do not belong together, ConfigurationError for a word or unit
        outside ``core.codes``, ComputationFailed (``crashed``) when the libraries refuse what they were given.
        """
        try:
            return self._encode(evidence)
        except (ValueError, TypeError, AttributeError, LookupError) as broken:
            # The libraries' own refusals may quote header values, so their text stays out.
            msg = f"a result could not be written as DICOM ({type(broken).__name__})"
            raise ComputationFailed("crashed", msg) from broken

    def _encode(self, evidence: EvidenceInput) -> list[EncodedObject]:
        from wetread.adapters.evidence.explanation import explanation_map
        from wetread.adapters.evidence.parametric_map import parametric_maps
        from wetread.adapters.evidence.sc import key_slices, picture_captures, secondary_captures
        from wetread.adapters.evidence.seg import segmentation
        from wetread.adapters.evidence.sr import measurement_report

        result, mask = evidence.result, evidence.mask
        view = reference_view(evidence.headers, result.run.study_uid)
        _check_planes(view, result, mask)
        segmented = segmentation(result, view, mask) if mask is not None else None
        seg = segmented.dataset if segmented else None
        outlines = _outlines(result, view, mask)
        flags = ("segmentation_omitted",) if seg is None and _has_region(result, mask) else ()
        planes = len(view.images) if mask is None else len(mask)
        slices = key_slices(result, mask, planes)
        explained = None
        if evidence.explanation is not None:
            shown = sorted({key.plane for key in slices})
            explained = explanation_map(result, view, evidence.explanation, shown)
        report = measurement_report(
            result, view, outlines, seg, segmented.segments if segmented else {}, flags, explained
        )
        captures = secondary_captures(result, view, slices, planes, evidence.read_plane, evidence.explanation)
        captures += picture_captures(result, view, evidence.captures, first=len(captures) + 1)
        objects: list[tuple[str, Dataset]] = [("sr", report)]
        if seg is not None:
            objects.append(("seg", seg))
        if explained is not None:
            objects.append(("explanation", explained))
        objects += [("pm", item) for item in parametric_maps(result, view, evidence.maps)]
        objects += [("sc", capture) for capture in captures]
        return [encoded(dataset, role) for role, dataset in objects]


def _check_planes(view: ReferenceView, result: ResultSet, mask: LabelArray | None) -> None:
    if mask is None:
        return
    if mask.ndim != 3 or mask.dtype.name != "uint8":
        msg = "a mask is [plane, row, column] of uint8"
        raise InvalidInput(msg)
    listed = result.sop_instance_uids
    if listed and "NumberOfFrames" not in view.images[0]:
        if tuple(str(image.SOPInstanceUID) for image in view.images) != listed:
            msg = "headers and result name different planes"
            raise InvalidInput(msg)
        if len(mask) != len(listed):
            msg = f"mask of {len(mask)} planes for {len(listed)} instances"
            raise InvalidInput(msg)


def _has_region(result: ResultSet, mask: LabelArray | None) -> bool:
    return mask is not None and any(f.label and bool((mask == f.label).any()) for f in result.findings)


def _outlines(result: ResultSet, view: ReferenceView, mask: LabelArray | None) -> dict[str, Outline]:
    """Outline each finding's region on its key image; needs the pixel spacing to say mm."""
    outlines: dict[str, Outline] = {}
    if mask is None:
        return outlines
    for finding in result.findings:
        key = finding.key_image
        if key is None or not finding.label or not 0 <= key.plane < len(mask):
            continue
        source = view.image(key.sop_instance_uid)
        if source is None or "PixelSpacing" not in source:
            continue
        spacing = (float(source.PixelSpacing[0]), float(source.PixelSpacing[1]))
        outline = largest_outline(mask[key.plane] == finding.label, spacing)
        if outline is not None:
            outlines[finding.finding_id] = outline
    return outlines
