"""Earlier results of the same detector for the same patient: which may be handed to a run, and why others may not.

Identity is Patient ID with its issuer within a tenant; nothing else that two studies say of their patient may
contradict. The wrong patient's nodule is worse than none: doubt leaves a result out, with a typed reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from wetread.core.codes import concept
from wetread.core.findings import Code, Finding, Measurement, PriorReference, ResultSet, RunPriors
from wetread.core.identifiers import digest
from wetread.core.states import READ

LeftOut = Literal["issuer", "birth_date", "sex", "study_date", "shadow", "no_answer", "version"]
"""Why an earlier result of the same Patient ID is not handed in (docs/detectors.md)."""
_SEXES: Final = frozenset({"F", "M", "O"})
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d)?([0-5]\d)?")


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriorFinding(_Value):
    """A finding of an earlier result: what was measured of it, not how it looked."""

    finding_id: str
    code: Code
    state: str
    types: tuple[str, ...] = ()
    laterality: str = ""
    measurements: tuple[Measurement, ...] = ()

    def measurement(self, name: str) -> Measurement | None:
        """Return the measurement called *name* in the code dictionary, or None. Raises ConfigurationError."""
        code = concept(name).code
        return next((m for m in self.measurements if m.code == code), None)


class PriorResult(_Value):
    """A final result of the same detector on an earlier study of the patient."""

    study_uid: str
    result_key: str
    version: str
    state: str
    study_date: date
    days: float
    """From this study to the one being read; whole days where a study names no time."""
    findings: tuple[PriorFinding, ...] = ()

    def content(self) -> dict[str, Any]:
        """Return what a detector can see of it. The same study read again to the same values is the same content."""
        return self.model_dump(mode="json", exclude={"result_key": True, "findings": {"__all__": {"finding_id"}}})


class Priors(_Value):
    """What a run is handed beside its images, newest first. ``left_out``: typed reasons of results that it is not."""

    results: tuple[PriorResult, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def sealed(self, input_digest: str) -> str:
        """Return the digest of an input with these priors; without any it is that of the images."""
        if not self:
            return input_digest
        return digest("wetread.priors/1", input_digest, [r.content() for r in self.results], list(self.left_out))

    def __bool__(self) -> bool:
        """Whether there is anything to say: a result that is handed in, or one that is not."""
        return bool(self.results or self.left_out)

    def record(self) -> RunPriors:
        """Return what a run's record says of them."""
        return RunPriors(
            results=tuple(
                PriorReference(study_uid=r.study_uid, result_key=r.result_key, study_date=r.study_date)
                for r in self.results
            ),
            left_out=self.left_out,
        )


NO_PRIORS: Final = Priors()


@dataclass(frozen=True, slots=True)
class PatientStudy:
    """What a study says of its patient and its time, as the index holds it (DICOM text, empty when absent)."""

    study_uid: str
    issuer: str
    """(0010,0021) Issuer of Patient ID."""
    birth_date: str
    sex: str
    study_date: str
    study_time: str


@dataclass(frozen=True, slots=True)
class PriorCandidate:
    """A current result of the same detector on another study of the same tenant and Patient ID."""

    study: PatientStudy
    result: ResultSet


def choose_priors(
    this: PatientStudy, candidates: Iterable[PriorCandidate], *, version: str, shadow: bool, limit: int
) -> Priors:
    """Return the newest *limit* candidates that are earlier and may be compared, and why others may not.

    *version*: of the detector that will read; its figures are comparable within a minor version. A *shadow* run may
    see results of shadow runs; what readers see never rests on what was hidden from them.
    """
    usable: list[tuple[timedelta, PriorCandidate]] = []
    left_out: list[LeftOut] = []
    for candidate in candidates:
        age = _age(this, candidate.study)
        if age is not None and age <= timedelta(0):
            continue
        reason = _contradiction(this, candidate.study)
        if reason is None and age is None:
            reason = "study_date"
        reason = reason or _unfit(candidate.result, version, shadow=shadow)
        if reason is not None:
            left_out.append(reason)
        elif age is not None:
            usable.append((age, candidate))
    usable.sort(key=lambda pair: (pair[0], pair[1].study.study_uid))
    return Priors(
        results=tuple(_prior(candidate, age) for age, candidate in usable[:limit]), left_out=tuple(sorted(left_out))
    )


def _contradiction(this: PatientStudy, other: PatientStudy) -> LeftOut | None:
    """Return what speaks against one patient. One named and one missing issuer are two name spaces."""
    if this.issuer != other.issuer:
        return "issuer"
    if this.birth_date and other.birth_date and this.birth_date != other.birth_date:
        return "birth_date"
    sexes = {this.sex.upper(), other.sex.upper()}
    return "sex" if len(sexes) == 2 and sexes <= _SEXES else None


def _unfit(result: ResultSet, version: str, *, shadow: bool) -> LeftOut | None:
    if result.preliminary or result.state not in READ:
        return "no_answer"
    if result.run.shadow and not shadow:
        return "shadow"
    return "version" if result.run.version.split(".")[:2] != version.split(".")[:2] else None


def _age(this: PatientStudy, other: PatientStudy) -> timedelta | None:
    """Return how much earlier the other study is; None when that cannot be told."""
    days = _date(this.study_date), _date(other.study_date)
    if days[0] is None or days[1] is None:
        return None
    apart = timedelta(days=(days[0] - days[1]).days)
    times = _time(this.study_time), _time(other.study_time)
    if times[0] is None or times[1] is None:
        return apart or None  # on one day, without a time: neither is known to be the earlier one
    return apart + times[0] - times[1]


def _prior(candidate: PriorCandidate, age: timedelta) -> PriorResult:
    result, day = candidate.result, _date(candidate.study.study_date)
    assert day is not None
    return PriorResult(
        study_uid=candidate.study.study_uid,
        result_key=result.run.result_key,
        version=result.run.version,
        state=str(result.state),
        study_date=day,
        days=round(age / timedelta(days=1), 3),
        findings=tuple(_finding(found) for found in result.findings),
    )


def _finding(found: Finding) -> PriorFinding:
    return PriorFinding(
        finding_id=found.finding_id,
        code=found.code,
        state=found.state,
        types=found.types,
        laterality=found.laterality,
        measurements=found.measurements,
    )


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text.replace(".", ""), "%Y%m%d").date()  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return None


def _time(text: str) -> timedelta | None:
    found = _TIME.match(text.replace(":", ""))
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
