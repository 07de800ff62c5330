"""Writes a coronary phantom as a real CT Image Storage series; names and identifiers say that it is synthetic."""

from __future__ import annotations

import copy

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from wetread.testing.phantoms.coronary_parameters import CoronarySpec
from wetread.testing.phantoms.coronary_render import Grid, Image
from wetread.testing.phantoms.dicom import uid

_IMPLEMENTATION = "2.25.91206712388013905620041507712093"


def series(spec: CoronarySpec, grid: Grid, image: Image) -> list[Dataset]:
    """CT slices from bottom to top (PS3.3 A.3), without those that ``missing_slices`` leaves out."""
    base = _common(spec, grid)
    gap = range(len(grid.z) // 3, len(grid.z) // 3 + spec.missing_slices)
    kept = [k for k in range(len(grid.z)) if k not in gap]
    return [_slice(spec, grid, base, image, plane, number) for number, plane in enumerate(kept, start=1)]


def _common(spec: CoronarySpec, grid: Grid) -> Dataset:
    out = Dataset()
    out.SpecificCharacterSet = "ISO_IR 192"
    out.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    out.SOPClassUID = CTImageStorage
    out.StudyDate = out.SeriesDate = out.AcquisitionDate = out.ContentDate = "20260115"
    out.StudyTime, out.SeriesTime = "101500", "101520"
    out.AcquisitionTime = out.ContentTime = "101530"
    out.AccessionNumber = f"CPH{spec.seed:08d}"
    out.Modality = "CT"
    out.Manufacturer = "wetread phantom"
    out.ManufacturerModelName = "Synthetic coronary CT"
    out.InstitutionName = "SYNTHETIC DATA"
    out.ReferringPhysicianName = ""
    out.StudyDescription = "CT CORONARY ANGIOGRAPHY"
    out.SeriesDescription = f"CTA coronary {spec.spacing_mm:.2f} mm 75 %"
    out.PatientName = f"PHANTOM^CORONARY {spec.seed}"
    out.PatientID = f"WRCORONARY{spec.seed:08d}"
    out.PatientBirthDate = f"{1935 + spec.seed % 50}0101"
    out.PatientSex = "FM"[spec.seed % 2]
    out.PatientAge = f"{90 - spec.seed % 50:03d}Y"
    out.PatientComments = "Computer-generated phantom. Not a person."
    out.BodyPartExamined = "HEART"
    out.ContrastBolusAgent = "SYNTHETIC"
    out.ScanOptions = "AXIAL MODE"
    out.SliceThickness = _short(spec.thickness_mm or spec.spacing_mm)
    out.KVP = "100"
    out.DataCollectionDiameter = _short(500.0)
    out.ReconstructionDiameter = _short(spec.shape[2] * spec.pixel_mm)
    out.ConvolutionKernel = "Bv40"
    out.XRayTubeCurrent, out.ExposureTime = 500, 250
    out.PatientPosition = "HFS"
    out.ProtocolName = "Coronary CTA"
    out.DeviceSerialNumber = "PHANTOM"
    out.SoftwareVersions = "coronary-ct/1"
    out.StudyInstanceUID = uid(spec.seed, "coronary", "study")
    out.SeriesInstanceUID = uid(spec.seed, "coronary", "series")
    out.StudyID = str(spec.seed)
    out.SeriesNumber = 3
    out.AcquisitionNumber = 1
    out.FrameOfReferenceUID = uid(spec.seed, "coronary", "frame")
    out.PositionReferenceIndicator = "XY"
    out.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    out.PixelSpacing = [_short(spec.pixel_mm), _short(spec.pixel_mm)]
    out.SamplesPerPixel = 1
    out.PhotometricInterpretation = "MONOCHROME2"
    out.Rows, out.Columns = len(grid.y), len(grid.x)
    out.BitsAllocated, out.BitsStored, out.HighBit = 16, 16, 15
    out.PixelRepresentation = 1
    out.WindowCenter, out.WindowWidth = "250", "900"
    out.RescaleIntercept, out.RescaleSlope, out.RescaleType = "-1024", "1", "HU"
    return out


def _slice(spec: CoronarySpec, grid: Grid, base: Dataset, image: Image, plane: int, number: int) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    sop = uid(spec.seed, "coronary", "image", plane)
    meta.MediaStorageSOPInstanceUID = UID(sop)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    out = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    out.update(copy.deepcopy(base))
    out.SOPInstanceUID = sop
    out.InstanceNumber = number
    out.ImagePositionPatient = [_short(grid.x[0]), _short(grid.y[0]), _short(grid.z[plane])]
    out.SliceLocation = _short(grid.z[plane])
    stored = np.clip(np.rint(image[plane]) + 1024.0, -32768, 32767).astype("<i2")
    out.PixelData = np.ascontiguousarray(stored).tobytes()
    out["PixelData"].VR = "OW"
    return out


def _short(value: float) -> str:
    """Decimal string of at most 16 characters (PS3.5 6.2, VR DS)."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text if text not in ("-0", "") else "0"
