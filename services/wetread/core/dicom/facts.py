"""Header facts from the DICOM JSON of one instance: what rules and detectors know without opening pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, cast

from wetread.core.dicom.attributes import Attributes, integer, items, number, numbers, text, texts
from wetread.core.facts import InstanceFacts, Orientation, Vector3

_NO_AGENT: Final = re.compile(
    r"(?:no|none|non|nil|n|n/?a|0|-+|neg(?:ative)?|without|w/?o|unenhanced|native|nativ|non?[- ]?contrast"
    r"|(?:no|without|w/?o) (?:iv |i\.v\. )?contrast(?: agent| media)?)\.?"
)
"""Ways of saying that no agent was given in (0018,0010), as consoles and technologists write them."""

_AGE: Final = re.compile(r"(\d{1,3})([DWMY])")
_YEARS_PER: Final = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True, slots=True)
class SeriesHeader:
    """Series-level facts of one instance (first seen wins in the index)."""

    modality: str
    description: str = ""
    body_part: str = ""
    protocol: str = ""
    kernel: str = ""
    contrast: bool | None = None
    manufacturer: str = ""
    series_number: int | None = None


def series_header(data: Attributes) -> SeriesHeader:
    """Return the series-level facts of an instance."""
    modality = text(data, "00080060").strip().upper()
    return SeriesHeader(
        modality=modality,
        description=text(data, "0008103E"),
        body_part=text(data, "00180015"),
        protocol=text(data, "00181030"),
        kernel=text(data, "00181210"),
        contrast=contrast_of(data, modality),
        manufacturer=text(data, "00080070"),
        series_number=integer(data, "00200011"),
    )


def contrast_of(data: Attributes, modality: str) -> bool | None:
    """Return True when a contrast agent is named, False for CT and MR without one, None where that says nothing.

    (0018,0010) and (0018,0012), PS3.3 C.7.6.4.
    """
    agent = text(data, "00180010").strip().casefold()
    if agent and not _NO_AGENT.fullmatch(agent):
        return True
    if not agent and items(data, "00180012"):
        return True
    return False if modality in {"CT", "MR"} else None


def instance_facts(data: Attributes, *, content_hash: str, transfer_syntax_uid: str) -> InstanceFacts:
    """Return the geometry and identity facts of one instance; enhanced objects by their shared functional groups."""
    shared = _functional_groups(data)
    spacing = numbers(data, "00280030", 2) or numbers(shared, "00280030", 2)
    if spacing is None:
        spacing = numbers(data, "00181164", 2)
    lossy = text(data, "00282110") == "01"
    return InstanceFacts(
        sop_instance_uid=text(data, "00080018"),
        sop_class_uid=text(data, "00080016"),
        content_hash=content_hash,
        transfer_syntax_uid=transfer_syntax_uid,
        instance_number=integer(data, "00200013"),
        number_of_frames=max(integer(data, "00280008") or 1, 1),
        rows=integer(data, "00280010"),
        columns=integer(data, "00280011"),
        position=cast("Vector3 | None", numbers(data, "00200032", 3) or numbers(shared, "00200032", 3)),
        orientation=cast("Orientation | None", numbers(data, "00200037", 6) or numbers(shared, "00200037", 6)),
        pixel_spacing=cast("tuple[float, float] | None", spacing),
        slice_thickness=_first(number(data, "00180050"), number(shared, "00180050")),
        gantry_tilt=number(data, "00181120"),
        image_type=texts(data, "00080008"),
        frame_of_reference_uid=text(data, "00200052") or None,
        lossy=lossy,
        lossy_ratio=number(data, "00282112") if lossy else None,
        acquisition_number=integer(data, "00200012"),
    )


def _first(*candidates: float | None) -> float | None:
    return next((value for value in candidates if value is not None), None)


def _functional_groups(data: Attributes) -> dict[str, Any]:
    """Flatten the macros that carry geometry: shared ones, then those of the first frame (PS3.3 C.7.6.16)."""
    flat: dict[str, Any] = {}
    for groups in ("52009230", "52009229"):
        for group in items(data, groups)[:1]:
            for macro in ("00289110", "00209113", "00209116"):
                for item in items(group, macro)[:1]:
                    flat.update(item)
    return flat


def age_years(data: Attributes) -> float | None:
    """Return the patient's age in years: (0010,1010), else study date minus birth date; None when neither is usable."""
    written = _AGE.fullmatch(text(data, "00101010").strip().upper())
    if written:
        return int(written[1]) * _YEARS_PER[written[2]]
    born, studied = _date(text(data, "00100030")), _date(text(data, "00080020"))
    if born is None or studied is None or studied < born:
        return None
    return round((studied - born).days / 365.25, 2)


def _date(value: str) -> date | None:
    digits = value.strip().replace(".", "")
    if len(digits) != 8 or not digits.isdecimal():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


_TUPLES: Final = ("position", "orientation", "pixel_spacing", "image_type")


def instance_facts_from_json(stored: Mapping[str, Any]) -> InstanceFacts:
    """Return the facts of their JSON form (field names to values, as any JSON encoder writes a data class)."""
    fields = dict(stored)
    for name in _TUPLES:
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])
    return InstanceFacts(**fields)
