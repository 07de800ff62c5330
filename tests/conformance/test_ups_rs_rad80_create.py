"""RAD-80 Create UPS Workitem: PS3.18 11.4, PS3.4 CC.2.5."""

from __future__ import annotations

import json

import pytest
from tests.ups_worklist import BASE, fresh_uid, performed, refused, request_dataset, warning, worklist

from wetread.core.ups_dataset import element


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def post(ups, query="", dataset=None, **options):
    options = options or {"json": [dataset if dataset is not None else request_dataset()]}
    return ups.client.post(f"/dicom-web/workitems{query}", **options)


def test_11_4_3_created_with_location_and_the_warning_of_modifications(ups):
    uid = fresh_uid()
    answer = post(ups, f"?workitem={uid}")
    assert answer.status_code == 201
    assert answer.content == b""
    assert answer.headers["location"] == f"{BASE}/workitems/{uid}"
    assert answer.headers["warning"] == warning("The Workitem was created with modifications.")
    assert ups.state(uid) == "SCHEDULED"


def test_11_4_3_2_no_warning_when_nothing_was_modified(ups):
    uid = ups.create()
    complete = ups.get(uid)
    again = {tag: value for tag, value in complete.items() if tag not in {"00080018", "00404010"}}
    answer = post(ups, f"?workitem={fresh_uid()}", {**again, "00081195": element("UI")})
    assert answer.status_code == 201
    assert "warning" not in answer.headers


@pytest.mark.parametrize("query", ["?workitem={}", "?{}", "?AffectedSOPInstanceUID={}"])
def test_editions_name_the_workitem_in_the_query_in_three_ways(ups, query):
    uid = fresh_uid()
    assert post(ups, query.format(uid)).headers["location"].endswith(f"/{uid}")


def test_the_uid_may_come_in_the_dataset_or_be_ours_to_choose(ups):
    uid = fresh_uid()
    named = post(ups, dataset=request_dataset(t00080018=element("UI", uid)))
    assert named.headers["location"].endswith(f"/workitems/{uid}")
    assigned = post(ups).headers["location"].rpartition("/")[2]
    assert ups.get(assigned)["00080018"]["Value"] == [assigned]


def test_a_bare_object_and_plain_json_are_tolerated(ups):
    assert post(ups, json=request_dataset()).status_code == 201
    body = json.dumps([request_dataset()])
    for media_type in ("application/dicom+json", "application/dicom+json; charset=utf-8", "application/json"):
        assert post(ups, content=body, headers={"content-type": media_type}).status_code == 201


def test_cc_1_1_2_an_existing_uid_is_refused_with_0111(ups):
    uid = ups.create()
    refused(post(ups, f"?workitem={uid}"), 409, "0111")


def test_a_uid_of_a_removed_workitem_is_not_used_again(ups):
    uid, _ = ups.completed()
    with ups.database.write() as tx:
        ups.repository.prune(tx, finished_before=ups.clock.at + 1, locked_after=0, events_before=0)
    refused(post(ups, f"?workitem={uid}"), 409, "0111")


@pytest.mark.parametrize("state", ["IN PROGRESS", "COMPLETED", "DONE", ""])
def test_cc_2_5_3_a_state_other_than_scheduled_is_refused_with_c309(ups, state):
    refused(post(ups, dataset=request_dataset(t00741000=element("CS", state))), 400, "C309")


def test_cc_2_5_3_all_missing_attributes_are_named(ups):
    answer = post(ups, dataset={"00741000": element("CS", "SCHEDULED")})
    refused(answer, 400, "0120")
    for tag in ("00741200", "00741204", "00404005", "00404041"):
        assert tag in answer.json()["detail"]


def test_cc_2_5_3_what_only_a_performer_may_fill_must_be_empty(ups):
    refused(post(ups, dataset={**request_dataset(), **performed()}), 400, "0106")
    refused(post(ups, dataset=request_dataset(t00081195=element("UI", "1.2.3"))), 400, "0106")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": b"{"}, 400),
        ({"content": b""}, 400),
        ({"content": b"[]"}, 400),
        ({"content": b"x", "headers": {"content-type": "application/dicom"}}, 415),
        ({"content": b"[]", "headers": {"content-encoding": "gzip"}}, 415),
    ],
)
def test_bad_bodies_get_a_typed_answer(ups, options, status):
    answer = post(ups, **options)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query", ["?workitem=1.2/3", "?workitem=", "?workitem=x", "?workitem=1.2.840.10008.5.1.4.34.5"]
)
def test_bad_uids_are_refused(ups, query):
    assert post(ups, query).status_code == 400


def test_two_different_uids_in_one_request_are_refused(ups):
    dataset = request_dataset(t00080018=element("UI", fresh_uid()))
    refused(post(ups, f"?workitem={fresh_uid()}", dataset), 400, "0106")


def test_a_body_beyond_the_limit_is_refused_before_it_is_parsed(tmp_path):
    from wetread.worklist.ups import UpsSettings

    with worklist(tmp_path, settings=UpsSettings(max_body_bytes=200)) as ups:
        assert post(ups, content=b" " * 201).status_code == 413


def test_only_the_methods_of_the_resource_are_allowed(ups):
    answer = ups.client.delete("/dicom-web/workitems")
    assert answer.status_code == 405
    assert answer.headers["allow"]
