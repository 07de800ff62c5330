"""RAD-87 Send UPS Notification: PS3.18 8.10.5, PS3.4 CC.2.4, seen by an independent websocket client."""

from __future__ import annotations

import time

import pytest
from tests.ups_worklist import (
    channel,
    discontinuation,
    fresh_uid,
    live,
    next_event,
    performed,
    request_dataset,
    told,
    worklist,
)

from wetread.core.ups import GLOBAL_SUBSCRIPTION
from wetread.core.ups_dataset import code, element
from wetread.core.ups_events import ScpStatus, scp_status


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def test_every_event_type_of_table_cc_2_4_1_arrives_in_order(ups):
    lock = fresh_uid()
    with live(ups.app) as address, channel(address, "WATCHER") as socket:
        ups.subscribe(GLOBAL_SUBSCRIPTION, "WATCHER")
        uid = ups.create()
        ups.update(uid, {"00404041": element("CS", "INCOMPLETE")})
        ups.update(uid, {"00404025": element("SQ", code("ws1", "99T", "Workstation"))})
        ups.ask_state(uid, "IN PROGRESS", lock)
        ups.update(uid, {"00741002": element("SQ", {"00741004": element("DS", 10)})}, lock)
        ups.client.post(f"/dicom-web/workitems/{uid}/cancelrequest")
        reason = discontinuation()["00741002"]["Value"][0]
        ups.update(uid, {"00741002": element("SQ", {**reason, "00741004": element("DS", 10)})}, lock)
        ups.ask_state(uid, "CANCELED", lock)
        with ups.database.write() as tx:
            ups.repository.announce(tx, scp_status(ScpStatus.GOING_DOWN))
        events = [next_event(socket) for _ in range(8)]
    assert [told(event)[1:] for event in events] == [
        (1, "SCHEDULED"),
        (1, "SCHEDULED"),
        (5, None),
        (1, "IN PROGRESS"),
        (3, None),
        (2, None),
        (1, "CANCELED"),
        (4, None),
    ]
    assert {told(event)[0] for event in events[:7]} == {uid}
    assert told(events[7])[0] == GLOBAL_SUBSCRIPTION
    assert events[1]["00404041"] == element("CS", "INCOMPLETE")
    assert events[6]["0074100E"]["vr"] == "SQ"
    numbers = [event["00000110"]["Value"][0] for event in events]
    assert numbers == sorted(set(numbers))
    assert all(event["00000002"] == element("UI", "1.2.840.10008.5.1.4.34.6.1") for event in events)
    assert lock not in str(events)


def test_an_event_arrives_within_a_second_of_the_change(ups):
    uid = ups.create()
    delays = []
    with live(ups.app) as address, channel(address, "WATCHER") as socket:
        ups.subscribe(uid, "WATCHER")
        next_event(socket)
        for number in range(20):
            ups.clock.at += 1
            label = {"00404041": element("CS", ("READY", "INCOMPLETE")[number % 2])}
            if number % 2 == 0:
                label["00404041"] = element("CS", "UNAVAILABLE")
            ups.update(uid, label)
            changed = time.perf_counter()
            next_event(socket)
            delays.append(time.perf_counter() - changed)
    assert sorted(delays)[18] < 1.0


def test_only_subscribers_of_a_workitem_hear_of_it(ups):
    mine, other = ups.create(), ups.create()
    ups.subscribe(mine, "WATCHER")
    ups.subscribe(other, "OTHER")
    with live(ups.app) as address, channel(address, "WATCHER") as socket:
        assert told(next_event(socket)) == (mine, 1, "SCHEDULED")
        for uid in (other, mine):
            ups.ask_state(uid, "IN PROGRESS", fresh_uid())
        assert told(next_event(socket)) == (mine, 1, "IN PROGRESS")


def test_changes_made_by_another_process_arrive_too(ups, tmp_path):
    """The worker process writes through its own database object; only the rows connect it to the channel."""
    from wetread.adapters.index.database import SqlDatabase
    from wetread.adapters.index.workitems import SqlWorkitems

    elsewhere = SqlDatabase(tmp_path / "wetread.db")
    uid = fresh_uid()
    with live(ups.app) as address, channel(address, "WATCHER") as socket:
        ups.subscribe(GLOBAL_SUBSCRIPTION, "WATCHER")
        worker = SqlWorkitems(ups.clock)
        steps = [
            lambda tx: worker.schedule(tx, "default", uid, request_dataset()),
            lambda tx: worker.start(tx, "default", uid),
            lambda tx: worker.finish(tx, "default", uid, completed=True, attributes=performed()),
        ]
        for step in steps:
            with elsewhere.write() as tx:
                step(tx)
        events = [told(next_event(socket)) for _ in range(3)]
    elsewhere.close()
    assert events == [(uid, 1, state) for state in ("SCHEDULED", "IN PROGRESS", "COMPLETED")]


def test_two_channels_of_one_ae_title_both_hear(ups):
    uid = ups.create()
    with live(ups.app) as address, channel(address, "W") as first, channel(address, "W") as second:
        ups.subscribe(uid, "W")
        assert told(next_event(first)) == told(next_event(second)) == (uid, 1, "SCHEDULED")
