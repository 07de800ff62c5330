"""RAD-83 Get UPS Workitem: PS3.18 11.5, PS3.4 CC.2.7."""

from __future__ import annotations

import pytest
from tests.ups_worklist import fresh_uid, refused, worklist

from wetread.adapters.auth.api_keys import ApiKeys


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def test_an_array_of_one_dataset_with_the_exact_content_type(ups):
    uid = ups.create()
    answer = ups.client.get(f"/dicom-web/workitems/{uid}")
    assert answer.headers["content-type"] == "application/dicom+json"
    assert answer.headers["cache-control"] == "private, no-cache"
    (dataset,) = answer.json()
    assert dataset["00080018"] == {"vr": "UI", "Value": [uid]}
    assert dataset["00080016"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]}
    assert list(dataset) == sorted(dataset)


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.840.10008.5.1.4.34.5"])
def test_an_unknown_workitem_is_404_with_c307(ups, uid):
    refused(ups.client.get(f"/dicom-web/workitems/{uid}"), 404, "C307")


def test_a_uid_with_other_characters_is_400(ups):
    assert ups.client.get("/dicom-web/workitems/1.2.x").status_code == 400


def test_a_client_that_takes_no_json_gets_406_as_problem_json(ups):
    answer = ups.client.get(f"/dicom-web/workitems/{ups.create()}", headers={"accept": "text/html"})
    assert answer.status_code == 406
    assert answer.json()["detail"] == "available: application/dicom+json"


def test_another_tenant_sees_nothing_of_it(tmp_path):
    import hashlib

    lines = [f"{hashlib.sha256(name.encode()).hexdigest()} {name} key" for name in ("alpha", "beta")]
    (tmp_path / "keys").write_text("\n".join(lines))
    with worklist(tmp_path, keys=ApiKeys(tmp_path / "keys")) as ups:
        from tests.ups_worklist import request_dataset

        uid = fresh_uid()
        alpha, beta = ({"authorization": f"Bearer {name}"} for name in ("alpha", "beta"))
        made = ups.client.post(f"/dicom-web/workitems?{uid}", json=[request_dataset()], headers=alpha)
        assert made.status_code == 201
        path = f"/dicom-web/workitems/{uid}"
        state = {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}, "00081195": {"vr": "UI", "Value": ["1.2"]}}
        foreign = [
            ups.client.get(path, headers=beta),
            ups.client.post(path, json=[{}], headers=beta),
            ups.client.put(f"{path}/state", json=[state], headers=beta),
            ups.client.post(f"{path}/cancelrequest", headers=beta),
            ups.client.post(f"{path}/subscribers/SPY", headers=beta),
            ups.client.delete(f"{path}/subscribers/SPY", headers=beta),
        ]
        for answer in foreign:
            refused(answer, 404, "C307")
        assert ups.client.get("/dicom-web/workitems", headers=beta).json() == []
        assert ups.client.get(path, headers=alpha).status_code == 200
        assert ups.client.get(path).status_code == 401
