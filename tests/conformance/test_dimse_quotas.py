"""Limits of peers and tenants at the DIMSE edge: the status for each, the audit entry, and that others feel nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role
from tests.dimse_support import Running, edge, write_peers
from tests.gateway_support import CT, dataset, encoded

from wetread.core.tenants import TenantFile, TenantPolicy, Tenants

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
HERE = "addresses: [127.0.0.1]"


def associate(running: Running, ae: str = "CT1") -> Any:
    entity = AE(ae_title=ae)
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    entity.add_requested_context(FIND)
    entity.add_requested_context(GET)
    return entity.associate(
        "127.0.0.1", running.port, ae_title="WETREAD", ext_neg=[build_role(CT, scu_role=True, scp_role=True)]
    )


def store(association: Any, **changes: Any) -> int:
    data = dataset(**changes)
    encoded(data)
    return int(association.send_c_store(data).Status)


def find(association: Any) -> int:
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", ""
    return int(list(association.send_c_find(asked, FIND))[-1][0].Status)


def get(association: Any) -> int:
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "1.2.3"
    return int(list(association.send_c_get(asked, GET))[-1][0].Status)


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def tenants(**policies: TenantPolicy) -> Tenants:
    return Tenants(TenantFile(tenants=policies))


def noted(running: Running) -> list[tuple[str, str, str, str]]:
    return [(a.actor, a.action, a.study_uid, a.outcome) for a in running.edge.ports.access.noted]  # type: ignore[attr-defined]


def test_associations_of_a_peer_and_of_a_tenant(tmp_path: Path) -> None:
    """A-ASSOCIATE-RJ: transient, by the presentation service, local limit exceeded (PS3.8 9.3.4)."""
    peers = write_peers(
        tmp_path / "peers.yaml",
        ("ae: CT1", HERE, "associations: 1", "tenant: north"),
        ("ae: CT2", HERE, "tenant: north"),
        ("ae: CT1", HERE, "called: SOUTH", "tenant: south"),
        ("ae: CT3", HERE, "tenant: south"),
    )
    with edge(tmp_path, peers=peers, tenants=tenants(north=TenantPolicy(associations_at_once=2))) as running:

        def rejected(ae: str) -> bool:
            association = associate(running, ae)
            answer = association.acceptor.primitive
            assert association.is_rejected == (answer.result == 2)
            if association.is_rejected:
                assert (answer.result_source, answer.diagnostic) == (3, 2)
            else:
                opened.append(association)
            return bool(association.is_rejected)

        opened: list[Any] = []
        assert [rejected("CT1"), rejected("CT1")] == [False, True], "one of this peer"
        assert [rejected("CT2"), rejected("CT2")] == [False, True], "two of the tenant"
        assert [rejected("CT3") for _ in range(3)] == [False] * 3, "others feel nothing"
        assert running.meter.limits == {"associations": 2}
        until(lambda: ("ae:CT1", "A-ASSOCIATE", "", "rejected, limit reached") in noted(running))
        opened.pop(0).release()
        until(lambda: not rejected("CT1"))
        for association in opened:
            association.abort()
        until(lambda: not running.edge._quotas._open)


def test_too_large_for_the_peer_or_the_tenant_is_a700(tmp_path: Path) -> None:
    peers = write_peers(
        tmp_path / "peers.yaml",
        ("ae: CT1", HERE, "object_bytes: 20000"),
        ("ae: CT2", HERE),
        ("ae: CT3", HERE, "tenant: north"),
    )
    large = {"Rows": 120, "Columns": 120, "PixelData": bytes(28800)}
    with edge(tmp_path, peers=peers, tenants=tenants(north=TenantPolicy(request_bytes=20_000))) as running:
        answers = {}
        for ae in ("CT1", "CT2", "CT3"):
            association = associate(running, ae)
            answers[ae] = [store(association, **large), store(association)]
            association.release()
        assert answers == {"CT1": [0xA700, 0], "CT2": [0, 0], "CT3": [0xA700, 0]}, "the association goes on"
        assert running.meter.limits == {"size": 2}
        until(lambda: ("ae:CT3", "C-STORE", "", "A700, 1 instances") in noted(running))


def test_too_fast_is_held_back_and_then_refused(tmp_path: Path) -> None:
    """A700 for storage and search, A702 for retrieval (PS3.4 tables B.2-1, C.4-1, C.4-3); C-ECHO is free."""
    peers = write_peers(
        tmp_path / "peers.yaml",
        ("ae: CT1", HERE, "requests_per_second: 0.001"),
        ("ae: CT2", HERE, "tenant: north"),
        ("ae: CT3", HERE, "requests_per_second: 40", "tenant: north"),
    )
    limits = tenants(north=TenantPolicy(requests_per_second=50, burst=1))
    with edge(tmp_path, peers=peers, tenants=limits, pace_seconds=5.0) as running:
        slow, fast, other = (associate(running, ae) for ae in ("CT1", "CT2", "CT3"))
        assert store(slow) == 0
        assert [store(slow), find(slow), get(slow)] == [0xA700, 0xA700, 0xA702]
        assert running.meter.limits == {"rate": 3}
        assert [store(fast) for _ in range(5)] == [0] * 5, "held back, not refused"
        assert [find(other), store(other)] == [0, 0]
        assert running.meter.limits == {"rate": 3}
        for association in (slow, fast, other):
            association.release()


@pytest.mark.slow
def test_who_is_held_back_does_not_hold_the_end_up(tmp_path: Path) -> None:
    peers = write_peers(tmp_path / "peers.yaml", ("ae: CT1", HERE, "requests_per_second: 0.01"))
    with edge(tmp_path, peers=peers, pace_seconds=1000.0) as running:
        association = associate(running)
        assert store(association) == 0
        running.edge._quotas.close()
        assert store(association) == 0xA700
        association.release()


@pytest.mark.server("dcmtk")
def test_a_used_up_quota_is_a700_for_this_tenant_only(tmp_path: Path) -> None:
    """Searching goes on; what a tenant has no room for takes none of another's."""
    large = {"Rows": 120, "Columns": 120, "PixelData": bytes(28800)}
    peers = write_peers(tmp_path / "peers.yaml", ("ae: CT1", HERE, "tenant: north"), ("ae: CT2", HERE, "tenant: south"))
    limits = tenants(north=TenantPolicy(storage_bytes=40_000), south=TenantPolicy(storage_instances=100))
    for number in range(2):
        (tmp_path / f"{number}.dcm").write_bytes(encoded(dataset(**large)))
    with edge(tmp_path, peers=peers, tenants=limits) as running:
        files = [tmp_path / "0.dcm", tmp_path / "1.dcm"]
        over = running.dcmtk("storescu", "-nh", *files, calling="CT1")
        answers = [line for line in (over.stdout + over.stderr).splitlines() if "Store Response" in line]
        assert ["Success" in line for line in answers] == [True, False]
        assert "OutOfResources" in answers[1]
        assert running.dcmtk("storescu", *files, calling="CT2").returncode == 0
        found = running.dcmtk(
            "findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", calling="CT1"
        )
        assert "1.2.3" in found.stdout + found.stderr
        assert running.meter.limits == {"storage": 1}
        assert running.meter.requests["C-STORE", 0xA700] == 1
