"""Small DICOM section stacks for tests: one object per plane, every attribute open to mischief."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from wetread.core.detector import Array
from wetread.core.facts import InstanceFacts, SeriesFacts, StudyFacts
from wetread.core.identifiers import derived_uid

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def ct_plane(
    stored: Array, position: Sequence[float], *, number: int = 1, series: str = "s", **attributes: Any
) -> Dataset:
    """Return one CT plane of *stored* values at *position* (LPS mm). *attributes* override; None removes."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values: dict[str, Any] = {
        "SOPClassUID": CT_CLASS,
        "SOPInstanceUID": derived_uid("sections", series, number, list(position)),
        "StudyInstanceUID": derived_uid("sections", "study"),
        "SeriesInstanceUID": derived_uid("sections", series),
        "FrameOfReferenceUID": derived_uid("sections", "frame of reference"),
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": number,
        "AcquisitionNumber": 1,
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": stored.dtype.itemsize * 8,
        "BitsStored": stored.dtype.itemsize * 8,
        "HighBit": stored.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(np.issubdtype(stored.dtype, np.signedinteger)),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": stored.tobytes(),
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(header, keyword, value)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def part10(header: Dataset, *, transfer_syntax: str | None = None) -> bytes:
    """Return the PS3.10 bytes of *header*."""
    if transfer_syntax is not None:
        header.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def enhanced(planes: Array, origins: Sequence[Sequence[float]], *, slopes: Sequence[float] | None = None) -> Dataset:
    """Return one Enhanced CT object of *planes* [plane, row, column] with functional groups."""
    header = ct_plane(planes, origins[0], SOPClassUID=ENHANCED_CT_CLASS, NumberOfFrames=len(planes))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(header, keyword)
    del header.RescaleIntercept
    header.SharedFunctionalGroupsSequence = DicomSequence(
        [
            _groups(
                PlaneOrientationSequence={"ImageOrientationPatient": list(AXIAL)},
                PixelMeasuresSequence={"PixelSpacing": [0.5, 0.5], "SliceThickness": 99.0},
            )
        ]
    )
    header.PerFrameFunctionalGroupsSequence = DicomSequence(
        [
            _groups(
                PlanePositionSequence={"ImagePositionPatient": list(origin)},
                PixelValueTransformationSequence={
                    "RescaleSlope": slopes[k] if slopes else 1,
                    "RescaleIntercept": -1024,
                    "RescaleType": "HU",
                },
                CTImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
            )
            for k, origin in enumerate(origins)
        ]
    )
    return header


def instance_facts(z: float, *, number: int | None = None, series: str = "s", **changes: Any) -> InstanceFacts:
    """Return header facts of an axial 512 x 512 plane at height *z* mm."""
    values: dict[str, Any] = {
        "sop_instance_uid": derived_uid("facts", series, z, number or 0),
        "sop_class_uid": CT_CLASS,
        "content_hash": "",
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "instance_number": number,
        "rows": 512,
        "columns": 512,
        "position": (-125.0, -125.0, z),
        "orientation": AXIAL,
        "pixel_spacing": (0.5, 0.5),
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
        **changes,
    }
    return InstanceFacts(**values)


def series_facts(instances: Iterable[InstanceFacts], *, uid: str = "1.2.3", **changes: Any) -> SeriesFacts:
    """Return header facts of a head CT series."""
    values: dict[str, Any] = {"modality": "CT", "body_part": "HEAD", "kernel": "SOFT", "contrast": False, **changes}
    return SeriesFacts(series_instance_uid=uid, instances=tuple(instances), **values)


def study_facts(*series: SeriesFacts, **changes: Any) -> StudyFacts:
    """Return header facts of a study in the default tenant."""
    return StudyFacts(tenant="default", study_instance_uid="1.2", series=series, **changes)


def _groups(**groups: dict[str, Any]) -> Dataset:
    outer = Dataset()
    for keyword, values in groups.items():
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        setattr(outer, keyword, DicomSequence([inner]))
    return outer
