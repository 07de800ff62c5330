"""C-CANCEL, and receivers that fail in the middle of C-GET and C-MOVE (PS3.4 C.4; PS3.7 9.3.2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from tests.dimse_support import Running, edge
from tests.gateway_support import CT, instance

from wetread.core.errors import CorruptRecord
from wetread.core.facts import Source
from wetread.dimse import find
from wetread.dimse.find import STUDY_ROOT_FIND
from wetread.dimse.retrieve import STUDY_ROOT_GET


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Running]:
    with edge(tmp_path) as running:
        files = [
            instance(StudyInstanceUID=f"1.2.{n}", SeriesInstanceUID=f"1.2.{n}.1", SOPInstanceUID=f"1.2.{n}.1.1")
            for n in range(6)
        ]
        running.parts.ingest.store("default", files, source=Source())
        yield running


def query(level: str = "STUDY", uids: str = "") -> Dataset:
    data = Dataset()
    data.QueryRetrieveLevel = level
    data.StudyInstanceUID = uids
    return data


def cancel(running: Running, message_id: int) -> None:
    """Put a C-CANCEL where the upper layer puts one that has arrived."""
    (association,) = running.edge.server.active_associations  # type: ignore[union-attr]
    association.dimse.cancel_req[message_id] = object()


def get(running: Running, answer: int = 0) -> tuple[list[Dataset], list[str], Dataset | None]:
    """Return responses, received instances and the last identifier of a C-GET of all six."""
    received: list[str] = []

    def take(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return answer

    entity = AE(ae_title="VIEWER")
    entity.add_requested_context(STUDY_ROOT_GET)
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    association = entity.associate(
        "127.0.0.1",
        running.port,
        ae_title="WETREAD",
        ext_neg=[build_role(CT, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, take)],
    )
    uids = "\\".join(f"1.2.{n}" for n in range(6))
    responses = list(association.send_c_get(query(uids=uids), STUDY_ROOT_GET, msg_id=5))
    association.release()
    return [status for status, _ in responses], received, responses[-1][1]


def test_find_is_cancelled(world: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    made = find.answer

    def answering(*arguments: Any) -> Dataset:
        cancel(world, 7)
        return made(*arguments)

    monkeypatch.setattr(find, "answer", answering)
    entity = AE(ae_title="VIEWER")
    entity.add_requested_context(STUDY_ROOT_FIND)
    association = entity.associate("127.0.0.1", world.port, ae_title="WETREAD")
    statuses = [status.Status for status, _ in association.send_c_find(query(), STUDY_ROOT_FIND, msg_id=7)]
    association.release()
    assert statuses == [0xFF00, 0xFE00]


def test_find_beyond_its_limit_is_a700(tmp_path: Path) -> None:
    with edge(tmp_path, find_matches=2) as running:
        files = [instance(StudyInstanceUID=f"1.{n}", SeriesInstanceUID=f"1.{n}.1") for n in range(3)]
        running.parts.ingest.store("default", files, source=Source())
        entity = AE(ae_title="VIEWER")
        entity.add_requested_context(STUDY_ROOT_FIND)
        association = entity.associate("127.0.0.1", running.port, ae_title="WETREAD")
        statuses = [status.Status for status, _ in association.send_c_find(query(), STUDY_ROOT_FIND)]
        association.release()
        assert statuses == [0xFF00, 0xFF00, 0xA700]


def test_get_is_cancelled_between_instances(world: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    read = world.parts.objects.read
    monkeypatch.setattr(world.parts.objects, "read", lambda ref: (cancel(world, 5), read(ref))[1])
    statuses, received, _ = get(world)
    assert len(received) == 1
    final = statuses[-1]
    assert final.Status == 0xFE00
    assert (final.NumberOfRemainingSuboperations, final.NumberOfCompletedSuboperations) == (5, 1)


def test_get_counts_what_the_receiver_refuses(world: Running) -> None:
    statuses, received, identifier = get(world, answer=0xA700)
    final = statuses[-1]
    assert final.Status == 0xA702
    assert (final.NumberOfFailedSuboperations, final.NumberOfCompletedSuboperations) == (6, 0)
    assert identifier is not None
    assert sorted(identifier.FailedSOPInstanceUIDList) == sorted(received)


def test_get_goes_on_after_a_warning_and_after_a_damaged_record(
    world: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses, _, _ = get(world, answer=0xB000)
    assert (statuses[-1].Status, statuses[-1].NumberOfWarningSuboperations) == (0xB000, 6)
    assert len(statuses) == 6, "a pending response between two instances"
    read, broken = world.parts.objects.read, []

    def damaged(ref: Any) -> bytes:
        if not broken:
            broken.append(ref)
            raise CorruptRecord
        return read(ref)

    monkeypatch.setattr(world.parts.objects, "read", damaged)
    statuses, received, _ = get(world)
    assert len(received) == 5
    assert (statuses[-1].Status, statuses[-1].NumberOfFailedSuboperations) == (0xB000, 1)


def test_a_receiver_without_a_context_gets_nothing(world: Running) -> None:
    entity = AE(ae_title="VIEWER")
    entity.add_requested_context(STUDY_ROOT_GET)
    association = entity.associate("127.0.0.1", world.port, ae_title="WETREAD")
    responses = list(association.send_c_get(query(uids="1.2.0"), STUDY_ROOT_GET))
    association.release()
    assert responses[-1][0].Status == 0xA702
    assert responses[-1][1].FailedSOPInstanceUIDList == "1.2.0.1.1"
