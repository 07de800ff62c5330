"""Hostile and broken associations against the DIMSE edge: each ends alone, nothing hangs, nothing grows (PS3.8 9)."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from tests.dimse_support import Running, edge, write_peers
from tests.gateway_support import CT, dataset, instance

from wetread.dimse.received import ReceivedDataset

VERIFICATION = "1.2.840.10008.1.1"
ABORT, ACCEPT, REJECT, P_DATA = 0x07, 0x02, 0x03, 0x04


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("edge")
    with edge(
        folder, idle_seconds=0.6, association_seconds=0.6, max_associations=3, object_bytes=100_000, spool_bytes=20_000
    ) as running:
        yield running


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(sop_class: str = VERIFICATION, called: str = "WETREAD", syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return an A-ASSOCIATE-RQ with one presentation context (PS3.8 9.3.2)."""
    context = b"\x01\0\0\0" + item(0x30, sop_class.encode()) + item(0x40, syntax.encode())
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")
    body = struct.pack(">HH16s16s32s", 1, 0, called.ljust(16).encode(), b"HOSTILE".ljust(16), bytes(32))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return pdu(0x01, body)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def pdv(flags: int, data: bytes, context: int = 1) -> bytes:
    return pdu(P_DATA, struct.pack(">LBB", len(data) + 2, context, flags) + data)


def connect(running: Running, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout)


def answer(connection: socket.socket) -> int | None:
    """Return the type of the next PDU; None when the connection is closed."""
    try:
        header = connection.recv(6, socket.MSG_WAITALL)
        if len(header) < 6:
            return None
        connection.recv(struct.unpack(">BBL", header)[2], socket.MSG_WAITALL)
    except ConnectionResetError:
        return None
    return header[0]


def established(running: Running, sop_class: str = VERIFICATION) -> socket.socket:
    connection = connect(running)
    connection.sendall(associate_rq(sop_class))
    assert answer(connection) == ACCEPT
    return connection


def command(primitive: C_ECHO | C_STORE) -> bytes:
    message = C_ECHO_RQ() if isinstance(primitive, C_ECHO) else C_STORE_RQ()
    message.primitive_to_message(primitive)
    (first, *_) = message.encode_msg(1, 0)
    return first.presentation_data_value_list[0][1][1:]


def store_command(sop_instance: str = "1.2.9") -> bytes:
    import io

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, sop_instance
    request.DataSet = io.BytesIO(b"\0\0")
    return command(request)


def alive(running: Running) -> None:
    """The edge still serves others."""
    entity = AE(ae_title="WITNESS")
    entity.add_requested_context(VERIFICATION)
    deadline = time.monotonic() + 5
    while True:  # the slots of those before may still be closing
        association = entity.associate("127.0.0.1", running.port, ae_title="WETREAD")
        if association.is_established or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        pdu(0x99, b"junk"),
        pdu(0x01, b""),
        pdu(0x01, b"\xff" * 2000),
        pdu(P_DATA, b"\0\0\0\x02\x01\x03"),
        associate_rq()[:-40] + b"\xff" * 40,
        pdu(0x05, bytes(4)),
    ],
    ids=["http", "tls", "unknown", "empty", "noise", "data-first", "items", "release-first"],
)
def test_what_is_no_association_request_is_ended(world: Running, sent: bytes) -> None:
    with connect(world) as connection:
        connection.sendall(sent)
        assert answer(connection) in (ABORT, REJECT, None)
    alive(world)


@pytest.mark.parametrize("kind", [0x01, 0x02, P_DATA, 0x05])
def test_a_pdu_that_claims_gigabytes_is_aborted_at_its_header(world: Running, kind: int) -> None:
    with established(world) as connection:
        connection.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFFF) + bytes(64))
        assert answer(connection) == ABORT
        assert answer(connection) is None
    alive(world)


@pytest.mark.parametrize(
    "sent",
    [
        pdv(3, b"\xff" * 40),
        pdv(3, b""),
        pdv(3, b"\0\0\0\x01\x02\0\0\0\xff\xff"),
        pdv(3, b"\0\0\0\0\x04\0\0\0\0\0\0\0"),
        pdv(2, b"data without a command"),
        pdv(1, bytes(60_000)) + pdv(1, bytes(60_000)),
        pdu(P_DATA, b"\xff\xff\xff\xff\x01\x03"),
        pdu(P_DATA, b""),
    ],
    ids=["noise", "empty", "command-field", "no-field", "no-command", "endless-command", "pdv-length", "no-pdv"],
)
def test_what_is_no_message_is_aborted(world: Running, sent: bytes) -> None:
    with established(world) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        assert answer(connection) in (ABORT, None)
        assert time.monotonic() - started < 4
    alive(world)


def test_a_context_that_was_not_accepted_is_aborted(world: Running) -> None:
    echo = C_ECHO()
    echo.MessageID, echo.AffectedSOPClassUID = 1, VERIFICATION
    with established(world) as connection:
        connection.sendall(pdv(3, command(echo), context=9))
        assert answer(connection) == ABORT
    alive(world)


def test_requests_without_waiting_for_answers_are_bounded(world: Running) -> None:
    """Nobody negotiated an asynchronous operations window (PS3.7 D.3.3.3)."""
    with established(world, CT) as connection:
        flood = (pdv(3, store_command()) + pdv(2, b"\0\0")) * 4000
        try:
            connection.sendall(flood)
            kinds = {answer(connection) for _ in range(200)}
        except OSError:
            kinds = {None}
        assert kinds & {ABORT, None}
    alive(world)


def test_abort_and_disconnect_in_the_middle_of_a_store(world: Running) -> None:
    before = len(world.parts.outbox.changes)
    for ending in (pdu(ABORT, bytes(4)), b""):
        with established(world, CT) as connection:
            connection.sendall(pdv(3, store_command()) + pdv(0, bytes(15_000)) + pdv(0, bytes(15_000)) + ending)
    alive(world)
    assert len(world.parts.outbox.changes) == before
    assert list((world.edge.settings.scratch or Path()).iterdir()) == [], "a scratch file has no name"


def test_silence_is_aborted_and_half_a_pdu_too(world: Running) -> None:
    started = time.monotonic()
    silent, half, unborn = established(world), established(world), connect(world)
    half.sendall(pdv(0, bytes(1000))[:200])
    with silent, half, unborn:
        assert answer(silent) in (ABORT, None)
        assert answer(half) in (ABORT, None)
        assert answer(unborn) in (ABORT, None)
    assert time.monotonic() - started < 5
    alive(world)


def test_one_association_too_many_is_rejected_for_now(world: Running) -> None:
    held = [established(world) for _ in range(3)]
    with connect(world) as late:
        late.sendall(associate_rq())
        header = late.recv(10, socket.MSG_WAITALL)
    for connection in held:
        connection.close()
    assert header[0] == REJECT
    assert tuple(header[7:10]) == (2, 3, 2), "transient, local limit exceeded"
    alive(world)


def test_an_instance_beyond_the_limit_is_a700_and_the_association_goes_on(world: Running, tmp_path: Path) -> None:
    entity = AE(ae_title="CT1")
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", world.port, ae_title="WETREAD")
    large = dataset(SOPInstanceUID="1.2.77.1", Rows=300, Columns=300, PixelData=bytes(180_000))
    spooled = dataset(SOPInstanceUID="1.2.77.2", Rows=150, Columns=150, PixelData=bytes(45_000))
    small = dataset(SOPInstanceUID="1.2.77.3")
    statuses = []
    for data in (large, spooled, small):
        file = tmp_path / f"{data.SOPInstanceUID}.dcm"
        file.write_bytes(
            instance(SOPInstanceUID=data.SOPInstanceUID, Rows=data.Rows, Columns=data.Columns, PixelData=data.PixelData)
        )
        statuses.append(association.send_c_store(file).Status)
    association.release()
    assert statuses == [0xA700, 0, 0]
    with world.parts.database.read() as tx:
        kept = {one.sop_uid: one for one in world.parts.archive.instances(tx, "default", "1.2.3")}
    assert {"1.2.77.2", "1.2.77.3"} <= set(kept)
    assert "1.2.77.1" not in kept
    assert bytes(45_000) in world.parts.objects.read(kept["1.2.77.2"].ref)


def test_a_data_set_that_is_not_what_the_request_says_is_a900(world: Running) -> None:
    entity = AE(ae_title="CT1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.4", ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", world.port, ae_title="WETREAD")
    body = instance(SOPInstanceUID="1.2.78.1")
    at = body.index(b"\x08\x00\x05\x00CS")
    import io

    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.78.1"
    request.DataSet = io.BytesIO(body[at:])
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.001)
    association.dimse.send_msg(request, 1)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    assert response.Status == 0xA900
    assert "class or instance" in response.ErrorComment


def test_no_room_is_a700_before_anything_is_kept(tmp_path: Path) -> None:
    with edge(tmp_path, free_bytes=1 << 60) as running:
        file = tmp_path / "one.dcm"
        file.write_bytes(instance(SOPInstanceUID="1.2.3.4"))
        entity = AE(ae_title="CT1")
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", running.port, ae_title="WETREAD")
        assert association.send_c_store(file).Status == 0xA700
        association.release()
        assert running.parts.outbox.changes == []


def test_an_address_that_no_peer_has_is_closed_unheard(tmp_path: Path) -> None:
    peers = write_peers(tmp_path / "peers.yaml", ("ae: CT1", "addresses: [192.0.2.1]"))
    with edge(tmp_path, peers=peers) as running, connect(running) as connection:
        connection.sendall(associate_rq())
        assert answer(connection) is None
        assert running.meter.associations == {"refused": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.lists(st.binary(max_size=3000), max_size=8), spool=st.integers(0, 4000), limit=st.integers(1, 9000))
def test_received_dataset_is_whole_or_refused(tmp_path: Path, data: list[bytes], spool: int, limit: int) -> None:
    received = ReceivedDataset(tmp_path, limit=limit, spool=spool)
    for piece in data:
        received.write(piece)
    whole = b"".join(data)
    if len(whole) > limit:
        assert received.refused
    else:
        assert bytes(received.view(b"LEAD")) == b"LEAD" + whole
    received.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cut=st.integers(0, 400),
    noise=st.binary(max_size=40),
    at=st.integers(0, 400),
    after=st.sampled_from([b"", b"\x05\0\0\0\0\4\0\0\0\0", b"\x07\0\0\0\0\4\0\0\0\0"]),
)
def test_mutated_conversations_end_alone(world: Running, cut: int, noise: bytes, at: int, after: bytes) -> None:
    spoken = associate_rq(CT) + pdv(3, store_command()) + pdv(2, bytes(60)) + after
    at = min(at, len(spoken))
    with connect(world) as connection, contextlib.suppress(OSError):
        connection.sendall((spoken[:at] + noise + spoken[at + len(noise) :])[: len(spoken) - cut % len(spoken)])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    if cut % 100 == 0:
        alive(world)
