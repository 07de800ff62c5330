"""What a CT series must be before the image chain looks at it, and the step from a volume to the chain's image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from wetread.core.detector import Volume

from .imaging.image import CtImage
from .imaging.quality import Refusal

THICKEST_MM: Final = 1.0
LARGEST_GAP: Final = 1.5
LEAST_COVERAGE_MM: Final = 60.0
OTHER_BODY_PARTS: Final = frozenset(
    [
        *("ABDOMEN", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "COLON", "CSPINE", "ELBOW", "FEMUR", "FOOT", "HAND"),
        *("HEAD", "HIP", "JAW", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "NECK", "ORBIT", "PELVIS", "PROSTATE"),
        *("SHOULDER", "SINUS", "SKULL", "SPINE", "TIBIA", "TOE", "TSPINE", "WRIST"),
    ]
)
_CT: Final = frozenset({CTImageStorage, EnhancedCTImageStorage})


def header_refusal(headers: Sequence[Dataset]) -> Refusal | None:
    """The first reason, from headers of one series, why it is no coronary CT angiogram; None when they allow it."""
    if not headers or any(h.get("Modality") != "CT" or h.get("SOPClassUID") not in _CT for h in headers):
        return Refusal("not_ct", "send CT images (CT Image Storage)")
    sections = [h for h in headers if "LOCALIZER" not in h.get("ImageType", [])]
    kinds = {
        (
            tuple(round(float(v), 3) for v in h.get("ImageOrientationPatient", ())),
            tuple(round(float(v), 4) for v in h.get("PixelSpacing", ())),
            str(h.get("FrameOfReferenceUID", "")),
        )
        for h in sections
    }
    if len(kinds) != 1:
        return Refusal("geometry_inconsistent", "orientation, pixel spacing or frame of reference differ in the series")
    if any(str(h.get("BodyPartExamined", "")).upper() in OTHER_BODY_PARTS for h in sections):
        return Refusal("not_cardiac", "the images are labelled as another part of the body")
    thickness = max((float(h.SliceThickness) for h in sections if h.get("SliceThickness")), default=0.0)
    return _too_thick(thickness) if thickness > THICKEST_MM else None


def _too_thick(millimetres: float) -> Refusal:
    return Refusal("slice_too_thick", f"slices of {millimetres:.1f} mm; at most {THICKEST_MM} mm can be used")


def image_of(volume: Volume) -> CtImage | Refusal:
    """The chain's image of *volume*; its planes have to be axial, thin, complete, and 60 mm high together."""
    if abs(float(volume.normal[2])) < 0.75 or volume.tilt_deg > 1.0:
        return Refusal("geometry_inconsistent", "the planes are not an axial stack")
    positions = volume.positions_mm
    if len(positions) < 2:
        return Refusal("too_few_slices", f"{len(positions)} slice; {LEAST_COVERAGE_MM:.0f} mm are needed")
    steps = np.diff(positions)
    step = float(np.median(steps))
    if step > THICKEST_MM:
        return _too_thick(step)
    if float(steps.max()) > LARGEST_GAP * step:
        return Refusal("missing_slices", f"{round(float(steps.max()) / step) - 1} slices in a row are missing")
    extent = float(positions[-1] - positions[0]) + step
    if extent < LEAST_COVERAGE_MM:
        return Refusal("too_few_slices", f"the slices cover {extent:.0f} mm; {LEAST_COVERAGE_MM:.0f} mm are needed")
    return CtImage(
        hu=volume.voxels,
        origin_mm=np.asarray(volume.origins[0], dtype=np.float64),
        axes=np.array([volume.normal, volume.column_direction, volume.row_direction]),
        step_mm=np.array([extent / len(positions), *volume.pixel_spacing]),
    )
