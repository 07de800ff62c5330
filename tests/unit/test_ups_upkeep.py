"""Upkeep of the worklist: who is told what at start, while running, and at the end."""

from __future__ import annotations

import asyncio

import pytest
from tests.ups_worklist import TENANT, refused, worklist

from wetread.worklist.ups import UpsHooks, UpsService, UpsSettings
from wetread.worklist.ups_upkeep import tend, upkeep


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def service(ups, **settings):
    return UpsService(ups.database, ups.repository, ups.clock, UpsSettings(**settings), UpsHooks())


def test_a_missed_lease_is_told_once_without_naming_the_workitem_in_the_log(ups, caplog):
    uid, _ = ups.claimed()
    told = []
    serving = service(ups, lease_s=60)
    tend(serving, told.append)
    ups.clock.at += 61
    for _ in range(2):
        tend(serving, told.append)
    assert told == [[(TENANT, uid)]]
    assert [record.getMessage() for record in caplog.records] == ["an external performer missed its lease"]
    assert uid not in str(caplog.records[0].__dict__)


def test_the_retention_removes_ended_workitems_and_old_events(ups):
    uid, _ = ups.completed()
    ups.subscribe(uid, "W")
    running, _ = ups.claimed()
    serving = service(ups, finished_retention_s=100, event_retention_s=50)
    ups.clock.at += 51
    tend(serving)
    assert ups.queued("W") == []
    assert ups.state(uid) == "COMPLETED"
    ups.clock.at += 50
    tend(serving)
    refused(ups.client.get(f"/dicom-web/workitems/{uid}"), 410, "C307")
    assert ups.state(running) == "IN PROGRESS"


def test_a_failing_round_is_survived(ups, caplog):
    first, second = ups.claimed()[0], ups.claimed()[0]
    rounds = []
    loop, second_round = None, asyncio.Event()

    def failing_once(silent):
        rounds.append(silent)
        if len(rounds) == 1:
            with ups.database.write() as tx:  # speak up, so that the next round finds it silent again
                ups.repository.save(tx, (row := ups.repository.load(tx, TENANT, second)), row.dataset)
            ups.clock.at += 10
            message = "the pager is down"
            raise RuntimeError(message)
        loop.call_soon_threadsafe(second_round.set)

    async def live_briefly():
        nonlocal loop
        loop = asyncio.get_running_loop()
        async with upkeep(service(ups, lease_s=5), every_s=0.001, on_silent=failing_once):
            await second_round.wait()

    ups.clock.at += 10
    asyncio.run(live_briefly())
    assert [sorted(uid for _, uid in silent) for silent in rounds] == [sorted([first, second]), [second]]
    assert "upkeep of the UPS worklist failed: trying again" in caplog.messages


def test_notices_frame_the_life_of_the_service(ups):
    ups.subscribe(ups.create(), "W")

    async def live_briefly():
        async with upkeep(service(ups), every_s=60):
            pass

    asyncio.run(live_briefly())
    notices = [attributes["00741242"]["Value"][0] for _, kind, attributes in ups.queued("W") if kind == 4]
    assert notices == ["RESTARTED", "GOING DOWN"]
