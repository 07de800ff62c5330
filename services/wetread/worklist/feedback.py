"""What readers say of findings: told as events, read back from them. The recorded result itself never changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wetread.core.errors import NotFound, Unprocessable
from wetread.core.events import Event, EventType
from wetread.core.findings import Finding, ResultSet
from wetread.core.identifiers import digest
from wetread.core.instants import iso_utc
from wetread.core.ports import Clock, EventLog, ResultRepository, Transaction

VERDICTS: Final = {
    EventType.FINDING_ACCEPTED: "accepted",
    EventType.FINDING_REJECTED: "rejected",
    EventType.FINDING_EDITED: "edited",
}
FEEDBACK: Final = (EventType.FINDING_ACKNOWLEDGED, *VERDICTS)
_MOST: Final = 10_000
"""Feedback of one study that is read back: far beyond what people say of it."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What stands about one finding. Times are Unix seconds."""

    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    verdict: str | None = None
    reason: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    verdict_at: float | None = None
    verdict_by: str | None = None

    def json(self) -> dict[str, Any]:
        """Return it in the form of ``schemas.FeedbackOut``."""
        return {
            "acknowledged_at": None if self.acknowledged_at is None else iso_utc(self.acknowledged_at),
            "acknowledged_by": self.acknowledged_by,
            "verdict": self.verdict,
            "reason": self.reason,
            "changes": dict(self.changes),
            "verdict_at": None if self.verdict_at is None else iso_utc(self.verdict_at),
            "verdict_by": self.verdict_by,
        }


NOTHING_SAID: Final = Feedback()


def feedback_of(events: Iterable[Event]) -> dict[str, Feedback]:
    """Return what stands about each finding id, from the study's events in their order."""
    found: dict[str, Feedback] = {}
    for event in events:
        if event.type not in FEEDBACK:
            continue
        finding_id, actor = str(event.data["finding_id"]), str(event.data["actor"])
        known = found.get(finding_id, NOTHING_SAID)
        if event.type is EventType.FINDING_ACKNOWLEDGED:
            found[finding_id] = replace(known, acknowledged_at=event.time, acknowledged_by=actor)
            continue
        found[finding_id] = replace(
            known,
            verdict=VERDICTS[event.type],
            reason=str(event.data["text"]),
            changes=event.data.get("changes", {}),
            verdict_at=event.time,
            verdict_by=actor,
        )
    return found


class FindingFeedback:
    """Acknowledgements and verdicts on the findings of current results."""

    def __init__(self, events: EventLog, results: ResultRepository, clock: Clock) -> None:
        self._events = events
        self._results = results
        self._clock = clock

    def of_study(self, tx: Transaction, tenant: str, study_uid: str) -> dict[str, Feedback]:
        """Return what stands about each finding of a study, by finding id."""
        return feedback_of(self._events.of_study(tx, tenant, study_uid, limit=_MOST, types=FEEDBACK))

    def acknowledge(self, tx: Transaction, tenant: str, study_uid: str, finding_id: str, actor: str) -> Feedback:
        """Note that a person has seen the finding; the first one counts. Raises NotFound."""
        result, finding = self._finding(tx, tenant, study_uid, finding_id)
        return self._acknowledged(tx, result, finding, actor, self.of_study(tx, tenant, study_uid).get(finding_id))

    def judge(
        self,
        tx: Transaction,
        tenant: str,
        study_uid: str,
        finding_id: str,
        actor: str,
        verdict: EventType,
        *,
        reason: str,
        changes: Mapping[str, Any] | None = None,
    ) -> Feedback:
        """Note a verdict, which also acknowledges. The same verdict twice is one. Raises NotFound, Unprocessable."""
        result, finding = self._finding(tx, tenant, study_uid, finding_id)
        changes = dict(changes or {})
        _check_measurements(finding, changes)
        before = self.of_study(tx, tenant, study_uid).get(finding_id)
        known = self._acknowledged(tx, result, finding, actor, before)
        now = self._clock.now()
        said = replace(
            known, verdict=VERDICTS[verdict], reason=reason, changes=changes, verdict_at=now, verdict_by=actor
        )
        if replace(said, verdict_at=known.verdict_at) == known:
            return known
        self._append(
            tx, verdict, result, finding, actor, cause=(actor, reason, changes, now), text=reason, more=changes
        )
        return said

    def _acknowledged(
        self, tx: Transaction, result: ResultSet, finding: Finding, actor: str, known: Feedback | None
    ) -> Feedback:
        if known is not None and known.acknowledged_at is not None:
            return known
        self._append(tx, EventType.FINDING_ACKNOWLEDGED, result, finding, actor, cause=(), text="", more={})
        return replace(known or NOTHING_SAID, acknowledged_at=self._clock.now(), acknowledged_by=actor)

    def _finding(self, tx: Transaction, tenant: str, study_uid: str, finding_id: str) -> tuple[ResultSet, Finding]:
        for result, _stored in self._results.current(tx, tenant, study_uid):
            for finding in result.findings:
                if finding.finding_id == finding_id and not result.run.shadow:  # readers do not see shadow results
                    return result, finding
        msg = "no such finding in the current results of the study"
        raise NotFound(msg)

    def _append(
        self,
        tx: Transaction,
        kind: EventType,
        result: ResultSet,
        finding: Finding,
        actor: str,
        *,
        cause: tuple[Any, ...],
        text: str,
        more: Mapping[str, Any],
    ) -> None:
        run = result.run
        data: dict[str, Any] = {
            "detector": run.detector,
            "version": run.version,
            "result_key": run.result_key,
            "model_digest": run.model_digest,
            "finding_id": finding.finding_id,
            "code": finding.code.value,
            "scheme": finding.code.scheme,
            "meaning": finding.code.meaning,
            "actor": actor,
            "text": text,
        }
        if more:
            data["changes"] = dict(more)
        self._events.append(
            tx,
            Event(
                id=digest("event", str(kind), run.tenant, run.study_uid, finding.finding_id, *cause),
                type=kind,
                tenant=run.tenant,
                subject=run.study_uid,
                time=self._clock.now(),
                data=data,
            ),
        )


def _check_measurements(finding: Finding, changes: Mapping[str, Any]) -> None:
    known = {(measurement.code.value, measurement.unit) for measurement in finding.measurements}
    for changed in changes.get("measurements", ()):
        if (changed["code"], changed["unit"]) not in known:
            code = "measurement"
            raise Unprocessable(code, "the finding has no measurement of this code and unit")
