"""A folder of DICOM files as studies with header facts: what ``wetread detect`` and the contract suite read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wetread.core.dicom.attributes import Attributes, text
from wetread.core.dicom.facts import SeriesHeader, age_years, instance_facts, series_header
from wetread.core.dicom.header import read_header
from wetread.core.dicom.json_model import to_json
from wetread.core.errors import InstanceRejected
from wetread.core.facts import InstanceFacts, SeriesFacts, StudyFacts
from wetread.core.identifiers import DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class FolderStudy:
    """One study of the folder: its facts, and the file of each instance."""

    facts: StudyFacts
    files: Mapping[str, Path]
    """SOP Instance UID -> file."""


@dataclass
class _Gathered:
    attributes: Attributes
    series: dict[str, tuple[SeriesHeader, list[InstanceFacts]]]
    files: dict[str, Path]


def studies_in(folder: Path) -> list[FolderStudy]:
    """Return the studies below *folder*, by Study Instance UID; files that are not DICOM instances are left out."""
    return studies_of(path for path in sorted(folder.rglob("*")) if path.is_file())


def studies_of(paths: Iterable[Path]) -> list[FolderStudy]:
    """Return the studies that *paths* belong to. Of files with one SOP Instance UID the first counts."""
    found: dict[str, _Gathered] = {}
    for path, attributes, instance in _instances(paths):
        study_uid, series_uid = text(attributes, "0020000D"), text(attributes, "0020000E")
        study = found.setdefault(study_uid, _Gathered(attributes, {}, {}))
        if instance.sop_instance_uid in study.files:
            continue
        study.files[instance.sop_instance_uid] = path
        study.series.setdefault(series_uid, (series_header(attributes), []))[1].append(instance)
    return [_study(uid, gathered) for uid, gathered in sorted(found.items())]


def _instances(paths: Iterable[Path]) -> Iterator[tuple[Path, Attributes, InstanceFacts]]:
    for path in paths:
        data = path.read_bytes()
        try:
            header = read_header(data)
            attributes, _ = to_json(header)
        except InstanceRejected:
            continue
        instance = instance_facts(
            attributes,
            content_hash=hashlib.sha256(data[header.dataset_start :] + header.transfer_syntax_uid.encode()).hexdigest(),
            transfer_syntax_uid=header.transfer_syntax_uid,
        )
        if instance.sop_instance_uid and text(attributes, "0020000D") and text(attributes, "0020000E"):
            yield path, attributes, instance


def _study(uid: str, gathered: _Gathered) -> FolderStudy:
    series = tuple(
        SeriesFacts(
            series_instance_uid=series_uid,
            modality=header.modality,
            instances=tuple(instances),
            description=header.description,
            body_part=header.body_part,
            protocol=header.protocol,
            kernel=header.kernel,
            contrast=header.contrast,
            manufacturer=header.manufacturer,
            series_number=header.series_number,
        )
        for series_uid, (header, instances) in sorted(gathered.series.items())
    )
    first = gathered.attributes
    facts = StudyFacts(
        tenant=DEFAULT_TENANT,
        study_instance_uid=uid,
        series=series,
        description=text(first, "00081030"),
        patient_age_years=age_years(first),
        patient_sex=text(first, "00100040"),
    )
    return FolderStudy(facts, gathered.files)
