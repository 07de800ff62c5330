"""Store one synthetic instance, find it, retrieve it, delete it: ``python roundtrip.py URL FILE-OF-API-KEY``."""

import sys
from io import BytesIO
from pathlib import Path

import httpx
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

base, key = sys.argv[1].rstrip("/") + "/dicom-web", Path(sys.argv[2]).read_text("utf-8").strip()
data = Dataset()
data.file_meta = FileMetaDataset()
data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66"  # Raw Data: no detector reads it
data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID = (generate_uid() for _ in range(3))
data.PatientID = data.PatientName = "HELM^TEST"
data.Modality = "OT"
buffer = BytesIO()
data.save_as(buffer, enforce_file_format=True)
parts = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + buffer.getvalue() + b"\r\n--part--\r\n"
study = f"{base}/studies/{data.StudyInstanceUID}"

with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
    stored = http.post(
        f"{base}/studies",
        content=parts,
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=part'},
    )
    stored.raise_for_status()
    found = http.get(f"{base}/studies", params={"StudyInstanceUID": data.StudyInstanceUID}).raise_for_status().json()
    if len(found) != 1:
        sys.exit("the stored study was not found")
    url = f"{study}/series/{data.SeriesInstanceUID}/instances/{data.SOPInstanceUID}"
    accept = {"Accept": 'multipart/related; type="application/dicom"'}
    body = http.get(url, headers=accept).raise_for_status().content
    back = dcmread(BytesIO(body[body.index(b"\r\n\r\n") + 4 :]))
    if back.SOPInstanceUID != data.SOPInstanceUID:
        sys.exit("another instance came back")
    http.delete(study).raise_for_status()
print("STOW-RS, QIDO-RS, WADO-RS, delete: ok")  # noqa: T201 - the log of the test pod
