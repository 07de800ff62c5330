"""RAD-84 Update UPS Workitem: PS3.18 11.6, PS3.4 CC.2.6."""

from __future__ import annotations

import pytest
from tests.ups_worklist import fresh_uid, performed, refused, warning, worklist

from wetread.core.ups_dataset import element

LABEL = {"00741204": element("LO", "Second look")}


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def test_a_scheduled_workitem_is_updated_without_a_transaction_uid(ups):
    uid = ups.create()
    answer = ups.update(uid, LABEL)
    assert (answer.status_code, answer.content) == (200, b"")
    assert "warning" not in answer.headers
    assert ups.get(uid)["00741204"] == LABEL["00741204"]


def test_cc_2_6_2_a_transaction_uid_on_a_scheduled_workitem_is_c310(ups):
    answer = ups.update(ups.create(), LABEL, fresh_uid())
    refused(answer, 409, "C310")
    assert answer.headers["warning"] == warning("The target URI did not reference a claimed Workitem.")


def test_cc_2_6_3_a_claimed_workitem_needs_the_right_lock(ups):
    uid, lock = ups.claimed()
    for wrong, text in ((None, "missing"), (fresh_uid(), "incorrect")):
        answer = ups.update(uid, LABEL, wrong)
        refused(answer, 400, "C301")
        assert answer.headers["warning"] == warning(f"The Transaction UID is {text}.")
    assert ups.get(uid)["00741204"] != LABEL["00741204"]
    assert ups.update(uid, LABEL, lock).status_code == 200


@pytest.mark.parametrize("form", ["?transaction-uid={}", "?transaction={}", "?{}", "?00081195={}", "dataset"])
def test_editions_bring_the_lock_in_several_ways(ups, form):
    uid, lock = ups.claimed()
    body = {**LABEL, "00081195": element("UI", lock)} if form == "dataset" else LABEL
    query = "" if form == "dataset" else form.format(lock)
    assert ups.client.post(f"/dicom-web/workitems/{uid}{query}", json=[body]).status_code == 200
    assert "00081195" not in ups.get(uid)


def test_an_ended_workitem_is_not_updated(ups):
    for uid, lock in (ups.completed(), ups.canceled()):
        answer = ups.update(uid, LABEL, lock)
        refused(answer, 400, "C300")
        text = "The submitted request is inconsistent with the current state of the Workitem."
        assert answer.headers["warning"] == warning(text)


def test_cc_2_6_2_updates_are_idempotent_and_replace_whole_sequences(ups):
    uid, lock = ups.claimed()
    for _ in range(2):
        assert ups.update(uid, performed(), lock).status_code == 200
    assert ups.get(uid)["00741216"] == performed()["00741216"]
    ups.update(uid, {"00741216": element("SQ", {"00404033": element("SQ")})}, lock)
    assert list(ups.get(uid)["00741216"]["Value"][0]) == ["00404033"]


def test_cc_2_6_2_a_refused_update_changes_nothing(ups):
    uid = ups.create()
    before = ups.get(uid)
    answer = ups.update(uid, {**LABEL, "00741000": element("CS", "COMPLETED")})
    refused(answer, 400, "0106")
    assert ups.get(uid) == before


@pytest.mark.parametrize("tag", ["00100010", "00100020", "00380010", "0040A370"])
def test_patient_admission_and_request_cannot_be_set(ups, tag):
    from wetread.core.ups_dataset import vr_of

    refused(ups.update(ups.create(), {tag: element(vr_of(tag))}), 400, "0106")


def test_11_6_3_2_modified_and_unsupported_are_told(ups):
    uid = ups.create()
    modified = ups.update(uid, {"00404010": element("DT", "19990101")})
    assert modified.headers["warning"] == warning("The Workitem was updated with modifications.")
    assert ups.get(uid)["00404010"]["Value"] == ["20260101000000.000000+0000"]
    unsupported = ups.update(uid, {**LABEL, "7FE00010": {"vr": "OW", "InlineBinary": "AAA="}})
    assert unsupported.headers["warning"] == warning("Requested optional Attributes are not supported.")
    assert "7FE00010" not in ups.get(uid)


def test_progress_is_stored_and_reported(ups):
    uid, lock = ups.claimed()
    ups.subscribe(uid, "WATCHER")
    progress = {"00741002": element("SQ", {"00741004": element("DS", 40), "00741006": element("ST", "inferring")})}
    assert ups.update(uid, progress, lock).status_code == 200
    assert ups.get(uid)["00741002"] == progress["00741002"]
    assert ups.queued("WATCHER")[-1] == (uid, 3, progress)


def test_an_unknown_workitem_is_c307(ups):
    refused(ups.update(fresh_uid(), LABEL), 404, "C307")
