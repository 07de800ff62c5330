"""Key slices of a flagged finding as Secondary Capture images (PS3.3 A.8.1): what any viewer and any PACS can show.

One single-frame RGB image per slice, all in one series: the form that the oldest viewers take. Line, text and the
research-use statement are burned in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from wetread.adapters.evidence.explanation import can_be_placed, sampled
from wetread.adapters.evidence.orientation import directions
from wetread.adapters.evidence.overlay import Caption, RgbArray, overlay_image
from wetread.adapters.evidence.reference_header import ReferenceView
from wetread.adapters.evidence.stamp import SERIES_NUMBERS, instance_uid, local_start, series_uid, stamp
from wetread.core.codes import concept_of
from wetread.core.detector import Explanation, FloatArray, LabelArray
from wetread.core.findings import Finding, ResultSet
from wetread.core.ruo import RUO_STATEMENT

MAX_SLICES = 6
"""Slices per result, shared among its flagged findings; each gets one at least: its key slice, then the planes with
the largest cross-section of its region."""
_WIDTH = 512
"""Least width in pixels: text stays legible, and the matrix is enlarged by a whole factor only."""
BoolArray = npt.NDArray[np.bool_]
_FLAGGED = frozenset({"positive", "indeterminate"})


@dataclass(frozen=True, slots=True)
class KeySlice:
    """A plane to show of a flagged finding, with the finding's region on all planes."""

    finding: Finding
    plane: int
    region: BoolArray | None


def key_slices(result: ResultSet, mask: LabelArray | None, planes: int) -> list[KeySlice]:
    """Return the slices of the flagged findings, finding by finding; an empty list when nothing is flagged."""
    flagged = [finding for finding in result.findings if finding.state in _FLAGGED]
    slices: list[KeySlice] = []
    for finding in flagged:
        region = mask == finding.label if mask is not None and finding.label else None
        most = max(1, MAX_SLICES // len(flagged))
        slices += [KeySlice(finding, plane, region) for plane in key_planes(finding, region, planes, most)]
    return slices


def secondary_captures(
    result: ResultSet,
    view: ReferenceView,
    slices: Sequence[KeySlice],
    planes: int,
    read_plane: Callable[[int], FloatArray] | None,
    explanation: Explanation | None = None,
) -> list[Dataset]:
    """Draw *slices* of a volume of *planes*; an empty list when there is nothing to draw on.

    Where the score came from is laid over them as a tint.
    """
    if read_plane is None:
        return []
    return [
        _capture(
            result, view, shown.plane, _draw(result, shown, view, planes, read_plane(shown.plane), explanation), number
        )
        for number, shown in enumerate(slices, start=1)
    ]


def picture_captures(result: ResultSet, view: ReferenceView, pictures: Sequence[bytes], *, first: int) -> list[Dataset]:
    """Wrap the detector's own pictures (PNG), numbered from *first*; their text is drawn in them already."""
    datasets = []
    for index, data in enumerate(pictures, start=first):
        pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB"), dtype=np.uint8)
        dataset = _capture(result, view, 0, pixels, index)
        dataset.PatientOrientation = ""
        datasets.append(dataset)
    return datasets


def key_planes(finding: Finding, region: BoolArray | None, planes: int, most: int) -> list[int]:
    """Return the planes to show, in spatial order: the key image and the largest sections of the region."""
    key = finding.key_image.plane if finding.key_image and finding.key_image.plane < planes else None
    chosen = [] if key is None else [key]
    if region is not None:
        areas = np.count_nonzero(region, axis=(1, 2))
        chosen += [int(p) for p in np.argsort(-areas, kind="stable") if areas[p] and p != key]
    return sorted(chosen[:most])


def display_window(finding: Finding, view: ReferenceView, plane: FloatArray) -> tuple[float, float]:
    """Return window centre and width: the concept's own on CT, else the source's, else the plane's 1-99 % range."""
    image = view.images[0]
    known = concept_of(finding.code).window
    if known is not None and image.Modality == "CT":
        return known
    if "WindowCenter" in image and "WindowWidth" in image and image.WindowWidth > 0:
        return float(image.WindowCenter), float(image.WindowWidth)
    low, high = np.percentile(plane, (1, 99))
    return float(low + high) / 2, max(float(high - low), 1.0)


def _draw(
    result: ResultSet,
    shown: KeySlice,
    view: ReferenceView,
    planes: int,
    pixels: FloatArray,
    explanation: Explanation | None,
) -> RgbArray:
    finding, plane, region = shown.finding, shown.plane, shown.region
    source = view.of_plane(plane)
    tint = sampled(explanation, source) if explanation is not None and can_be_placed(view) else None
    run = result.run
    window = display_window(finding, view, pixels)
    kinds = f" ({', '.join(finding.types)})" if finding.types else ""
    volume = finding.volume_ml()
    numbers = [] if volume is None else [f"{volume:.1f} mL"]
    if finding.score:
        numbers.append(f"score {finding.score.value:.2f} (threshold {finding.score.threshold:.2f})")
    outlined = region is not None and bool(region[plane].any())
    marks = [
        mark
        for mark, applies in (
            (" - phantom-trained", bool(run.phantom_evidence_id)),
            (" - SHADOW", run.shadow),
            (" - EARLY RESULT", finding.preliminary),
        )
        if applies
    ]
    above = (
        f"{run.detector} {run.version}" + "".join(marks),
        f"{finding.state.upper()}: {finding.code.meaning}{kinds}",
        ", ".join(numbers),
        f"slice {plane + 1} of {planes}, window {window[0]:.0f}/{window[1]:.0f}"
        + (", line: region found by the detector" if outlined else ""),
        *(("blue: where the score came from, not why",) if tint is not None and tint.any() else ()),
    )
    spacing = source.get("PixelSpacing")
    return overlay_image(
        pixels,
        region[plane] if region is not None else None,
        window,
        Caption(above, (RUO_STATEMENT,), directions(source)),
        width=pixels.shape[1] * max(1, -(-_WIDTH // pixels.shape[1])),
        pixel_aspect=float(spacing[0]) / float(spacing[1]) if spacing else 1.0,
        tint=tint,
    )


def _capture(result: ResultSet, view: ReferenceView, plane: int, pixels: RgbArray, index: int) -> Dataset:
    run, source = result.run, view.of_plane(plane)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = instance_uid(run, "sc", index)
    dataset.SeriesInstanceUID = series_uid(run, "sc")
    dataset.SeriesNumber = SERIES_NUMBERS["sc"]
    dataset.InstanceNumber = index
    dataset.Modality = "OT"
    # Type 2C: required for paired structures, and the encoder cannot know; empty is legal, absent is an error.
    dataset.Laterality = ""
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    left, right, upper, lower = directions(source)
    dataset.PatientOrientation = [right, lower] if left and upper else ""
    dataset.BurnedInAnnotation = "YES"
    dataset.ImageComments = RUO_STATEMENT
    start = local_start(run, view)
    dataset.DateOfSecondaryCapture = start.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = start.strftime("%H%M%S.%f")
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    dataset.SourceImageSequence = [reference]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    stamp(dataset, run, view)
    return dataset
