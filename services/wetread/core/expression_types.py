"""Values and types of the condition language: what rules may name, and three-valued logic over what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from wetread.core.errors import ConfigurationError
from wetread.core.states import AiState


class ExpressionError(ConfigurationError):
    """A condition that cannot be accepted. ``line`` and ``column`` count from 1 inside the expression's text."""

    slug, title = "expression", "Invalid condition"

    def __init__(self, detail: str, line: int = 1, column: int = 1) -> None:
        super().__init__(detail)
        self.line = line
        self.column = column


class Unknown:
    """The value of an attribute that is not there. There is one instance, ``UNKNOWN``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Unknown"

    def __bool__(self) -> bool:
        msg = "Unknown is neither true nor false"
        raise TypeError(msg)


UNKNOWN: Final = Unknown()


class Kind(StrEnum):
    """Static type of a sub-expression."""

    BOOL = "a truth value"
    NUMBER = "a number"
    DURATION = "a duration"
    TEXT = "a text"
    TEXTS = "a list of texts"
    NONE = "None"
    STUDY = "a study"
    SERIES = "a series"
    INSTANCE = "an instance"
    SOURCE = "a source"
    NOW = "the time"
    RESULT = "a result"
    SERIES_LIST = "a list of series"
    INSTANCE_LIST = "a list of instances"


@dataclass(frozen=True, slots=True)
class Type:
    """A kind, and for texts of a closed vocabulary the words it may hold."""

    kind: Kind
    words: frozenset[str] | None = None


BOOL, NUMBER, DURATION, TEXT, TEXTS = (
    Type(Kind.BOOL),
    Type(Kind.NUMBER),
    Type(Kind.DURATION),
    Type(Kind.TEXT),
    Type(Kind.TEXTS),
)
AI_STATE: Final = Type(Kind.TEXT, frozenset(AiState))
SEX: Final = Type(Kind.TEXT, frozenset({"F", "M", "O"}))

FIELDS: Final[dict[Kind, dict[str, Type]]] = {
    Kind.STUDY: {
        "description": TEXT,
        "sex": SEX,
        "age_years": NUMBER,
        "series_count": NUMBER,
        "instance_count": NUMBER,
        "waited": DURATION,
    },
    Kind.SERIES: {
        "modality": TEXT,
        "description": TEXT,
        "body_part": TEXT,
        "protocol": TEXT,
        "kernel": TEXT,
        "manufacturer": TEXT,
        "contrast": BOOL,
        "number": NUMBER,
        "instance_count": NUMBER,
        "thickness_mm": NUMBER,
    },
    Kind.INSTANCE: {
        "number": NUMBER,
        "frames": NUMBER,
        "rows": NUMBER,
        "columns": NUMBER,
        "thickness_mm": NUMBER,
        "tilt_deg": NUMBER,
        "lossy": BOOL,
        "image_type": TEXTS,
        "sop_class_uid": TEXT,
        "transfer_syntax_uid": TEXT,
    },
    Kind.SOURCE: {"tenant": TEXT, "ae": TEXT, "client": TEXT, "site": TEXT},
    Kind.NOW: {"hour": NUMBER, "weekday": NUMBER},
    Kind.RESULT: {"state": AI_STATE, "reason": TEXT, "score": NUMBER, "volume_ml": NUMBER},
}
"""Every attribute that a condition may name. Missing in the data is Unknown; missing here is a load error."""

TAGS: Final[dict[Kind, dict[str, str]]] = {
    Kind.STUDY: {"StudyDescription": "description", "PatientSex": "sex"},
    Kind.SERIES: {
        "Modality": "modality",
        "SeriesDescription": "description",
        "BodyPartExamined": "body_part",
        "ProtocolName": "protocol",
        "ConvolutionKernel": "kernel",
        "Manufacturer": "manufacturer",
        "SeriesNumber": "number",
        "SliceThickness": "thickness_mm",
    },
    Kind.INSTANCE: {
        "InstanceNumber": "number",
        "NumberOfFrames": "frames",
        "Rows": "rows",
        "Columns": "columns",
        "SliceThickness": "thickness_mm",
        "GantryDetectorTilt": "tilt_deg",
        "ImageType": "image_type",
        "SOPClassUID": "sop_class_uid",
    },
}
"""DICOM keywords (PS3.6) that ``tag`` understands, with the field that holds them."""

KEYWORDS: Final[dict[Kind, dict[str, str]]] = {
    kind: {name: keyword for keyword, name in fields.items()} for kind, fields in TAGS.items()
}
"""The same by field: where a value came from, for explanations."""
# Fields that are read from a header but are no attribute's plain value.
KEYWORDS[Kind.STUDY]["age_years"] = "PatientAge"
KEYWORDS[Kind.SERIES]["contrast"] = "ContrastBolusAgent"
KEYWORDS[Kind.INSTANCE]["lossy"] = "LossyImageCompression"
KEYWORDS[Kind.INSTANCE]["transfer_syntax_uid"] = "TransferSyntaxUID"

NAMES: Final[dict[str, Type]] = {
    "study": Type(Kind.STUDY),
    "source": Type(Kind.SOURCE),
    "now": Type(Kind.NOW),
    "series": Type(Kind.SERIES_LIST),
    "instances": Type(Kind.INSTANCE_LIST),
}

ELEMENT: Final[dict[Kind, Type]] = {
    Kind.SERIES_LIST: Type(Kind.SERIES),
    Kind.INSTANCE_LIST: Type(Kind.INSTANCE),
}


@dataclass(frozen=True, slots=True)
class Namespace:
    """The values that a condition sees: objects are mappings with all fields of their kind, Unknown where missing."""

    study: Mapping[str, Any]
    source: Mapping[str, Any]
    now: Mapping[str, Any]
    series: tuple[Mapping[str, Any], ...]
    instances: tuple[Mapping[str, Any], ...]
    results: Mapping[str, Mapping[str, Any]]


def known(value: Any) -> Any:
    """Return *value*, or Unknown for what a header leaves empty."""
    return UNKNOWN if value is None or value in {"", ()} else value


def negate(value: Any) -> Any:
    """Kleene's not."""
    return UNKNOWN if value is UNKNOWN else not value


def conjunction(values: Any) -> Any:
    """Kleene's and over an iterable, which is left at the first False."""
    result: Any = True
    for value in values:
        if value is False:
            return False
        if value is UNKNOWN:
            result = UNKNOWN
    return result


def disjunction(values: Any) -> Any:
    """Kleene's or over an iterable, which is left at the first True."""
    result: Any = False
    for value in values:
        if value is True:
            return True
        if value is UNKNOWN:
            result = UNKNOWN
    return result
