"""RAD-81 Query UPS Workitems: PS3.18 11.9, PS3.4 CC.2.8."""

from __future__ import annotations

import pytest
from tests.ups_worklist import EPOCH, fresh_uid, warning, worklist

from wetread.core.ups_dataset import code, element
from wetread.worklist.ups import UpsSettings


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def search(ups, query=""):
    answer = ups.client.get(f"/dicom-web/workitems{query}")
    assert answer.status_code == 200, answer.text
    return answer


def found(ups, query=""):
    return [dataset["00080018"]["Value"][0] for dataset in search(ups, query).json()]


# Every required matching key of table CC.2.5-3, with the element that a workitem carries and a query that finds it.
REQUIRED = {
    "ProcedureStepState": ({}, "SCHEDULED"),
    "ScheduledProcedureStepPriority": ({"t00741200": element("CS", "HIGH")}, "HIGH"),
    "WorklistLabel": ({"t00741202": element("LO", "Neuro")}, "Neuro"),
    "ProcedureStepLabel": ({"t00741204": element("LO", "Score CTA")}, "Score*"),
    "ScheduledProcedureStepStartDateTime": ({"t00404005": element("DT", "20270203")}, "202702-20270301"),
    "ExpectedCompletionDateTime": ({"t00404011": element("DT", "202702030405")}, "20270203-"),
    "ScheduledWorkitemCodeSequence.CodeValue": ({"t00404018": element("SQ", code("ich", "99W", "ICH"))}, "ich"),
    "ScheduledStationNameCodeSequence.00080100": ({"t00404025": element("SQ", code("ws", "99W", "WS"))}, "ws"),
    "ScheduledStationClassCodeSequence.00080100": ({"t00404026": element("SQ", code("gpu", "99W", "G"))}, "gpu"),
    "ScheduledStationGeographicLocationCodeSequence.00080100": (
        {"t00404027": element("SQ", code("b1", "99W", "B"))},
        "b1",
    ),
    "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue": (
        {"t00404034": element("SQ", {"00404009": element("SQ", code("dr", "99W", "D"))})},
        "dr",
    ),
    "InputReadinessState": ({"t00404041": element("CS", "UNAVAILABLE")}, "UNAVAILABLE"),
    "PatientName": ({"t00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}}, "doe*"),
    "PatientID": ({"t00100020": element("LO", "P7")}, "P7"),
    "IssuerOfPatientID": ({"t00100021": element("LO", "HOSP")}, "HOSP"),
    "PatientBirthDate": ({"t00100030": element("DA", "19620304")}, "19620304"),
    "PatientSex": ({"t00100040": element("CS", "F")}, "F"),
    "AdmissionID": ({"t00380010": element("LO", "A9")}, "A9"),
    "IssuerOfAdmissionIDSequence.LocalNamespaceEntityID": (
        {"t00380014": element("SQ", {"00400031": element("UT", "ADM")})},
        "ADM",
    ),
    "ReferencedRequestSequence.AccessionNumber": (
        {"t0040A370": element("SQ", {"00080050": element("SH", "ACC1")})},
        "ACC1",
    ),
    "ReferencedRequestSequence.RequestedProcedureID": (
        {"t0040A370": element("SQ", {"00401001": element("SH", "RP1")})},
        "RP1",
    ),
    "ReferencedRequestSequence.RequestingPhysician": (
        {"t0040A370": element("SQ", {"00321032": {"vr": "PN", "Value": [{"Alphabetic": "House"}]}})},
        "house",
    ),
    "ReplacedProcedureStepSequence.ReferencedSOPInstanceUID": (
        {"t00741224": element("SQ", {"00081155": element("UI", "1.2.77")})},
        "1.2.77",
    ),
    "StudyInstanceUID": ({"t00404021": element("SQ", {"0020000D": element("UI", "1.2.88")})}, "1.2.88"),
    "InputInformationSequence.StudyInstanceUID": (
        {"t00404021": element("SQ", {"0020000D": element("UI", "1.2.89")})},
        "1.2.89,1.2.90",
    ),
}


@pytest.mark.parametrize("keyword", REQUIRED)
def test_cc_2_5_3_every_required_key_finds_its_workitem_and_no_other(ups, keyword):
    attributes, value = REQUIRED[keyword]
    wanted = ups.create(**attributes)
    other, _ = ups.claimed()
    assert found(ups, f"?{keyword}={value}") == [wanted]
    assert sorted(found(ups, f"?{keyword}=")) == sorted([wanted, other])
    nothing = "19000101" if "Date" in keyword else "9.9" if "UID" in keyword else "NONE"
    assert found(ups, f"?{keyword}={nothing}") == []


def test_8_3_4_1_tags_and_keywords_may_be_mixed_in_a_path(ups):
    uid = ups.create(t0040A370=element("SQ", {"00080050": element("SH", "X1")}))
    ups.create()
    for key in ("0040A370.00080050", "0040a370.AccessionNumber", "ReferencedRequestSequence.00080050"):
        assert found(ups, f"?{key}=X1") == [uid]


@pytest.mark.parametrize("plus", ["+", "%2B"])
def test_8_3_4_1_the_offset_of_a_date_time_survives_the_query(ups, plus):
    uid = ups.create(t00404005=element("DT", "20260101080000"))
    assert found(ups, f"?ScheduledProcedureStepStartDateTime=20260101100000{plus}0200") == [uid]
    assert found(ups, f"?00404005=20260101090000{plus}0200-20260101100000{plus}0200") == [uid]
    assert found(ups, f"?00404005=20260101080000{plus}0200") == []


def test_plus_is_a_space_elsewhere(ups):
    uid = ups.create(t00741204=element("LO", "Read CT 1234"))
    assert found(ups, "?ProcedureStepLabel=Read+CT+1234") == [uid]


def test_search_by_workitem_uids(ups):
    uids = [ups.create() for _ in range(3)]
    assert sorted(found(ups, f"?SOPInstanceUID={uids[0]},{uids[2]}")) == sorted([uids[0], uids[2]])


def test_reading_order_is_priority_then_start_then_age(ups):
    low = ups.create(t00741200=element("CS", "LOW"), t00404005=element("DT", "20250101"))
    young = ups.create(t00404005=element("DT", "20260101120000+0200"))
    ups.clock.at += 1
    same_start_later = ups.create(t00404005=element("DT", "20260101100000"))
    late = ups.create(t00404005=element("DT", "20260102"))
    high = ups.create(t00741200=element("CS", "HIGH"), t00404005=element("DT", "20270101"))
    assert found(ups) == [high, young, same_start_later, late, low]


def test_a_changed_priority_is_seen_by_the_next_search(ups):
    first, second = ups.create(), ups.create()
    assert ups.update(second, {"00741200": element("CS", "HIGH")}).status_code == 200
    assert found(ups) == [second, first]


def test_8_3_4_4_paging_with_the_warning_of_what_is_left(ups):
    uids = [ups.create() for _ in range(5)]
    first = search(ups, "?limit=2")
    assert first.headers["warning"] == warning("There are 3 additional results that can be requested")
    assert found(ups, "?limit=2") + found(ups, "?limit=2&offset=2") + found(ups, "?limit=2&offset=4") == uids
    assert "warning" not in search(ups, "?limit=5").headers
    assert found(ups, "?offset=9") == []
    empty = search(ups, "?limit=0")
    assert empty.json() == []
    assert empty.headers["warning"] == warning("There are 5 additional results that can be requested")


def test_a_search_that_the_database_cannot_count_says_at_least(tmp_path):
    with worklist(tmp_path, settings=UpsSettings(search_count_to=2)) as ups:
        uids = [ups.create(t00741204=element("LO", f"Read {number}")) for number in range(9)]
        answer = search(ups, "?ProcedureStepLabel=Read*&limit=3&offset=1")
        assert [dataset["00080018"]["Value"][0] for dataset in answer.json()] == uids[1:4]
        assert answer.headers["warning"] == warning("There are at least 2 additional results that can be requested")


def test_the_server_maximum_clamps_the_limit(tmp_path):
    with worklist(tmp_path, settings=UpsSettings(search_limit=2)) as ups:
        for _ in range(3):
            ups.create()
        assert len(found(ups)) == len(found(ups, "?limit=100")) == 2


def test_11_9_3_nothing_found_is_200_and_an_empty_array(ups):
    answer = search(ups, f"?SOPInstanceUID={fresh_uid()}")
    assert answer.content == b"[]"
    assert answer.headers["content-type"] == "application/dicom+json"


def test_attributes_that_were_not_asked_for_stay_out(ups):
    uid = ups.create(t00081030=element("LO", "Head CT"), t00081040=element("LO", "Radiology"))
    (plain,) = search(ups).json()
    assert {"00081030", "00081040"} & plain.keys() == set()
    (included,) = search(ups, "?includefield=StudyDescription").json()
    assert included["00081030"]["Value"] == ["Head CT"]
    (keyed,) = search(ups, "?StudyDescription=Head*").json()
    assert keyed["00081030"]["Value"] == ["Head CT"]
    (everything,) = search(ups, "?includefield=all").json()
    assert everything == ups.get(uid)


def test_the_transaction_uid_is_neither_key_nor_field(ups):
    _, lock = ups.claimed()
    assert ups.client.get(f"/dicom-web/workitems?00081195={lock}").status_code == 400
    answer = search(ups, "?includefield=all,00081195")
    assert lock not in answer.text
    assert answer.headers["warning"] == warning("The Transaction UID is never returned.")


@pytest.mark.parametrize(
    "query",
    [
        "?NoSuchKeyword=1", "?limit=-1", "?limit=x", "?offset=1.5", "?PatientID=a&00100020=b", "?00404005=soon",
        "?fuzzymatching=perhaps", "?includefield=Nonsense",
    ],
)  # fmt: skip
def test_malformed_searches_are_400(ups, query):
    answer = ups.client.get(f"/dicom-web/workitems{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_ignored_input_is_never_silent(ups):
    ups.create(t00100010={"vr": "PN", "Value": [{"Alphabetic": "Doe"}]})
    fuzzy = search(ups, "?PatientName=doe&fuzzymatching=true")
    assert len(fuzzy.json()) == 1
    assert "Only literal matching has been performed." in fuzzy.headers["warning"]
    assert "was ignored" in search(ups, "?_=17").headers["warning"]


def test_what_a_client_accepts_is_honoured(ups):
    for accept in ("*/*", "application/dicom+json", "application/json;q=0.5, text/html", ""):
        answer = ups.client.get("/dicom-web/workitems", headers={"accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/dicom+json"
    for accept in ("text/html", "application/dicom+json;q=0", 'multipart/related; type="application/dicom+xml"'):
        assert ups.client.get("/dicom-web/workitems", headers={"accept": accept}).status_code == 406


def test_head_is_offered_on_get_resources(ups):
    uid = ups.create()
    for path in ("/dicom-web/workitems", f"/dicom-web/workitems/{uid}"):
        assert ups.client.request("HEAD", path).status_code == 200


def test_the_clock_of_the_test_is_the_clock_of_the_rows(ups):
    ups.create()
    (dataset,) = search(ups).json()
    assert dataset["00404010"]["Value"] == ["20260101000000.000000+0000"]
    assert ups.clock.at == EPOCH
