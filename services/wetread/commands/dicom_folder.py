"""Find the DICOM files of a folder and group them by study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError


@dataclass(frozen=True, slots=True)
class FileInstance:
    """One DICOM file."""

    path: Path
    sop_instance_uid: str
    size: int


@dataclass
class FileStudy:
    """The files of one study."""

    study_uid: str
    modality: str
    instances: list[FileInstance] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(instance.size for instance in self.instances)


@dataclass
class FolderScan:
    """What a folder holds: studies by first appearance, and the files that are not DICOM instances."""

    studies: list[FileStudy]
    skipped: list[Path]


def scan_folder(folder: Path) -> FolderScan:
    """Read the header of every file below *folder*. Files without the four UIDs are listed as skipped."""
    studies: dict[str, FileStudy] = {}
    skipped: list[Path] = []
    for path in _files(folder):
        try:
            header = dcmread(
                path, specific_tags=["StudyInstanceUID", "SOPInstanceUID", "Modality"], stop_before_pixels=True
            )
            study_uid, sop_uid = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
        except (InvalidDicomError, AttributeError, OSError, ValueError, NotImplementedError, EOFError):
            skipped.append(path)
            continue
        study = studies.setdefault(study_uid, FileStudy(study_uid, str(header.get("Modality", ""))))
        study.instances.append(FileInstance(path, sop_uid, path.stat().st_size))
    return FolderScan(list(studies.values()), skipped)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path
