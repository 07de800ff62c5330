"""RAD-85 Complete UPS Workitem: PS3.18 11.7, PS3.4 CC.2.1 and CC.2.5.1.1 (final state requirements)."""

from __future__ import annotations

import pytest
from tests.ups_worklist import discontinuation, fresh_uid, performed, refused, request_dataset, warning, worklist

from wetread.core.errors import Unprocessable
from wetread.core.ups import UpsState
from wetread.worklist.ups import UpsHooks


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELED"])
def test_a_workitem_that_nobody_claimed_cannot_end(ups, state):
    refused(ups.ask_state(ups.create(), state, fresh_uid()), 409, "C310")


@pytest.mark.parametrize(("state", "ready"), [("COMPLETED", performed()), ("CANCELED", discontinuation())])
def test_the_final_state_requirements_come_first(ups, state, ready):
    uid, lock = ups.claimed()
    answer = ups.ask_state(uid, state, lock)
    refused(answer, 409, "C304")
    assert ups.state(uid) == "IN PROGRESS"
    assert ups.update(uid, ready, lock).status_code == 200
    assert ups.ask_state(uid, state, lock).status_code == 200
    assert ups.state(uid) == state


def test_only_the_holder_of_the_lock_ends_a_workitem(ups):
    uid, lock = ups.claimed()
    ups.update(uid, performed(), lock)
    refused(ups.ask_state(uid, "COMPLETED", fresh_uid()), 400, "C301")
    refused(ups.ask_state(uid, "COMPLETED"), 400, "C301")
    assert ups.state(uid) == "IN PROGRESS"


def test_asking_again_for_the_same_end_is_a_warning(ups):
    uid, lock = ups.completed()
    answer = ups.ask_state(uid, "COMPLETED", lock)
    assert answer.status_code == 200
    assert answer.headers["warning"] == warning("The UPS is already in the requested state of COMPLETED.")
    uid, lock = ups.canceled()
    answer = ups.ask_state(uid, "CANCELED", lock)
    assert answer.status_code == 200
    assert answer.headers["warning"] == warning("The UPS is already in the requested state of CANCELED.")


def test_one_end_does_not_become_the_other(ups):
    uid, lock = ups.completed()
    refused(ups.ask_state(uid, "CANCELED", lock), 409, "C300")
    uid, lock = ups.canceled()
    refused(ups.ask_state(uid, "COMPLETED", lock), 409, "C300")


def test_cc_2_5_3_an_empty_cancellation_time_is_filled_with_now(ups):
    uid, lock = ups.claimed()
    ups.update(uid, discontinuation(), lock)
    ups.clock.at += 61
    ups.ask_state(uid, "CANCELED", lock)
    (progress,) = ups.get(uid)["00741002"]["Value"]
    assert progress["00404052"]["Value"] == ["20260101000101.000000+0000"]


def test_an_owner_that_rejects_the_outputs_keeps_the_workitem_open(tmp_path):
    def check_outputs(_tx, _tenant, _uid, state):
        if state is UpsState.COMPLETED:
            raise Unprocessable("outputs_missing", "an output instance is not in the study")

    with worklist(tmp_path, hooks=UpsHooks(on_state_changed=check_outputs)) as ups:
        uid, lock = fresh_uid(), fresh_uid()
        with ups.database.write() as tx:
            ups.repository.schedule(tx, "default", uid, request_dataset())
        assert ups.ask_state(uid, "IN PROGRESS", lock).status_code == 200
        ups.subscribe(uid, "WATCHER")
        ups.update(uid, performed(), lock)
        answer = ups.ask_state(uid, "COMPLETED", lock)
        assert answer.status_code == 422
        assert answer.json()["code"] == "outputs_missing"
        assert ups.state(uid) == "IN PROGRESS"
        assert [event[1] for event in ups.queued("WATCHER")] == [1]
