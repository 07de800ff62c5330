"""How lanes are woken: the change signal of SQLite, and the event that DBOS's queue workers wait on."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest
from fastapi import FastAPI

from wetread.adapters.workqueue.signals import queue_signal
from wetread.bootstrap.house import open_house
from wetread.core.errors import ConfigurationError, Unavailable
from wetread.core.workqueue import LONG_LANES, QUEUES, SHORT_LANES, lanes_of
from wetread.orchestration.lanes import LaneStop
from wetread.settings import Settings


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a site #1 100%.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE work (n INTEGER)")
    return path


def test_a_commit_of_another_connection_is_heard_once_and_a_rollback_never(file):
    other = sqlite3.connect(file)
    with queue_signal(f"sqlite:///{file}", QUEUES) as signal:
        assert signal.wait(0) == frozenset(), "whatever was there before is news to a new listener"
        assert signal.wait(0) is None
        other.execute("INSERT INTO work VALUES (1)")
        other.rollback()
        assert signal.wait(0) is None
        other.execute("INSERT INTO work VALUES (2)")
        other.commit()
        assert signal.wait(0) == frozenset()
        assert signal.wait(0.005) is None
    other.close()


def test_a_closed_database_is_a_typed_error(file):
    with queue_signal(f"sqlite:///{file}", QUEUES) as signal:
        signal._connection.close()  # type: ignore[attr-defined]
        with pytest.raises(Unavailable):
            signal.wait(0)


def waited(stop, act):
    """Return (answer, seconds) of a wait during which *act* is called."""
    timer = threading.Timer(0.02, act)
    timer.start()
    begun = time.monotonic()
    answer = stop.wait(30)
    timer.join()
    return answer, time.monotonic() - begun


def test_a_lane_wakes_early_without_ending_and_a_wake_up_is_not_lost():
    stop = LaneStop(None)
    answer, seconds = waited(stop, stop.wake)
    assert (answer, seconds < 5) == (False, True)
    stop.wake()
    assert stop.wait(30) is False, "woken before it waited"
    assert not stop.is_set()


def test_a_lane_ends_when_it_is_told_to_and_never_waits_again():
    stop = LaneStop(None)
    answer, seconds = waited(stop, stop.set)
    assert (answer, seconds < 5) == (True, True)
    assert stop.is_set()
    assert stop.wait(30) is True


def test_a_woken_lane_looks_by_itself_at_its_own_interval():
    begun = time.monotonic()
    assert LaneStop(0.01).wait(30) is False
    assert time.monotonic() - begun < 5


def test_every_lane_is_either_long_or_drained_or_maintenance():
    assert set(LONG_LANES) | set(SHORT_LANES) | {"maintenance"} == set(QUEUES)
    assert not set(LONG_LANES) & set(SHORT_LANES)


def test_every_lane_is_worked_on_by_a_cluster_of_split_processes_and_none_by_two_of_them():
    detection, orchestration = lanes_of(detects=True, orchestrates=False), lanes_of(detects=False, orchestrates=True)
    assert sorted((*detection, *orchestration)) == sorted(QUEUES)
    assert set(detection) == set(LONG_LANES)
    assert lanes_of(detects=True, orchestrates=True) == tuple(QUEUES), "one worker takes all"
    assert lanes_of(detects=False, orchestrates=False) == ()


def test_a_pool_takes_the_lanes_it_is_told_to():
    chosen = Settings(queues="detector.cpu, detector.cpu.batch").chosen_queues
    assert lanes_of(detects=True, orchestrates=False, chosen=chosen) == ("detector.cpu", "detector.cpu.batch")
    with pytest.raises(ConfigurationError, match="no queue gpu"):
        lanes_of(detects=True, orchestrates=True, chosen=["gpu"])
    with pytest.raises(ConfigurationError, match="needs the service detection"):
        lanes_of(detects=False, orchestrates=True, chosen=["detector.cpu"])
    with pytest.raises(ConfigurationError, match="needs the service orchestration"):
        lanes_of(detects=True, orchestrates=False, chosen=["control"])


def test_who_is_beside_a_service_decides_what_it_takes_and_serves(tmp_path):
    def built(*names):
        with open_house(Settings(data=tmp_path), names) as house:
            return {service.name: service for service in house.services(names)}

    alone, together = built("detection"), built("detection", "triage", "orchestration")
    assert alone["detection"].queues == LONG_LANES
    assert together["detection"].queues == ()
    assert together["orchestration"].queues == tuple(QUEUES)
    assert not set(built("health", "triage", "orchestration")["orchestration"].queues) & set(LONG_LANES)
    of_a_study = {"ffrct": "/api/v1/studies/{study_uid}/ffr", "pathology": "/api/v1/studies/{study_uid}/pathology"}
    assert set(of_a_study.values()) <= paths(built("worklist")["worklist"]), "no ingress can route them by prefix"
    together = built("worklist", "ffrct", "pathology")
    assert not set(of_a_study.values()) & paths(together["worklist"])
    for name, path in of_a_study.items():
        assert path in paths(together[name])


def paths(service):
    app = FastAPI()
    app.include_router(service.http)
    return set(app.openapi()["paths"])
