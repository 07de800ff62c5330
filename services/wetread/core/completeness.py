"""When the input of a detector is enough to start and when it is final: a policy over several signals.

DICOM senders cannot say "this series is complete", so no single signal decides (see docs/workflows.md).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from wetread.core.detector import InputSet
from wetread.core.facts import Source, StudyFacts
from wetread.core.identifiers import is_uid

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def parse_duration(value: Any) -> float:
    """Return seconds for ``250ms``, ``3s``, ``15m``, ``1h`` or a bare number. Raises ValueError for pydantic."""
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        msg = f"{value!r} is not a duration such as 250ms, 3s, 15m or 1h"
        raise ValueError(msg)
    return float(match.group(1)) * _UNIT_SECONDS[match.group(2)]


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)]
"""Seconds; written as ``3s``, ``15m`` in files."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timing(_Strict):
    """Waits of a source. ``early_after``: how long a transfer must have lasted before an early run starts inside it."""

    quiet_series: Duration = 3.0
    quiet_study: Duration = 10.0
    max_wait: Duration = 900.0
    early: bool = True
    early_after: Duration = 5.0
    treat_transfer_end_as: Literal["re-evaluate", "complete"] = "re-evaluate"
    require: Literal["manifest"] | None = None


class SourceMatch(_Strict):
    """Which sources a policy is for: globs, all given ones must match."""

    ae: str | None = None
    client: str | None = None
    site: str | None = None

    def fits(self, source: Source) -> bool:
        """Return whether *source* is meant."""
        wanted = ((self.ae, source.ae), (self.client, source.client), (self.site, source.site))
        return all(glob is None or fnmatch.fnmatchcase(value, glob) for glob, value in wanted)


class SourcePolicy(_Strict):
    """Differences from the default for some sources; unset fields keep the default's value."""

    match: SourceMatch
    quiet_series: Duration | None = None
    quiet_study: Duration | None = None
    max_wait: Duration | None = None
    early: bool | None = None
    early_after: Duration | None = None
    treat_transfer_end_as: Literal["re-evaluate", "complete"] | None = None
    require: Literal["manifest"] | None = None


class CompletenessPolicy(_Strict):
    """The policy of a tenant: one default, and differences per source; the first that matches counts."""

    default: Timing = Timing()
    sources: tuple[SourcePolicy, ...] = ()

    def timing(self, source: Source) -> Timing:
        """Return the waits for studies from *source*."""
        for policy in self.sources:
            if policy.match.fits(source):
                changes = policy.model_dump(exclude={"match"}, exclude_none=True)
                return self.default.model_copy(update=changes)
        return self.default


class SeriesManifest(_Strict):
    """What the sender says a series holds: its SOP Instance UIDs, or only how many."""

    instances: tuple[str, ...] | None = None
    count: Annotated[int, Field(ge=0)] | None = None


class StudyManifest(_Strict):
    """The sender's own list of a study (``POST /api/v1/studies/{uid}/manifest``): by series, all UIDs, or one total."""

    series: dict[str, SeriesManifest] = Field(default_factory=dict)
    sop_instance_uids: tuple[str, ...] | None = None
    instances: Annotated[int, Field(ge=0)] | None = None

    def problem(self) -> str | None:
        """Return why this cannot serve as a manifest, or None."""
        listed = (uid for s in self.series.values() for uid in s.instances or ())
        uids = [*self.series, *(self.sop_instance_uids or ()), *listed]
        if not all(is_uid(uid) for uid in uids):
            return "a key or an instance is not a DICOM UID"
        if not self.series and not self.sop_instance_uids and self.instances is None:
            return "neither series nor instances nor a number of instances is given"
        if any(s.instances is None and s.count is None for s in self.series.values()):
            return "a series has neither instances nor a count"
        return None

    def satisfied(self, study: StudyFacts) -> bool:
        """Return whether everything listed has arrived."""
        here = {s.series_instance_uid: {i.sop_instance_uid for i in s.instances} for s in study.series}
        arrived = set().union(*here.values())
        if len(arrived) < (self.instances or 0) or not arrived.issuperset(self.sop_instance_uids or ()):
            return False
        return all(
            len(here.get(uid, ())) >= (listed.count or 0) and here.get(uid, set()) >= set(listed.instances or ())
            for uid, listed in self.series.items()
        )


SIGNALS = ("commit", "transfer_end", "quiet_series", "quiet_study", "max_wait", "manifest", "request")
"""Why an evaluation happened. ``request``: a person or a finished task asked for it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about the arrival of a study at its present generation."""

    signals: frozenset[str] = frozenset()
    manifest: StudyManifest | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """How far an input is. ``by``: the signal that decided; ``forced``: complete only because waiting ended."""

    level: Literal["incomplete", "enough", "complete"]
    by: str
    forced: bool = False


def judge_study(study: StudyFacts, evidence: Evidence, timing: Timing) -> Judgement:
    """Judge the study as a whole: only a complete one may be called not applicable or not processable."""
    if evidence.manifest is not None and evidence.manifest.satisfied(study):
        return Judgement("complete", "manifest")
    if "max_wait" in evidence.signals:
        return Judgement("complete", "max_wait", forced=True)
    if timing.require == "manifest":
        return Judgement("incomplete", "manifest missing or not satisfied")
    if evidence.manifest is None:  # a sender that lists its study is believed; the others are timed
        if "transfer_end" in evidence.signals and timing.treat_transfer_end_as == "complete":
            return Judgement("complete", "transfer_end")
        if "quiet_study" in evidence.signals:
            return Judgement("complete", "quiet_study")
    return Judgement("incomplete", "waiting for images")


def judge_input(study: StudyFacts, chosen: InputSet, evidence: Evidence, timing: Timing) -> Judgement:
    """Judge one detector's selected input. Geometry can prove ``enough``, never ``complete``."""
    whole = judge_study(study, evidence, timing)
    if whole.level == "complete":
        return whole
    if timing.require is None and evidence.manifest is None:
        declared = {s.series_instance_uid: s.declared_instances for s in study.series}
        if declared.get(chosen.series_instance_uid) == _arrived(study)[chosen.series_instance_uid]:
            return Judgement("complete", "declared_count")
        if "quiet_series" in evidence.signals:
            return Judgement("complete", "quiet_series")
    if chosen.completeness == "incomplete":
        return Judgement("incomplete", "geometry not closed")
    return Judgement("enough", "geometry_closed")


def _arrived(study: StudyFacts) -> Mapping[str, int]:
    return {s.series_instance_uid: len(s.instances) for s in study.series}
