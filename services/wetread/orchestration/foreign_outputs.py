"""The outputs that an external performer names: they must be what they claim before its COMPLETED is accepted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from wetread.core.errors import NotFound
from wetread.core.findings import StoredSeries
from wetread.core.ports.archive import Archive
from wetread.core.ports.database import Transaction
from wetread.core.ports.work import Task
from wetread.core.ports.workitems import WorkitemRepository
from wetread.core.ups import UpsStatus, refuse
from wetread.core.ups_dataset import items, text

PERFORMED = "00741216"
OUTPUTS = "00404033"


def outputs_of(dataset: Mapping[str, Any]) -> tuple[tuple[StoredSeries, ...], dict[str, str]]:
    """Return the output series of a workitem (0074,1216)>(0040,4033), and the SOP class of each instance."""
    series: dict[str, list[str]] = {}
    classes: dict[str, str] = {}
    for performed in items(dataset, PERFORMED):
        for output in items(performed, OUTPUTS):
            for reference in items(output, "00081199"):
                uid = text(reference, "00081155")
                series.setdefault(text(output, "0020000E"), []).append(uid)
                classes[uid] = text(reference, "00081150")
    found = (StoredSeries(modality="", series_uid=uid, sop_instance_uids=tuple(uids)) for uid, uids in series.items())
    return tuple(found), classes


def check_outputs(tx: Transaction, archive: Archive, task: Task, dataset: Mapping[str, Any]) -> None:
    """Check that every output is stored in the task's study, as the SOP class it claims, for the study's patient.

    Raises WorkitemStateError (C304): the final state requirements are not met, so the performer still holds its claim.
    """
    for performed in items(dataset, PERFORMED):
        for output in items(performed, OUTPUTS):
            if text(output, "0020000D") != task.study_uid:
                raise refuse(UpsStatus.FINAL_STATE_NOT_MET, "An output belongs to another study.")
    series, classes = outputs_of(dataset)
    patient = archive.summary(tx, task.tenant, task.study_uid).patient_id
    for one in series:
        stored = _stored(tx, archive, task, one.series_uid)
        for uid in one.sop_instance_uids:
            found = stored.get(uid)
            if found is None:
                raise refuse(UpsStatus.FINAL_STATE_NOT_MET, "An output is not stored.")
            if text(found, "00080016") != classes[uid]:
                raise refuse(UpsStatus.FINAL_STATE_NOT_MET, "An output is of another SOP class than stated.")
            if text(found, "00100020") != patient:
                raise refuse(UpsStatus.FINAL_STATE_NOT_MET, "An output is about another patient.")


def _stored(tx: Transaction, archive: Archive, task: Task, series_uid: str) -> dict[str, Any]:
    try:
        [series] = archive.metadata(tx, task.tenant, task.study_uid, series_uid)
    except NotFound:
        return {}
    return {uid: orjson.loads(zlib.decompress(packed)) for uid, packed in series.instances}


@dataclass(frozen=True, slots=True)
class OfferedTasks:
    """``requests.Offers`` on the index: which detectors are left to others, and whether their outputs hold."""

    archive: Archive
    workitems: WorkitemRepository
    external: Callable[[], Collection[str]]

    def holds(self, _tx: Transaction, task: Task) -> bool:
        """Return whether the task is for external performers."""
        return task.detector in self.external()

    def check(self, tx: Transaction, task: Task) -> None:
        """Check the outputs that the task's workitem names. Raises WorkitemStateError (C304)."""
        assert task.workitem_uid is not None
        check_outputs(tx, self.archive, task, self.workitems.get(tx, task.tenant, task.workitem_uid).dataset)
