"""UPS-RS with the typed client: create, search, claim, work, complete, cancel; races and lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from tests.ups_worklist import Worklist, worklist

from wetread.client import AsyncClient, Claim, Client, Code, NewWorkitem, Performed, References, Workitem
from wetread.client.workitem import progress
from wetread.core.errors import Conflict, InvalidInput, NotFound, WetreadError, WorkitemStateError
from wetread.core.ups import UpsState
from wetread.core.ups_dataset import element, text

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"
INPUT = References("1.2.3", "1.2.3.1", ((CT, "1.2.3.1.1"), (CT, "1.2.3.1.2")))
OUTPUT = References("1.2.3", "1.2.3.9", (("1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.9.1"),))
DONE = Performed(
    START,
    START + timedelta(minutes=1),
    station=Code("ws1", "99TEST", "Workstation 1"),
    work=Code("110004", "DCM", "Computer Aided Detection"),
    outputs=[OUTPUT],
)


@pytest.fixture
def ups(tmp_path: Path) -> Iterator[Worklist]:
    with worklist(tmp_path) as opened:
        yield opened


@pytest.fixture
def client(ups: Worklist) -> Iterator[Client]:
    with TestClient(ups.app) as web, Client("http://testserver", transport=web._transport) as made:
        yield made


def new(label: str = "Read the head CT", **changes: Any) -> NewWorkitem:
    return NewWorkitem(label, START, study_uid="1.2.3", inputs=[INPUT], **changes)


def test_a_workitem_from_creation_to_completion(client: Client) -> None:
    uid = client.workitems.create(new(priority="HIGH"))
    item = client.workitems.get(uid)
    assert (item.uid, item.state, item.priority) == (uid, UpsState.SCHEDULED, "HIGH")
    assert (item.label, item.readiness, item.inputs, item.percent) == ("Read the head CT", "READY", (INPUT,), None)
    claim = client.workitems.claim(uid)
    client.workitems.update(claim, progress(40, "half way"))
    item = client.workitems.get(uid)
    assert (item.state, item.percent) == (UpsState.IN_PROGRESS, 40.0)
    client.workitems.complete(claim, DONE)
    item = client.workitems.get(uid)
    assert item.state is UpsState.COMPLETED
    [performed] = item.dataset["00741216"]["Value"]
    assert performed["00404033"]["Value"][0]["0020000E"]["Value"] == ["1.2.3.9"]
    assert claim.transaction_uid not in str(item.dataset)
    assert claim.transaction_uid not in repr(claim)


def test_search_by_state_and_keys(client: Client) -> None:
    low = client.workitems.create(new("b", priority="LOW"))
    high = client.workitems.create(new("a", priority="HIGH"))
    taken = client.workitems.create(new("c"))
    client.workitems.claim(taken)
    assert [item.uid for item in client.workitems.search(UpsState.SCHEDULED)] == [high, low]
    assert [item.uid for item in client.workitems.search(keys={"ProcedureStepLabel": "c"})] == [taken]
    assert len(client.workitems.search(limit=1, offset=1)) == 1
    [whole] = client.workitems.search(keys={"00080018": low}, everything=True)
    assert whole.inputs == (INPUT,)
    assert client.workitems.search(UpsState.CANCELED) == []


def test_a_scheduled_workitem_is_changed_without_a_key(client: Client) -> None:
    uid = client.workitems.create(new())
    client.workitems.update(uid, {"00741204": element("LO", "another label")})
    assert client.workitems.get(uid).label == "another label"
    claim = client.workitems.claim(uid)
    with pytest.raises(WetreadError) as caught:
        client.workitems.update(uid, progress(1))
    assert caught.value.dicom_status == 0xC301
    with pytest.raises(WorkitemStateError):
        client.workitems.update(Claim(uid, "2.25.1"), progress(1))
    client.workitems.update(claim, progress(1))


def test_of_many_claims_one_wins_and_a_lost_answer_is_no_lost_claim(client: Client) -> None:
    uid = client.workitems.create(new())

    def attempt(_number: int) -> Claim | WorkitemStateError:
        try:
            return client.workitems.claim(uid)
        except WorkitemStateError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    [claim] = [outcome for outcome in outcomes if isinstance(outcome, Claim)]
    lost = [outcome.dicom_status for outcome in outcomes if isinstance(outcome, WorkitemStateError)]
    assert lost == [0xC301] * 7
    assert client.workitems.claim(uid, claim.transaction_uid) == claim


def test_giving_up_and_asking_to_stop(client: Client) -> None:
    claim = client.workitems.claim(client.workitems.create(new()))
    client.workitems.cancel(claim, Code("110514", "DCM", "Incorrect worklist entry selected"), "wrong patient")
    item = client.workitems.get(claim.uid)
    assert item.state is UpsState.CANCELED
    [why] = item.dataset["00741002"]["Value"]
    assert (text(why, "00741238"), why["0074100E"]["Value"][0]["00080100"]["Value"]) == ("wrong patient", ["110514"])
    waiting = client.workitems.create(new())
    client.workitems.request_cancel(waiting, "not needed")
    assert client.workitems.get(waiting).state is UpsState.CANCELED
    done = client.workitems.claim(client.workitems.create(new()))
    client.workitems.complete(done, DONE.dataset())
    with pytest.raises(WorkitemStateError) as caught:
        client.workitems.request_cancel(done.uid)
    assert caught.value.dicom_status == 0xC311


def test_refusals_are_typed(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        client.workitems.get("2.25.404")
    assert caught.value.dicom_status == 0xC307
    uid = client.workitems.create(new(), "2.25.77")
    with pytest.raises(Conflict):
        client.workitems.create(new(), uid)
    with pytest.raises(InvalidInput):
        client.workitems.create({"00741204": element("LO", "too little")})
    with pytest.raises(InvalidInput):
        client.workitems.get("../state")
    claim = client.workitems.claim(uid)
    with pytest.raises(WorkitemStateError) as unfinished:
        client.workitems.complete(claim, progress(99))
    assert unfinished.value.dicom_status == 0xC304


def test_attributes_given_by_hand_win() -> None:
    dataset = new(attributes={"00741204": element("LO", "mine"), "00100020": element("LO", "P1")}).dataset()
    assert (text(dataset, "00741204"), text(dataset, "00100020")) == ("mine", "P1")
    assert list(dataset) == sorted(dataset)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"[1]", b"nothing", b'[{"00741000": {"vr": "CS"}}]'])
def test_strange_answers_are_errors(body: bytes) -> None:
    client = Client("http://x", transport=httpx.MockTransport(lambda _request: httpx.Response(200, content=body)))
    with pytest.raises(WetreadError):
        client.workitems.get("1.2")


def test_an_empty_search_of_an_older_server() -> None:
    client = Client("http://x", transport=httpx.MockTransport(lambda _request: httpx.Response(204)))
    assert client.workitems.search() == []
    strange = Client("http://x", transport=httpx.MockTransport(lambda _request: httpx.Response(200, json=[1])))
    with pytest.raises(WetreadError, match="list of workitems"):
        strange.workitems.search()


def test_the_asynchronous_client_works_through_a_workitem(ups: Worklist) -> None:
    async def work() -> Workitem:
        async with AsyncClient("http://testserver", transport=httpx.ASGITransport(ups.app)) as client:
            uid = await client.workitems.create(new())
            claim = await client.workitems.claim(uid)
            assert await client.workitems.claim(uid, claim.transaction_uid) == claim
            with pytest.raises(WorkitemStateError):
                await client.workitems.claim(uid)
            await client.workitems.update(claim, progress(50))
            await client.workitems.complete(claim, DONE)
            other = await client.workitems.claim(await client.workitems.create(new()))
            await client.workitems.cancel(other)
            await client.workitems.request_cancel(await client.workitems.create(new()))
            assert len(await client.workitems.search(UpsState.CANCELED)) == 2
            return await client.workitems.get(uid)

    assert asyncio.run(work()).state is UpsState.COMPLETED
