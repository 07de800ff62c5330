"""The reference-header view: source headers as the encoders may rely on them, whatever the sender left out.

Real studies lack type-2 attributes, name no frame of reference or one per slice, carry dates that are none, and claim
to be de-identified without saying how (workflow-and-results 8.3). The encoders read this view: small new data sets
with what results inherit (PS3.3 C.7.1.1, C.7.2.1) and the geometry of each image. Stored headers are never changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import DSfloat, PersonName

from wetread.core.errors import InvalidInput
from wetread.core.identifiers import derived_uid, is_uid

DERIVED_FRAME_OF_REFERENCE: Final = "frame_of_reference=derived"
"""Flag: the source has no one frame of reference for the series, so ours is made from its series UID."""
NO_GEOMETRY: Final = "no_image_geometry"
"""Flag: position, orientation or spacing is missing, so no segmentation can be placed."""
NOT_STATED: Final = "Not stated in the source objects"
UTF8: Final = "ISO_IR 192"

_DATE = re.compile(r"\d{8}")
_OLD_DATE = re.compile(r"(\d{4})[.-](\d{2})[.-](\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_OLD_TIME = re.compile(r"(\d{2}):(\d{2}):(\d{2})(\.\d{1,6})?")
_AGE = re.compile(r"\d{3}[DWMY]")
_ZONE = re.compile(r"[+-]\d{4}")
_TEXT: Final = ("PatientID", "AccessionNumber", "StudyID", "Manufacturer")
_PLACE: Final = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_OPTIONAL_TEXT: Final = ("IssuerOfPatientID", "StudyDescription")

_TYPE_2: Final = (
    *_TEXT,
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


@dataclass(frozen=True, slots=True)
class ReferenceView:
    """What results inherit from their source.

    ``images`` hold UIDs and geometry in plane order, with patient and study left blank: the libraries quote doubtful
    names in warnings and logs, so they never see one. ``stamp`` puts ``identity`` on the finished object.
    """

    identity: Dataset
    """Patient and study attributes, complete to type 2, text as Unicode for ``ISO_IR 192``."""
    images: tuple[Dataset, ...]
    flags: tuple[str, ...]
    has_geometry: bool
    timezone: str
    """TimezoneOffsetFromUTC of the source, or empty."""

    def of_plane(self, plane: int) -> Dataset:
        """Return the image that holds *plane*; a multi-frame source holds all of them."""
        return self.images[plane] if len(self.images) > 1 else self.images[0]

    def image(self, sop_instance_uid: str) -> Dataset | None:
        """Return the view of one source image."""
        return next((i for i in self.images if i.SOPInstanceUID == sop_instance_uid), None)


def reference_view(headers: Sequence[Dataset], study_uid: str) -> ReferenceView:
    """Build the view of *headers* (no pixel data needed), which stay untouched.

    Raises InvalidInput when there is no header, or one lacks the UIDs that make a reference, or belongs to another
    study.
    """
    if not headers:
        msg = "a result needs at least one header of its study"
        raise InvalidInput(msg)
    identity = _identity(headers[0], study_uid)
    frames = {_text(header, "FrameOfReferenceUID") for header in headers}
    only = next(iter(frames))
    derived = len(frames) > 1 or not only or not is_uid(only)
    frame_of_reference = derived_uid("frame-of-reference", _text(headers[0], "SeriesInstanceUID")) if derived else only
    made = _Elements()
    images = tuple(_image(header, study_uid, frame_of_reference, made) for header in headers)
    placed = all(keyword in image for image in images for keyword in _PLACE)
    if placed:
        _fill_thickness(images)
    flags = (*((DERIVED_FRAME_OF_REFERENCE,) if derived else ()), *(() if placed else (NO_GEOMETRY,)))
    zone = _text(headers[0], "TimezoneOffsetFromUTC")
    return ReferenceView(identity, images, flags, placed, zone if _ZONE.fullmatch(zone) else "")


def _identity(header: Dataset, study_uid: str) -> Dataset:
    view = Dataset()

    def put(keyword: str, value: str | PersonName) -> None:
        # Without validation: identity is taken over as it is, and a warning would quote it.
        view.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=config.IGNORE))

    put("SpecificCharacterSet", UTF8)
    put("StudyInstanceUID", study_uid)
    for keyword in _TEXT:
        put(keyword, _text(header, keyword))
    for keyword in ("PatientName", "ReferringPhysicianName"):
        put(keyword, PersonName(_text(header, keyword)))
    for keyword in ("PatientBirthDate", "StudyDate"):
        put(keyword, _date(_text(header, keyword)))
    put("StudyTime", _time(_text(header, "StudyTime")))
    sex = _text(header, "PatientSex").upper()
    put("PatientSex", sex if sex in {"M", "F", "O"} else "")
    for keyword in _OPTIONAL_TEXT:
        if text := _text(header, keyword):
            put(keyword, text[:64])
    if _AGE.fullmatch(age := _text(header, "PatientAge")):
        put("PatientAge", age)
    removed = _text(header, "PatientIdentityRemoved").upper()
    if removed in {"YES", "NO"}:
        put("PatientIdentityRemoved", removed)
    if removed == "YES":
        # Type 1C (PS3.3 C.7.1.1): a method is required here, and real senders leave it out.
        put("DeidentificationMethod", _text(header, "DeidentificationMethod") or NOT_STATED)
    return view


class _Elements:
    """Makes data elements, each distinct one once: a thousand slices share most of theirs."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Any], DataElement] = {}

    def put(self, view: Dataset, keyword: str, value: str | int | tuple[float, ...]) -> None:
        """Set an attribute; numbers in a tuple are written as DS."""
        element = self._made.get((keyword, value))
        if element is None:
            # Senders write DS values beyond its 16 characters (PS3.5 6.2); ours stay inside.
            written = [DSfloat(v, auto_format=True) for v in value] if isinstance(value, tuple) else value
            element = DataElement(keyword, dictionary_VR(keyword), written)
            self._made[keyword, value] = element
        view[element.tag] = element


def _image(header: Dataset, study_uid: str, frame_of_reference: str, made: _Elements) -> Dataset:
    view = Dataset()
    for keyword in _TYPE_2:
        made.put(view, keyword, "")
    made.put(view, "StudyInstanceUID", study_uid)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        uid = _text(header, keyword)
        if not uid or not is_uid(uid):
            msg = f"a source header has no usable {keyword}"
            raise InvalidInput(msg)
        made.put(view, keyword, uid)
    if _text(header, "StudyInstanceUID") not in {"", study_uid}:
        msg = "a source header belongs to another study"
        raise InvalidInput(msg)
    made.put(view, "FrameOfReferenceUID", frame_of_reference)
    made.put(view, "PositionReferenceIndicator", "")
    made.put(view, "Modality", _text(header, "Modality") or "OT")
    _add_geometry(view, header, made)
    for keyword in ("WindowCenter", "WindowWidth"):
        if window := _numbers(header, keyword, None):
            made.put(view, keyword, window[:1])
    return view


def _add_geometry(view: Dataset, header: Dataset, made: _Elements) -> None:
    """Copy what can be read of size and place; an attribute that cannot be is left out."""
    if position := _numbers(header, "ImagePositionPatient", 3):
        made.put(view, "ImagePositionPatient", position)
    orientation = _numbers(header, "ImageOrientationPatient", 6)
    if orientation and all(abs(math.hypot(*half) - 1) < 0.05 for half in (orientation[:3], orientation[3:])):
        made.put(view, "ImageOrientationPatient", orientation)
    spacing = _numbers(header, "PixelSpacing", 2)
    if spacing and min(spacing) > 0:
        made.put(view, "PixelSpacing", spacing)
    for keyword in ("Rows", "Columns"):
        if number := _numbers(header, keyword, 1):
            made.put(view, keyword, int(number[0]))
    thickness = _numbers(header, "SliceThickness", 1)
    if thickness and thickness[0] > 0:
        made.put(view, "SliceThickness", thickness)
    frames = _numbers(header, "NumberOfFrames", 1)
    if frames and frames[0] > 1:
        made.put(view, "NumberOfFrames", int(frames[0]))


def _fill_thickness(images: Sequence[Dataset]) -> None:
    """Give images without a Slice Thickness the median step between planes, or 1 mm.

    A nominal value for viewers: type 1C in the segmentation, and highdicom fails without it. Volumes never use it.
    """
    lacking = [image for image in images if "SliceThickness" not in image]
    if not lacking:
        return
    orientation = np.array(images[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    places = np.sort([float(np.dot(normal, np.array(i.ImagePositionPatient, dtype=float))) for i in images])
    steps = np.diff(places)[np.diff(places) > 0]
    for image in lacking:
        image.SliceThickness = DSfloat(float(np.median(steps)) if steps.size else 1.0, auto_format=True)


def _text(header: Dataset, keyword: str) -> str:
    """Return an attribute as text: the first of several values, '' for what is absent or cannot be decoded."""
    try:
        value = header.get(keyword)
        if value is None:
            return ""
        if not isinstance(value, str | PersonName) and isinstance(value, Sequence):
            value = value[0] if value else ""
        return str(value).strip().rstrip("\0")
    except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError):
        return ""


def _numbers(header: Dataset, keyword: str, size: int | None) -> tuple[float, ...] | None:
    """Return a numeric attribute; None for what is absent, has another length or is no finite number."""
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return None
        several = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = tuple(float(v) for v in (value if several else [value]))
    except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError):
        return None
    if not numbers or (size is not None and len(numbers) != size) or not all(map(math.isfinite, numbers)):
        return None
    return numbers


def _date(text: str) -> str:
    """Return a DA value (PS3.5 6.2), also from the ACR-NEMA form; '' when it is no date."""
    if old := _OLD_DATE.fullmatch(text):
        text = "".join(old.groups())
    if not _DATE.fullmatch(text) or not ("01" <= text[4:6] <= "12" and "01" <= text[6:] <= "31"):
        return ""
    return text


def _time(text: str) -> str:
    """Return a TM value (PS3.5 6.2), also from the ACR-NEMA form; '' when it is no time."""
    if old := _OLD_TIME.fullmatch(text):
        text = "".join(part or "" for part in old.groups())
    return text if _TIME.fullmatch(text) else ""
