"""Images of the stress hour: one template per kind, whose identifiers are patched for every instance that is sent.

Pixel values have structure and noise of the modality, so that they are as hard to compress as real ones; sizes are
those of the published table. Head CTs are rendered phantoms, because a detector really reads them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from dicomweb.instances import MARKS, SEED, Place, Template
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from stress_hour.mix import Transaction
from wetread.testing.phantoms import HeadSpec, make, write_dicom
from wetread.testing.phantoms.spec import BleedType

Pixels = NDArray[Any]

HEAD_SEEDS: Final = (2_900_100, 2_900_101)
"""Phantoms of the test split: one with a bleed, one without, sent in turn."""
_HEAD_MM: Final = 162.0
"""Coverage of a head CT: 324 slices 0.5 mm apart."""
_STUDIES_PER_PHANTOM: Final = 2


@dataclass(frozen=True, slots=True)
class Images:
    """Templates by kind. ``heads[variant]`` has one template per slice, the others have one for all instances."""

    plain: dict[str, Template]
    heads: tuple[tuple[Template, ...], ...]

    def of(self, transaction: Transaction) -> Sequence[Template]:
        """Return the template of each instance of a study, in the order of sending."""
        if transaction.kind == "CT head":
            return self.heads[transaction.number % len(self.heads)]
        return [self.plain[transaction.kind]] * transaction.instances


def build(transactions: Iterable[Transaction], *, phantoms: int = 2) -> Images:
    """Make what *transactions* need; head CTs of one run all have the same number of slices."""
    wanted = {one.kind: one.instances for one in transactions}
    makers = {"RF": fluoroscopy, "US": ultrasound, "CT body": body_ct, "MR": magnetic_resonance}
    plain = {kind: Template(makers[kind]()) for kind in wanted if kind in makers}
    slices = wanted.get("CT head", 0)
    return Images(plain, tuple(head_ct(number, slices) for number in range(phantoms if slices else 0)))


def places(transaction: Transaction, *, run: int) -> list[Place]:
    """Return the identifiers of a study's instances; *run* keeps the studies of several runs apart."""
    return [Place(run, transaction.number, 1, number + 1) for number in range(transaction.instances)]


def fluoroscopy() -> Dataset:
    """One RF image, 1024 x 1024 x 8 bit: 1.05 MB."""
    field = _field(1024) * 90 + 90
    return _image("RF", XRayRadiofluoroscopicImageStorage, _noisy(field, 6.0, 0, 255).astype("u1"), "ABDOMEN", "BARIUM")


def ultrasound() -> Dataset:
    """One US image, 790 x 1024 RGB: 2.43 MB, seven of which make 17 MB. Speckle: Rayleigh-distributed amplitude."""
    speckle = np.random.default_rng(SEED).rayleigh(0.6, (790, 1024)) * (_field(1024)[:790] * 80 + 60)
    grey = np.clip(speckle, 0, 255).astype("u1")
    return _image("US", UltrasoundImageStorage, np.repeat(grey[:, :, None], 3, axis=2), "ABDOMEN", "US ABDOMEN")


def magnetic_resonance() -> Dataset:
    """One MR slice, 320 x 320 x 16 bit: 0.2 MB, five of which make 1 MB. Noise: magnitude of two channels (Rice)."""
    draw, field = np.random.default_rng(SEED), _field(320) * 900
    stored = np.hypot(field + draw.normal(0, 18, field.shape), draw.normal(0, 18, field.shape)).astype("<u2")
    data = _image("MR", MRImageStorage, stored, "KNEE", "MR KNEE")
    data.ScanningSequence, data.SequenceVariant, data.EchoTime, data.RepetitionTime = "SE", "NONE", 20, 600
    return data


def body_ct(size: int = 512) -> Dataset:
    """One slice of a chest CT, *size* squared of 16 bits: 0.53 MB at 512, 324 of which make 170 MB."""
    field = _field(size)
    hounsfield = np.where(field > 0.05, field * 120 - 60, -990)
    stored = _noisy(hounsfield + 1024, 18.0, 0, 4095).astype("<i2")
    data = _image("CT", CTImageStorage, stored, "CHEST", "CT CHEST")
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
    data.KVP, data.ConvolutionKernel = 120, "B40f"
    return data


def head_ct(variant: int, slices: int) -> tuple[Template, ...]:
    """Return one template per slice of a head CT phantom over 162 mm, with a bleed in every other variant."""
    step = _HEAD_MM / slices
    bleed = variant % 2 == 0
    spec = HeadSpec(
        split="s0",
        matrix=512,
        bleeds=(BleedType.IPH,) if bleed else (),
        volume_ml=20.0 if bleed else None,
        thickness_mm=max(step, 0.625),
        step_mm=step,
        coverage_mm=_HEAD_MM + 2 * step,
        tilt_deg=0.0,
        regular=True,
    )
    phantom = make(HEAD_SEEDS[variant % 2] + variant // 2 * 2, spec)
    with tempfile.TemporaryDirectory(prefix="wetread-bench-") as folder:
        written = write_dicom(phantom, Path(folder), slices=range(min(slices, len(phantom.volume))))
        return tuple(Template(_marked(pydicom.dcmread(path))) for path in written.files)


def _marked(data: Dataset) -> Dataset:
    """Put the marks where identifiers of a study stand. Instance number and position of a slice stay."""
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(MARKS["sop"].decode())
    data.StudyInstanceUID, data.SeriesInstanceUID = MARKS["study"].decode(), MARKS["series"].decode()
    data.PatientID = data.AccessionNumber = MARKS["patient"].decode()
    data.PatientName, data.StudyDate = MARKS["name"].decode(), MARKS["date"].decode()
    return data


def _image(modality: str, sop_class: str, stored: Pixels, body_part: str, description: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(sop_class)
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPInstanceUID = data.StudyInstanceUID = data.SeriesInstanceUID = ""
    _marked(data)
    data.StudyTime, data.ReferringPhysicianName, data.StudyID = "101530", "", "1"
    data.PatientBirthDate, data.PatientSex = "19520315", "F"
    data.PatientComments = "Computer-generated image. Not a person."
    data.Modality, data.Manufacturer, data.SeriesNumber = modality, "wetread bench", 1
    data.StudyDescription, data.SeriesDescription, data.BodyPartExamined = description, description, body_part
    data.ImageType, data.InstanceNumber = ["ORIGINAL", "PRIMARY"], MARKS["number"].decode()
    if modality in {"CT", "MR"}:
        data.ImagePositionPatient = ["-125.0", "-125.0", MARKS["position"].decode()]
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.5]
        data.FrameOfReferenceUID, data.SliceThickness = "2.25.1", "0.5"
    colour = stored.ndim == 3
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    data.Rows, data.Columns = stored.shape[:2]
    data.BitsAllocated = data.BitsStored = stored.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    return data


def _field(size: int) -> Pixels:
    """Return a smooth body of 0..1 on a square: an ellipse with a few soft structures inside."""
    axis = np.linspace(-1, 1, size)
    x, y = axis[None, :], axis[:, None]
    inside = np.clip(1.2 - (x**2 / 0.7 + y**2 / 0.5), 0, 1)
    return np.asarray(inside * (0.7 + 0.3 * np.sin(7 * x) * np.cos(5 * y)), dtype=float)


def _noisy(values: Pixels, sigma: float, low: float, high: float) -> Pixels:
    noise = np.random.default_rng(SEED).normal(0, sigma, values.shape)
    return np.clip(np.rint(values + noise), low, high)
