"""Write a phantom as a real CT series: CT Image Storage, realistic headers, UIDs from the seed.

Patient names and identifiers say that they are synthetic. Optional trouble imitates what scanners
and archives do to headers: missing frame of reference, wrong SpacingBetweenSlices, padding values.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.spec import Phantom

_IMPLEMENTATION = "2.25.91206712388013905620041507712093"
_COMPRESSED = {"rle": RLELossless, "jpeg-ls": JPEGLSLossless}
_KERNEL_NAMES = {"smooth": "H20s", "soft": "H31s", "standard": "H40s", "sharp": "H60s"}
_WORDS = ("ALDER", "BIRCH", "CEDAR", "ELM", "HAZEL", "LARCH", "MAPLE", "OAK", "PINE", "ROWAN")


@dataclass(frozen=True, slots=True)
class Headers:
    """How the series is labelled. Each trouble is off by default.

    syntax: "explicit" or one of the lossless compressions. localizer: adds a second series with one scout image.
    no_frame_of_reference, wrong_spacing: imitate damaged headers. padding_hu: value outside the
    reconstruction circle (scanners write -1024, -2000 or -3024).
    """

    syntax: Literal["explicit", "rle", "jpeg-ls"] = "explicit"
    localizer: bool = False
    no_frame_of_reference: bool = False
    wrong_spacing: bool = False
    padding_hu: int | None = None
    body_part: str = "HEAD"
    description: str = "CT HEAD W/O CONTRAST"


@dataclass(frozen=True, slots=True)
class WrittenSeries:
    """What was written: identifiers and files, in slice order."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    files: tuple[Path, ...]


def uid(seed: int, *parts: str | int) -> str:
    """Derive a UID (PS3.5 B.2) from the seed; the same parts give the same UID."""
    text = "/".join(str(part) for part in ("wetread-phantom", seed, *parts))
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:15], 'big')}"


def write_dicom(
    phantom: Phantom,
    folder: Path,
    *,
    seed: int | None = None,
    slices: range | None = None,
    headers: Headers | None = None,
) -> WrittenSeries:
    """Write the phantom's slices (all, or a range of them) into `folder`, one file each.

    `seed` names the UIDs and the patient (default: the phantom's own). Raises PhantomSpecError for
    an empty range.
    """
    headers = headers or Headers()
    seed = phantom.seed if seed is None else seed
    chosen = range(len(phantom.volume)) if slices is None else slices
    if len(chosen) == 0:
        raise PhantomSpecError("no slices to write")
    folder.mkdir(parents=True, exist_ok=True)
    base = _common(phantom, seed, headers)
    files, uids = [], []
    for number, index in enumerate(chosen, start=1):
        dataset = _slice(phantom, base, seed, headers, index, number)
        path = folder / f"CT{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
        uids.append(str(dataset.SOPInstanceUID))
    if headers.localizer:
        scout = _localizer(phantom, base, seed)
        path = folder / "SC0001.dcm"
        scout.save_as(path, enforce_file_format=True)
        files.append(path)
    return WrittenSeries(str(base.StudyInstanceUID), str(base.SeriesInstanceUID), tuple(uids), tuple(files))


def _common(phantom: Phantom, seed: int, headers: Headers) -> Dataset:
    """Attributes shared by the series (PS3.3 A.3 CT Image IOD)."""
    rng = np.random.default_rng([seed, 11])
    tags = phantom.tags
    day = 1 + int(rng.integers(0, 28))
    out = Dataset()
    out.SpecificCharacterSet = "ISO_IR 192"
    out.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    out.SOPClassUID = CTImageStorage
    out.StudyDate = out.SeriesDate = out.AcquisitionDate = out.ContentDate = f"202601{day:02d}"
    clock = f"{int(rng.integers(0, 24)):02d}{int(rng.integers(0, 60)):02d}"
    out.StudyTime, out.SeriesTime = f"{clock}00", f"{clock}20"
    out.AcquisitionTime = out.ContentTime = f"{clock}30"
    out.AccessionNumber = f"PH{seed:08d}"
    out.Modality = "CT"
    out.Manufacturer = "wetread phantom"
    out.ManufacturerModelName = "Synthetic head CT"
    out.InstitutionName = "SYNTHETIC DATA"
    out.ReferringPhysicianName = ""
    out.StudyDescription = headers.description
    out.SeriesDescription = f"Head {tags.get('thickness_mm', 5)} mm {tags.get('kernel', '')}".strip()
    out.PatientName = f"PHANTOM^{_WORDS[seed % len(_WORDS)]} {seed}"
    out.PatientID = f"WRPHANTOM{seed:08d}"
    out.PatientBirthDate = f"{1935 + seed % 60}0101"
    out.PatientSex = "FM"[seed % 2]
    out.PatientAge = f"{91 - seed % 60:03d}Y"
    out.PatientComments = "Computer-generated phantom. Not a person."
    out.BodyPartExamined = headers.body_part
    out.ScanOptions = "HELICAL MODE"
    out.SliceThickness = _short(float(tags.get("thickness_mm", 5.0)))
    out.KVP = str(tags.get("kvp", 120))
    out.GantryDetectorTilt = _short(float(tags.get("tilt_deg", 0.0)))
    out.ConvolutionKernel = _KERNEL_NAMES.get(str(tags.get("kernel", "")), "H31s")
    out.XRayTubeCurrent = int(rng.integers(150, 350))
    out.ExposureTime = 1000
    out.DataCollectionDiameter = _short(500.0)
    out.ReconstructionDiameter = _short(phantom.volume.shape[2] * float(tags.get("pixel_mm", 0.5)))
    out.PatientPosition = "HFS"
    out.ProtocolName = "Head routine"
    out.DeviceSerialNumber = "PHANTOM"
    out.SoftwareVersions = "head-ct/2"
    out.StudyInstanceUID = uid(seed, "study")
    out.SeriesInstanceUID = uid(seed, "series", 2)
    out.StudyID = str(seed)
    out.SeriesNumber = 2
    out.AcquisitionNumber = 1
    if not headers.no_frame_of_reference:
        out.FrameOfReferenceUID = uid(seed, "frame")
        out.PositionReferenceIndicator = "OM"
    row = phantom.affine[:3, 0] / np.linalg.norm(phantom.affine[:3, 0])
    column = phantom.affine[:3, 1] / np.linalg.norm(phantom.affine[:3, 1])
    out.ImageOrientationPatient = [_short(v) for v in (*row, *column)]
    pixel = float(np.linalg.norm(phantom.affine[:3, 0]))
    out.PixelSpacing = [_short(pixel), _short(pixel)]
    if headers.wrong_spacing:
        out.SpacingBetweenSlices = "21.09"
    out.SamplesPerPixel = 1
    out.PhotometricInterpretation = "MONOCHROME2"
    out.Rows, out.Columns = phantom.volume.shape[1:]
    out.BitsAllocated, out.BitsStored, out.HighBit = 16, 16, 15
    out.PixelRepresentation = 1
    out.WindowCenter, out.WindowWidth = ["40", "600"], ["80", "2800"]
    out.RescaleIntercept, out.RescaleSlope, out.RescaleType = "-1024", "1", "HU"
    if headers.padding_hu is not None:
        out.PixelPaddingValue = headers.padding_hu + 1024
    return out


def _slice(phantom: Phantom, base: Dataset, seed: int, headers: Headers, index: int, number: int) -> FileDataset:
    pixels = np.rint(phantom.volume[index]) + 1024
    if headers.padding_hu is not None:
        size = pixels.shape[0]
        axis = np.arange(size) - (size - 1) / 2
        pixels[np.hypot(axis[None, :], axis[:, None]) > size / 2] = headers.padding_hu + 1024
    stored = np.ascontiguousarray(np.clip(pixels, -32768, 32767), dtype="<i2")
    dataset = _file(base, uid(seed, "image", index))
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [_short(v) for v in phantom.positions_lps_mm[index]]
    dataset.SliceLocation = _short(phantom.positions_lps_mm[index][2])
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if headers.syntax != "explicit":
        dataset.compress(_COMPRESSED[headers.syntax], generate_instance_uid=False)
    return dataset


def _file(base: Dataset, sop_instance_uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.update(base)  # shares elements with `base`: only add to it, never change
    dataset.SOPInstanceUID = sop_instance_uid
    return dataset


def _localizer(phantom: Phantom, base: Dataset, seed: int) -> FileDataset:
    """A lateral scout: the line integral across the head, in a series of its own."""
    attenuation = np.clip(phantom.volume[::-1] + 1000.0, 0, None).mean(axis=2)
    rows = max(32, int(len(phantom.volume) * abs(float(phantom.affine[2, 2]))))
    picked = np.clip((np.arange(rows) * len(attenuation)) // rows, 0, len(attenuation) - 1)
    stored = np.ascontiguousarray(np.clip(attenuation[picked], 0, 4000), dtype="<i2")
    dataset = _file(copy.deepcopy(base), uid(seed, "localizer"))
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.SeriesInstanceUID = uid(seed, "series", 1)
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.SeriesDescription = "Topogram"
    dataset.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
    corner = phantom.positions_lps_mm[-1]
    dataset.ImagePositionPatient = [_short(v) for v in (0.0, corner[1], corner[2])]
    dataset.PixelSpacing = ["1", _short(float(np.linalg.norm(phantom.affine[:3, 1])))]
    dataset.Rows, dataset.Columns = stored.shape
    dataset.WindowCenter, dataset.WindowWidth = "600", "1200"
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _short(value: float) -> str:
    """Decimal string of at most 16 characters (PS3.5 6.2, VR DS)."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text if text not in ("-0", "") else "0"
