"""UPS workitems as values: what is asked for, what is there, the claim, and what was performed (PS3.4 CC.2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wetread.core.ups import UpsState
from wetread.core.ups_dataset import code as code_item
from wetread.core.ups_dataset import dicom_datetime, element, items, text, values

Dataset = Mapping[str, Any]
"""A DICOM JSON object (PS3.18 annex F)."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str

    def item(self) -> dict[str, Any]:
        """Return the code sequence item."""
        return code_item(self.value, self.scheme, self.meaning)


DISCONTINUED = Code("110513", "DCM", "Discontinued for unspecified reason")


@dataclass(frozen=True, slots=True)
class References:
    """Instances of one series. ``instances``: pairs of SOP Class UID and SOP Instance UID."""

    study_uid: str
    series_uid: str
    instances: tuple[tuple[str, str], ...]

    def item(self) -> dict[str, Any]:
        """Return the item of an input or output information sequence (PS3.3 table 10-3b)."""
        references = [
            {"00081150": element("UI", sop_class), "00081155": element("UI", sop_instance)}
            for sop_class, sop_instance in self.instances
        ]
        return {
            "0020000D": element("UI", self.study_uid),
            "0020000E": element("UI", self.series_uid),
            "00081199": element("SQ", *references),
            "0040E020": element("CS", "DICOM"),
        }


@dataclass(frozen=True, slots=True)
class NewWorkitem:
    """A request for work. ``attributes``: further elements in DICOM JSON, over those made here."""

    label: str
    start: datetime
    priority: str = "MEDIUM"
    """HIGH, MEDIUM or LOW."""
    readiness: str = "READY"
    study_uid: str | None = None
    inputs: Sequence[References] = ()
    attributes: Dataset = field(default_factory=dict)

    def dataset(self) -> dict[str, Any]:
        """Return the creation request."""
        content = {
            "00404005": element("DT", dicom_datetime(self.start.timestamp())),
            "00404021": element("SQ", *(references.item() for references in self.inputs)),
            "00404041": element("CS", self.readiness),
            "00741000": element("CS", str(UpsState.SCHEDULED)),
            "00741200": element("CS", self.priority),
            "00741204": element("LO", self.label),
        }
        if self.study_uid is not None:
            content["0020000D"] = element("UI", self.study_uid)
        return dict(sorted({**content, **self.attributes}.items()))


@dataclass(frozen=True, slots=True)
class Workitem:
    """A workitem as the server shows it; ``dataset`` holds every attribute."""

    uid: str
    state: UpsState
    priority: str
    label: str
    readiness: str
    study_uid: str
    inputs: tuple[References, ...]
    dataset: Dataset

    @classmethod
    def of(cls, dataset: Dataset, uid: str = "") -> Workitem:
        """Read a workitem. Raises ValueError for one without a known state."""
        return cls(
            uid=text(dataset, "00080018") or uid,
            state=UpsState(text(dataset, "00741000")),
            priority=text(dataset, "00741200"),
            label=text(dataset, "00741204"),
            readiness=text(dataset, "00404041"),
            study_uid=text(dataset, "0020000D"),
            inputs=tuple(_references(item) for item in items(dataset, "00404021")),
            dataset=dataset,
        )

    @property
    def percent(self) -> float | None:
        """Progress in percent (0074,1004), where the performer tells it."""
        found = [values(item, "00741004") for item in items(self.dataset, "00741002")]
        return float(found[0][0]) if found and found[0] else None


@dataclass(frozen=True, slots=True)
class Claim:
    """A workitem that is ours. The Transaction UID is the key to it: keep it, tell nobody."""

    uid: str
    transaction_uid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Performed:
    """What was done: the final state of COMPLETED needs it (PS3.4 table CC.2.5-3)."""

    started: datetime
    ended: datetime
    station: Code
    work: Code
    outputs: Sequence[References] = ()

    def dataset(self) -> dict[str, Any]:
        """Return the update with the performed procedure (0074,1216)."""
        item = {
            "00404019": element("SQ", self.work.item()),
            "00404028": element("SQ", self.station.item()),
            "00404033": element("SQ", *(references.item() for references in self.outputs)),
            "00404050": element("DT", dicom_datetime(self.started.timestamp())),
            "00404051": element("DT", dicom_datetime(self.ended.timestamp())),
        }
        return {"00741216": element("SQ", item)}


def progress(percent: float, note: str = "") -> dict[str, Any]:
    """Return the update with the progress (0074,1002)."""
    item = {"00741004": element("DS", percent)} | ({"00741006": element("ST", note)} if note else {})
    return {"00741002": element("SQ", item)}


def discontinued(reason: Code, note: str = "") -> dict[str, Any]:
    """Return the update that the final state of CANCELED needs: reason (0074,100E) and note (0074,1238)."""
    item = {"0074100E": element("SQ", reason.item())} | ({"00741238": element("LT", note)} if note else {})
    return {"00741002": element("SQ", item)}


def _references(item: Dataset) -> References:
    return References(
        text(item, "0020000D"),
        text(item, "0020000E"),
        tuple((text(i, "00081150"), text(i, "00081155")) for i in items(item, "00081199")),
    )
