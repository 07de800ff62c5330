"""Any ``Volume`` as a DICOM series: CT or MR Image Storage, one object per plane, UIDs from a seed.

Positions, orientation and spacing are the volume's own, so that assembly gives the same volume back. Patient names
and identifiers say that the data are synthetic.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from wetread.core.detector import Volume
from wetread.testing.phantoms.dicom import uid
from wetread.testing.phantoms.errors import PhantomSpecError

_CLASSES: Final = {"CT": CTImageStorage, "MR": MRImageStorage}


def series_of(
    volume: Volume,
    *,
    seed: int,
    modality: str = "CT",
    body_part: str = "",
    description: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> list[bytes]:
    """Return the PS3.10 objects of *volume* in plane order; *attributes* override keywords, None takes one out.

    CT values are stored with intercept -1024; MR values as they are, rounded, from 0 to 65535. Raises
    PhantomSpecError for another modality.
    """
    if modality not in _CLASSES:
        raise PhantomSpecError(f"no series of modality {modality!r} is written")
    base = _common(volume, seed, modality, body_part, description)
    return [_object(volume, base, seed, plane, attributes or {}) for plane in range(len(volume.voxels))]


def _common(volume: Volume, seed: int, modality: str, body_part: str, description: str) -> Dataset:
    out = Dataset()
    out.SpecificCharacterSet = "ISO_IR 192"
    out.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "M"]
    out.SOPClassUID = _CLASSES[modality]
    day = f"202601{1 + seed % 28:02d}"
    out.StudyDate = out.SeriesDate = out.AcquisitionDate = out.ContentDate = day
    out.StudyTime = out.SeriesTime = out.AcquisitionTime = out.ContentTime = "101530"
    out.AccessionNumber = f"SV{seed:08d}"
    out.Modality = modality
    out.Manufacturer = "wetread phantom"
    out.ManufacturerModelName = f"Synthetic {modality}"
    out.InstitutionName = "SYNTHETIC DATA"
    out.ReferringPhysicianName = ""
    out.StudyDescription = out.SeriesDescription = description or f"{modality} {body_part}".strip()
    out.PatientName = f"PHANTOM^SERIES {seed}"
    out.PatientID = f"WRSERIES{seed:08d}"
    out.PatientBirthDate = f"{1935 + seed % 60}0101"
    out.PatientSex = "FM"[seed % 2]
    out.PatientAge = f"{91 - seed % 60:03d}Y"
    out.PatientComments = "Computer-generated phantom. Not a person."
    out.BodyPartExamined = body_part
    out.PatientPosition = "HFS"
    out.StudyInstanceUID, out.SeriesInstanceUID = uid(seed, "volume study"), uid(seed, "volume series")
    out.FrameOfReferenceUID = uid(seed, "volume frame")
    out.PositionReferenceIndicator = ""
    out.StudyID, out.SeriesNumber, out.AcquisitionNumber = str(seed), 2, 1
    out.SliceThickness = _ds(float(np.median(volume.weights_mm)))
    if modality == "CT":
        out.KVP, out.ConvolutionKernel = "120", "STANDARD"
        out.RescaleIntercept, out.RescaleSlope, out.RescaleType = "-1024", "1", "HU"
    else:
        out.ScanningSequence, out.SequenceVariant, out.ScanOptions = "GR", "SP", ""
        out.MRAcquisitionType, out.MagneticFieldStrength = "3D", "3"
        out.RepetitionTime, out.EchoTime, out.InversionTime, out.FlipAngle = "2300", "2.9", "900", "9"
        out.EchoTrainLength = 1
    out.ImageOrientationPatient = [_ds(v) for v in (*volume.row_direction, *volume.column_direction)]
    out.PixelSpacing = [_ds(v) for v in volume.pixel_spacing]
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.Rows, out.Columns = volume.voxels.shape[1:]
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 0
    return out


def _object(volume: Volume, base: Dataset, seed: int, plane: int, attributes: Mapping[str, Any]) -> bytes:
    meta = FileMetaDataset()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.update(base)
    dataset.SOPInstanceUID = uid(seed, "volume image", plane)
    dataset.InstanceNumber = plane + 1
    dataset.ImagePositionPatient = [_ds(v) for v in volume.origins[plane]]
    stored = np.rint(volume.voxels[plane]) + (1024 if base.Modality == "CT" else 0)
    dataset.PixelData = np.clip(stored, 0, 65535).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with io.BytesIO() as buffer:
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def _ds(value: float) -> str:
    """Decimal string of at most 16 characters (PS3.5 6.2, VR DS), to a tenth of a nanometre or so."""
    text = f"{value:.10f}"[:16].rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
