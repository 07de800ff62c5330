"""Writes a perfusion phantom as a real dynamic series: one CT or MR image per plane and time point.

Names and identifiers say that it is synthetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from wetread.testing.phantoms.dicom import uid
from wetread.testing.phantoms.perfusion import PerfusionPhantom
from wetread.testing.phantoms.perfusion_parameters import PerfusionSpec

_IMPLEMENTATION: Final = "2.25.91206712388013905620041507712093"
_START_S: Final = 10 * 3600 + 15 * 60
"""The first image is taken at 10:15."""


def write_perfusion(phantom: PerfusionPhantom, folder: Path) -> list[Path]:
    """Write the series into *folder*, one file per image, and return the files in order of time."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, dataset in enumerate(perfusion_images(phantom), start=1):
        path = folder / f"IM{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def perfusion_images(phantom: PerfusionPhantom) -> Iterator[Dataset]:
    """Yield the images time point by time point, from foot to head (PS3.3 A.3, A.4)."""
    spec, number = phantom.spec, 0
    base = _common(spec)
    for time, stack in enumerate(phantom.images):
        for plane, image in enumerate(stack):
            number += 1
            yield _image(spec, base, image, (time, plane, number), float(phantom.times_s[time, plane]))


def _common(spec: PerfusionSpec) -> Dataset:
    ct = spec.modality == "CT"
    pixel = spec.field_mm / spec.matrix
    out = Dataset()
    out.SpecificCharacterSet = "ISO_IR 192"
    out.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if ct else "M"]
    out.SOPClassUID = CTImageStorage if ct else MRImageStorage
    out.StudyDate = out.SeriesDate = out.AcquisitionDate = out.ContentDate = "20260115"
    out.StudyTime, out.SeriesTime = "101000", "101400"
    out.AccessionNumber = f"PPH{spec.seed:08d}"
    out.Modality = spec.modality
    out.Manufacturer = "wetread phantom"
    out.ManufacturerModelName = f"Synthetic perfusion {spec.modality}"
    out.InstitutionName = "SYNTHETIC DATA"
    out.ReferringPhysicianName = ""
    out.StudyDescription = f"{spec.modality} STROKE PERFUSION HEAD"
    out.SeriesDescription = f"Brain perfusion {spec.step_mm:g} mm"
    out.PatientName = f"PHANTOM^PERFUSION {spec.seed}"
    out.PatientID = f"WRPERFUSION{spec.seed:08d}"
    out.PatientBirthDate = f"{1935 + spec.seed % 50}0101"
    out.PatientSex = "FM"[spec.seed % 2]
    out.PatientAge = f"{90 - spec.seed % 50:03d}Y"
    out.PatientComments = "Computer-generated phantom. Not a person."
    out.BodyPartExamined = "HEAD"
    out.ContrastBolusAgent = "SYNTHETIC"
    out.SliceThickness = f"{spec.step_mm:g}"
    if ct:
        out.ScanOptions = "DYNAMIC"
        out.KVP = "80"
        out.ConvolutionKernel = "H20f"
        out.XRayTubeCurrent, out.ExposureTime = 180, 1000
        out.RescaleIntercept, out.RescaleSlope, out.RescaleType = "-1024", "1", "HU"
    else:
        out.ScanningSequence, out.SequenceVariant, out.ScanOptions = "EP", "SK", ""
        out.MRAcquisitionType = "2D"
        out.RepetitionTime, out.EchoTime, out.EchoTrainLength = "1500", "30", "64"
    out.PatientPosition = "HFS"
    out.ProtocolName = "Brain perfusion"
    out.DeviceSerialNumber = "PHANTOM"
    out.SoftwareVersions = "perfusion/1"
    out.StudyInstanceUID = uid(spec.seed, "perfusion", "study")
    out.SeriesInstanceUID = uid(spec.seed, "perfusion", "series")
    out.StudyID = str(spec.seed)
    out.SeriesNumber = 4
    out.FrameOfReferenceUID = uid(spec.seed, "perfusion", "frame")
    out.PositionReferenceIndicator = ""
    out.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    out.PixelSpacing = [f"{pixel:.6f}", f"{pixel:.6f}"]
    out.SamplesPerPixel = 1
    out.PhotometricInterpretation = "MONOCHROME2"
    out.Rows = out.Columns = spec.matrix
    out.BitsAllocated, out.BitsStored, out.HighBit = 16, 16, 15
    out.PixelRepresentation = 1
    out.WindowCenter, out.WindowWidth = ("40", "80") if ct else ("500", "1000")
    return out


def _image(
    spec: PerfusionSpec, base: Dataset, image: np.ndarray, place: tuple[int, int, int], seconds: float
) -> FileDataset:
    time, plane, number = place
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(base.SOPClassUID)
    sop = uid(spec.seed, "perfusion", "image", time, plane)
    meta.MediaStorageSOPInstanceUID = UID(sop)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    out = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    out.update(base)  # shares elements with `base`: only add to it, never change
    out.SOPInstanceUID = sop
    out.InstanceNumber, out.AcquisitionNumber = number, time + 1
    out.AcquisitionTime = out.ContentTime = _clock(_START_S + seconds)
    pixel = spec.field_mm / spec.matrix
    corner = -(spec.matrix - 1) / 2 * pixel
    out.ImagePositionPatient = [f"{corner:.4f}", f"{corner:.4f}", f"{plane * spec.step_mm:.4f}"]
    offset = 1024.0 if spec.modality == "CT" else 0.0
    stored = np.clip(np.rint(image + offset), -32768, 32767)
    out.PixelData = np.ascontiguousarray(stored, dtype="<i2").tobytes()
    out["PixelData"].VR = "OW"
    return out


def _clock(seconds: float) -> str:
    hour, rest = divmod(seconds, 3600)
    minute, second = divmod(rest, 60)
    return f"{int(hour):02d}{int(minute):02d}{second:09.6f}"
