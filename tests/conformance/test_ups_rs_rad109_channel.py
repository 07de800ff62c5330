"""RAD-109 Open Event Channel: PS3.18 8.10.4; refusals before the upgrade, missed events, slow readers."""

from __future__ import annotations

import hashlib
import time

import pytest
from tests.ups_worklist import TENANT, channel, fresh_uid, live, next_event, told, worklist
from websockets.exceptions import ConnectionClosed, InvalidStatus

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.core.ups import GLOBAL_SUBSCRIPTION
from wetread.core.ups_dataset import element
from wetread.worklist.ups import UpsSettings


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def status_of(address, aet, **options):
    with pytest.raises(InvalidStatus) as caught, channel(address, aet, **options):
        pass
    return caught.value.response.status_code


@pytest.mark.parametrize("path", ["/dicom-web/subscribers/", "/ws/subscribers/", "/dicom-web/ws/subscribers/"])
def test_the_channel_opens_before_and_after_subscribing(ups, path):
    uid = ups.create()
    with live(ups.app) as address, channel(address, "W", path=path) as socket:
        ups.subscribe(uid, "W")
        assert told(next_event(socket)) == (uid, 1, "SCHEDULED")


def test_missed_events_are_delivered_on_reconnect_once_and_in_order(ups):
    uid = ups.create()
    with live(ups.app) as address:
        with channel(address, "W") as socket:
            ups.subscribe(uid, "W")
            assert told(next_event(socket))[2] == "SCHEDULED"
            _wait_until_delivered(ups, "W")
        ups.ask_state(uid, "IN PROGRESS", lock := fresh_uid())
        ups.update(uid, {"00404041": element("CS", "UNAVAILABLE")}, lock)
        with channel(address, "W") as socket:
            assert [told(next_event(socket))[1:] for _ in range(2)] == [(1, "IN PROGRESS")] * 2
            _wait_until_delivered(ups, "W")
        with channel(address, "W") as socket, pytest.raises(TimeoutError):
            socket.recv(timeout=0.1)


def _wait_until_delivered(ups, aet):
    for _ in range(500):
        with ups.database.read() as tx:
            if ups.repository.delivered_up_to(tx, TENANT, aet) == ups.repository.new_for(tx, 0)[0]:
                return
    pytest.fail("the delivery was never recorded")


def test_events_older_than_the_retention_are_not_delivered(tmp_path):
    with worklist(tmp_path, settings=UpsSettings(poll_s=0.01, event_retention_s=60)) as ups:
        uid = ups.create()
        ups.subscribe(uid, "W")
        ups.clock.at += 61
        ups.ask_state(uid, "IN PROGRESS", fresh_uid())
        with live(ups.app) as address, channel(address, "W") as socket:
            assert told(next_event(socket)) == (uid, 1, "IN PROGRESS")


def test_a_reader_that_does_not_read_is_closed_with_1013_and_loses_nothing(tmp_path):
    with worklist(tmp_path, settings=UpsSettings(poll_s=0.01, send_timeout_s=0.2)) as ups:
        uid = ups.create()
        filler = {"00404036": element("LO", "x" * 60_000)}
        with ups.database.write() as tx:
            ups.repository.subscribe(tx, TENANT, uid, "SLOW", lock=False, keys=[])
            for number in range(400):
                assigned = element("SQ", {**filler, "00404037": element("PN", str(number))})
                ups.repository.update(tx, TENANT, uid, {"00404034": assigned})
        total = len(ups.queued("SLOW"))
        with live(ups.app) as address:
            with channel(address, "SLOW", max_queue=1, compression=None) as socket:
                time.sleep(0.3)  # the one test that must wait: nothing is read for several send time-outs
                received, code = _read_all(socket)
            assert code == 1013
            assert 0 < received < total
            with ups.database.read() as tx:
                first = ups.repository.delivered_up_to(tx, TENANT, "SLOW") + 1
            with channel(address, "SLOW", compression=None) as socket:
                seen = [next_event(socket)["00000110"]["Value"][0] for _ in range(first, total + 1)]
        assert first <= received + 1
        assert seen == list(range(first, total + 1))


def _read_all(socket):
    """Return how many messages come before the server closes, and its close code."""
    received = 0
    try:
        while True:
            next_event(socket)
            received += 1
    except ConnectionClosed as closed:
        return received, closed.rcvd and closed.rcvd.code


def test_refusals_come_before_the_upgrade(tmp_path):
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()} {name} key" for name in ("alpha", "beta")]
    (tmp_path / "keys").write_text("\n".join(lines))
    options = {"keys": ApiKeys(tmp_path / "keys"), "allowed_aet": lambda _connection, aet: aet != "THEIRS"}
    with worklist(tmp_path, **options) as ups, live(ups.app) as address:
        key = {"additional_headers": {"Authorization": "Bearer alpha"}}
        assert status_of(address, "W") in {401, 403}
        assert status_of(address, "THEIRS", **key) == 404
        assert status_of(address, "SEVENTEEN-LETTERS", **key) == 400
        with channel(address, "W", **key):
            pass


def test_pages_of_other_sites_cannot_open_the_channel(tmp_path):
    settings = UpsSettings(allowed_origins=frozenset({"https://viewer.example"}))
    with worklist(tmp_path, settings=settings) as ups, live(ups.app) as address:
        assert status_of(address, "W", origin="https://evil.example") == 403
        for origin in ("https://viewer.example", f"http://{address}"):
            with channel(address, "W", origin=origin):
                pass


def test_the_channel_of_one_tenant_is_silent_about_another(tmp_path):
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()} {name} key" for name in ("alpha", "beta")]
    (tmp_path / "keys").write_text("\n".join(lines))
    with worklist(tmp_path, keys=ApiKeys(tmp_path / "keys")) as ups, live(ups.app) as address:
        with ups.database.write() as tx:
            for tenant in ("alpha", "beta"):
                ups.repository.subscribe(tx, tenant, GLOBAL_SUBSCRIPTION, "W", lock=False, keys=[])
            from tests.ups_worklist import request_dataset

            ups.repository.schedule(tx, "beta", "1.2.3", request_dataset())
            ups.repository.schedule(tx, "alpha", "1.2.4", request_dataset())
        with channel(address, "W", additional_headers={"Authorization": "Bearer alpha"}) as socket:
            assert told(next_event(socket)) == ("1.2.4", 1, "SCHEDULED")
            with pytest.raises(TimeoutError):
                socket.recv(timeout=0.1)
