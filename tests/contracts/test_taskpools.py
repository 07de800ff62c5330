"""One contract for every pool: same answers, one lost task per dead worker, typed errors, nothing left behind."""

from __future__ import annotations

import time

import pytest
from tests.conftest import need

from wetread.adapters.taskpool.inline import InlinePool
from wetread.adapters.taskpool.process import ProcessPool
from wetread.core.errors import ComputationFailed, ConfigurationError, Unavailable
from wetread.core.ports.taskpool import WorkerSetup


def setup_of(offset=100):
    return WorkerSetup("tests.taskpool_work:build", {"offset": offset})


def drain(pool, count, seconds=60):
    found, end = {}, time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        for outcome in pool.wait(1.0):
            assert outcome.task_id not in found
            found[outcome.task_id] = outcome
    return found


@pytest.fixture(scope="module", params=["inline", "process", pytest.param("ray", marks=pytest.mark.server("ray"))])
def pool(request):
    if request.param == "inline":
        made = InlinePool(setup_of())
    elif request.param == "process":
        made = ProcessPool(setup_of(), 2)
    else:
        need("ray")
        from wetread.adapters.taskpool.ray import RayPool

        made = RayPool(setup_of(), 2)
    made.start()
    made.mortal = request.param != "inline"
    yield made
    made.close()
    made.close()


def test_every_task_is_answered_once(pool):
    for number in range(20):
        pool.submit(number, {"value": number})
    found = drain(pool, 20)
    assert {k: v.value for k, v in found.items()} == {k: k + 100 for k in range(20)}
    assert all(outcome.ok for outcome in found.values())
    assert str(pool.workers) in pool.describe() or "inline" in pool.describe()


def test_errors_travel_without_data(pool):
    pool.submit(1, {"raise": "ours"})
    pool.submit(2, {"raise": "other"})
    found = drain(pool, 2)
    assert (found[1].slug, found[1].detail) == ("storage-full", "disk")
    assert (found[2].slug, found[2].detail) == ("crashed", "KeyError in a worker")


def test_a_dead_worker_costs_one_task(pool):
    if not pool.mortal:
        pytest.skip("inline tasks share the driver's process")
    pool.submit(0, {"die": True})
    for number in range(1, 8):
        pool.submit(number, {"value": number})
    found = drain(pool, 8)
    assert found[0].lost
    assert {k: v.value for k, v in found.items() if k} == {k: k + 100 for k in range(1, 8)}
    pool.submit(9, {"value": 1})
    assert drain(pool, 1)[9].value == 101


def test_waiting_is_bounded(pool):
    assert pool.wait(0.01) == []


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_told():
    pool = ProcessPool(setup_of("broken"), 1)
    pool.start()
    pool.submit(0, {"value": 1})
    with pytest.raises(ComputationFailed, match="no room to start"):
        drain(pool, 1, seconds=30)
    pool.close()
    with pytest.raises(ConfigurationError):
        WorkerSetup("tests.taskpool_work:nothing", {}).make()


@pytest.mark.slow
@pytest.mark.server("ray")
def test_ray_says_when_there_is_no_room():
    import ray

    from wetread.adapters.taskpool.ray import RayPool

    own = not ray.is_initialized()  # else the cluster of the fixture, whose two CPUs are taken
    if own:
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    try:
        pool = RayPool(setup_of(), 4, reserve_seconds=1.0)
        with pytest.raises(Unavailable, match="4 processors wanted"):
            pool.start()
    finally:
        if own:
            ray.shutdown()
