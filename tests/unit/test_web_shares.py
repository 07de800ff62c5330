"""What tenants use, counted over the web processes of a server."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.bootstrap.cores import usable_cores
from wetread.bootstrap.crew import Page, Place, crew_size
from wetread.bootstrap.rates import Rates
from wetread.core.errors import TooManyRequests
from wetread.core.shares import ROWS, Shares, table_bytes
from wetread.core.tenants import TenantFile, TenantPolicy, Tenants
from wetread.registry import WEB, WORKER
from wetread.settings import Settings


def rates_of(page: Page, now: list[float], **policy: object) -> list[Rates]:
    tenants = Tenants(TenantFile(tenants={"north": TenantPolicy.model_validate(policy)}))
    return [Rates(tenants, page.shares(place), lambda: now[0]) for place in range(page.places)]


@settings(max_examples=40)
@given(st.floats(0.5, 50), st.integers(1, 20), st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 2)), max_size=60))
def test_all_processes_together_admit_the_burst_and_the_rate(
    rate: float, burst: int, requests: list[tuple[float, int]]
) -> None:
    now, admitted = [0.0], 0
    processes = rates_of(Page(3), now, requests_per_second=rate, burst=burst)
    for pause, process in requests:
        now[0] += pause
        try:
            processes[process].enter("north", stream=False)
        except TooManyRequests:
            continue
        admitted += 1
    assert admitted <= burst + rate * now[0] + 1e-6


def test_what_is_open_counts_wherever_it_is_and_goes_with_its_process() -> None:
    page = Page(2)
    here, there = rates_of(page, [0.0], requests_at_once=3, streams_at_once=1)
    leave = here.enter("north", stream=False)
    for _ in range(2):
        there.enter("north", stream=False)
    assert there.enter("north", stream=True)
    for process, stream in ((here, False), (there, False), (here, True)):
        with pytest.raises(TooManyRequests):
            process.enter("north", stream=stream)
    assert leave is not None
    leave()
    assert there.enter("north", stream=False)
    page.leave(1)  # killed: it can take nothing back itself
    assert [bool(here.enter("north", stream=False)) for _ in range(3)] == [True] * 3
    assert here.enter("north", stream=True)


def test_the_room_of_a_tenant_is_measured_by_one_process_for_all() -> None:
    page = Page(2)
    here, there = (page.shares(place).of("north") for place in range(2))
    assert there.measured() is None
    here.measure(100, 2, 7.0)
    there.admit(40)
    assert (there.measured(), here.used()) == (7.0, (140, 2))
    assert page.shares(0).of("south").used() == (0, 0)


def test_tenants_beyond_the_table_are_counted_by_each_process() -> None:
    memory = memoryview(bytearray(table_bytes(2)))
    here, there = (Shares(memory, place=place, places=2) for place in range(2))
    names = [f"tenant-{number}" for number in range(ROWS + 1)]
    for name in names:
        here.of(name).enter("requests")
    assert [there.of(name).open("requests") for name in names] == [1] * ROWS + [0]
    assert here.of(names[-1]).open("requests") == 1


def test_each_process_writes_under_a_name_of_its_own() -> None:
    page = Page(3)
    assert [Place(number, page).writer("web") for number in range(3)] == ["web", "webp2", "webp3"]
    of_a_pod = [Place(number, page).writer("gateway5d8f7x2k1") for number in range(2)]
    assert of_a_pod == ["gateway5d8f7x2k1", "teway5d8f7x2k1p2"]
    assert [Place(0, page).part(whole, least=least) for whole, least in ((96, 1), (96, 40), (2, 1))] == [32, 40, 1]


def test_only_web_services_come_in_several_processes_and_pods_in_one() -> None:
    assert crew_size(Settings(web_processes=3), WEB) == 3
    assert crew_size(Settings(web_processes=3), WORKER) == crew_size(Settings(web_processes=3), ("dimse",)) == 1
    shared = Settings(database_url="postgresql://u@h/d", web_processes=None)
    assert crew_size(shared, ("gateway",)) == 1
    assert crew_size(Settings(web_processes=None), ("gateway",)) == min(usable_cores(), 4)
