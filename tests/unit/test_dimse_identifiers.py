"""Identifiers of C-FIND, C-MOVE and C-GET: keys, levels, character sets (PS3.4 C.4); statuses; peers."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from tests.dimse_support import write_peers

from wetread.core.dicom.file_meta import file_meta
from wetread.core.dicom.header import read_header
from wetread.core.dicomweb.levels import Level
from wetread.core.errors import ConfigurationError, InvalidInput
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.ingest import InstanceOutcome
from wetread.core.ports.objects import ObjectRef
from wetread.dimse.admission import prefer_uncompressed
from wetread.dimse.identifier import PATIENT_ROOT, STUDY_ROOT, answer, find_identifier, retrieve_query
from wetread.dimse.peers import CALLED_UNKNOWN, CALLING_UNKNOWN, NOT_ADMITTED, Peer, PeerBook, Refusal, load_peers
from wetread.dimse.sending import CONTEXTS, proposals, succeeded
from wetread.dimse.statuses import store_status
from wetread.dimse.tls import client_context


def identifier(level: str = "STUDY", **keys: Any) -> Dataset:
    """Return an identifier as it comes from the wire: written and read again."""
    data = Dataset()
    data.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(data, name, value)
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, True
    write_dataset(target, data)
    target.seek(0)
    from pydicom.filereader import read_dataset

    return read_dataset(target, is_implicit_VR=True, is_little_endian=True)


def keys_of(data: Dataset, levels: tuple[str, ...] = STUDY_ROOT) -> dict[str, tuple[str, ...]]:
    query = find_identifier(data, levels).query
    return {".".join(f"{tag:08X}" for tag in key.path): key.any_of or (key.value,) for key in query.keys}


@pytest.mark.parametrize(
    ("given_keys", "expected"),
    [
        ({"PatientName": "DOE^J*"}, {"00100010": ("DOE^J*",)}),
        ({"PatientName": "", "StudyDate": None, "PatientID": "*"}, {}),
        ({"StudyDate": "20240101-20241231"}, {"00080020": ("20240101-20241231",)}),
        ({"StudyInstanceUID": ["1.2", "1.3"]}, {"0020000D": ("1.2", "1.3")}),
        ({"ModalitiesInStudy": ["CT", "MR"]}, {"00080061": ("CT", "MR")}),
        ({"PatientID": "A&B=C+D%20,x"}, {"00100020": ("A&B=C+D%20,x",)}),
        ({"AccessionNumber": " 77 "}, {"00080050": ("77",)}),
        ({"SeriesNumber": "3"}, {"00200011": ("3",)}),
    ],
    ids=["wildcard", "universal", "range", "uid-list", "modalities", "escapes", "padding", "number"],
)
def test_keys(given_keys: dict[str, Any], expected: dict[str, tuple[str, ...]]) -> None:
    assert keys_of(identifier(**given_keys)) == expected


def test_sequence_keys_are_paths() -> None:
    inner = Dataset()
    inner.ScheduledProcedureStepID = "SPS1"
    inner.RequestedProcedureID = ""
    data = identifier("SERIES", RequestAttributesSequence=[inner])
    assert keys_of(data) == {"00400275.00400009": ("SPS1",)}
    assert 0x00400275 in find_identifier(data, STUDY_ROOT).asked


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\*?"), min_size=1, max_size=60))
def test_any_text_reaches_the_matcher_unchanged(text: str) -> None:
    expected = {"00100020": (text.strip(),)} if text.strip() else {}
    assert keys_of(identifier(PatientID=text)) == expected


@pytest.mark.parametrize(
    "data",
    [
        Dataset(),
        identifier("PATIENT"),
        identifier("NURSE"),
        identifier(StudyInstanceUID="not a uid"),
        identifier(StudyDate="yesterday"),
    ],
    ids=["no-level", "level-of-other-model", "level", "uid", "date"],
)
def test_what_cannot_be_matched_is_refused(data: Dataset) -> None:
    with pytest.raises(InvalidInput):
        find_identifier(data, STUDY_ROOT)


def test_an_unknown_key_with_a_value_is_refused_and_without_one_comes_back_empty() -> None:
    data = identifier()
    data.add_new(0x00091001, "UN", b"value ")
    with pytest.raises(InvalidInput):
        find_identifier(data, STUDY_ROOT)
    data[0x00091001].value = b""
    asked = find_identifier(data, STUDY_ROOT)
    assert not answer({}, asked, "WETREAD")[0x00091001].value


@pytest.mark.parametrize(
    ("data", "levels", "level", "keys"),
    [
        (identifier("STUDY", StudyInstanceUID="1.2"), STUDY_ROOT, Level.STUDY, 1),
        (identifier("PATIENT", PatientID="P"), PATIENT_ROOT, Level.STUDY, 1),
        (identifier("STUDY", PatientID="P", StudyInstanceUID=["1", "2"]), PATIENT_ROOT, Level.STUDY, 2),
        (identifier("SERIES", StudyInstanceUID="1", SeriesInstanceUID=["2", "3"]), STUDY_ROOT, Level.SERIES, 2),
        (identifier("IMAGE", SOPInstanceUID="3", Modality="CT"), STUDY_ROOT, Level.INSTANCE, 1),
    ],
)
def test_retrieve_by_unique_keys(data: Dataset, levels: tuple[str, ...], level: Level, keys: int) -> None:
    _, query = retrieve_query(data, levels)
    assert (query.level, len(query.keys)) == (level, keys)


@pytest.mark.parametrize(
    "data",
    [
        identifier("STUDY"),
        identifier("STUDY", StudyInstanceUID="*"),
        identifier("SERIES", StudyInstanceUID="1.2"),
        identifier("PATIENT", PatientID="P*"),
        identifier("PATIENT", PatientID=["P", "Q"]),
        identifier("STUDY", StudyInstanceUID="everything"),
    ],
)
def test_retrieve_of_everything_is_refused(data: Dataset) -> None:
    with pytest.raises(InvalidInput):
        retrieve_query(data, PATIENT_ROOT)


@pytest.mark.parametrize(
    ("name", "asked_in", "declared"),
    [
        ("Doe^Jane", "", None),
        ("Müller", "", "ISO_IR 192"),
        ("Müller", "ISO_IR 100", "ISO_IR 100"),
        ("山田", "ISO_IR 100", "ISO_IR 192"),
    ],
)
def test_character_set_of_the_answer(name: str, asked_in: str, declared: str | None) -> None:
    data = identifier(PatientName="")
    if asked_in:
        data.SpecificCharacterSet = asked_in
    found = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]}}
    made = answer(found, find_identifier(data, STUDY_ROOT), "WETREAD")
    assert made.get("SpecificCharacterSet") == declared
    assert str(made.PatientName) == name


def test_a_stored_value_that_is_none_is_answered_empty() -> None:
    found = {"00200011": {"vr": "IS", "Value": ["seven"]}, "00080060": {"vr": "CS", "Value": ["CT"]}}
    made = answer(found, find_identifier(identifier("SERIES", SeriesNumber="", Modality=""), STUDY_ROOT), "WETREAD")
    assert (made.Modality, made.SeriesNumber) == ("CT", None)


@pytest.mark.parametrize(
    ("failure", "warning", "status"),
    [
        (None, None, 0x0000),
        (None, 0xB006, 0xB006),
        (None, 0xB007, 0xB007),
        (0x0110, None, 0x0110),
        (0x0122, None, 0x0122),
        (0xA700, None, 0xA700),
        (0xA900, None, 0xA900),
        (0xA901, None, 0xA900),
        (0xB00E, None, 0x0111),
        (0xB00F, None, 0x0110),
        (0xC000, None, 0xC000),
    ],
)
def test_store_statuses(failure: int | None, warning: int | None, status: int) -> None:
    outcome = InstanceOutcome("1", "2", "3", failure_reason=failure, warning_reason=warning, comment="x" * 99)
    assert store_status(outcome) == (status, "x" * 64)
    assert succeeded(status) == (failure is None)


def test_file_meta_is_read_back() -> None:
    lead = file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2")
    header = read_header(lead + b"\x08\x00\x18\x00\x06\x00\x00\x001.2.3\0")
    assert (header.dataset_start, header.transfer_syntax_uid) == (len(lead), "1.2.840.10008.1.2")


def archived(sop_class: str, syntax: str) -> ArchivedInstance:
    return ArchivedInstance("1", "2", "3", sop_class, None, syntax, "", lossy=False, ref=ObjectRef("x", 1), frames={})


def test_proposals_keep_to_128_contexts_and_lose_nothing() -> None:
    items = [archived(f"1.2.{number % 100}", f"1.9.{number % 3}") for number in range(300)]
    groups = list(proposals(items))
    assert len(groups) > 1
    assert all(len(contexts) <= CONTEXTS for contexts, _ in groups)
    assert [item for _, group in groups for item in group] == items
    for contexts, group in groups:
        offered = {(context.abstract_syntax, context.transfer_syntax[0]) for context in contexts}
        assert all((item.sop_class_uid, item.transfer_syntax_uid) in offered for item in group)
        assert all((item.sop_class_uid, "1.2.840.10008.1.2.1") in offered for item in group)


def test_receivers_of_c_get_are_given_what_can_always_be_sent() -> None:
    class Role:
        scp_role = True

    class Context:
        def __init__(self, uid: str, *syntaxes: str) -> None:
            self.abstract_syntax, self.transfer_syntax = uid, list(syntaxes)

    jpeg, explicit, implicit = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
    contexts = [Context("1", jpeg, implicit, explicit), Context("1", jpeg), Context("2", jpeg, explicit)]
    prefer_uncompressed(contexts, {"1": Role()})
    assert [context.transfer_syntax[0] for context in contexts] == [explicit, jpeg, jpeg]


PEERS = (
    ("ae: CT1", "addresses: [10.1.0.0/16]", "tenant: a"),
    ("ae: CT1", "addresses: [10.2.0.1, '2001:db8::/32']", "tenant: b", "called: CLINICB"),
    ("ae: PACS", "host: pacs.example", "tenant: a"),
)


@pytest.fixture
def book(tmp_path: Path) -> PeerBook:
    return load_peers(write_peers(tmp_path / "peers.yaml", *PEERS), "WETREAD")


@pytest.mark.parametrize(
    ("calling", "called", "address", "expected"),
    [
        ("CT1 ", "WETREAD", "10.1.9.9", "a"),
        ("CT1", " CLINICB", "10.2.0.1", "b"),
        ("CT1", "CLINICB", "2001:db8::7", "b"),
        ("CT1", "CLINICB", "::ffff:10.2.0.1", "b"),
        ("CT1", "WETREAD", "10.2.0.1", NOT_ADMITTED),
        ("CT1", "OTHER", "10.1.9.9", CALLED_UNKNOWN),
        ("ct1", "WETREAD", "10.1.9.9", CALLING_UNKNOWN),
        ("PACS", "WETREAD", "10.1.9.9", NOT_ADMITTED),
        ("CT1", "WETREAD", "nowhere", NOT_ADMITTED),
    ],
)
def test_tenant_from_titles_and_address(
    book: PeerBook, calling: str, called: str, address: str, expected: str | Refusal
) -> None:
    found = book.admit(calling, called, address, None)
    assert (found.tenant if isinstance(found, Peer) else found) == expected


def test_addresses_and_destinations(book: PeerBook) -> None:
    assert book.reachable_from("10.1.0.1")
    assert not book.reachable_from("10.3.0.1")
    assert book.destination("a", "PACS ") is not None
    assert book.destination("b", "PACS") is None
    assert book.destination("a", "CT1") is None


def test_nothing_configured_lets_anybody_in_as_the_default_tenant() -> None:
    book = load_peers(None, " WETREAD ")
    peer = book.admit("ANY", "WETREAD", "127.0.0.1", None)
    assert isinstance(peer, Peer)
    assert peer.tenant == "default"
    assert book.admit("ANY", "OTHER", "127.0.0.1", None) == CALLED_UNKNOWN
    assert book.admit("  ", "WETREAD", "127.0.0.1", None) == CALLING_UNKNOWN


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("peers: [{ae: TOOLONGFORANAETITLE}]", "AE title"),
        ("peers: [{ae: A, addresses: [10.0.0.1/8]}]", "peers.0.addresses"),
        ("peers: [{ae: A, tenent: x}]", "tenent"),
        ("peers: [{ae: A, may: [delete]}]", "peers.0.may"),
        ("peers: [{ae: A, results: true}]", "host"),
        ("peers: [{ae: A, host: h}, {ae: A, host: g}]", "share"),
        (f"peers: [{{ae: A, certificate: '{'0' * 64}'}}]", "AUTHORITIES"),
        ("peers: [{ae: A, certificate: zz}]", "hex"),
        ("peers: [", "YAML"),
        ("{}", "peers"),
    ],
)
def test_faults_of_a_peers_file_are_named(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "peers.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=fault):
        load_peers(file, "WETREAD")


def test_our_own_title_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AE_TITLE"):
        load_peers(None, "x" * 17)
    with pytest.raises(ConfigurationError, match="FileNotFound"):
        load_peers(tmp_path / "none.yaml", "WETREAD")


def test_outgoing_tls_checks_names() -> None:
    context = client_context(None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
