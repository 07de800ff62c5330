"""The DIMSE edge with real peers: dcmtk's echoscu, storescu, findscu, movescu, getscu and storescp (PS3.4)."""

from __future__ import annotations

import io
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from tests.dimse_support import Running, edge, write_peers
from tests.gateway_support import dataset, encoded, instance

from wetread.testing.servers.process import free_port

pytestmark = pytest.mark.server("dcmtk")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One edge with two studies of one patient and one of another."""
    folder = tmp_path_factory.mktemp("edge")
    port = free_port()
    peers = write_peers(
        folder / "peers.yaml",
        ("ae: CT1", "addresses: [127.0.0.0/8]"),
        ("ae: SINK", f"host: 127.0.0.1, port: {port}"),
        ("ae: OTHER", "addresses: [127.0.0.1]", "tenant: elsewhere"),
        ("ae: DEAF", "addresses: [127.0.0.1]", "may: [store]"),
    )
    with edge(folder, peers=peers) as running:
        running.sink_port = port  # type: ignore[attr-defined]
        for number in range(3):
            send(running, folder, dataset(SOPInstanceUID=f"1.2.3.1.{number}", InstanceNumber=number + 1))
        send(
            running,
            folder,
            dataset(
                SpecificCharacterSet="ISO_IR 192",
                PatientName="Müller^Jürgen",
                PatientID="P2",
                StudyInstanceUID="1.2.4",
                SeriesInstanceUID="1.2.4.1",
                SOPInstanceUID="1.2.4.1.1",
                StudyDate="20250203",
            ),
        )
        send(
            running,
            folder,
            dataset(StudyInstanceUID="1.2.5", SeriesInstanceUID="1.2.5.1", SOPInstanceUID="1.2.5.1.1", Modality="MR"),
        )
        yield running


def send(running: Running, folder: Path, data: Dataset, syntax: str = ExplicitVRLittleEndian, **titles: str) -> Any:
    file = folder / "one.dcm"
    file.write_bytes(encoded(data, syntax, media_instance=data.SOPInstanceUID, media_class=data.SOPClassUID))
    result = running.dcmtk("storescu", "-xf", *_contexts(folder, data.SOPClassUID, syntax), file, **titles)
    assert result.returncode == 0, result.stdout + result.stderr
    return file.read_bytes()


def _contexts(folder: Path, sop_class: str, syntax: str) -> tuple[str | Path, str]:
    """Return dcmtk's configuration for exactly one presentation context."""
    file = folder / "contexts.cfg"
    file.write_text(
        f"[[TransferSyntaxes]]\n[Only]\nTransferSyntax1 = {syntax}\n"
        f"[[PresentationContexts]]\n[One]\nPresentationContext1 = {sop_class}\\Only\n"
        "[[Profiles]]\n[Default]\nPresentationContexts = One\n"
    )
    return file, "Default"


def stored(running: Running, study: str, sop: str, tenant: str = "default") -> bytes:
    with running.parts.database.read() as tx:
        items = running.parts.archive.instances(tx, tenant, study)
    (item,) = [item for item in items if item.sop_uid == sop]
    return running.parts.objects.read(item.ref)


def body(file: bytes) -> bytes:
    """Return the data set after group 0002."""
    stream = io.BytesIO(file)
    pydicom.filereader.read_preamble(stream, force=False)
    pydicom.filereader._read_file_meta_info(stream)
    return file[stream.tell() :]


def find(running: Running, folder: Path, *keys: str, model: str = "-S", **titles: str) -> list[Dataset]:
    """Return what findscu received."""
    folder.mkdir(exist_ok=True)
    arguments = [part for key in keys for part in ("-k", key)]
    result = running.dcmtk("findscu", model, "-X", "-od", folder, *arguments, **titles)
    assert result.returncode == 0, result.stderr
    assert "Success" in result.stderr, result.stderr
    return [pydicom.dcmread(file, force=True) for file in sorted(folder.glob("rsp*.dcm"))]


@contextmanager
def storescp(running: Running, folder: Path, *options: str) -> Iterator[Path]:
    """Run dcmtk's storage SCP as the destination SINK."""
    received = folder / "received"
    received.mkdir()
    port = running.sink_port  # type: ignore[attr-defined]
    process = subprocess.Popen(
        ["storescp", "-aet", "SINK", "-od", received, "+B", *options, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield received
    finally:
        process.kill()
        process.wait()


def test_verification(world: Running) -> None:
    assert world.dcmtk("echoscu").returncode == 0


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_store_keeps_the_bytes_of_any_uncompressed_syntax(world: Running, tmp_path: Path, syntax: str) -> None:
    data = dataset(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    sent = send(world, tmp_path, data, syntax)
    kept = stored(world, data.StudyInstanceUID, data.SOPInstanceUID)
    assert pydicom.dcmread(io.BytesIO(kept)).file_meta.TransferSyntaxUID == syntax
    if syntax != DeflatedExplicitVRLittleEndian:  # dcmtk deflates anew
        assert body(kept) == body(sent)
    else:
        assert pydicom.dcmread(io.BytesIO(kept)).PixelData == data.PixelData


def test_store_of_a_private_class_and_a_compressed_syntax(world: Running, tmp_path: Path) -> None:
    data = dataset(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid(), SOPClassUID="1.2.826.0.1.3680043.77")
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(RLELossless, generate_instance_uid=False)
    sent = send(world, tmp_path, data, RLELossless)
    assert body(stored(world, data.StudyInstanceUID, data.SOPInstanceUID)) == body(sent)


def test_store_twice_is_a_success_and_other_content_is_0111(world: Running, tmp_path: Path) -> None:
    uids = {"StudyInstanceUID": generate_uid(), "SOPInstanceUID": generate_uid()}
    before = len(world.parts.outbox.changes)
    send(world, tmp_path, dataset(**uids))
    deadline = time.monotonic() + 10  # storescu is gone before we have noted that the association has ended
    while not world.parts.outbox.changes[-1].transfer_end and time.monotonic() < deadline:
        time.sleep(0.02)
    first = len(world.parts.outbox.changes)
    send(world, tmp_path, dataset(**uids))
    assert len(world.parts.outbox.changes) == first > before
    assert world.parts.outbox.changes[-1].transfer_end
    assert world.parts.outbox.changes[-1].source.ae == "CT1"
    file = tmp_path / "other.dcm"
    file.write_bytes(instance(**uids, StudyDescription="OTHER"))
    result = world.dcmtk("storescu", file)
    assert result.returncode != 0 or "0111" in result.stderr
    assert world.meter.requests["C-STORE", 0x0111] == 1


@pytest.mark.parametrize(
    ("titles", "text"),
    [
        ({"calling": "STRANGER"}, "Calling AE Title Not Recognized"),
        ({"called": "SOMEONE"}, "Called AE Title Not Recognized"),
    ],
)
def test_strangers_are_rejected(world: Running, titles: dict[str, str], text: str) -> None:
    result = world.dcmtk("echoscu", **titles)
    assert result.returncode != 0
    assert text in result.stderr


def test_tenant_is_of_the_association(world: Running, tmp_path: Path) -> None:
    send(world, tmp_path, dataset(SOPInstanceUID="1.2.3.1.0", StudyDescription="THEIRS"), calling="OTHER")
    (theirs,) = find(world, tmp_path / "o", "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3", calling="OTHER")
    assert theirs.StudyInstanceUID == "1.2.3"
    assert find(world, tmp_path / "x", "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.4", calling="OTHER") == []
    assert b"THEIRS" in stored(world, "1.2.3", "1.2.3.1.0", "elsewhere")
    assert b"THEIRS" not in stored(world, "1.2.3", "1.2.3.1.0")


@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        (("PatientID=P2",), ["1.2.4"]),
        (("PatientName=muller*",), ["1.2.4"]),
        (("PatientName=DOE^J*", "StudyInstanceUID=1.2.3\\1.2.4\\1.2.5"), ["1.2.3", "1.2.5"]),
        (("StudyDate=20250101-20251231",), ["1.2.4"]),
        (("StudyDate=-20241231", "StudyInstanceUID=1.2.3\\1.2.4"), ["1.2.3"]),
        (("ModalitiesInStudy=MR",), ["1.2.5"]),
        (("StudyInstanceUID=9.9",), []),
    ],
)
def test_find_studies(world: Running, tmp_path: Path, keys: tuple[str, ...], studies: list[str]) -> None:
    asked = () if any(key.startswith("StudyInstanceUID") for key in keys) else ("StudyInstanceUID",)
    found = find(world, tmp_path / "f", "QueryRetrieveLevel=STUDY", *asked, *keys)
    assert sorted(one.StudyInstanceUID for one in found) == studies


def test_find_answers_what_was_asked(world: Running, tmp_path: Path) -> None:
    keys = ("PatientName", "PatientID=P2", "StudyID", "PatientComments", "NumberOfStudyRelatedInstances")
    (found,) = find(world, tmp_path / "f", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", *keys)
    assert str(found.PatientName) == "Müller^Jürgen"
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert (found.QueryRetrieveLevel, found.RetrieveAETitle, found.StudyID) == ("STUDY", "WETREAD", "S1")
    assert found.NumberOfStudyRelatedInstances == 1
    assert "PatientComments" in found
    assert not found.PatientComments
    assert "StudyDate" not in found


def test_find_in_every_level_of_the_patient_root(world: Running, tmp_path: Path) -> None:
    patients = find(
        world, tmp_path / "p", "QueryRetrieveLevel=PATIENT", "PatientID=P?", "NumberOfPatientRelatedStudies", model="-P"
    )
    assert sorted(one.PatientID for one in patients) == ["P1", "P2"]
    series = ("QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.3", "SeriesInstanceUID", "Modality")
    assert [one.Modality for one in find(world, tmp_path / "s", *series, model="-P")] == ["CT"]
    image = ("QueryRetrieveLevel=IMAGE", "SeriesInstanceUID=1.2.3.1", "SOPInstanceUID", "InstanceNumber=2")
    assert [one.SOPInstanceUID for one in find(world, tmp_path / "i", *image)] == ["1.2.3.1.1"]


@pytest.mark.parametrize("keys", [("PatientID=P1",), ("QueryRetrieveLevel=WARD",), ("QueryRetrieveLevel=PATIENT",)])
def test_find_without_a_level_of_the_model_is_refused(world: Running, keys: tuple[str, ...]) -> None:
    result = world.dcmtk("findscu", "-S", *(part for key in keys for part in ("-k", key)))
    assert "DoesNotMatch" in result.stderr.replace(" ", "") or "a900" in result.stderr.lower(), result.stderr


def test_rights(world: Running) -> None:
    result = world.dcmtk("findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", calling="DEAF")
    assert "0x124" in result.stderr
    assert world.meter.requests["C-FIND", 0x0124] == 1


def test_get_is_byte_identical(world: Running, tmp_path: Path) -> None:
    result = world.dcmtk(
        "getscu", "-S", "+B", "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3"
    )
    assert result.returncode == 0, result.stderr
    files = sorted(file for file in tmp_path.iterdir())
    assert len(files) == 3
    for file in files:
        sop = str(pydicom.dcmread(file).SOPInstanceUID)
        assert body(file.read_bytes()) == body(stored(world, "1.2.3", sop))


def test_get_decompresses_for_a_receiver_of_uncompressed(world: Running, tmp_path: Path) -> None:
    data = dataset(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    pixels = data.PixelData
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(RLELossless, generate_instance_uid=False)
    send(world, tmp_path, data, RLELossless)
    for option, syntax in (("+xe", ExplicitVRLittleEndian), ("+xi", ImplicitVRLittleEndian)):
        out = tmp_path / option
        out.mkdir()
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={data.StudyInstanceUID}")
        assert world.dcmtk("getscu", "-S", option, "-od", out, *keys).returncode == 0
        (file,) = out.iterdir()
        got = pydicom.dcmread(file)
        assert got.PixelData == pixels
        if option == "+xi":
            assert got.file_meta.TransferSyntaxUID in (syntax, ExplicitVRLittleEndian)


def test_move_to_a_configured_destination(world: Running, tmp_path: Path) -> None:
    with storescp(world, tmp_path) as received:
        keys = ("-k", "QueryRetrieveLevel=SERIES", "-k", "StudyInstanceUID=1.2.3", "-k", "SeriesInstanceUID=1.2.3.1")
        result = world.dcmtk("movescu", "-S", "-aem", "SINK", *keys)
        assert result.returncode == 0, result.stderr
        files = sorted(received.iterdir())
    assert len(files) == 3
    for file in files:
        sop = str(pydicom.dcmread(file).SOPInstanceUID)
        assert body(file.read_bytes()) == body(stored(world, "1.2.3", sop))


def test_move_one_image_and_nothing(world: Running, tmp_path: Path) -> None:
    with storescp(world, tmp_path) as received:
        one = ("-k", "QueryRetrieveLevel=IMAGE", "-k", "SOPInstanceUID=1.2.3.1.2")
        assert world.dcmtk("movescu", "-S", "-aem", "SINK", *one).returncode == 0
        none = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=9.9.9")
        assert world.dcmtk("movescu", "-S", "-aem", "SINK", *none).returncode == 0
        assert len(list(received.iterdir())) == 1


# pynetdicom drops the socket of a refused connection without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_move_elsewhere_is_a801_and_an_absent_destination_a702(world: Running) -> None:
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3")
    world.dcmtk("movescu", "-S", "-aem", "NOWHERE", *keys)
    assert world.meter.requests["C-MOVE", 0xA801] == 1
    world.dcmtk("movescu", "-S", "-aem", "SINK", *keys)
    assert world.meter.requests["C-MOVE", 0xA702] == 1
    other = world.dcmtk("movescu", "-S", "-aem", "SINK", *keys, calling="OTHER")
    assert other.returncode != 0
    assert world.meter.requests["C-MOVE", 0xA801] == 2, "a destination of another tenant is not known"


def test_audit_names_who_what_and_which_study(world: Running) -> None:
    noted = world.edge.ports.access.noted  # type: ignore[attr-defined]
    assert {access.action for access in noted} == {"C-STORE", "C-FIND", "C-GET", "C-MOVE"}
    assert {access.address for access in noted} == {"127.0.0.1"}
    said = {(access.tenant, access.actor, access.action, access.study_uid, access.outcome) for access in noted}
    assert ("default", "ae:CT1", "C-STORE", "1.2.4", "0000, 1 instances") in said
    assert ("default", "ae:CT1", "C-GET", "1.2.3", "0000") in said
    assert ("default", "ae:CT1", "C-MOVE", "1.2.3", "A702 to SINK") in said
    assert ("elsewhere", "ae:OTHER", "C-STORE", "1.2.3", "0000, 1 instances") in said
    assert ("default", "ae:DEAF", "C-FIND", "", "0124, 0 matches") in said
    assert any(outcome.startswith("0111") for _, _, action, _, outcome in said if action == "C-STORE")
    assert not any("Doe" in str(access) or "P1" in str(access) for access in noted)


def test_logs_and_metrics_hold_nothing_of_a_patient_or_peer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    marked = {"PatientName": "Zzyzx^Quentin", "PatientID": "MARK-77", "StudyInstanceUID": "1.2.99.77"}
    caplog.set_level("DEBUG")
    with edge(tmp_path) as running:
        send(running, tmp_path, dataset(SOPInstanceUID="1.2.99.78", **marked))
        find(running, tmp_path / "f", "QueryRetrieveLevel=STUDY", "PatientName=Zzyzx*", "StudyInstanceUID")
        file = tmp_path / "other.dcm"
        file.write_bytes(instance(SOPInstanceUID="1.2.99.78", **marked | {"PatientID": "MARK-78"}))
        running.dcmtk("storescu", file, calling="MARKEDAE")
        running.dcmtk(
            "getscu", "-S", "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.99.77"
        )
        running.dcmtk("echoscu", called="MARKEDAE")
    said = " ".join(str(vars(record)) + record.getMessage() for record in caplog.records if record.levelname != "DEBUG")
    assert "C-STORE refused with 0111" in said
    assert "rejected" in said
    for secret in ("Zzyzx", "zzyzx", "MARK-7", "1.2.99.7", "MARKEDAE"):
        assert secret not in said


@pytest.mark.slow
def test_up_runs_the_edge_beside_the_gateway_and_ends_it(tmp_path: Path) -> None:
    """What a modality stores is found over DICOMweb; SIGTERM ends all three processes."""
    import os
    import re
    import signal
    import sys

    import httpx

    port = free_port()
    services = Path(__file__).resolve().parents[2] / "services"
    process = subprocess.Popen(
        [sys.executable, "-m", "wetread", "up", "--port", "0", "--data", tmp_path / "d", "--dimse-port", str(port)],
        env=os.environ | {"PYTHONPATH": str(services)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+?:\d+", process.stdout.readline())
        assert url is not None
        file = tmp_path / "one.dcm"
        file.write_bytes(instance(SOPInstanceUID="1.2.3.4"))
        deadline = time.monotonic() + 60
        command = ["storescu", "-aec", "WETREAD", "127.0.0.1", str(port), file]
        while subprocess.run(command, capture_output=True, check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        while time.monotonic() < deadline:
            try:
                found = httpx.get(f"{url[0]}/dicom-web/instances", timeout=5).json()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert [one["00080018"]["Value"] for one in found] == [["1.2.3.4"]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
