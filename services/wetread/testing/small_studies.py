"""Tiny CT studies for load, latency and chaos runs: eight slices of 8 x 8 that the toy detector reads in a moment."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from wetread.core.identifiers import derived_uid
from wetread.testing.toy_detector import write_toy

SLICES: Final = 8
_TRUST: Final = """completeness:
  default: {treat_transfer_end_as: complete}
"""
_WORKFLOW: Final = """workflow: {name}
version: 1
on:
  event: study.changed
  when: "any(s.modality == 'CT' for s in series) and like(study.description, '{pattern}')"
priority: {{base: {priority}}}
tasks:
  {detector}: {{uses: detector/{detector}@*, timeout: 30s, with: {{behave: {behave}}}}}
triage:
  - if: "result('{detector}').state == 'positive'"
    then: {{reason: bright voxels}}
"""


@dataclass(frozen=True, slots=True)
class SmallStudy:
    """One study as a sender holds it: encoded Part 10 files."""

    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    parts: tuple[bytes, ...]

    def body(self, boundary: str = "small") -> bytes:
        """Return a STOW-RS body."""
        head = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        return b"".join(head + part for part in self.parts) + f"\r\n--{boundary}--\r\n".encode()


STOW_HEADERS: Final = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=small'}


def small_study(seed: int, *, bright: bool = False, description: str = "small", slices: int = SLICES) -> SmallStudy:
    """Return the study *seed*: a head CT of 5 mm slices at 40 HU; ``bright``: with a spot of 100 HU."""
    study, series = derived_uid("small", seed, "study"), derived_uid("small", seed, "series")
    uids = tuple(derived_uid("small", seed, "instance", number) for number in range(slices))
    parts = tuple(_slice(study, series, uid, n, seed, description, bright=bright) for n, uid in enumerate(uids))
    return SmallStudy(study, series, uids, parts)


def _slice(study: str, series: str, uid: str, number: int, seed: int, description: str, *, bright: bool) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.FrameOfReferenceUID = derived_uid(series, "frame of reference")
    dataset.Modality, dataset.BodyPartExamined, dataset.StudyDescription = "CT", "HEAD", description
    dataset.PatientName, dataset.PatientID = f"Small^{seed}", f"S{seed}"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20260101", "080000", "", "1"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.ConvolutionKernel = 1, number + 1, "H30s"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [0, 0, 5.0 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [5, 5], 5
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    pixels = np.full((8, 8), 40, dtype="<i2")
    pixels[seed % 8, number % 8] = 41 + seed % 7  # no two studies hold the same bytes
    if bright:
        pixels[2:5, 2:5] = 100
    dataset.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_house(root: Path, lanes: Mapping[str, str], behave: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write detectors and workflows under *root*, one of each per entry (detector name -> priority class).

    A study belongs to the workflow whose detector its description names. The end of a transfer counts as complete.
    ``behave``: detector name -> what its toy does (``testing.toy_detector``), if not well.
    Returns the environment variables that point a server at them.
    """
    detectors, workflows = root / "detectors", root / "workflows"
    workflows.mkdir(parents=True)
    detectors.mkdir(parents=True)
    (workflows / "completeness.yaml").write_text(_TRUST, "utf-8")
    pins = []
    for detector, priority in lanes.items():
        code = (write_toy(detectors, detector) / "detector.py").read_bytes()
        pins.append(f"{hashlib.sha256(code).hexdigest()}  {detector}/detector.py\n")
        values = {"name": f"{detector}-flow", "pattern": f"*{detector}*", "priority": priority, "detector": detector}
        content = _WORKFLOW.format(**values, behave=(behave or {}).get(detector, "well"))
        (workflows / f"{detector}.yaml").write_text(content, "utf-8")
    (detectors / "detectors.sha256").write_text("".join(pins), "utf-8")
    return {"WETREAD_DETECTORS": str(detectors), "WETREAD_WORKFLOWS": str(workflows)}
