"""A structured report as an external performer would store it: one measurement group with a call and a number."""

from __future__ import annotations

import io

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

COMPREHENSIVE_3D_SR = str(Comprehensive3DSRStorage)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def coded(name: Dataset, value: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "CODE"
    item.ConceptNameCodeSequence, item.ConceptCodeSequence = [name], [value]
    return item


def foreign_sr(
    study: str, series: str, sop: str, *, call: tuple[str, str] = ("121053", "Present"), patient: str = "P1"
) -> bytes:
    """Return Part 10 bytes."""
    volume, unit = Dataset(), code("mL", "UCUM", "mL")
    volume.RelationshipType, volume.ValueType = "CONTAINS", "NUM"
    volume.ConceptNameCodeSequence = [code("118565006", "SCT", "Volume")]
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "7.5", [unit]
    volume.MeasuredValueSequence = [measured]
    group = Dataset()
    group.RelationshipType, group.ValueType, group.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    group.ConceptNameCodeSequence = [code("125007", "DCM", "Measurement Group")]
    group.ContentSequence = [
        coded(code("121071", "DCM", "Finding"), code("1386000", "SCT", "Intracranial hemorrhage")),
        coded(code("1386000", "SCT", "Intracranial hemorrhage"), code(call[0], "DCM", call[1])),
        volume,
    ]
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID = Comprehensive3DSRStorage, sop
    report.StudyInstanceUID, report.SeriesInstanceUID, report.Modality = study, series, "SR"
    report.PatientID, report.PatientName = patient, "X^Y"
    report.SeriesNumber, report.InstanceNumber = 99, 1
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    report.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    report.ContentSequence = [group]
    buffer = io.BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
