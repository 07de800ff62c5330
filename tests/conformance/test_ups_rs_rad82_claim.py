"""RAD-82 Claim UPS Workitem: PS3.18 11.7, PS3.4 CC.2.1 and table CC.1.1-2."""

from __future__ import annotations

import threading

import httpx
import pytest
from tests.ups_worklist import fresh_uid, live, refused, warning, worklist

from wetread.core.ups import UpsState
from wetread.core.ups_dataset import element
from wetread.worklist.ups import UpsHooks


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def test_a_claim_takes_the_workitem(ups):
    uid = ups.create()
    answer = ups.ask_state(uid, "IN PROGRESS", fresh_uid())
    assert (answer.status_code, answer.content) == (200, b"")
    assert "warning" not in answer.headers
    assert ups.state(uid) == "IN PROGRESS"


def test_the_loser_of_a_race_gets_c301_and_the_winner_again_c302(ups):
    uid, lock = ups.claimed()
    lost = ups.ask_state(uid, "IN PROGRESS", fresh_uid())
    refused(lost, 400, "C301")
    assert lost.headers["warning"] == warning("The Transaction UID is incorrect.")
    again = ups.ask_state(uid, "IN PROGRESS", lock)
    refused(again, 409, "C302")
    inconsistent = "The submitted request is inconsistent with the state of the UPS Instance."
    assert again.headers["warning"] == warning(inconsistent)


def test_a_missing_transaction_uid_is_c301(ups):
    answer = ups.ask_state(ups.create(), "IN PROGRESS")
    refused(answer, 400, "C301")
    assert answer.headers["warning"] == warning("The Transaction UID is missing.")


def test_nothing_returns_to_scheduled(ups):
    claimed, lock = ups.claimed()
    refused(ups.ask_state(claimed, "SCHEDULED", lock), 400, "C303")
    refused(ups.ask_state(ups.create(), "SCHEDULED", fresh_uid()), 400, "C303")


def test_an_ended_workitem_cannot_be_claimed_again(ups):
    for uid, lock in (ups.completed(), ups.canceled()):
        refused(ups.ask_state(uid, "IN PROGRESS", lock), 409, "C300")
        refused(ups.ask_state(uid, "IN PROGRESS", fresh_uid()), 400, "C301")


def test_an_unknown_workitem_is_c307_and_a_removed_one_gone(ups):
    refused(ups.ask_state(fresh_uid(), "IN PROGRESS", fresh_uid()), 404, "C307")
    uid, lock = ups.completed()
    with ups.database.write() as tx:
        ups.repository.prune(tx, finished_before=ups.clock.at + 1, locked_after=0, events_before=0)
    refused(ups.ask_state(uid, "IN PROGRESS", lock), 410, "C307")


@pytest.mark.parametrize("body", [[{}], [{"00741000": element("CS", "STARTED")}], []])
def test_a_request_without_a_usable_state_is_400(ups, body):
    assert ups.client.put(f"/dicom-web/workitems/{ups.create()}/state", json=body).status_code == 400


def test_a_transaction_uid_must_be_a_uid(ups):
    assert ups.ask_state(ups.create(), "IN PROGRESS", "my lock").status_code == 400


def test_cc_2_7_3_the_lock_is_never_returned(ups):
    uid, lock = ups.claimed()
    answers = [
        ups.client.get(f"/dicom-web/workitems/{uid}"),
        ups.client.get("/dicom-web/workitems?includefield=all"),
        ups.ask_state(uid, "IN PROGRESS", lock),
        ups.update(uid, {}, lock),
        ups.ask_state(uid, "COMPLETED", lock),
    ]
    for answer in answers:
        assert lock not in answer.text
        assert lock not in str(answer.headers)
        assert "00081195" not in answer.text


def test_two_external_performers_racing_over_http_one_wins(ups):
    uid = ups.create()
    body = {"00741000": element("CS", "IN PROGRESS")}
    answers = []
    with live(ups.app) as address:
        start = threading.Barrier(20)

        def claim():
            mine = [{**body, "00081195": element("UI", fresh_uid())}]
            with httpx.Client(base_url=f"http://{address}") as client:
                start.wait()
                answers.append(client.put(f"/dicom-web/workitems/{uid}/state", json=mine).status_code)

        threads = [threading.Thread(target=claim) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [200] + [400] * 19


def test_the_owner_of_a_task_hears_of_its_claim_in_the_same_transaction(tmp_path):
    heard = []

    def on_state_changed(tx, tenant, uid, state):
        heard.append((tenant, uid, state, ups.repository.load(tx, tenant, uid).state))

    with worklist(tmp_path, hooks=UpsHooks(on_state_changed=on_state_changed)) as ups:
        theirs = ups.create()
        ours = fresh_uid()
        with ups.database.write() as tx:
            ups.repository.schedule(tx, "default", ours, ups.get(theirs))
        for uid in (theirs, ours):
            assert ups.ask_state(uid, "IN PROGRESS", fresh_uid()).status_code == 200
    assert heard == [("default", ours, UpsState.IN_PROGRESS, UpsState.IN_PROGRESS)]
