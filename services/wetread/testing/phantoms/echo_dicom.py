"""Writes a clip as a real Ultrasound Multi-frame Image (PS3.3 A.7): regions, frame time, colour or grey pixels.

Names and identifiers say that it is synthetic.
"""

from __future__ import annotations

import io
from typing import Final, Literal

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID, ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from wetread.testing.phantoms.dicom import uid
from wetread.testing.phantoms.echo import EchoPhantom

_CENTIMETRES: Final = 3
Photometric = Literal["RGB", "YBR_FULL", "MONOCHROME2", "PALETTE COLOR"]


def echo_object(made: EchoPhantom, *, photometric: Photometric = "RGB", planar: bool = False) -> bytes:
    """Return the clip as PS3.10 bytes, uncompressed."""
    buffer = io.BytesIO()
    echo_dataset(made, photometric=photometric, planar=planar).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def echo_dataset(made: EchoPhantom, *, photometric: Photometric = "RGB", planar: bool = False) -> Dataset:
    """Return the clip as a data set. *planar*: samples plane by plane."""
    spec = made.spec
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = UltrasoundMultiFrameImageStorage
    sop = UID(uid(spec.seed, "echo", "image"))
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID = sop
    out.SpecificCharacterSet = "ISO_IR 192"
    out.ImageType = ["ORIGINAL", "PRIMARY", "TRANSTHORACIC", "0001"]
    out.StudyDate = out.SeriesDate = out.ContentDate = "20260115"
    out.StudyTime, out.SeriesTime, out.ContentTime = "101000", "101400", "101500"
    out.AccessionNumber = f"ECHO{spec.seed:08d}"
    out.Modality = "US"
    out.Manufacturer = "wetread phantom"
    out.ManufacturerModelName = "Synthetic ultrasound"
    out.InstitutionName = "SYNTHETIC DATA"
    out.ReferringPhysicianName = ""
    out.StudyDescription = "ECHO TRANSTHORACIC"
    out.SeriesDescription = "TTE"
    out.PatientName = f"PHANTOM^ECHO {spec.seed}"
    out.PatientID = f"WRECHO{spec.seed:08d}"
    out.PatientBirthDate = f"{1935 + spec.seed % 50}0101"
    out.PatientSex = "FM"[spec.seed % 2]
    out.PatientComments = "Computer-generated phantom. Not a person."
    out.StudyInstanceUID = uid(spec.seed, "echo", "study")
    out.SeriesInstanceUID = uid(spec.seed, "echo", "series")
    out.StudyID, out.SeriesNumber, out.InstanceNumber = str(spec.seed), 1, 1
    out.PatientOrientation = out.Laterality = ""
    out.FrameTime = f"{1000 / spec.frame_rate:.4f}"
    out.FrameIncrementPointer = 0x00181063
    out.NumberOfFrames = len(made.frames)
    out.HeartRate = round(spec.heart_rate)
    out.LossyImageCompression = "00"
    _add_region(out, made)
    _add_pixels(out, made.frames, photometric, planar=planar)
    return out


def _add_region(out: Dataset, made: EchoPhantom) -> None:
    if made.spec.calibration == "missing":
        return
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 2
    top, left, bottom, right = made.written_box
    region.RegionLocationMinX0, region.RegionLocationMinY0 = left, top
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = right, bottom
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = _CENTIMETRES
    region.PhysicalDeltaX = region.PhysicalDeltaY = made.mm_per_pixel / 10
    out.SequenceOfUltrasoundRegions = [region]


def _add_pixels(out: Dataset, frames: np.ndarray, photometric: Photometric, *, planar: bool) -> None:
    out.Rows, out.Columns = frames.shape[1:3]
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 8, 8, 7, 0
    out.PhotometricInterpretation = photometric
    out.SamplesPerPixel = 3 if photometric in {"RGB", "YBR_FULL"} else 1
    pixels = frames
    if photometric == "YBR_FULL":
        pixels = convert_color_space(frames, "RGB", "YBR_FULL")
    elif out.SamplesPerPixel == 1:
        pixels = frames.max(axis=3)
    if photometric == "PALETTE COLOR":
        for name in ("Red", "Green", "Blue"):
            setattr(out, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(out, f"{name}PaletteColorLookupTableData", (np.arange(256, dtype="<u2") * 257).tobytes())
    if out.SamplesPerPixel == 3:
        out.PlanarConfiguration = int(planar)
        pixels = np.moveaxis(pixels, 3, 1) if planar else pixels
    data = np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()
    out.add_new(0x7FE00010, "OB", data + b"\0" * (len(data) % 2))
