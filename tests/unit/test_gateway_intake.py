"""The intake of the DIMSE edge: one group for all who wait, one outcome each, an end per transfer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway_support import Parts, build, instance

from wetread.core import tracing
from wetread.core.errors import StorageFull
from wetread.core.facts import Source
from wetread.detection.spans import SpanRecorder, finished_spans
from wetread.gateway.intake import GroupIntake


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Parts]:
    parts = build(tmp_path)
    yield parts
    parts.objects.close()
    parts.database.close()


@pytest.fixture
def intake(site: Parts) -> GroupIntake:
    return GroupIntake(site.database, site.archive, site.objects, site.ingest)


def test_who_waits_meanwhile_is_the_next_group(
    site: Parts, intake: GroupIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()
    groups: list[int] = []
    commit = site.ingest.commit

    def slow(batches: list) -> None:
        groups.append(len(batches))
        if len(groups) == 1:
            entered.set()
            assert go.wait(10)
        commit(batches)

    monkeypatch.setattr(site.ingest, "commit", slow)
    outcomes = []

    def association(number: int) -> None:
        transfer = intake.begin("default", Source(ae=f"CT{number}"))
        outcomes.append(transfer.store(instance(SOPInstanceUID=f"1.2.3.1.{number}")))

    threads = [threading.Thread(target=association, args=(number,)) for number in range(6)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(intake._waiting) < 5:
        threading.Event().wait(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert groups == [1, 5]
    assert [outcome.failure_reason for outcome in outcomes] == [None] * 6
    assert sum(change.new_instances for change in site.outbox.changes) == 6


def test_an_error_reaches_everyone_of_its_group_and_nobody_else(
    site: Parts, intake: GroupIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_batches: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(site.ingest, "commit", broken)
        with pytest.raises(RuntimeError):
            intake.begin("default", Source()).store(instance())
    assert intake.begin("default", Source()).store(instance()).failure_reason is None


def test_a_full_disk_is_an_outcome(site: Parts, intake: GroupIntake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_tenant: str, _records: object) -> list:
        raise StorageFull

    monkeypatch.setattr(site.objects, "append", full)
    assert intake.begin("default", Source()).store(instance()).failure_reason == 0xA700


def test_the_end_is_told_once_per_study_that_got_something(site: Parts, intake: GroupIntake) -> None:
    transfer = intake.begin("default", Source(ae="CT1"))
    assert transfer.store(b"not DICOM").failure_reason == 0xC000
    transfer.end()
    assert site.outbox.changes == []
    for study in ("1.5", "1.6", "1.5"):
        transfer.store(instance(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1"))
    transfer.end()
    ends = [change.study_uid for change in site.outbox.changes if change.transfer_end]
    assert sorted(ends) == ["1.5", "1.6"]
    assert {change.source.ae for change in site.outbox.changes} == {"CT1"}


@pytest.mark.parametrize(
    ("sop_class", "sop_instance", "reason"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.1.9", None),
        (None, None, None),
        ("1.2.840.10008.5.1.4.1.1.4", "1.2.3.1.9", 0xA900),
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.1.8", 0xA900),
    ],
)
def test_what_the_sender_says_it_is(
    site: Parts, intake: GroupIntake, sop_class: str | None, sop_instance: str | None, reason: int | None
) -> None:
    transfer = intake.begin("default", Source())
    outcome = transfer.store(
        instance(SOPInstanceUID="1.2.3.1.9"), sop_class_uid=sop_class, sop_instance_uid=sop_instance
    )
    assert outcome.failure_reason == reason
    assert len(site.outbox.changes) == (reason is None)


def test_each_association_is_a_trace_and_what_it_commits_belongs_to_it(
    site: Parts, intake: GroupIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = [f"00-{digit * 32}-{digit * 16}-01" for digit in "ab"]
    told: list[str | None] = []
    monkeypatch.setattr(site.outbox, "study_changed", lambda _tx, _change: told.append(tracing.current()))
    tracing.install(recorder := SpanRecorder())
    try:
        for number, caller in enumerate(callers):
            with tracing.continued(caller):
                transfer = intake.begin("default", Source(ae="CT"))
            transfer.store(instance(SOPInstanceUID=f"1.2.3.1.{number}", StudyInstanceUID=f"1.2.{number}"))
            transfer.end()
            commit, end, association = finished_spans({"spans": recorder.take()})
            assert (association.name, association.parent) == ("association", caller)
            assert {commit.name, end.name} == {"ingest.commit"}
            assert commit.parent == end.parent == association.traceparent
            assert told[-2:] == [commit.traceparent, end.traceparent]
            assert commit.attributes == {"wetread.instances": 1, "wetread.group": 1}
    finally:
        tracing.install(None)


def test_a_repeated_association_ends_what_a_crash_has_cut(site: Parts, intake: GroupIntake) -> None:
    part = instance(SOPInstanceUID="1.2.3.1.1")
    intake.begin("default", Source(ae="CT")).store(part)  # never released
    site.outbox.waiting = {"1.2.3"}
    again = intake.begin("default", Source(ae="CT"))
    assert again.store(part).duplicate
    assert site.outbox.repeated == []
    again.end()
    assert site.outbox.repeated == ["1.2.3"]
