"""From a stored result to DICOM objects in the study: encode, store through ``Ingest``, note."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from wetread.core.detector import Explanation, FloatArray, LabelArray, ParameterMap
from wetread.core.errors import ComputationFailed, NotFound, Unavailable
from wetread.core.events import EventType
from wetread.core.facts import Source
from wetread.core.findings import ResultSet, StoredSeries
from wetread.core.ports.database import Transaction
from wetread.core.ports.evidence import EncodedObject, EvidenceInput
from wetread.core.ports.studies import StoredInstance
from wetread.core.slide_file import SLIDE_EVIDENCE
from wetread.core.states import AiState
from wetread.orchestration.announce import Announcer
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.namespace import source_study
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.source_images import SourceImages

_OUT_OF_RESOURCES = 0xA700
_CONFLICT = 0xB00E
"""This UID is stored with other content."""
_SOURCE = Source(client="wetread")


class Composition:
    """Writes the report of a result. Deterministic encodings make every repetition harmless."""

    def __init__(self, ports: Ports, rules: Rules) -> None:
        self._ports = ports
        self._conclusions = Conclusions(ports, rules)
        self._announce = Announcer(ports.events, ports.clock)

    def store(self, tenant: str, result_key: str, *, again: bool = False) -> list[dict[str, object]]:
        """Encode and store; returns the stored series as JSON.

        A result whose report is stored is not encoded *again* unless asked for: the same bytes under the same UIDs.

        Raises Unavailable (try again) or ComputationFailed.
        """
        with self._ports.database.read() as tx:
            known = self._ports.results.get(tx, tenant, result_key)
            if known is None:
                msg = "crashed"
                raise ComputationFailed(msg, "the result is gone")
            result, stored = known
            if stored and not again:
                return [s.model_dump(mode="json") for s in stored]
            try:
                self._ports.studies.summary(tx, tenant, result.run.study_uid)
            except NotFound as error:
                msg = "study_deleted"
                raise ComputationFailed(msg, "the study was deleted") from error
            images = SourceImages(self._ports.objects, self._located(tx, result))
        objects = self._ports.encoder.encode(self._evidence(result, images))
        report = self._ports.ingest.store(
            tenant, [o.data for o in objects], source=_SOURCE, study_uid=result.run.study_uid, own_result=True
        )
        for outcome, item in zip(report.outcomes, objects, strict=True):
            if outcome.failure_reason == _OUT_OF_RESOURCES:
                msg = "no room for the report"
                raise Unavailable(msg)
            if outcome.failure_reason == _CONFLICT and self._ours(result, item.series_instance_uid):
                continue
            if outcome.failure_reason is not None:
                msg = "crashed"
                raise ComputationFailed(msg, f"the report was not stored: {outcome.failure_reason:04X}")
        return [s.model_dump(mode="json") for s in _by_series(objects)]

    def note(self, tenant: str, result_key: str, stored: list[dict[str, object]], stamps: Mapping[str, float]) -> None:
        """Attach the stored series to the result, end the workitem, say result.ready."""
        series = tuple(StoredSeries.model_validate(item) for item in stored)
        with self._ports.database.write() as tx:
            complete = {**stamps, "stored": self._ports.clock.now()}
            self._conclusions.stored(tx, tenant, result_key, series, complete)

    def give_up(self, tenant: str, result_key: str, detail: str) -> None:
        """The report cannot be written: the finding stands, and everybody can see that its report is missing."""
        with self._ports.database.write() as tx:
            known = self._ports.results.get(tx, tenant, result_key)
            if known is None or known[1]:
                return
            run = known[0].run
            try:
                self._ports.studies.summary(tx, tenant, run.study_uid)
            except NotFound:
                return  # deleted: there is nothing to report in
            task = self._ports.tasks.get(tx, tenant, run.study_uid, run.detector)
            if task is None or task.result_key != result_key:
                return
            self._announce.task(tx, EventType.TASK_DEAD, task, {}, cause="evidence", stage="evidence", detail=detail)
            if not task.early and task.run_id is None:
                self._conclusions.end_workitem(tx, task, ())

    def _ours(self, result: ResultSet, series_uid: str) -> bool:
        """Return whether a series is of wetread: the report of this result from before the database was restored.

        UIDs come from the result's key, so it says the same of the same images; only the time of the run differs.
        """
        with self._ports.database.read() as tx:
            study = self._ports.studies.facts(tx, result.run.tenant, result.run.study_uid)
        return any(one.series_instance_uid == series_uid and one.detector_result for one in study.series)

    def _located(self, tx: Transaction, result: ResultSet) -> list[StoredInstance]:
        """Return the selected instances; without any, one of the largest source series stands for the study."""
        run, uids = result.run, result.sop_instance_uids
        if not uids:
            study = source_study(self._ports.studies.facts(tx, run.tenant, run.study_uid))
            largest = max(study.series, key=lambda s: (len(s.instances), s.series_instance_uid))
            uids = (largest.instances[0].sop_instance_uid,)
        # The planes of a multi-frame object name it once each.
        return self._ports.studies.locate(tx, run.tenant, run.study_uid, tuple(dict.fromkeys(uids)))

    def _evidence(self, result: ResultSet, images: SourceImages) -> EvidenceInput:
        final = AiState.POSITIVE if result.state is AiState.PRELIMINARY_POSITIVE else result.state
        findings = tuple(f.model_copy(update={"preliminary": False}) for f in result.findings)
        # The objects of an early result are those of the final one: same input, same bytes, promoted or not.
        settled = result.model_copy(update={"state": final, "preliminary": False, "findings": findings})
        return EvidenceInput(
            result=settled,
            headers=images.headers(),
            mask=self._mask(result),
            read_plane=images.plane if result.sop_instance_uids else None,
            captures=[
                self._ports.artifacts.get(result.run.tenant, item.key) for item in result.attachments if item.capture
            ],
            slide=next(
                (
                    self._ports.artifacts.get(result.run.tenant, item.key)
                    for item in result.attachments
                    if item.name == SLIDE_EVIDENCE
                ),
                None,
            ),
            maps=self._maps(result),
            explanation=self._explanation(result),
        )

    def _maps(self, result: ResultSet) -> list[ParameterMap]:
        """Read the parameter maps, which share one artifact."""
        archives: dict[str, dict[str, FloatArray]] = {}
        for item in result.maps:
            if item.key not in archives:
                data = self._ports.artifacts.get(result.run.tenant, item.key)
                with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                    archives[item.key] = {name: np.asarray(archive[name], dtype=np.float32) for name in archive.files}
        return [ParameterMap(item.name, archives[item.key][item.name], item.unit) for item in result.maps]

    def _explanation(self, result: ResultSet) -> Explanation | None:
        stored = result.explanation
        if stored is None:
            return None
        data = self._ports.artifacts.get(result.run.tenant, stored.key)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            values, grid = (
                np.asarray(archive["values"], dtype=np.float32),
                np.asarray(archive["grid"], dtype=np.float64),
            )
        planes, rows, columns = (float(v) for v in grid[3])
        return Explanation(stored.method, values, grid[0], grid[1], grid[2], (planes, rows, columns), stored.note)

    def _mask(self, result: ResultSet) -> LabelArray | None:
        if result.mask_key is None:
            return None
        data = self._ports.artifacts.get(result.run.tenant, result.mask_key)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return np.asarray(archive["mask"], dtype=np.uint8)


def _by_series(objects: list[EncodedObject]) -> list[StoredSeries]:
    series: dict[tuple[str, str], list[str]] = {}
    for item in objects:
        series.setdefault((item.modality, item.series_instance_uid), []).append(item.sop_instance_uid)
    return [
        StoredSeries(modality=m, series_uid=uid, sop_instance_uids=tuple(uids)) for (m, uid), uids in series.items()
    ]
