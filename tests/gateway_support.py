"""A gateway in process or behind a real socket, instances to send, and what came back: shared by gateway tests."""

from __future__ import annotations

import atexit
import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from starlette.testclient import TestClient
from tests.databases import database_at

from wetread.adapters.codecs.pool import CodecPool
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.studies import SqlArchive
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.web import build_app
from wetread.core.dicomweb.media_types import parse_media_type
from wetread.core.dicomweb.multipart import MultipartSplitter, PartBegin, PartData
from wetread.core.ports.ingest import StudyChange
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.service import gateway
from wetread.gateway.settings import GatewaySettings

CODECS = CodecPool(1)
"""One for all tests: starting a process takes longer than most of them."""
atexit.register(CODECS.close)

CT = "1.2.840.10008.5.1.4.1.1.2"


class RecordingOutbox:
    """Keeps what the ingest transaction told; ``fail`` makes the next call raise."""

    def __init__(self) -> None:
        self.changes: list[StudyChange] = []
        self.removed: list[tuple[str, str]] = []
        self.fail: Exception | None = None
        self.waiting: set[str] = set()
        self.repeated: list[str] = []

    def study_changed(self, _tx: Any, change: StudyChange) -> None:
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error
        self.changes.append(change)

    def waits(self, _tx: Any, _tenant: str, study_uid: str) -> bool:
        return study_uid in self.waiting

    def transfer_repeated(self, _tx: Any, _tenant: str, study_uid: str, *, received_at: float) -> None:
        assert received_at > 0
        self.waiting.discard(study_uid)
        self.repeated.append(study_uid)

    def study_removed(self, _tx: Any, tenant: str, study_uid: str) -> None:
        self.removed.append((tenant, study_uid))


@dataclass
class Parts:
    """One gateway and its insides."""

    database: SqlDatabase
    archive: SqlArchive
    objects: Any
    outbox: RecordingOutbox
    ingest: GroupIngest
    settings: GatewaySettings
    app: Any = None
    stopping: threading.Event = field(default_factory=threading.Event)
    client: TestClient = field(default=None)  # type: ignore[assignment]

    def store(self, *files: bytes, study: str | None = None, boundary: str = "XX", **headers: str) -> Any:
        path = "/dicom-web/studies" + (f"/{study}" if study else "")
        return self.client.post(path, content=multipart(files, boundary), headers=stow_headers(boundary) | headers)

    def get(self, path: str, accept: str | None = None, **headers: str) -> Any:
        given = {"Accept": accept} if accept else {}
        return self.client.get(f"/dicom-web{path}", headers=given | headers)


def build(folder: Path, *, settings: GatewaySettings | None = None, objects: Any = None) -> Parts:
    settings = settings or GatewaySettings()
    database = database_at(folder / "index.db")
    database.create_schema()
    objects = objects or SegmentStore(folder / "objects")
    outbox, archive = RecordingOutbox(), SqlArchive()
    ingest = GroupIngest(database, archive, objects, outbox, settings=settings.ingest)
    parts = Parts(database, archive, objects, outbox, ingest, settings)
    service = gateway(
        database,
        archive,
        objects,
        ingest,
        CODECS,
        settings=settings,
        scratch=folder / "scratch",
        stopping=parts.stopping,
    )
    parts.app = build_app([service], checks={}, metrics=Metrics(database))
    return parts


@contextmanager
def running(folder: Path, *, settings: GatewaySettings | None = None, objects: Any = None) -> Iterator[Parts]:
    """Yield a gateway in this process, behind a test client."""
    parts = build(folder, settings=settings, objects=objects)
    try:
        with TestClient(parts.app) as client:
            parts.client = client
            yield parts
    finally:
        parts.objects.close()
        parts.database.close()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Parts]]:
    """Yield the base URL of a gateway behind a real socket of this process."""
    import uvicorn

    parts = build(folder)
    server = uvicorn.Server(uvicorn.Config(parts.app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/dicom-web", parts
    finally:
        parts.stopping.set()
        server.should_exit = True
        thread.join(20)
        parts.objects.close()
        parts.database.close()


def stow_headers(boundary: str = "XX") -> dict[str, str]:
    return {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}


def multipart(files: Sequence[bytes], boundary: str = "XX") -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()


def split_response(response: Any) -> list[tuple[dict[str, str], bytes]]:
    """Return (headers, body) of the parts of a multipart answer; its final delimiter has to be there."""
    media = parse_media_type(response.headers["content-type"])
    splitter = MultipartSplitter(media.parameters["boundary"])
    parts: list[tuple[dict[str, str], bytearray]] = []
    for event in [*splitter.feed(response.content), *splitter.finish()]:
        if isinstance(event, PartBegin):
            parts.append((dict(event.headers), bytearray()))
        elif isinstance(event, PartData):
            parts[-1][1].extend(event.data)
    assert splitter.complete
    return [(headers, bytes(body)) for headers, body in parts]


def reasons(response: Any) -> list[int]:
    """Return the failure reasons of a STOW answer."""
    module = response.json()
    items = module.get("00081198", {}).get("Value", []) + module.get("0008119A", {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


def dataset(**changes: Any) -> Dataset:
    """Return a small CT slice with fresh UIDs; keyword arguments replace or (None) remove attributes."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID = CT
    data.SOPInstanceUID = generate_uid()
    data.StudyDate, data.StudyTime = "20240131", "103015"
    data.AccessionNumber = "A1"
    data.Modality = "CT"
    data.Manufacturer = "Phantom"
    data.StudyDescription = "HEAD"
    data.SeriesDescription = "AXIAL 5mm"
    data.PatientName, data.PatientID = "Doe^Jane", "P1"
    data.PatientBirthDate, data.PatientSex = "19640131", "F"
    data.SliceThickness = "5"
    data.StudyInstanceUID = "1.2.3"
    data.SeriesInstanceUID = "1.2.3.1"
    data.StudyID, data.SeriesNumber, data.InstanceNumber = "S1", 1, 1
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 5], [1, 0, 0, 0, 1, 0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = 8, 6
    data.PixelSpacing = [0.5, 0.5]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.PixelData = np.arange(48, dtype="<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def encoded(
    data: Dataset, syntax: str = ExplicitVRLittleEndian, *, media_class: str = CT, media_instance: str = "1.2"
) -> bytes:
    """Return *data* as a PS3.10 file."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = media_class
    data.file_meta.MediaStorageSOPInstanceUID = media_instance
    target = io.BytesIO()
    data.save_as(target, enforce_file_format=True)
    return target.getvalue()


def instance(**changes: Any) -> bytes:
    """Return a small CT slice as a PS3.10 file."""
    return encoded(dataset(**changes))
