"""What a client may send, what it turns into, which events a change causes, and which keys match."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ups_worklist import EPOCH, discontinuation, performed, request_dataset

from wetread.core.errors import InvalidInput
from wetread.core.ups import UpsState
from wetread.core.ups_attributes import (
    COMPLETED_NEEDS,
    CREATE_MAY_BE_EMPTY,
    CREATE_WITH_VALUE,
    created,
    discontinued,
    in_state,
    missing_for,
    updated,
)
from wetread.core.ups_dataset import code, dicom_datetime, element, merged, read_dataset, values, vr_of
from wetread.core.ups_events import cancel_requested, changes, creation, frame, state_report
from wetread.core.ups_matching import attribute_path, matches, matching_key, study_uid, utc_instant

UID = "2.25.1"


def new(**more):
    return created(request_dataset(**more), UID, EPOCH, "wetread")[0]


# --- bodies ---------------------------------------------------------------------------------------------------------


def test_an_array_of_one_dataset_and_a_bare_object_are_the_same():
    dataset = request_dataset()
    assert read_dataset([dataset]) == read_dataset(dataset) == (dict(sorted(dataset.items())), False)


@pytest.mark.parametrize(
    "body",
    [
        None, 3, "x", [], [{}, {}], [[]], {"zz": {"vr": "LO"}}, {"00741204": "text"}, {"00741204": {"Value": ["x"]}},
        {"00741204": {"vr": "XX"}}, {"00741204": {"vr": "LO", "Value": "x"}}, {"00741204": {"vr": "LO", "Value": [1]}},
        {"00741204": {"vr": "LO", "Value": [{"a": 1}]}}, {"00404021": {"vr": "LO", "Value": ["x"]}},
        {"00404021": {"vr": "SQ", "Value": ["x"]}}, {"00741204": {"vr": "SQ", "Value": [{}]}},
        {"00741204": {"vr": "LO", "BulkDataURI": "http://elsewhere/x"}},
        {"00100010": {"vr": "PN", "Value": [{"x": 1}]}},
        {"00280010": {"vr": "US", "Value": [True]}},
        {"0040A370": {"vr": "SQ"}, "0040a370": {"vr": "SQ"}},
        {"00091001": {"vr": "OB", "InlineBinary": 3}}, {"00091001": {"vr": "OB", "Value": [], "InlineBinary": "AA=="}},
    ],
)  # fmt: skip
def test_malformed_datasets_are_refused_without_repeating_their_values(body):
    with pytest.raises(InvalidInput) as caught:
        read_dataset(body)
    assert "elsewhere" not in caught.value.detail


def test_nesting_has_a_limit():
    body = {}
    for _ in range(20):
        body = {"0040A370": {"vr": "SQ", "Value": [body]}}
    with pytest.raises(InvalidInput, match="nested"):
        read_dataset(body)


def test_what_has_no_place_in_a_workitem_is_left_out_and_reported():
    body = {
        "00020010": element("UI", "1.2"),
        "7FE00010": {"vr": "OW", "InlineBinary": "AA=="},
        "00100000": {"vr": "UL"},
    }
    assert read_dataset({**body, "00741204": element("LO", "x")}) == ({"00741204": element("LO", "x")}, True)
    nested = {"00404021": element("SQ", {"00020010": element("UI", "1.2")})}
    assert read_dataset(nested) == ({"00404021": element("SQ", {})}, True)


def test_a_wrong_vr_of_a_known_attribute_is_put_right():
    assert read_dataset({"00741204": {"vr": "SH", "Value": ["x"]}})[0] == {"00741204": element("LO", "x")}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["00741204", "0040A370", "vr", "Value", "zz"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_a_dataset_or_a_typed_error(body):
    try:
        dataset, _ = read_dataset(body)
    except InvalidInput:
        return
    assert read_dataset(json.loads(json.dumps(dataset))) == (dataset, False)


# --- creation, update, final state ----------------------------------------------------------------------------------


def test_creation_adds_every_type_2_attribute_empty_and_says_so():
    workitem, modified = created(request_dataset(), UID, EPOCH, "our list")
    assert modified
    for tag in CREATE_MAY_BE_EMPTY:
        if tag not in {"00081195", "00741202"}:
            assert workitem[tag] == {"vr": vr_of(tag)}
    assert workitem["00741202"]["Value"] == ["our list"]
    assert workitem["00080016"]["Value"] == ["1.2.840.10008.5.1.4.34.6.1"]
    assert workitem["00080018"]["Value"] == [UID]
    assert workitem["00404010"]["Value"] == [dicom_datetime(EPOCH)]
    assert "00081195" not in workitem
    assert list(workitem) == sorted(workitem)


def test_a_complete_creation_is_not_called_modified():
    full = {tag: element(vr_of(tag)) for tag in CREATE_MAY_BE_EMPTY} | request_dataset(
        t00741202=element("LO", "theirs")
    )
    workitem, modified = created(full, UID, EPOCH, "ours")
    assert not modified
    assert workitem["00741202"]["Value"] == ["theirs"]


@pytest.mark.parametrize("tag", CREATE_WITH_VALUE)
def test_creation_without_a_type_1_attribute_names_it(tag):
    dataset = request_dataset()
    del dataset[tag]
    with pytest.raises(InvalidInput) as caught:
        created(dataset, UID, EPOCH, "x")
    named = "0074,1000" if tag == "00741000" else tag
    assert named in caught.value.detail
    assert caught.value.dicom_status == (0xC309 if tag == "00741000" else 0x0120)


def test_creation_names_all_that_is_missing():
    with pytest.raises(InvalidInput, match="00741200, 00741204, 00404005, 00404041"):
        created({"00741000": element("CS", "SCHEDULED")}, UID, EPOCH, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"00741200": element("CS", "SOON")},
        {"00404041": element("CS", "MAYBE")},
        {"00081195": element("UI", "1.2.3")},
        performed(),
        discontinuation(),
    ],
)
def test_creation_refuses_wrong_values_and_what_must_be_empty(change):
    with pytest.raises(InvalidInput) as caught:
        created({**request_dataset(), **change}, UID, EPOCH, "x")
    assert caught.value.dicom_status == 0x0106


def test_an_update_replaces_whole_sequences_and_stamps_the_change():
    before = merged(new(), {"00404025": element("SQ", code("a", "99T", "A"), code("b", "99T", "B"))})
    change = {"00404025": element("SQ", code("c", "99T", "C"))}
    after, modified = updated(before, change, EPOCH + 5)
    assert after["00404025"] == change["00404025"]
    assert after["00404010"]["Value"] == [dicom_datetime(EPOCH + 5)]
    assert not modified
    assert updated(after, change, EPOCH + 5)[0] == after
    assert updated(before, {**change, "00404010": element("DT", "2020")}, EPOCH)[1]


@pytest.mark.parametrize("tag", ["00741000", "00100010", "00100020", "00380010", "0040A370", "00080018"])
def test_an_update_cannot_set_state_patient_admission_or_request(tag):
    with pytest.raises(InvalidInput, match=tag):
        updated(new(), {tag: element(vr_of(tag))}, EPOCH)


def test_an_update_cannot_empty_a_type_1_attribute():
    with pytest.raises(InvalidInput, match="00741204"):
        updated(new(), {"00741204": element("LO")}, EPOCH)


def test_completed_needs_every_p_attribute():
    assert missing_for(new(), UpsState.COMPLETED) == ["00741216"]
    assert missing_for(merged(new(), performed()), UpsState.COMPLETED) == []
    for tag in COMPLETED_NEEDS:
        emptied = merged(new(), performed(**{f"t{tag}": element(vr_of(tag))}))
        assert missing_for(emptied, UpsState.COMPLETED) == [tag]
    without_output = performed()
    del without_output["00741216"]["Value"][0]["00404033"]
    assert missing_for(merged(new(), without_output), UpsState.COMPLETED) == ["00404033"]


def test_canceled_needs_a_reason_and_gets_its_time_from_us():
    assert missing_for(new(), UpsState.CANCELED) == ["0074100E"]
    ready = merged(new(), discontinuation())
    assert missing_for(ready, UpsState.CANCELED) == []
    ended = in_state(ready, UpsState.CANCELED, EPOCH)
    assert ended["00741002"]["Value"][0]["00404052"]["Value"] == [dicom_datetime(EPOCH)]
    kept = in_state(ended, UpsState.CANCELED, EPOCH + 9)
    assert kept["00741002"] == ended["00741002"]


def test_a_cancel_request_gives_its_reason_or_the_unspecified_one():
    given_reason = discontinuation()["00741002"]["Value"][0] | {"00741238": element("LT", "wrong patient")}
    progress = discontinued(new(), given_reason)["00741002"]["Value"][0]
    assert progress["00741238"]["Value"] == ["wrong patient"]
    assert missing_for(discontinued(new(), {}), UpsState.CANCELED) == []


# --- events ---------------------------------------------------------------------------------------------------------


def types(before, after):
    return [int(event.type) for event in changes(before, after)]


def test_each_kind_of_change_causes_its_event_type():
    base = new()
    assert types(base, base) == []
    assert types(base, merged(base, {"00741200": element("CS", "HIGH")})) == []
    assert types(base, in_state(base, UpsState.IN_PROGRESS, EPOCH)) == [1]
    assert types(base, merged(base, {"00404041": element("CS", "INCOMPLETE")})) == [1]
    for tag, value in (
        ("00741004", element("DS", 5)),
        ("00741006", element("ST", "half")),
        ("00741008", element("SQ", {})),
    ):
        assert types(base, merged(base, {"00741002": element("SQ", {tag: value})})) == [3]
    assert types(base, merged(base, discontinuation())) == []
    assert types(base, merged(base, {"00404025": element("SQ", code("a", "99T", "A"))})) == [5]


def test_assignment_carries_performers_and_their_organization():
    person = {"00404009": element("SQ", code("p", "99T", "P")), "00404036": element("LO", "Night reading")}
    events = creation(new(t00404034=element("SQ", person)))
    assert [int(event.type) for event in events] == [1, 5]
    assert events[1].attributes == {"00404009": person["00404009"], "00404036": person["00404036"]}


def test_a_state_report_of_a_cancelled_step_says_why():
    ended = in_state(discontinued(new(), {"00741238": element("LT", "stop")}), UpsState.CANCELED, EPOCH)
    report = state_report(ended).attributes
    assert sorted(report) == ["00404041", "00741000", "0074100E", "00741238"]


def test_a_cancel_event_repeats_only_what_was_given():
    request = {"00741238": element("LT", "stop"), "0074100C": element("LO", "Dr. Who"), "00100010": element("PN")}
    event = cancel_requested("RIS", request)
    assert event.attributes == {"00741236": element("AE", "RIS"), **{t: request[t] for t in ("00741238", "0074100C")}}


@given(st.integers(1, 10**12))
def test_a_message_id_always_fits_an_unsigned_short(sequence):
    message = frame(sequence, "1.2", 1, {"00741000": element("CS", "SCHEDULED")})
    assert list(message)[:4] == ["00000002", "00000110", "00001000", "00001002"]
    assert 1 <= message["00000110"]["Value"][0] <= 65535
    assert [message[tag]["vr"] for tag in message] == ["UI", "US", "UI", "US", "CS"]


# --- matching -------------------------------------------------------------------------------------------------------

PATIENT = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg", "Ideographic": "山田^太郎"}]},
    "00100020": element("LO", "PID_1"),
    "00100030": element("DA", "19700131"),
    "00400400": element("LT", "50% [x]"),
    "00404005": element("DT", "20260101080000"),
    "00404021": element("SQ", {"0020000D": element("UI", "1.2.3"), "00080100": element("SH", "a")},
                        {"0020000D": element("UI", "1.2.4"), "00080100": element("SH", "b")}),
    "00741004": element("DS", 50),
    "00741204": element("LO", "Read head", "urgent"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PatientName", "MULLER^JORG", True),
        ("PatientName", "mu*", True),
        ("PatientName", "山田*", True),
        ("PatientName", "mul", False),
        ("00100020", "PID_1", True),
        ("00100020", "PID?1", True),
        ("00100020", "pid_1", False),
        ("00100020", "", True),
        ("00100021", "*", True),
        ("00100021", "x", False),
        ("00100030", "19700131", True),
        ("00100030", "1970-1971", True),
        ("00100030", "-19700130", False),
        ("00400400", "50% [x]", True),
        ("00400400", "50%*[?]", True),
        ("00404005", "2026", True),
        ("00404005", "202601010800", True),
        ("00404005", "2026-2027", True),
        ("00404005", "20260101080000-", True),
        ("00404005", "-20260101075959", False),
        ("00404005", "20260101090000+0100", True),
        ("00404005", "20260101030000-0500", True),
        ("00404005", "20260101080000.5", False),
        ("00404021.0020000D", "1.2.4", True),
        ("InputInformationSequence.StudyInstanceUID", "9.9,1.2.3", True),
        ("00404021.0020000D", "1.2", False),
        ("00741004", "50.0", True),
        ("00741004", "x", False),
        ("00741204", "urgent", True),
        ("StudyInstanceUID", "1.2.3", True),
        ("StudyInstanceUID", "1.2.4", False),
    ],
)
def test_one_key_matches(name, value, expected):
    assert matches(PATIENT, [matching_key(name, value)]) is expected


def test_of_a_sequence_one_item_must_match_all_keys():
    same = [matching_key("00404021.0020000D", "1.2.3"), matching_key("00404021.00080100", "a")]
    mixed = [matching_key("00404021.0020000D", "1.2.3"), matching_key("00404021.00080100", "b")]
    assert matches(PATIENT, same)
    assert not matches(PATIENT, mixed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NoSuchKeyword", "x"), ("0010001", "x"), ("00081195", "1.2"), ("TransactionUID", ""), ("00404021", "x"),
        ("PatientName.PatientID", "x"), ("00404005", "yesterday"), ("00404005", "20261301"), ("00100030", "1/2/3"),
    ],
)  # fmt: skip
def test_keys_that_can_never_match_are_refused(name, value):
    with pytest.raises(InvalidInput):
        matching_key(name, value)


def test_paths_mix_keywords_and_tags():
    assert attribute_path("ReferencedRequestSequence.00080050") == ("0040A370", "00080050")


def test_the_study_of_a_workitem_is_its_own_its_inputs_or_its_requests():
    request = {"0040A370": element("SQ", {"0020000D": element("UI", "1.9")})}
    assert study_uid(request) == "1.9"
    assert study_uid({**request, **PATIENT}) == "1.2.3"
    assert study_uid({}) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [("20260101", "20260101000000.000000"), ("202601010130+0200", "20251231233000.000000"), ("", ""), ("soon", "")],
)
def test_start_times_sort_by_their_instant(value, expected):
    assert utc_instant(value) == expected


def test_values_skip_nulls():
    assert values({"00741204": {"vr": "LO", "Value": [None, "", "x"]}}, "00741204") == ["x"]
