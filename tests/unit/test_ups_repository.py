"""Workitems on real SQLite: claims, our own tasks, the log of events, subscriptions, housekeeping."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text as sql
from tests.ups_worklist import EPOCH, TENANT, fresh_uid, performed, request_dataset, worklist

from wetread.core.errors import Gone, InvalidInput, NotFound, Unavailable, WorkitemStateError
from wetread.core.ports.ups import Performer
from wetread.core.ups import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, UpsState, transaction_hash
from wetread.core.ups_attributes import in_state
from wetread.core.ups_dataset import code, element
from wetread.core.ups_events import ScpStatus, scp_status
from wetread.core.ups_matching import matching_key


@pytest.fixture
def ups(tmp_path, each_database):
    with worklist(tmp_path) as opened:
        yield opened


def test_of_a_hundred_concurrent_claimers_exactly_one_wins(ups):
    uid = ups.create()
    start = threading.Barrier(100)
    outcomes = []

    def claim(number):
        start.wait()
        with ups.database.write() as tx:
            row = ups.repository.load(tx, TENANT, uid)
            lock = transaction_hash(TENANT, uid, f"2.25.{number}")
            outcomes.append((number, ups.repository.claim(tx, row, lock, Performer.EXTERNAL) is not None))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, won in outcomes if won]
    assert len(outcomes) == 100
    assert len(winners) == 1
    with ups.database.read() as tx:
        row = ups.repository.load(tx, TENANT, uid)
    assert row.state is UpsState.IN_PROGRESS
    assert row.transaction_hash == transaction_hash(TENANT, uid, f"2.25.{winners[0]}")


def test_a_claim_on_a_stale_read_changes_nothing(ups):
    uid = ups.create()
    with ups.database.write() as tx:
        stale = ups.repository.load(tx, TENANT, uid)
        assert ups.repository.claim(tx, stale, "first", Performer.EXTERNAL) is not None
        assert ups.repository.claim(tx, stale, "second", Performer.EXTERNAL) is None
        assert ups.repository.load(tx, TENANT, uid).transaction_hash == "first"


def test_saving_over_a_newer_version_is_refused_and_may_be_retried(ups):
    uid = ups.create()
    with ups.database.write() as tx:
        stale = ups.repository.load(tx, TENANT, uid)
        ups.clock.at += 1
        ups.repository.update(tx, TENANT, uid, {"00741204": element("LO", "newer")})
        with pytest.raises(Unavailable) as caught:
            ups.repository.save(tx, stale, stale.dataset)
    assert caught.value.transient


def test_our_own_task_from_scheduled_to_completed(ups):
    uid = fresh_uid()
    scheduled = request_dataset(t00404018=element("SQ", code("ich", "99WETREAD", "ich 1.0")))
    del scheduled["00741000"]
    with ups.database.write() as tx:
        assert ups.repository.schedule(tx, TENANT, uid, scheduled)
        assert not ups.repository.schedule(tx, TENANT, uid, scheduled)
        ups.repository.start(tx, TENANT, uid)
        ups.repository.start(tx, TENANT, uid)
    ups.clock.at += 7
    with ups.database.write() as tx:
        progress = {"00741002": element("SQ", {"00741004": element("DS", 50)})}
        ups.repository.update(tx, TENANT, uid, progress)
        ups.repository.finish(tx, TENANT, uid, completed=True, attributes={})
        ups.repository.finish(tx, TENANT, uid, completed=False, attributes={})
        workitem = ups.repository.get(tx, TENANT, uid)
    assert workitem.state == "COMPLETED"
    (item,) = workitem.dataset["00741216"]["Value"]
    assert item["00404050"]["Value"] == ["20260101000000.000000+0000"]
    assert item["00404051"]["Value"] == ["20260101000007.000000+0000"]
    assert item["00404019"]["Value"][0]["00080100"]["Value"] == ["ich"]
    assert "00404028" in item
    assert "00404033" in item


def test_our_own_task_that_fails_carries_its_reason(ups):
    uid = fresh_uid()
    reason = element("SQ", code("missing_slices", "99WETREAD", "Missing slices"))
    with ups.database.write() as tx:
        ups.repository.schedule(tx, TENANT, uid, request_dataset())
        ups.repository.finish(
            tx, TENANT, uid, completed=False, attributes={"00741002": element("SQ", {"0074100E": reason})}
        )
    progress = ups.get(uid)["00741002"]["Value"][0]
    assert progress["0074100E"] == reason
    assert progress["00404052"]["Value"] == ["20260101000000.000000+0000"]


def test_our_own_task_without_a_reason_gets_the_standard_one(ups):
    uid = fresh_uid()
    with ups.database.write() as tx:
        ups.repository.schedule(tx, TENANT, uid, request_dataset())
        ups.repository.start(tx, TENANT, uid)
        ups.repository.finish(tx, TENANT, uid, completed=False, attributes={})
    progress = ups.get(uid)["00741002"]["Value"][0]
    assert progress["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]


def test_our_own_task_does_not_start_once_cancelled_or_claimed_by_others(ups):
    cancelled, taken = fresh_uid(), fresh_uid()
    with ups.database.write() as tx:
        for uid in (cancelled, taken):
            ups.repository.schedule(tx, TENANT, uid, request_dataset())
    assert ups.client.post(f"/dicom-web/workitems/{cancelled}/cancelrequest").status_code == 202
    assert ups.ask_state(taken, "IN PROGRESS", fresh_uid()).status_code == 200
    for uid, status in ((cancelled, 0xC300), (taken, 0xC302)):
        with ups.database.write() as tx, pytest.raises(WorkitemStateError) as caught:
            ups.repository.start(tx, TENANT, uid)
        assert caught.value.dicom_status == status
    with ups.database.write() as tx, pytest.raises(WorkitemStateError):
        ups.repository.update(tx, TENANT, cancelled, {"00741204": element("LO", "too late")})


def test_an_incomplete_task_of_our_own_is_refused(ups):
    with ups.database.write() as tx, pytest.raises(InvalidInput, match="00741204"):
        ups.repository.schedule(tx, TENANT, fresh_uid(), request_dataset(t00741204=element("LO")))


def test_events_ride_in_the_transaction_of_the_change(ups):
    uid = ups.create()
    ups.subscribe(uid, "WATCHER")
    before = ups.queued("WATCHER")

    def claim_and_crash():
        with ups.database.write() as tx:
            row = ups.repository.load(tx, TENANT, uid)
            ups.repository.claim(tx, row, "lock", Performer.EXTERNAL)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        claim_and_crash()
    assert ups.queued("WATCHER") == before
    assert ups.state(uid) == "SCHEDULED"


def test_nothing_crosses_the_border_of_a_tenant(ups):
    uid = ups.create()
    with ups.database.write() as tx:
        ups.repository.subscribe(tx, "other", GLOBAL_SUBSCRIPTION, "SPY", lock=True, keys=[])
        with pytest.raises(NotFound):
            ups.repository.load(tx, "other", uid)
        with pytest.raises(NotFound):
            ups.repository.subscribe(tx, "other", uid, "SPY", lock=False, keys=[])
        page = ups.repository.search(tx, "other", [], limit=10, offset=0, count_to=1)
        assert (page.datasets, page.remaining) == ([], 0)
        assert ups.repository.insert(tx, "other", uid, ups.get(uid), ours=False)
    ups.ask_state(uid, "IN PROGRESS", fresh_uid())
    assert [event[0] for event in ups.queued("SPY", "other")] == [uid]  # the other tenant's own workitem only
    with ups.database.read() as tx:
        assert ups.repository.load(tx, "other", uid).state is UpsState.SCHEDULED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("InputReadinessState", "READY"),
        ("PatientName", "doe^j*"),
        ("ScheduledProcedureStepStartDateTime", "20260101-20260102"),
        ("ScheduledWorkitemCodeSequence.CodeValue", "100%_a"),
        ("ProcedureStepLabel", "Read 100%*"),
    ],
)
def test_every_kind_of_key_finds_its_workitem_and_no_other_on_either_database(ups, name, value):
    step = element("SQ", code("100%_a", "99TEST", 'A "quoted" \\ code'))
    wanted = {"t00100010": element("PN", "Doe^Jane"), "t00404018": step, "t00741204": element("LO", "Read 100%_now")}
    uid = ups.create(**wanted)
    ups.create(
        t00100010=element("PN", "Roe^Jane"),
        t00404005=element("DT", "20270101080000"),
        t00404018=element("SQ", code("100xya", "99TEST", "Other")),
        t00404041=element("CS", "INCOMPLETE"),
        t00741204=element("LO", "Read 100xnow"),
    )
    answer = ups.client.get("/dicom-web/workitems", params={name: value, "fuzzymatching": "false"})
    assert answer.status_code == 200, answer.text
    assert [item["00080018"]["Value"][0] for item in answer.json()] == [uid]


# PS3.4 table CC.2.3-2: (global state, specific state) before, action -> specific state after and initial event sent.
SUBSCRIPTION_TABLE = [
    (None, "global lock", True, True),
    (None, "global", False, False),
    (True, "global lock", True, False),
    (True, "global", True, False),
    (False, "global lock", False, False),
    (False, "global", False, False),
    (None, "specific lock", True, True),
    (None, "specific", False, True),
    (True, "specific lock", True, True),
    (True, "specific", False, True),
    (False, "specific lock", True, True),
    (False, "specific", False, True),
    (None, "unsubscribe", None, False),
    (True, "unsubscribe", None, False),
    (False, "unsubscribe", None, False),
    (None, "unsubscribe global", None, False),
    (True, "unsubscribe global", None, False),
    (False, "unsubscribe global", None, False),
    (None, "suspend", None, False),
    (True, "suspend", True, False),
    (False, "suspend", False, False),
]


@pytest.mark.parametrize(("before", "action", "after", "initial_event"), SUBSCRIPTION_TABLE)
def test_subscriptions_follow_table_cc_2_3_2(ups, before, action, after, initial_event):
    uid = ups.create()
    repository = ups.repository
    with ups.database.write() as tx:
        if before is not None:
            repository.subscribe(tx, TENANT, uid, "AE", lock=before, keys=[])
    events = len(ups.queued("AE"))
    with ups.database.write() as tx:
        target = GLOBAL_SUBSCRIPTION if "global" in action or action == "suspend" else uid
        if action.startswith(("global", "specific")):
            repository.subscribe(tx, TENANT, target, "AE", lock="lock" in action, keys=[])
        elif action.startswith("unsubscribe"):
            repository.unsubscribe(tx, TENANT, target, "AE")
        else:
            repository.suspend(tx, TENANT, target, "AE")
        assert repository.subscribers(tx, TENANT, uid).get("AE") == after
    assert len(ups.queued("AE")) - events == int(initial_event)


@pytest.mark.parametrize("lock", [True, False])
def test_new_workitems_follow_the_global_state(ups, lock):
    with ups.database.write() as tx:
        ups.repository.subscribe(tx, TENANT, GLOBAL_SUBSCRIPTION, "AE", lock=lock, keys=[])
    uid = ups.create(t00404025=element("SQ", code("ws1", "99TEST", "Workstation 1")))
    with ups.database.write() as tx:
        assert ups.repository.subscribers(tx, TENANT, uid) == {"AE": lock}
    assert [(event[0], event[1]) for event in ups.queued("AE")] == [(uid, 1), (uid, 5)]
    with ups.database.write() as tx:
        ups.repository.suspend(tx, TENANT, GLOBAL_SUBSCRIPTION, "AE")
    later = ups.create()
    ups.ask_state(uid, "IN PROGRESS", fresh_uid())
    with ups.database.read() as tx:
        assert ups.repository.subscribers(tx, TENANT, later) == {}
    assert [event[0] for event in ups.queued("AE")] == [uid, uid, uid]


def test_a_filter_takes_matching_workitems_old_new_and_changed(ups):
    old, other = ups.create(t00741200=element("CS", "HIGH")), ups.create()
    with ups.database.write() as tx:
        keys = [matching_key("ScheduledProcedureStepPriority", "HIGH")]
        ups.repository.subscribe(tx, TENANT, FILTERED_SUBSCRIPTION, "AE", lock=True, keys=keys)
    new = ups.create(t00741200=element("CS", "HIGH"))
    assert [event[0] for event in ups.queued("AE")] == [old, new]
    ups.update(other, {"00741200": element("CS", "HIGH")})
    assert ups.queued("AE")[-1][:2] == (other, 1)
    with ups.database.write() as tx:
        ups.repository.unsubscribe(tx, TENANT, FILTERED_SUBSCRIPTION, "AE")
        assert not any(ups.repository.subscribers(tx, TENANT, uid) for uid in (old, new, other))


def test_a_restart_is_told_once_to_every_subscriber(ups):
    uid = ups.create()
    for aet in ("A", "B"):
        ups.subscribe(uid, aet)
    ups.subscribe(GLOBAL_SUBSCRIPTION, "A")
    with ups.database.write() as tx:
        assert ups.repository.announce(tx, scp_status(ScpStatus.RESTARTED)) == 2
    _, event_type, attributes = ups.queued("A")[-1]
    assert event_type == 4
    assert attributes["00741242"]["Value"] == ["RESTARTED"]
    assert attributes["00741244"]["Value"] == attributes["00741246"]["Value"] == ["WARM START"]


def test_delivery_cursors_only_move_forward_and_old_events_are_not_resent(ups):
    uid = ups.create()
    ups.subscribe(uid, "AE")
    with ups.database.write() as tx:
        (event,) = ups.repository.events_after(tx, TENANT, "AE", 0, limit=9, not_before=EPOCH)
        ups.repository.mark_delivered(tx, TENANT, "AE", event.cursor)
        ups.repository.mark_delivered(tx, TENANT, "AE", event.cursor - 1)
        assert ups.repository.delivered_up_to(tx, TENANT, "AE") == event.cursor
        assert ups.repository.events_after(tx, TENANT, "AE", 0, limit=9, not_before=EPOCH + 1) == []
        assert ups.repository.new_for(tx, 0) == (event.cursor, {(TENANT, "AE")})
        assert ups.repository.new_for(tx, event.cursor) == (event.cursor, set())


def test_a_silent_external_performer_is_flagged_once_until_it_speaks_again(ups):
    claimed, lock = ups.claimed()
    own = fresh_uid()
    ups.create()
    with ups.database.write() as tx:
        ups.repository.schedule(tx, TENANT, own, request_dataset())
        ups.repository.start(tx, TENANT, own)
        assert ups.repository.flag_silent(tx, EPOCH) == []
        assert ups.repository.flag_silent(tx, EPOCH + 1) == [(TENANT, claimed)]
        assert ups.repository.flag_silent(tx, EPOCH + 1) == []
    ups.clock.at += 100
    assert ups.update(claimed, {"00741204": element("LO", "still here")}, lock).status_code == 200
    with ups.database.write() as tx:
        assert ups.repository.flag_silent(tx, EPOCH + 100) == []
        assert ups.repository.flag_silent(tx, EPOCH + 101) == [(TENANT, claimed)]


def test_finished_workitems_go_when_no_lock_holds_them_and_answer_gone(ups):
    free, _ = ups.completed()
    held, _ = ups.completed()
    running, _ = ups.claimed()
    ups.subscribe(held, "AE", "?deletionlock=true")
    with ups.database.write() as tx:
        assert ups.repository.prune(tx, finished_before=EPOCH + 1, locked_after=EPOCH, events_before=EPOCH) == 1
        with pytest.raises(Gone):
            ups.repository.load(tx, TENANT, free)
        assert not ups.repository.insert(tx, TENANT, free, request_dataset(), ours=False)
        for kept in (held, running):
            ups.repository.load(tx, TENANT, kept)
    with ups.database.write() as tx:  # the lock itself has expired
        assert ups.repository.prune(tx, finished_before=EPOCH + 1, locked_after=EPOCH + 1, events_before=EPOCH + 1) == 1
        assert ups.repository.new_for(tx, 0) == (0, set())


def test_the_transaction_uid_is_nowhere_in_the_database(ups):
    uid, lock = ups.claimed()
    ups.subscribe(uid, "AE")
    ups.update(uid, performed(), lock)
    ups.ask_state(uid, "COMPLETED", lock)
    with ups.database.read() as tx:
        for table in ("workitems", "ups_events", "ups_subscriptions"):
            assert lock not in str(tx.connection.execute(sql(f"SELECT * FROM {table}")).all())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["HIGH", "MEDIUM", "LOW", "progress", "claim"]), max_size=8))
def test_events_of_a_workitem_keep_the_order_of_its_changes(ups, steps):
    uid, aet = fresh_uid(), f"AE{fresh_uid()[5:]}"[:16]
    expected = []
    with ups.database.write() as tx:
        ups.repository.schedule(tx, TENANT, uid, request_dataset())
        ups.repository.subscribe(tx, TENANT, uid, aet, lock=False, keys=[])
        expected.append((1, "SCHEDULED"))
        for number, step in enumerate(steps):
            row = ups.repository.load(tx, TENANT, uid)
            if step == "claim":
                if ups.repository.claim(tx, row, "x", Performer.EXTERNAL):
                    expected.append((1, "IN PROGRESS"))
            elif step == "progress":
                change = {"00741002": element("SQ", {"00741004": element("DS", number + 1)})}
                ups.repository.update(tx, TENANT, uid, change)
                expected.append((3, number + 1))
            else:
                ups.repository.update(tx, TENANT, uid, {"00741200": element("CS", step)})
        row = ups.repository.load(tx, TENANT, uid)
        ups.repository.save(tx, row, in_state(row.dataset, UpsState.CANCELED, EPOCH))
    expected.append((1, "CANCELED"))
    got = []
    for _, event_type, attributes in ups.queued(aet):
        if event_type == 1:
            got.append((1, attributes["00741000"]["Value"][0]))
        else:
            got.append((3, attributes["00741002"]["Value"][0]["00741004"]["Value"][0]))
    assert got == expected
