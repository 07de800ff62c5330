"""Generated instances: one template per kind, made once; an instance is the template with patched identifiers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SEED: Final = 7
_ROOT: Final = "2.25."
_DIGITS: Final = 38
MARKS: Final = {
    "study": b"2.25." + b"1" * _DIGITS,
    "series": b"2.25." + b"2" * _DIGITS,
    "sop": b"2.25." + b"3" * _DIGITS,
    "patient": b"PID#######",
    "name": b"Smith####^Ann",
    "date": b"19000101",
    "number": b"9999",
    "position": b"-9999.5 ",
}
"""Values of the template that every instance replaces by ones of the same length."""


def uid(kind: int, number: int) -> str:
    """Return a UID of the template's length; *kind* keeps the sequences of a run apart."""
    return f"{_ROOT}1{kind:07d}{number:030d}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance belongs: study number (patient, date and UIDs follow from it), series, instance."""

    run: int
    study: int
    series: int
    number: int

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return uid(self.run * 10 + 1, self.study)

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return uid(self.run * 10 + 2, self.study * 100 + self.series)

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID."""
        return uid(self.run * 10 + 3, (self.study * 100 + self.series) * 10_000 + self.number)

    @property
    def patient_id(self) -> str:
        """Patient ID."""
        return f"PID{self.study:07d}"


class Template:
    """One image of which every instance is a copy. *data* holds values of ``MARKS`` where they are to be patched."""

    def __init__(self, data: Dataset) -> None:
        whole = io.BytesIO()
        pydicom.dcmwrite(whole, data, enforce_file_format=True)
        body = whole.getvalue()
        pixels = len(data.PixelData)
        self._head = body[:-pixels]
        self.pixels = memoryview(body)[-pixels:]
        self.size = len(body)
        self._spots = {name: _spots(self._head, mark) for name, mark in MARKS.items()}

    @classmethod
    def ct(cls, size: int, *, rich: bool = True) -> Template:
        """Return ``size`` x ``size`` CT slices of 16 bits: 512 makes 526 KB, 24 makes a small one for index load."""
        return cls(_data_set(size, rich=rich))

    @property
    def sop_at(self) -> int:
        """Where the SOP Instance UID of the data set stands (the last one: group 0002 has it before)."""
        return self._spots["sop"][-1]

    def head(self, place: Place) -> bytes:
        """Return the bytes of one instance up to its pixel values."""
        values = {
            "study": place.study_uid,
            "series": place.series_uid,
            "sop": place.sop_uid,
            "patient": place.patient_id,
            "name": f"Smith{place.study % 10_000:04d}^Ann",
            "date": f"20{place.study % 25:02d}{place.study % 12 + 1:02d}{place.study % 28 + 1:02d}",
            "number": f"{place.number:04d}",
            "position": f"{place.number * 0.5 - 100:<8.1f}",
        }
        head = bytearray(self._head)
        for name, text in values.items():
            mark = MARKS[name]
            value = text.encode()
            assert len(value) == len(mark), name
            for at in self._spots[name]:
                head[at : at + len(value)] = value
        return bytes(head)


def _spots(head: bytes, mark: bytes) -> list[int]:
    found, at = [], head.find(mark)
    while at >= 0:
        found.append(at)
        at = head.find(mark, at + 1)
    return found


def _data_set(size: int, *, rich: bool) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = MARKS["sop"].decode()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = MARKS["sop"].decode()
    data.StudyInstanceUID = MARKS["study"].decode()
    data.SeriesInstanceUID = MARKS["series"].decode()
    data.PatientID = MARKS["patient"].decode()
    data.PatientName = MARKS["name"].decode()
    data.PatientBirthDate, data.PatientSex = "19520315", "F"
    data.StudyDate = data.SeriesDate = data.ContentDate = MARKS["date"].decode()
    data.StudyTime = data.SeriesTime = data.ContentTime = "101530.123"
    data.AccessionNumber = MARKS["patient"].decode()
    data.ReferringPhysicianName = "Jones^Bob"
    data.StudyDescription, data.SeriesDescription = "CT HEAD WITHOUT CONTRAST", "Axial 5 mm"
    data.StudyID, data.Modality, data.SeriesNumber = "1", "CT", 2
    data.InstanceNumber = MARKS["number"].decode()
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = size
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    if rich:
        _acquisition(data)
    values = np.random.default_rng(SEED).normal(0, 120, (size, size)).astype("<i2")
    data.PixelData = values.tobytes()
    return data


def _acquisition(data: Dataset) -> None:
    """Add what a scanner writes: geometry, technique, requests, coded sequences, a private block."""
    data.ImagePositionPatient = ["-125.0", "-125.0", MARKS["position"].decode()]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness, data.SpacingBetweenSlices = [0.48828125, 0.48828125], "5.0", "5.0"
    data.SliceLocation = "-12.5"
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = uid(9, 1), ""
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
    data.WindowCenter, data.WindowWidth, data.WindowCenterWidthExplanation = [40, 400], [80, 2000], ["BRAIN", "BONE"]
    data.Manufacturer, data.ManufacturerModelName, data.StationName = "Example Imaging", "Model One", "CT01"
    data.InstitutionName, data.InstitutionAddress = "General Hospital", "1 Main Street, Springfield"
    data.DeviceSerialNumber, data.SoftwareVersions = "12345", ["1.2.3", "4.5"]
    data.ProtocolName, data.BodyPartExamined, data.PatientPosition = "Head routine", "HEAD", "HFS"
    data.KVP, data.XRayTubeCurrent, data.ExposureTime, data.Exposure = 120, 250, 1000, 250
    data.ConvolutionKernel, data.FilterType, data.GeneratorPower = "H31s", "WEDGE", 30
    data.DataCollectionDiameter, data.ReconstructionDiameter = 500, 250
    data.DistanceSourceToDetector, data.DistanceSourceToPatient = 1040, 570
    data.GantryDetectorTilt, data.TableHeight, data.RotationDirection = 0, 150.5, "CW"
    data.FocalSpots, data.SingleCollimationWidth, data.TotalCollimationWidth = 1.2, 0.6, 38.4
    data.SpiralPitchFactor, data.CTDIvol, data.EstimatedDoseSaving = 0.8, 52.4, 0.0
    data.AcquisitionDate, data.AcquisitionTime, data.AcquisitionNumber = "20240102", "101531.5", 1
    data.AcquisitionDateTime, data.InstanceCreationDate, data.InstanceCreationTime = (
        "20240102101531.5",
        "20240102",
        "101600",
    )
    data.PatientAge, data.PatientWeight, data.PatientSize = "072Y", 71.5, 1.68
    data.OperatorsName, data.PerformingPhysicianName = "Tech^One", "Doe^Jane"
    data.PerformedProcedureStepStartDate, data.PerformedProcedureStepStartTime = "20240102", "101500"
    data.PerformedProcedureStepID, data.PerformedProcedureStepDescription = "PPS1", "CT head"
    data.TimezoneOffsetFromUTC, data.LossyImageCompression, data.BurnedInAnnotation = "+0100", "00", "NO"
    data.PatientComments, data.ImageComments = "", "generated"
    data.ProcedureCodeSequence = [_code("CTHEAD", "99LOCAL", "CT head without contrast")]
    data.AnatomicRegionSequence = [_code("69536005", "SCT", "Head")]
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "SPS1", "RP1"
    request.ScheduledProcedureStepDescription = "CT head"
    request.ScheduledProtocolCodeSequence = [_code("P1", "99LOCAL", "Head routine")]
    data.RequestAttributesSequence = [request]
    data.ReferencedStudySequence = [_reference(1)]
    data.ReferencedImageSequence = [_reference(number) for number in range(2, 5)]
    data.SourceImageSequence = [_reference(number) for number in range(5, 7)]
    for item in data.SourceImageSequence:
        item.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image for image processing operation")]
    dose = Dataset()
    dose.CTDIvol = 52.4
    dose.CTDIPhantomTypeCodeSequence = [_code("113682", "DCM", "CTDI phantom type")]
    data.CTExposureSequence = [dose]
    block = data.private_block(0x0029, "EXAMPLE CSA HEADER", create=True)
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    block.add_new(0x09, "LO", "20240102")
    block.add_new(0x10, "OB", bytes(range(256)) * 8)
    block.add_new(0x20, "UN", b"\x01\x02" * 64)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _reference(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid(8, number)
    return item
