"""STOW-RS (PS3.18 10.5): statuses, failure reasons, duplicates, the response module, and what an answer promises."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from tests.gateway_support import CT, Parts, dataset, encoded, instance, multipart, reasons, running, stow_headers

from wetread.adapters.objectstore.memory import MemoryObjectStore
from wetread.core.dicom.header import read_header
from wetread.core.errors import StorageFull, Unavailable
from wetread.core.facts import Source
from wetread.core.tenants import TenantFile, Tenants
from wetread.gateway.replay import rebuild, recover
from wetread.gateway.settings import GatewaySettings, IngestSettings


@pytest.fixture
def site(tmp_path: Path):
    with running(tmp_path) as parts:
        yield parts


def stored(site: Parts) -> int:
    return len(site.get("/instances").json())


def test_10_5_3_all_stored_is_200(site: Parts) -> None:
    files = [instance(), instance()]
    response = site.store(*files)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/dicom+json")
    module = response.json()
    assert isinstance(module, dict)
    assert len(module["00081199"]["Value"]) == 2
    assert "00081198" not in module
    assert "0008119A" not in module
    assert module["00081190"]["Value"] == ["http://testserver/dicom-web/studies/1.2.3"]
    reference = module["00081199"]["Value"][0]
    assert reference["00081150"]["Value"] == [CT]
    assert (
        site.client.get(reference["00081190"]["Value"][0], headers={"Accept": "application/dicom"}).content == files[0]
    )


def test_10_5_3_partly_stored_is_202(site: Parts) -> None:
    response = site.store(instance(), b"junk", instance(SeriesInstanceUID=None))
    assert response.status_code == 202
    module = response.json()
    assert len(module["00081199"]["Value"]) == 1
    assert module["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert module["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]


def test_10_5_3_nothing_stored_is_409_with_the_module(site: Parts) -> None:
    response = site.store(b"junk", b"")
    assert response.status_code == 409
    assert reasons(response) == [0xC000, 0xC000]
    assert stored(site) == 0


@pytest.mark.parametrize("attribute", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "../../etc/passwd", "1.2/3", "1.2\x00.3", "1" * 65, "1.2%2e3", "a.b"])
def test_required_uids(site: Parts, attribute: str, value: str | None) -> None:
    data = dataset()
    if value is None:
        delattr(data, attribute)
    else:
        setattr(data, attribute, value)
    response = site.store(encoded(data))
    assert response.status_code == 409
    assert reasons(response) == [43264]


def test_missing_patient_id_is_stored(site: Parts) -> None:
    assert site.store(instance(PatientID=None, PatientName="")).status_code == 200


def test_bad_values_never_drop_an_instance(site: Parts) -> None:
    response = site.store(instance(StudyDate="not a date", Rows=8, SeriesNumber=None, WindowCenter="40"))
    assert response.status_code == 200
    assert stored(site) == 1


def test_study_of_the_url(site: Parts) -> None:
    assert site.store(instance(), study="1.2.3").status_code == 200
    response = site.store(instance(), study="1.2.4")
    assert (response.status_code, reasons(response)) == (409, [43265])


@pytest.mark.parametrize("uid", ["..", "a", "1.2.3%20", "1" * 65])
def test_uid_of_the_url(site: Parts, uid: str) -> None:
    response = site.client.post(f"/dicom-web/studies/{uid}", content=multipart([instance()]), headers=stow_headers())
    assert response.status_code in (400, 404, 405)


def test_dicomdir_is_refused(site: Parts, shared: Path) -> None:
    response = site.store((shared / "dicom-variety/pydicom/test_files/dicomdirtests/DICOMDIR").read_bytes())
    assert (response.status_code, reasons(response)) == (409, [0x0122])


def test_identical_duplicate_is_a_silent_success(site: Parts) -> None:
    part = instance()
    assert site.store(part).status_code == 200
    response = site.store(part, part)
    assert response.status_code == 200
    assert len(response.json()["00081199"]["Value"]) == 2
    assert stored(site) == 1
    assert len(site.outbox.changes) == 1, "no event for what changed nothing"


def test_a_repeated_request_ends_the_transfer_that_a_crash_has_cut(site: Parts) -> None:
    """All of it was stored and recovered; what was never told is that nothing follows."""
    first, second, elsewhere = instance(), instance(), instance(StudyInstanceUID="9.9")
    site.store(first, second, elsewhere)
    site.outbox.waiting = {"1.2.3"}
    site.store(first, instance())
    assert site.outbox.repeated == [], "new images bring their own end of the transfer"
    changes = len(site.outbox.changes)
    for _ in range(2):
        assert site.store(first, second, elsewhere).status_code == 200
    assert site.outbox.repeated == ["1.2.3"], "once, and only where somebody waits for it"
    assert len(site.outbox.changes) == changes, "nothing has changed"


def test_duplicate_with_other_file_meta_is_identical(site: Parts) -> None:
    data = dataset()
    assert site.store(encoded(data)).status_code == 200
    part = encoded(data)
    start = read_header(part).dataset_start
    data.file_meta.ImplementationVersionName = "OTHER"
    import io

    target = io.BytesIO()
    data.save_as(target, enforce_file_format=True)
    other = target.getvalue()
    assert other[:start] != part[:start]
    assert site.store(other).status_code == 200


def test_conflicting_duplicate_is_rejected(site: Parts) -> None:
    uid = generate_uid()
    first = instance(SOPInstanceUID=uid)
    site.store(first)
    response = site.store(instance(SOPInstanceUID=uid, PatientComments="other"))
    assert (response.status_code, reasons(response)) == (409, [45070])
    url = f"/studies/1.2.3/series/1.2.3.1/instances/{uid}"
    assert site.get(url, "application/dicom").content == first


def test_conflict_within_one_request(site: Parts) -> None:
    uid = generate_uid()
    response = site.store(instance(SOPInstanceUID=uid), instance(SOPInstanceUID=uid, PatientComments="other"))
    assert (response.status_code, reasons(response)) == (202, [45070])


def test_same_instance_under_another_study_is_rejected(site: Parts) -> None:
    uid = generate_uid()
    site.store(instance(SOPInstanceUID=uid))
    response = site.store(instance(SOPInstanceUID=uid, StudyInstanceUID="9.9"))
    assert (response.status_code, reasons(response)) == (409, [43264])


def test_keep_first_policy(tmp_path: Path) -> None:
    settings = GatewaySettings(ingest=IngestSettings(duplicates="keep_first"))
    with running(tmp_path, settings=settings) as site:
        uid = generate_uid()
        site.store(instance(SOPInstanceUID=uid))
        response = site.store(instance(SOPInstanceUID=uid, PatientComments="other"))
        assert response.status_code == 202
        assert response.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB006]


def test_single_part_application_dicom(site: Parts) -> None:
    part = instance()
    response = site.client.post("/dicom-web/studies", content=part, headers={"Content-Type": "application/dicom"})
    assert response.status_code == 200
    assert stored(site) == 1


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/xml",
        "multipart/form-data; boundary=XX",
        'multipart/related; type="text/plain"; boundary=XX',
        "x",
    ],
)
def test_unsupported_media_type(site: Parts, content_type: str) -> None:
    response = site.client.post(
        "/dicom-web/studies", content=multipart([instance()]), headers={"Content-Type": content_type}
    )
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"


def test_content_encoding_is_unsupported(site: Parts) -> None:
    assert site.store(instance(), **{"Content-Encoding": "gzip"}).status_code == 415


def test_missing_type_parameter_is_accepted(site: Parts) -> None:
    headers = {"Content-Type": "multipart/related; boundary=XX"}
    assert site.client.post("/dicom-web/studies", content=multipart([instance()]), headers=headers).status_code == 200


def test_unacceptable_answer(site: Parts) -> None:
    assert site.store(instance(), Accept="image/png").status_code == 406
    assert stored(site) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX--\r\n",
        b"no delimiter",
        b"--YY\r\n\r\nx\r\n--YY--",
        multipart([instance()])[:300],
        b"--XX\r\nbad\r\n\r\n",
    ],
)
def test_400_when_no_part_was_complete(site: Parts, body: bytes) -> None:
    response = site.client.post("/dicom-web/studies", content=body, headers=stow_headers())
    assert response.status_code == 400
    assert response.json()["type"] == "urn:wetread:problem:malformed-multipart"


def test_broken_tail_keeps_the_good_parts(site: Parts) -> None:
    whole = multipart([instance(), instance()])
    response = site.client.post("/dicom-web/studies", content=whole[:-300], headers=stow_headers())
    assert response.status_code == 202
    assert len(response.json()["00081199"]["Value"]) == 1
    assert response.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [272]


def test_known_too_large_is_413_before_reading(tmp_path: Path) -> None:
    settings = GatewaySettings(ingest=IngestSettings(request_bytes=100))
    with running(tmp_path, settings=settings) as site:
        assert site.store(instance()).status_code == 413


def test_too_many_parts_is_413_and_complete_ones_stay(tmp_path: Path) -> None:
    settings = GatewaySettings(ingest=IngestSettings(request_parts=2))
    with running(tmp_path, settings=settings) as site:
        response = site.store(instance(), instance(), instance())
        assert response.status_code == 413
        assert len(response.json()["00081199"]["Value"]) == 2


def test_part_too_large_fails_alone(tmp_path: Path) -> None:
    settings = GatewaySettings(ingest=IngestSettings(part_bytes=2000))
    with running(tmp_path, settings=settings) as site:
        large = instance(PatientComments="x" * 4000)
        response = site.store(instance(), large, instance())
        assert reasons(response) == [0xA700]
        assert stored(site) == 2


def test_without_file_meta_is_completed_with_a_warning(site: Parts) -> None:
    part = encoded(dataset(), ImplicitVRLittleEndian)
    bare = part[read_header(part).dataset_start :]
    response = site.store(bare)
    assert response.status_code == 202
    reference = response.json()["00081199"]["Value"][0]
    assert reference["00081196"]["Value"] == [0xB007]
    accept = f"application/dicom; transfer-syntax={ImplicitVRLittleEndian}"
    back = site.client.get(reference["00081190"]["Value"][0], headers={"Accept": accept}).content
    assert back[128:132] == b"DICM"
    assert back.endswith(bare)
    assert read_header(back).transfer_syntax_uid == ImplicitVRLittleEndian


def test_large_parts_go_through_a_scratch_file(tmp_path: Path) -> None:
    settings = GatewaySettings(ingest=IngestSettings(spool_bytes=4096, in_flight_bytes=8192, group_bytes=16384))
    with running(tmp_path, settings=settings) as site:
        files = [instance(PatientComments="x" * 9000) for _ in range(5)]
        response = site.store(*files)
        assert response.status_code == 200
        got = [
            site.client.get(r["00081190"]["Value"][0], headers={"Accept": "application/dicom"}).content
            for r in response.json()["00081199"]["Value"]
        ]
        assert got == files
        assert list((tmp_path / "scratch").iterdir()) == []


def test_405_names_all_methods(site: Parts) -> None:
    response = site.client.put("/dicom-web/studies", content=b"")
    assert response.status_code == 405
    assert set(response.headers["allow"].replace(" ", "").split(",")) >= {"GET", "POST"}


def test_events_tell_of_each_group_and_the_end_of_the_transfer(tmp_path: Path) -> None:
    settings = GatewaySettings(ingest=IngestSettings(group_instances=2))
    with running(tmp_path, settings=settings) as site:
        site.store(*[instance() for _ in range(4)], instance(StudyInstanceUID="4.5.6"))
        changes = site.outbox.changes
    first = [change for change in changes if change.study_uid == "1.2.3"]
    assert sum(change.new_instances for change in first) == 4
    assert [change.generation for change in first] == list(range(1, len(first) + 1))
    assert [change.first for change in first] == [True] + [False] * (len(first) - 1)
    assert [change.transfer_end for change in first] == [False] * (len(first) - 1) + [True]
    assert [(c.new_instances, c.transfer_end) for c in changes if c.study_uid == "4.5.6"] == [(1, True)]


def test_transfer_end_is_told_when_the_last_group_was_already_committed(site: Parts) -> None:
    report = site.ingest.store("default", [instance(), instance(SOPClassUID=None)], source=Source(ae="MOD"))
    assert [outcome.failure_reason for outcome in report.outcomes] == [None, 0xA900]
    assert site.outbox.changes[-1].transfer_end
    assert site.outbox.changes[-1].source.ae == "MOD"


def test_own_results_are_marked_and_silent(site: Parts) -> None:
    site.store(instance())
    own = instance(SeriesInstanceUID="1.2.3.99", Modality="SR")
    assert site.ingest.store("default", [own], source=Source(), own_result=True).failed == 0
    assert len(site.outbox.changes) == 1
    with site.database.read() as tx:
        facts = site.archive.facts(tx, "default", "1.2.3")
    assert {series.series_instance_uid: series.detector_result for series in facts.series} == {
        "1.2.3.1": False,
        "1.2.3.99": True,
    }
    assert stored(site) == 2


def test_facts_of_a_stored_study(site: Parts) -> None:
    site.store(instance(InstanceNumber=2), instance(InstanceNumber=1, ImagePositionPatient=[0, 0, 10]))
    with site.database.read() as tx:
        facts = site.archive.facts(tx, "default", "1.2.3")
        summary = site.archive.summary(tx, "default", "1.2.3")
        located = site.archive.locate(tx, "default", "1.2.3")
    (series,) = facts.series
    assert [one.instance_number for one in series.instances] == [1, 2]
    assert series.instances[0].position == (0.0, 0.0, 10.0)
    assert (series.contrast, series.modality, series.manufacturer) == (False, "CT", "Phantom")
    assert (facts.patient_sex, facts.patient_age_years, facts.description) == ("F", 60.0, "HEAD")
    assert (summary.instances, summary.modalities, summary.patient_name) == (2, ("CT",), "Doe^Jane")
    assert [one.sop_instance_uid for one in located] == [one.sop_instance_uid for one in series.instances]


def test_concurrent_duplicates_are_stored_once(tmp_path: Path) -> None:
    part = instance()
    with running(tmp_path) as site:
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(site.store(part).status_code)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 12
        assert stored(site) == 1
        assert [change.new_instances for change in site.outbox.changes] == [1]
        (study,) = site.get("/studies").json()
        assert study["00201208"]["Value"] == [1]


class FullStore(MemoryObjectStore):
    """A store whose disk is full until someone makes room."""

    error: Exception | None = StorageFull("full")

    def append(self, tenant: str, records: Any) -> Any:
        if self.error is not None and records:
            raise self.error
        return super().append(tenant, records)


def test_disk_full_is_a700_and_507_and_recovers(tmp_path: Path) -> None:
    store = FullStore()
    with running(tmp_path, objects=store) as site:
        part = instance()
        response = site.store(part, part)
        assert response.status_code == 507
        assert reasons(response) == [0xA700, 0xA700]
        assert stored(site) == 0
        store.error = None
        assert site.store(part).status_code == 200
        store.error = StorageFull("full")
        assert site.store(part).status_code == 200, "what is stored needs no room"
        assert stored(site) == 1


def test_object_store_down_is_a_processing_failure(tmp_path: Path) -> None:
    store = FullStore()
    store.error = Unavailable("down")
    with running(tmp_path, objects=store) as site:
        response = site.store(instance())
        assert (response.status_code, reasons(response)) == (409, [0x0110])


def test_failed_index_transaction_acknowledges_nothing(site: Parts) -> None:
    site.outbox.fail = Unavailable("the queue is down")
    part = instance()
    assert reasons(site.store(part)) == [0x0110]
    assert stored(site) == 0
    assert site.store(part).status_code == 200
    assert stored(site) == 1


def test_recovery_indexes_what_a_crash_left_behind(tmp_path: Path) -> None:
    part, lost = instance(), instance()
    with running(tmp_path) as site:
        site.store(part)
        site.outbox.fail = Unavailable("crash between sync and index")
        site.store(lost)
        assert stored(site) == 1
    with running(tmp_path) as again:
        assert stored(again) == 2
        assert [change.new_instances for change in again.outbox.changes] == [1]
        report = recover(again.database, again.archive, again.objects, again.ingest)
        assert (report.records, report.indexed) == (0, 0), "the marks have moved"


def test_rebuild_gives_the_same_answers(site: Parts) -> None:
    files = [instance(InstanceNumber=n) for n in range(5)] + [instance(StudyInstanceUID="7.7", SeriesInstanceUID="7.8")]
    site.store(*files)
    site.ingest.store("default", [instance(SeriesInstanceUID="1.2.3.9")], source=Source(ae="X"), own_result=True)
    paths = ["/studies", "/series", "/instances?includefield=all", "/studies/1.2.3/metadata", "/studies/7.7/metadata"]
    before = [site.get(path).json() for path in paths]
    with site.database.read() as tx:
        facts = site.archive.facts(tx, "default", "1.2.3")
    report = rebuild(site.database, site.archive, site.objects, site.ingest)
    assert (report.records, report.indexed, report.refused) == (7, 7, 0)
    assert [site.get(path).json() for path in paths] == before
    with site.database.read() as tx:
        assert site.archive.facts(tx, "default", "1.2.3").series == facts.series
    assert len([change for change in site.outbox.changes if change.new_instances]) == 2, (
        "nothing happened to the studies"
    )


def test_tenants_do_not_meet(site: Parts) -> None:
    part = instance()
    site.store(part)
    report = site.ingest.store("other", [instance(), part], source=Source())
    assert report.failed == 0
    assert not any(outcome.duplicate for outcome in report.outcomes)
    assert stored(site) == 1
    with site.database.read() as tx:
        assert site.archive.summary(tx, "other", "1.2.3").instances == 2


PRIVATE = "1.2.826.0.1.36800.99"
MR, SR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.11"


def in_a_private_syntax() -> bytes:
    return instance().replace(b"1.2.840.10008.1.2.1\0", PRIVATE.encode(), 1)


def test_table_i_2_1_0122_and_c122_are_what_a_tenant_does_not_take(tmp_path: Path) -> None:
    tenants = Tenants(
        TenantFile.model_validate(
            {
                "default": {"takes": {"refused_sop_classes": [MR], "transfer_syntaxes": "known"}},
                "tenants": {"ct": {"takes": {"sop_classes": [CT]}}, "all": {"takes": None}},
            }
        )
    )
    with running(tmp_path, settings=GatewaySettings(ingest=IngestSettings(tenants=tenants))) as site:
        answer = site.store(
            instance(), instance(SOPClassUID=MR), in_a_private_syntax(), instance(StudyInstanceUID=None)
        )
        assert (answer.status_code, reasons(answer)) == (202, [290, 49442, 0xA900])
        first, second, _ = answer.json()["00081198"]["Value"]
        assert (first["00081150"]["Value"], second["00081150"]["Value"]) == ([MR], [CT])
        assert site.store(in_a_private_syntax()).status_code == 409
        assert stored(site) == 1

        def by(tenant: str, part: bytes, *, own: bool = False) -> int | None:
            report = site.ingest.store(tenant, [part], source=Source(), own_result=own)
            return report.outcomes[0].failure_reason

        assert [by("ct", instance(SOPClassUID=uid)) for uid in (CT, MR, SR)] == [None, 290, 290]
        assert by("ct", in_a_private_syntax()) is None, "opaque unless the tenant wants known ones only"
        assert [by("all", part) for part in (instance(SOPClassUID=MR), in_a_private_syntax())] == [None, None]
        assert by("ct", instance(SOPClassUID=SR, Modality="SR"), own=True) is None, "results of our own are no sender's"


def test_rules_of_a_later_day_leave_alone_what_is_stored(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        assert site.store(in_a_private_syntax()).status_code == 200
    rules = TenantFile.model_validate({"default": {"takes": {"sop_classes": [MR], "transfer_syntaxes": "known"}}})
    with running(tmp_path, settings=GatewaySettings(ingest=IngestSettings(tenants=Tenants(rules)))) as site:
        report = rebuild(site.database, site.archive, site.objects, site.ingest)
        assert (report.indexed, report.refused) == (1, 0)
        (item,) = site.get("/instances").json()
        assert item["00083002"]["Value"] == [PRIVATE]
