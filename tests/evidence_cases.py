"""Synthetic studies and results that the evidence tests share."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from wetread.core.detector import FrameRef, Measure, Observation, Result, Volume
from wetread.core.findings import ResultSet, Run
from wetread.core.identifiers import derived_uid
from wetread.core.ports import EvidenceInput
from wetread.core.results import result_set
from wetread.core.states import AiState

STUDY = derived_uid("tests", "study")
SERIES = derived_uid("tests", "series")
STARTED = 1_790_000_000.25


def headers(
    planes: int = 12, rows: int = 64, columns: int = 80, *, tilt_deg: float = 0.0, steps: list[float] | None = None
) -> list[Dataset]:
    """Complete CT headers without pixels, axial or tilted about the left-right axis, in order along the normal."""
    tilt = math.radians(tilt_deg)
    positions = np.concatenate([[0.0], np.cumsum(steps or [5.0] * (planes - 1))])
    made = []
    for plane in range(planes):
        header = Dataset()
        header.SpecificCharacterSet = "ISO_IR 100"
        header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = derived_uid("tests", "image", plane)
        header.StudyInstanceUID = STUDY
        header.SeriesInstanceUID = SERIES
        header.FrameOfReferenceUID = derived_uid("tests", "frame")
        header.Modality = "CT"
        header.Manufacturer = "Phantom Works"
        header.PatientName = "Doe^Jane"
        header.PatientID = "P-1"
        header.PatientBirthDate = "19700102"
        header.PatientSex = "F"
        header.StudyDate, header.StudyTime = "20260102", "030405"
        header.StudyID = "7"
        header.AccessionNumber = "A-9"
        header.ReferringPhysicianName = "Roe^Richard"
        header.StudyDescription = "HEAD"
        header.InstanceNumber = plane + 1
        header.Rows, header.Columns = rows, columns
        header.PixelSpacing = [0.5, 0.5]
        header.SliceThickness = 5.0
        header.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(tilt), 7), round(-math.sin(tilt), 7)]
        header.ImagePositionPatient = [-20.0, -16.0, float(positions[plane])]
        made.append(header)
    return made


def run(**changes: Any) -> Run:
    fields: dict[str, Any] = {
        "result_key": "ab" * 32,
        "tenant": "default",
        "study_uid": STUDY,
        "series_uid": SERIES,
        "detector": "ich",
        "version": "1.2.0",
        "title": "Suspected intracranial haemorrhage on non-contrast head CT",
        "model_digest": "c" * 64,
        "params_digest": "d" * 64,
        "input_digest": "e" * 64,
        "rules_digest": "f" * 64,
        "software": "wetread 0.1.0",
        "engine": "onnxruntime cpu fp32",
        "phantom_evidence_id": "9" * 64,
        "started_at": STARTED,
    }
    return Run(**(fields | changes))


def blob(shape: tuple[int, int, int] = (12, 64, 80)) -> np.ndarray:
    """A region of label 1 on planes 4..7, largest on plane 5, and a small one of label 2 on plane 9."""
    mask = np.zeros(shape, np.uint8)
    row, column = np.mgrid[: shape[1], : shape[2]]
    for plane, radius in ((4, 4.0), (5, 7.0), (6, 6.0), (7, 3.0)):
        mask[plane][(row - 30) ** 2 + (column - 20) ** 2 <= radius**2] = 1
    mask[9, 40:43, 60:62] = 2
    return mask


def positive(mask: np.ndarray | None = None, **changes: Any) -> Result:
    mask = blob() if mask is None else mask
    first = Observation(
        code="intracranial_hemorrhage",
        state="positive",
        score=0.93,
        types=("IPH", "IVH"),
        measures=(
            Measure("volume", 0.58, "mL", method="voxel count", uncertainty=0.1),
            Measure("midline_shift", 3.25, "mm"),
        ),
        label=1,
        laterality="right",
    )
    second = Observation(
        code="intracranial_hemorrhage", state="positive", score=0.71, types=("SAH",), label=2, key_plane=9
    )
    result = Result(
        state="positive", observations=(first, second), score=0.93, threshold=0.61, mask=mask, flags=("holes_bridged",)
    )
    return replace(result, **changes)


def frames(sources: list[Dataset]) -> tuple[FrameRef, ...]:
    return tuple(FrameRef(source.SOPInstanceUID) for source in sources)


def evidence(sources: list[Dataset] | None = None, result: Result | None = None, **changes: Any) -> EvidenceInput:
    """A positive result on *sources*, with planes of 30 HU and 65 HU inside the regions."""
    sources = headers() if sources is None else sources
    result = positive() if result is None else result
    mask = result.mask

    def read_plane(plane: int) -> np.ndarray:
        inside = mask[plane] > 0 if mask is not None else np.zeros((sources[0].Rows, sources[0].Columns), bool)
        return np.where(inside, 65.0, 30.0).astype(np.float32)

    outcome = result_set(
        run(study_uid=sources[0].StudyInstanceUID, **changes), result, frames(sources), operating_point="sens90"
    )
    return EvidenceInput(outcome, sources, mask, read_plane)


def detected(title: str, sources: Sequence[bytes], volume: Volume, result: Result) -> EvidenceInput:
    """What a detector answered to a volume of *sources*, for the encoder."""
    files = {str(header.SOPInstanceUID): header for header in (dcmread(BytesIO(d)) for d in sources)}
    headers = [files[uid] for uid in dict.fromkeys(frame.sop_instance_uid for frame in volume.frames)]
    plain = [Dataset({tag: item for tag, item in header.items() if tag != 0x7FE00010}) for header in headers]
    return EvidenceInput(
        result_set(run(study_uid=str(plain[0].StudyInstanceUID), title=title), result, volume.frames),
        plain,
        result.mask,
        lambda plane: volume.voxels[plane],
        captures=[item.data for item in result.attachments if item.capture],
        maps=result.maps,
        explanation=result.explanation,
    )


def refusal(state: AiState, reason: str | None = None, detail: str = "", **changes: Any) -> EvidenceInput:
    """A result without findings: what a study gets when nothing was found or nothing could be computed."""
    source = headers(1)
    return EvidenceInput(ResultSet(run=run(**changes), state=state, reason=reason, detail=detail), source, None, None)


def without(sources: list[Dataset], *keywords: str) -> list[Dataset]:
    """Copies of *sources* lacking some attributes."""
    copies = copy.deepcopy(sources)
    for source in copies:
        for keyword in keywords:
            if keyword in source:
                delattr(source, keyword)
    return copies
