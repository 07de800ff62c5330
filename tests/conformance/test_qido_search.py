"""QIDO-RS (PS3.18 10.6; matching: PS3.4 C.2.2.2): the six resources, keys, matching, paging, warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from tests.gateway_support import Parts, dataset, encoded, running


def request_item(scheduled: str, requested: str) -> Dataset:
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = scheduled, requested
    return item


def make(study: str, **changes: Any) -> bytes:
    data = dataset(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{changes.pop('series', 1)}")
    for name, value in changes.items():
        setattr(data, name, value)
    return encoded(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, each_database_of_module: str):
    with running(tmp_path_factory.mktemp("qido")) as parts:
        umlaut = {"SpecificCharacterSet": "ISO_IR 192"}
        requests = Sequence([request_item("S1", "R1"), request_item("S2", "R2")])
        response = parts.store(
            make("1.1", PatientName="Smith^John", PatientID="100", StudyDate="20230110", StudyTime="101500"),
            make(
                "1.1",
                PatientName="Smith^John",
                PatientID="100",
                StudyDate="20230110",
                series=2,
                Modality="SR",
                SeriesDescription="Report",
                SeriesNumber=2,
            ),
            make(
                "1.2",
                PatientName="Smith^John^^Dr",
                PatientID="101",
                StudyDate="20230215",
                StudyTime="2230",
                AccessionNumber="ACC_1",
                RequestAttributesSequence=requests,
            ),
            make("1.3", PatientName="Müller^Jürgen", PatientID="a%b", StudyDate="20240101", Modality="MR", **umlaut),
            make("1.4", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう", PatientID="102", StudyDate="", **umlaut),
            *[
                make("1.5", PatientName="", PatientID="103", StudyDate="20220101", InstanceNumber=n, AccessionNumber="")
                for n in range(1, 6)
            ],
        )
        assert response.status_code == 200, response.text
        yield parts


def studies(site: Parts, query: str) -> list[str]:
    response = site.get(f"/studies?{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/dicom+json"
    return sorted(item["0020000D"]["Value"][0] for item in response.json())


ALL = ["1.1", "1.2", "1.3", "1.4", "1.5"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ALL),
        ("PatientID=100", ["1.1"]),
        ("00100020=100", ["1.1"]),
        ("PatientID=10", []),
        ("PatientID=10*", ["1.1", "1.2", "1.4", "1.5"]),
        ("PatientID=10?", ["1.1", "1.2", "1.4", "1.5"]),
        ("PatientID=?", []),
        ("PatientID=", ALL),
        ("PatientID=*", ALL),
        ("PatientID=a%25b", ["1.3"]),
        ("PatientID=a%25*", ["1.3"]),
        ("PatientID=%25", []),
        ("PatientID=A%25b", []),
        ("AccessionNumber=ACC_1", ["1.2"]),
        ("AccessionNumber=ACC_*", ["1.2"]),
        ("AccessionNumber=ACC?1", ["1.2"]),
        ("AccessionNumber=acc_1", []),
        ("PatientName=Smith^John", ["1.1"]),
        ("PatientName=smith^JOHN", ["1.1"]),
        ("PatientName=Smith*", ["1.1", "1.2"]),
        ("PatientName=*JOHN*", ["1.1", "1.2"]),
        ("PatientName=Smith", []),
        ("PatientName=Muller^Jurgen", ["1.3"]),
        ("PatientName=M%C3%BCller*", ["1.3"]),
        ("PatientName=%E5%B1%B1%E7%94%B0*", ["1.4"]),
        ("PatientName=Yamada^Tarou", ["1.4"]),
        ("PatientName=Yam?da^Tarou", ["1.4"]),
        ("PatientName=John+Smith&fuzzymatching=true", ["1.1", "1.2"]),
        ("PatientName=joh+smi&fuzzymatching=true", ["1.1", "1.2"]),
        ("PatientName=ohn&fuzzymatching=true", []),
        ("PatientName=Smith^John&fuzzymatching=true", ["1.1", "1.2"]),
        ("PatientName=mull&fuzzymatching=true", ["1.3"]),
        ("PatientName=*mith*&fuzzymatching=true", ["1.1", "1.2"]),
        ("StudyDate=20230110", ["1.1"]),
        ("StudyDate=20230101-20231231", ["1.1", "1.2"]),
        ("StudyDate=-20230110", ["1.1", "1.5"]),
        ("StudyDate=20230215-", ["1.2", "1.3"]),
        ("StudyTime=2230", ["1.2"]),
        ("StudyTime=223000", ["1.2"]),
        ("StudyTime=1000-1100", ["1.1", "1.3", "1.4", "1.5"]),
        ("StudyDate=20230110-20230215&StudyTime=101600-2230", ["1.2"]),
        ("StudyDate=20230110-20230215&StudyTime=1015-2229", ["1.1"]),
        ("StudyInstanceUID=1.1,1.3", ["1.1", "1.3"]),
        ("StudyInstanceUID=1.1%5C1.3", ["1.1", "1.3"]),
        ("StudyInstanceUID=9", []),
        ("ModalitiesInStudy=SR", ["1.1"]),
        ("ModalitiesInStudy=CT,MR", ALL),
        ("ModalitiesInStudy=MR", ["1.3"]),
        ("ModalitiesInStudy=M*", ["1.3"]),
        ("ModalitiesInStudy=T", []),
        ("Modality=SR", ["1.1"]),
        ("SeriesDescription=Rep*", ["1.1"]),
        ("InstanceNumber=5", ["1.5"]),
        ("PatientComments=x", []),
        ("RequestAttributesSequence.ScheduledProcedureStepID=S1", ["1.2"]),
        ("00400275.00400009=S1&00400275.00401001=R1", ["1.2"]),
        ("00400275.00400009=S1&00400275.00401001=R2", []),
        ("AccessionNumber=%22%22&emptyvaluematching=true", ["1.5"]),
        ("NumberOfStudyRelatedInstances=5", ["1.5"]),
        ("PatientSex=F&PatientID=100", ["1.1"]),
        ("StudyDescription=HEAD&PatientID=103", ["1.5"]),
    ],
)
def test_study_matching(site: Parts, query: str, expected: list[str]) -> None:
    assert studies(site, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "NoSuchKeyword=1",
        "0010002=1",
        "PatientID=1&PatientID=2",
        "PatientID=1&00100020=2",
        "limit=x",
        "limit=-1",
        "offset=1.5",
        "limit=1&limit=2",
        "StudyDate=yesterday",
        "StudyTime=x-y",
        "StudyInstanceUID=1.2/../3",
        "fuzzymatching=maybe",
        "&".join(f"{tag:08X}=1" for tag in range(0x00180010, 0x00180010 + 1)) + "&Foo.Bar=1",
    ],
)
def test_ill_formed_queries_are_400(site: Parts, query: str) -> None:
    response = site.get(f"/studies?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


def test_too_long_query_is_414(site: Parts) -> None:
    assert site.get("/studies?PatientID=" + "x" * 20_000).status_code == 414


def test_no_match_is_200_and_an_empty_array(site: Parts) -> None:
    response = site.get("/studies?PatientID=nobody")
    assert (response.status_code, response.json()) == (200, [])


def test_10_6_3_3_study_attributes(site: Parts) -> None:
    (study,) = site.get("/studies?StudyInstanceUID=1.1").json()
    assert set(study) >= {
        *("00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190", "00100010", "00100020"),
        *("00100030", "00100040", "0020000D", "00200010", "00201206", "00201208"),
    }
    assert study["00080061"]["Value"] == ["CT", "SR"]
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [2])
    assert study["00080056"]["Value"] == ["ONLINE"]
    assert study["00081190"]["Value"] == ["http://testserver/dicom-web/studies/1.1"]
    assert study["00080090"] == {"vr": "PN"}
    assert list(study) == sorted(study)
    assert "00081030" not in study


def test_includefield(site: Parts) -> None:
    (study,) = site.get(
        "/studies?StudyInstanceUID=1.1&includefield=00081030,InstitutionName&includefield=PatientAge"
    ).json()
    assert study["00081030"]["Value"] == ["HEAD"]
    (study,) = site.get("/studies?StudyInstanceUID=1.1&includefield=all").json()
    assert study["00081030"]["Value"] == ["HEAD"]
    (study,) = site.get("/studies?StudyInstanceUID=1.1&StudyDescription=").json()
    assert study["00081030"]["Value"] == ["HEAD"], "a universal key asks for the attribute"


def test_includefield_of_an_attribute_beyond_the_fragment(site: Parts) -> None:
    items = site.get("/studies/1.5/instances?includefield=00180050&limit=1").json()
    assert items[0]["00180050"]["Value"] == [5]
    items = site.get("/studies/1.5/instances?includefield=all&limit=1").json()
    assert items[0]["00281052"]["Value"] == [-1024]
    assert "7FE00010" not in items[0]


def test_series_resources(site: Parts) -> None:
    found = site.get("/studies/1.1/series").json()
    assert [item["00080060"]["Value"][0] for item in found] == ["CT", "SR"]
    assert found[0]["00201209"]["Value"] == [1]
    assert "00100020" not in found[0], "study attributes are not repeated below a study"
    everything = site.get("/series?Modality=SR").json()
    assert [item["0020000E"]["Value"][0] for item in everything] == ["1.1.2"]
    assert everything[0]["00100020"]["Value"] == ["100"]
    assert site.get("/series?PatientID=103").json()[0]["00201209"]["Value"] == [5]


def test_instance_resources(site: Parts) -> None:
    found = site.get("/studies/1.5/series/1.5.1/instances").json()
    assert [item["00200013"]["Value"][0] for item in found] == [1, 2, 3, 4, 5]
    assert found[0]["00280010"]["Value"] == [8]
    assert found[0]["00083002"]["Value"] == ["1.2.840.10008.1.2.1"]
    assert len(site.get("/studies/1.5/instances").json()) == 5
    uid = found[2]["00080018"]["Value"][0]
    (one,) = site.get(f"/instances?SOPInstanceUID={uid}").json()
    assert one["00100020"]["Value"] == ["103"]
    assert one["00080060"]["Value"] == ["CT"]
    assert site.get("/instances?SliceThickness=5&PatientID=103&limit=2").json()[0]["00180050"]["Value"] == [5]


def test_unknown_study_is_an_empty_search(site: Parts) -> None:
    assert site.get("/studies/9.9.9/series").json() == []


@pytest.mark.parametrize("path", ["/studies/a/series", "/studies/1.1/series/..%2F/instances"])
def test_uid_in_the_path_is_checked(site: Parts, path: str) -> None:
    assert site.get(path).status_code in (400, 404)


def test_paging_is_stable_and_complete(site: Parts) -> None:
    whole = [item["0020000D"]["Value"][0] for item in site.get("/studies").json()]
    assert whole == ["1.3", "1.2", "1.1", "1.5", "1.4"], "newest first, without a date last"
    pages = [site.get(f"/studies?limit=2&offset={offset}") for offset in (0, 2, 4, 6)]
    assert [item["0020000D"]["Value"][0] for page in pages for item in page.json()] == whole
    assert [page.headers.get("warning") for page in pages] == [
        "299 http://testserver/dicom-web: There are 3 additional results that can be requested",
        "299 http://testserver/dicom-web: There are 1 additional results that can be requested",
        None,
        None,
    ]
    response = site.get("/studies?limit=0")
    assert response.json() == []
    assert "5 additional" in response.headers["warning"]


def test_paging_of_verified_searches(site: Parts) -> None:
    response = site.get("/studies?PatientName=*&PatientName=*o*&limit=1".replace("PatientName=*&", ""))
    assert len(response.json()) == 1
    assert "2 additional" in response.headers["warning"]
    response = site.get("/studies?PatientName=*o*&limit=5&offset=1")
    assert len(response.json()) == 2
    assert "warning" not in response.headers


def test_ignored_input_is_told(site: Parts) -> None:
    response = site.get("/studies?foo=bar&includefield=NoSuchField&PatientID=100")
    warnings = response.headers.get_list("warning")
    assert len(response.json()) == 1
    assert any("foo" in warning for warning in warnings)
    assert any("NoSuchField" in warning for warning in warnings)
    assert site.get("/studies?foo=bar", Prefer="handling=strict").status_code == 400


def test_relational_key_is_told(site: Parts) -> None:
    assert "relational" in site.get("/studies?Modality=SR").headers["warning"]


def test_etag_and_304(site: Parts) -> None:
    first = site.get("/studies?PatientID=100")
    again = site.get("/studies?PatientID=100", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert site.get("/studies?PatientID=101", **{"If-None-Match": first.headers["etag"]}).status_code == 200


def test_gzip(site: Parts) -> None:
    zipped = site.get("/instances", **{"Accept-Encoding": "gzip"})
    plain = site.get("/instances", **{"Accept-Encoding": "identity"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert zipped.json() == plain.json()


def test_unacceptable(site: Parts) -> None:
    assert site.get("/studies", accept="application/dicom+xml").status_code == 406


def test_head(site: Parts) -> None:
    response = site.client.head("/dicom-web/studies")
    assert (response.status_code, response.content) == (200, b"")


def test_searches_see_one_tenant_only(site: Parts, tmp_path: Path) -> None:
    from wetread.core.dicomweb.levels import Level
    from wetread.core.dicomweb.query import parse_query

    with site.database.read() as tx:
        for level in Level:
            found = site.archive.search(tx, "other", parse_query(level, ""), study_uid=None, series_uid=None)
            assert found.matches == ()
