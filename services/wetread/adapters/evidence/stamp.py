"""Identity, time and labels of result objects: all pure functions of the run record.

UIDs come from result key, role and index; times from the run's recorded start. What highdicom takes from the clock or
at random is overwritten here, so a retried attempt writes the same bytes (workflow-and-results 8.3, 8.5).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Final

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from wetread.adapters.evidence.reference_header import ReferenceView
from wetread.core.findings import Run
from wetread.core.identifiers import derived_uid
from wetread.core.ports import EncodedObject
from wetread.core.ruo import RUO_SHORT

MANUFACTURER: Final = "wetread"
SERIES_NUMBERS: Final = {"sr": 9001, "seg": 9002, "sc": 9003, "pm": 9004, "explanation": 9005}
_IMPLEMENTATION_CLASS_UID: Final = derived_uid("implementation-class", "wetread")
_IMPLEMENTATION_VERSION: Final = "WETREAD"
NONE: Final = "none"
"""Stands where the run has nothing to name: a detector without a network, an input that was never selected."""
_LO: Final = 64


def series_uid(run: Run, role: str) -> str:
    """Return the UID of the one series that *role* of this result goes into (index 0)."""
    return derived_uid(run.result_key, role, 0)


def instance_uid(run: Run, role: str, index: int) -> str:
    """Return the UID of instance *index* (from 1) of *role*."""
    return derived_uid(run.result_key, role, index)


def series_description(run: Run, content: str = "") -> str:
    """Return detector, version, *content* and the research-use statement in 64 characters (LO).

    The statement is never cut: it becomes its first sentence, and the detector's name gives way.
    """
    version = f"{run.version} {content}".strip()
    label = f"{run.detector} {version}"
    first_sentence = RUO_SHORT.split(". ")[0] + "."
    ruo = RUO_SHORT if len(label) + 1 + len(RUO_SHORT) <= _LO else first_sentence
    if len(label) + 1 + len(ruo) > _LO:
        label = f"{run.detector[: _LO - len(ruo) - len(version) - 2]} {version}"
    return f"{label} {ruo}"


def lo(text: str) -> str:
    """Return *text* as one LO value: at most 64 characters, no value separator."""
    return text.replace("\\", "/").strip()[:_LO].strip()


def local_start(run: Run, view: ReferenceView) -> datetime:
    """Return the run's start in the time zone that the source declares for its times; UTC when it declares none."""
    moment = datetime.fromtimestamp(run.started_at, UTC)
    if not view.timezone:
        return moment
    sign = -1 if view.timezone[0] == "-" else 1
    offset = sign * timedelta(hours=int(view.timezone[1:3]), minutes=int(view.timezone[3:5]))
    return moment.astimezone(timezone(offset))


def stamp(dataset: Dataset, run: Run, view: ReferenceView) -> None:
    """Put patient and study on *dataset*, say who wrote it, and overwrite what came from the clock or at random."""
    dataset.update(view.identity)
    start = local_start(run, view)
    date, time = start.strftime("%Y%m%d"), start.strftime("%H%M%S.%f")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.ContentDate, dataset.ContentTime = date, time
    if view.timezone:
        dataset.TimezoneOffsetFromUTC = view.timezone
    dataset.InstanceCreatorUID = _IMPLEMENTATION_CLASS_UID
    dataset.SeriesDescription = series_description(run)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = lo(run.detector)
    dataset.SoftwareVersions = [lo(run.software), lo(f"{run.detector} {run.version}")]
    dataset.DeviceSerialNumber = lo(run.model_digest) or NONE
    for item in dataset.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = start.strftime("%Y%m%d%H%M%S.%f%z")
    organization = derived_uid(run.result_key, "dimension-organization", dataset.SOPInstanceUID)
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, []):
            item.DimensionOrganizationUID = organization


def encoded(dataset: Dataset, role: str, syntax: UID = ExplicitVRLittleEndian) -> EncodedObject:
    """Return *dataset* as a PS3.10 file, in Explicit VR Little Endian unless its pixels are in another *syntax*."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = _IMPLEMENTATION_VERSION
    dataset.file_meta = meta
    with BytesIO() as buffer:
        dcmwrite(buffer, dataset, enforce_file_format=True)
        data = buffer.getvalue()
    return EncodedObject(
        role=role,
        modality=dataset.Modality,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        data=data,
    )
