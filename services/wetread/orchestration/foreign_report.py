"""What an external performer found, read from the structured reports that it stored (PS3.16 TID 1500).

Only coded content counts. A measurement group with Present (121053, DCM), Absent (121054) or Presence Undetermined
(121059) is a call on its Finding (121071); numbers are kept with their codes. Free text never moves a study.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from wetread.core.errors import CorruptRecord
from wetread.core.findings import Code, Finding, Measurement
from wetread.core.identifiers import derived_uid, digest
from wetread.core.states import AiState

Call = Literal["positive", "negative", "indeterminate", "measured"]

_CALLS: Final[dict[tuple[str, str], Call]] = {
    ("121053", "DCM"): "positive",
    ("121054", "DCM"): "negative",
    ("121059", "DCM"): "indeterminate",
}
_FINDING: Final = ("121071", "DCM")
_UNNAMED: Final = Code(value="121071", scheme="DCM", meaning="Finding")
_MOST_ITEMS: Final = 10_000


@dataclass(slots=True)
class _Group:
    finding: Code = _UNNAMED
    call: Call | None = None
    measurements: list[Measurement] = field(default_factory=list)


def findings_of(reports: Sequence[bytes], key: str) -> tuple[AiState, tuple[Finding, ...]]:
    """Return the overall state and the findings of Part 10 reports. *key*: the result key that names the findings.

    Without a coded call the outcome is ``measured``: it is stored and shown, and moves nothing.
    """
    groups = [group for data in reports for group in _groups(data)]
    findings = tuple(
        Finding(
            finding_id=digest(key, "finding", number)[:32],
            tracking_uid=derived_uid(key, "finding", number),
            code=group.finding,
            state=group.call or "measured",
            measurements=tuple(group.measurements),
        )
        for number, group in enumerate(groups)
        if group.call or group.measurements
    )
    calls = {finding.state for finding in findings}
    for call in ("positive", "indeterminate", "negative"):
        if call in calls:
            return AiState(call), findings
    return AiState.MEASURED, findings


def _groups(data: bytes) -> Iterator[_Group]:
    try:
        report = dcmread(io.BytesIO(data), stop_before_pixels=True)
    except (InvalidDicomError, EOFError, ValueError, OSError, CorruptRecord):
        return
    pending: list[Dataset] = [report]
    seen = 0
    while pending:
        container = pending.pop(0)
        group = _Group()
        for item in container.get("ContentSequence", ()):
            seen += 1
            if seen > _MOST_ITEMS:
                return
            kind = str(item.get("ValueType", ""))
            if kind == "CONTAINER":
                pending.append(item)
            elif kind == "CODE":
                _read_code(group, item)
            elif kind == "NUM":
                measurement = _measurement(item)
                if measurement is not None:
                    group.measurements.append(measurement)
        if group.call or group.measurements:
            yield group


def _read_code(group: _Group, item: Dataset) -> None:
    name, value = _code(item, "ConceptNameCodeSequence"), _code(item, "ConceptCodeSequence")
    if value is None:
        return
    if (value.value, value.scheme) in _CALLS:
        group.call = _CALLS[value.value, value.scheme]
    elif name is not None and (name.value, name.scheme) == _FINDING:
        group.finding = value


def _measurement(item: Dataset) -> Measurement | None:
    name = _code(item, "ConceptNameCodeSequence")
    for measured in item.get("MeasuredValueSequence", ()):
        unit = _code(measured, "MeasurementUnitsCodeSequence")
        try:
            value = float(measured.NumericValue)
        except (AttributeError, TypeError, ValueError):
            continue
        if name is not None and unit is not None:
            return Measurement(code=name, value=value, unit=unit.value)
    return None


def _code(item: Dataset, keyword: str) -> Code | None:
    for code in item.get(keyword, ()):
        value = str(code.get("CodeValue", "") or code.get("LongCodeValue", ""))
        scheme = str(code.get("CodingSchemeDesignator", ""))
        if value and scheme:
            return Code(value=value[:64], scheme=scheme[:16], meaning=str(code.get("CodeMeaning", ""))[:64])
    return None
