"""RAD-86 Manage UPS Subscription: PS3.18 11.10 to 11.12, PS3.4 CC.2.3."""

from __future__ import annotations

import pytest
from tests.ups_worklist import TENANT, fresh_uid, refused, warning, worklist

from wetread.core.ups import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION
from wetread.core.ups_dataset import element
from wetread.worklist.ups import UpsSettings


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def subscribed(ups, uid):
    with ups.database.read() as tx:
        return ups.repository.subscribers(tx, TENANT, uid)


def unsubscribe(ups, uid, aet):
    return ups.client.delete(f"/dicom-web/workitems/{uid}/subscribers/{aet}")


def suspend(ups, uid, aet):
    return ups.client.post(f"/dicom-web/workitems/{uid}/subscribers/{aet}/suspend")


@pytest.mark.parametrize(("query", "lock"), [("", False), ("?deletionlock=false", False), ("?deletionlock=true", True)])
def test_11_10_3_created_with_the_url_of_the_channel(ups, query, lock):
    uid = ups.create()
    answer = ups.subscribe(uid, "WATCHER", query)
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["content-location"] == "ws://testserver/dicom-web/subscribers/WATCHER"
    assert "warning" not in answer.headers
    assert subscribed(ups, uid) == {"WATCHER": lock}


def test_behind_https_the_channel_is_wss(tmp_path):
    with worklist(tmp_path, settings=UpsSettings(public_base_url="https://reads.example/w/")) as ups:
        answer = ups.subscribe(ups.create(), "WATCHER")
        assert answer.headers["content-location"] == "wss://reads.example/w/dicom-web/subscribers/WATCHER"


def test_b301_when_locks_are_not_granted(tmp_path):
    with worklist(tmp_path, settings=UpsSettings(deletion_locks=False)) as ups:
        uid = ups.create()
        answer = ups.subscribe(uid, "WATCHER", "?deletionlock=true")
        assert answer.status_code == 201
        assert answer.headers["warning"] == warning("Deletion Lock not granted.")
        assert subscribed(ups, uid) == {"WATCHER": False}


def test_the_whole_worklist_suspended_and_left(ups):
    old = ups.create()
    assert ups.subscribe(GLOBAL_SUBSCRIPTION, "W", "?deletionlock=true").status_code == 201
    new = ups.create()
    assert subscribed(ups, old) == subscribed(ups, new) == {"W": True}
    assert suspend(ups, GLOBAL_SUBSCRIPTION, "W").status_code == 200
    later = ups.create()
    assert subscribed(ups, later) == {}
    assert subscribed(ups, old) == {"W": True}
    assert unsubscribe(ups, GLOBAL_SUBSCRIPTION, "W").status_code == 200
    assert subscribed(ups, old) == subscribed(ups, new) == {}


@pytest.mark.parametrize(
    "query",
    [
        "?filter=ScheduledProcedureStepPriority=HIGH,00404041=READY",
        "?filter=ScheduledProcedureStepPriority%3DHIGH&deletionlock=true",
        "?ScheduledProcedureStepPriority=HIGH&00404041=READY",
    ],
)
def test_a_filtered_worklist_in_its_old_and_new_forms(ups, query):
    assert ups.subscribe(FILTERED_SUBSCRIPTION, "W", query).status_code == 201
    wanted, other = ups.create(t00741200=element("CS", "HIGH")), ups.create()
    assert "W" in subscribed(ups, wanted)
    assert subscribed(ups, other) == {}


def test_a_filter_keeps_lists_of_uids_together(ups):
    inputs = [element("SQ", {"0020000D": element("UI", uid)}) for uid in ("1.2.5", "1.2.6", "1.2.7")]
    query = "?filter=InputInformationSequence.StudyInstanceUID=1.2.5,1.2.6,InputReadinessState=READY"
    assert ups.subscribe(FILTERED_SUBSCRIPTION, "W", query).status_code == 201
    uids = [ups.create(t00404021=sequence) for sequence in inputs]
    assert [bool(subscribed(ups, uid)) for uid in uids] == [True, True, False]


def test_unsubscribing_twice_is_harmless(ups):
    uid = ups.create()
    ups.subscribe(uid, "W")
    for _ in range(2):
        assert unsubscribe(ups, uid, "W").status_code == 200
    assert subscribed(ups, uid) == {}


def test_unknown_workitems_are_c307(ups):
    uid = fresh_uid()
    refused(ups.subscribe(uid, "W"), 404, "C307")
    refused(unsubscribe(ups, uid, "W"), 404, "C307")


def test_c314_only_worklists_can_be_suspended(ups):
    refused(suspend(ups, ups.create(), "W"), 400, "C314")


def test_c308_for_an_ae_title_that_is_not_the_callers(tmp_path):
    with worklist(tmp_path, allowed_aet=lambda _request, aet: aet == "MINE") as ups:
        uid = ups.create()
        assert ups.subscribe(uid, "MINE").status_code == 201
        refused(ups.subscribe(uid, "THEIRS"), 404, "C308")
        refused(unsubscribe(ups, uid, "THEIRS"), 404, "C308")
        refused(suspend(ups, GLOBAL_SUBSCRIPTION, "THEIRS"), 404, "C308")


@pytest.mark.parametrize(
    ("target", "aet", "query"),
    [
        (None, "W", "?deletionlock=maybe"),
        (None, "W", "?filter=PatientID=1"),
        (None, "W", "?nonsense=1"),
        (GLOBAL_SUBSCRIPTION, "W", "?PatientID=1"),
        (FILTERED_SUBSCRIPTION, "W", ""),
        (FILTERED_SUBSCRIPTION, "W", "?filter=nonsense"),
        (FILTERED_SUBSCRIPTION, "W", "?filter=TransactionUID=1.2"),
        (None, "SEVENTEEN-LETTERS", ""),
        (None, "BACK%5CSLASH", ""),
        (None, "%20", ""),
    ],
)
def test_bad_requests_are_400(ups, target, aet, query):
    answer = ups.subscribe(target or ups.create(), aet, query)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
