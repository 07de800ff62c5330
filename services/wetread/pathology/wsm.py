"""Writing one pyramid level as a VL Whole Slide Microscopy instance (PS3.3 A.32.8): frames as they are, streamed.

Nothing of the source's label, barcode or file name is written. Every UID is derived from the slide digest, and times
come from the caller: converting twice gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

import wetread
from wetread.core.identifiers import derived_uid
from wetread.core.ruo import RUO_STATEMENT
from wetread.pathology.slide.dicom import JPEG_BASELINE, WSM_SOP_CLASS
from wetread.pathology.slide.index import Level

JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
_BASIC_TABLE_LIMIT: Final = 0xFFFFFFFF
SECTION_MM: Final = 0.004
"""Nominal thickness of a section; slides do not say theirs."""


@dataclass(frozen=True, slots=True)
class SlideIdentity:
    """Whose slide it is: from the order or the user, never from the label. Empty: a research id."""

    patient_id: str = ""
    accession_number: str = ""
    study_uid: str = ""
    """Put the slide into this study; empty: one of its own."""


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """What a level's header says beside its geometry."""

    level: Level
    number: int
    base_mpp: tuple[float, float]
    base: Level
    photometric: str
    transfer_syntax: str
    digest: str
    acquired_at: float
    compressed_bytes: int
    derivation: str = ""


def level_header(facts: LevelFacts, identity: SlideIdentity) -> Dataset:
    """Return the data set of one level without its pixel data."""
    level, base = facts.level, facts.base
    ds = Dataset()
    moment = datetime.fromtimestamp(facts.acquired_at, UTC)
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    name = identity.patient_id or f"SLIDE-{facts.digest[:12].upper()}"
    study = identity.study_uid or derived_uid("slide-study", facts.digest)
    series = derived_uid("slide-series", facts.digest, study)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = WSM_SOP_CLASS, derived_uid("slide-level", facts.digest, study, facts.number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = derived_uid("slide-frame", series), "SLIDE_CORNER"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = name, "", "", ""
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = identity.accession_number, "", ""
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = time
    ds.AcquisitionDateTime = date + time
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "SM", 1, facts.number + 1
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "wetread", "slide conversion", "none"
    ds.SoftwareVersions = wetread.__version__
    ds.ImageComments = RUO_STATEMENT
    if facts.derivation:
        ds.DerivationDescription = facts.derivation
    first = facts.number == 0
    kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"] if first else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    ds.ImageType = kind
    ds.VolumetricProperties = "VOLUME"
    ds.SpecimenLabelInImage, ds.BurnedInAnnotation, ds.FocusMethod = "NO", "NO", "AUTO"
    ds.ExtendedDepthOfField = "NO"
    width_mm, height_mm = base.width * facts.base_mpp[0] / 1000, base.height * facts.base_mpp[1] / 1000
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight, ds.ImagedVolumeDepth = width_mm, height_mm, SECTION_MM * 1000
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = level.width, level.height
    ds.TotalPixelMatrixFocalPlanes = ds.NumberOfOpticalPaths = 1
    ds.TotalPixelMatrixOriginSequence = [_item(XOffsetInSlideCoordinateSystem="0", YOffsetInSlideCoordinateSystem="0")]
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.Rows, ds.Columns = level.tile_height, level.tile_width
    ds.NumberOfFrames = level.columns * level.rows
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, facts.photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression = "01"
    raw = level.width * level.height * 3
    ds.LossyImageCompressionRatio = f"{max(raw / max(facts.compressed_bytes, 1), 1.0):.3f}"
    ds.LossyImageCompressionMethod = "ISO_10918_1" if facts.transfer_syntax == JPEG_BASELINE else "ISO_15444_1"
    ds.AcquisitionContextSequence = []
    _add_optics(ds)
    _add_specimen(ds, facts.digest)
    _add_frames(ds, facts, kind, series)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = UID(WSM_SOP_CLASS)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    ds.file_meta.TransferSyntaxUID = UID(facts.transfer_syntax)
    ds.file_meta.ImplementationClassUID = UID(derived_uid("implementation-class", "wetread"))
    ds.file_meta.ImplementationVersionName = "WETREAD"
    return ds


def write_level(header: Dataset, frames: Iterable[bytes], lengths: list[int], path: Path) -> None:
    """Write header and frames. *lengths* of all frames come first, so that nothing is held in memory.

    Offsets go into the Basic Offset Table, or into the Extended one when they pass 4 GiB (PS3.5 A.4).
    """
    padded = [length + length % 2 + 8 for length in lengths]
    offsets = [0]
    for size in padded[:-1]:
        offsets.append(offsets[-1] + size)
    basic = offsets[-1] <= _BASIC_TABLE_LIMIT
    if not basic:
        header.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        header.ExtendedOffsetTableLengths = struct.pack(f"<{len(lengths)}Q", *lengths)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        dcmwrite(file, header, enforce_file_format=True)
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
        _item_of(file, struct.pack(f"<{len(offsets)}I", *offsets) if basic else b"")
        for frame in frames:
            _item_of(file, frame + b"\0" if len(frame) % 2 else frame)
        file.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    temporary.replace(path)


def _item_of(file: BinaryIO, body: bytes) -> None:
    file.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(body)))
    file.write(body)


def _item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return Sequence([_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def _add_optics(ds: Dataset) -> None:
    optics = _item(OpticalPathIdentifier="1", OpticalPathDescription="Brightfield", ColorSpace="SRGB")
    optics.IlluminationTypeCodeSequence = _code("111744", "DCM", "Brightfield illumination")
    optics.IlluminationColorCodeSequence = _code("414298005", "SCT", "Full Spectrum")
    optics.ICCProfile = _srgb()
    ds.OpticalPathSequence = [optics]


def _srgb() -> bytes:
    """Return an sRGB profile without its date, so that it is the same every time."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    profile[84:100] = b"\0" * 16  # its checksum may be zero: not computed (ICC.1 7.2.18)
    return bytes(profile) + b"\0" * (len(profile) % 2)


def _add_specimen(ds: Dataset, digest: str) -> None:
    ds.ContainerIdentifier = f"SLIDE-{digest[:12].upper()}"
    ds.IssuerOfTheContainerIdentifierSequence = []
    ds.ContainerTypeCodeSequence = _code("433466003", "SCT", "Microscope slide")
    specimen = _item(SpecimenIdentifier=ds.ContainerIdentifier, SpecimenUID=derived_uid("slide-specimen", digest))
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    ds.SpecimenDescriptionSequence = [specimen]


def _add_frames(ds: Dataset, facts: LevelFacts, kind: list[str], series: str) -> None:
    organisation = derived_uid("slide-dimensions", series)
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organisation)]
    spacing = [
        f"{facts.base_mpp[axis] * size[0] / size[1] / 1000:.9g}"
        for axis, size in ((1, (facts.base.height, facts.level.height)), (0, (facts.base.width, facts.level.width)))
    ]
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=spacing, SliceThickness=f"{SECTION_MM:g}")]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [_item(FrameType=kind)]
    shared.OpticalPathIdentificationSequence = [_item(OpticalPathIdentifier="1")]
    ds.SharedFunctionalGroupsSequence = [shared]
