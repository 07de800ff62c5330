"""RAD-88 Request UPS Workitem Cancelation: PS3.18 11.8, PS3.4 CC.2.2."""

from __future__ import annotations

import pytest
from tests.ups_worklist import TENANT, fresh_uid, refused, request_dataset, warning, worklist

from wetread.core.ups import UpsState
from wetread.core.ups_dataset import code, element
from wetread.worklist.ups import UpsHooks

REASON = {
    "00741238": element("LT", "wrong side"),
    "0074100A": element("UR", "tel:+49"),
    "0074100C": element("LO", "Night desk"),
    "0074100E": element("SQ", code("110514", "DCM", "Incorrect worklist entry selected")),
}


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def cancel(ups, uid, body=None):
    options = {} if body is None else {"json": [body]}
    return ups.client.post(f"/dicom-web/workitems/{uid}/cancelrequest", **options)


def test_cc_2_2_3_a_scheduled_workitem_passes_through_in_progress_to_canceled(ups):
    uid = ups.create()
    ups.subscribe(uid, "WATCHER")
    assert cancel(ups, uid, REASON).status_code == 202
    states = [attributes["00741000"]["Value"][0] for _, kind, attributes in ups.queued("WATCHER") if kind == 1]
    assert states == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    (progress,) = ups.get(uid)["00741002"]["Value"]
    assert progress["0074100E"] == REASON["0074100E"]
    assert progress["00741238"] == REASON["00741238"]
    assert progress["00404052"]["Value"] == ["20260101000000.000000+0000"]


def test_without_a_reason_the_unspecified_one_is_filled_in(ups):
    uid = ups.create()
    assert cancel(ups, uid).status_code == 202
    (progress,) = ups.get(uid)["00741002"]["Value"]
    assert progress["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]


def test_cc_2_4_3_an_external_performer_hears_of_the_request(ups):
    uid, _ = ups.claimed()
    ups.subscribe(uid, "PERFORMER")
    answer = cancel(ups, uid, REASON)
    assert answer.status_code == 202
    assert ups.state(uid) == "IN PROGRESS"
    assert ups.queued("PERFORMER")[-1] == (uid, 2, {"00741236": element("AE", "WETREAD"), **REASON})


def test_c312_when_nobody_can_hear_it(ups):
    uid, _ = ups.claimed()
    answer = cancel(ups, uid)
    refused(answer, 409, "C312")
    assert answer.headers["warning"] == warning("The performer cannot be contacted.")


def test_c311_when_it_is_completed(ups):
    uid, _ = ups.completed()
    answer = cancel(ups, uid)
    refused(answer, 409, "C311")
    assert answer.headers["warning"] == warning("The UPS is already COMPLETED.")


def test_b304_when_it_is_canceled_already(ups):
    uid, _ = ups.canceled()
    answer = cancel(ups, uid)
    assert answer.status_code == 202
    assert answer.headers["warning"] == warning("The UPS is already in the requested state of CANCELED.")


def test_an_unknown_workitem_is_c307_and_a_broken_body_400(ups):
    refused(cancel(ups, fresh_uid()), 404, "C307")
    uid = ups.create()
    assert ups.client.post(f"/dicom-web/workitems/{uid}/cancelrequest", json=[{}, {}]).status_code == 400
    assert ups.state(uid) == "SCHEDULED"


def own_task(ups, *, running):
    uid = fresh_uid()
    with ups.database.write() as tx:
        ups.repository.schedule(tx, TENANT, uid, request_dataset())
        if running:
            ups.repository.start(tx, TENANT, uid)
    return uid


def test_our_own_running_task_is_stopped_through_the_hook(tmp_path):
    asked = []

    def stop(tx, tenant, uid):
        asked.append((tenant, uid))
        ups.repository.finish(tx, tenant, uid, completed=False, attributes={})
        return True

    with worklist(tmp_path, hooks=UpsHooks(on_cancel_requested=stop)) as ups:
        uid = own_task(ups, running=True)
        assert cancel(ups, uid).status_code == 202
        assert asked == [(TENANT, uid)]
        assert ups.state(uid) == "CANCELED"


def test_c313_when_our_own_performer_declines(tmp_path):
    with worklist(tmp_path, hooks=UpsHooks(on_cancel_requested=lambda *_: False)) as ups:
        uid = own_task(ups, running=True)
        ups.subscribe(uid, "WATCHER")
        answer = cancel(ups, uid)
        refused(answer, 409, "C313")
        assert answer.headers["warning"] == warning("Performer chooses not to cancel.")
        assert [kind for _, kind, _ in ups.queued("WATCHER")] == [1]


def test_a_service_that_cannot_stop_our_tasks_does_not_claim_to(ups):
    uid = own_task(ups, running=True)
    refused(cancel(ups, uid), 409, "C313")


def test_our_own_waiting_task_tells_its_owner_that_it_was_cancelled(tmp_path):
    heard = []
    hooks = UpsHooks(on_state_changed=lambda _tx, _tenant, uid, state: heard.append((uid, state)))
    with worklist(tmp_path, hooks=hooks) as ups:
        uid = own_task(ups, running=False)
        assert cancel(ups, uid).status_code == 202
        assert heard == [(uid, UpsState.CANCELED)]
