"""From a result set to standard DICOM objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom import Dataset

from wetread.core.detector import Explanation, FloatArray, LabelArray, ParameterMap
from wetread.core.findings import ResultSet


@dataclass(frozen=True, slots=True)
class EvidenceInput:
    """A result with what its encodings need from the source study."""

    result: ResultSet
    headers: Sequence[Dataset]
    """Headers (no pixel data) of the selected instances in plane order; when nothing was selected, one header of
    the study, so that even a refusal is written into it."""
    mask: LabelArray | None
    """[plane, row, column]."""
    read_plane: Callable[[int], FloatArray] | None
    """Return the rescaled pixels of a plane (CT: HU), [row, column]."""
    captures: Sequence[bytes] = ()
    """Pictures (PNG, RGB) that become Secondary Captures as they are."""
    slide: bytes | None = None
    """Of a whole slide's result: its map and marks (``core.slide_file``); ``headers`` are those of its levels."""
    maps: Sequence[ParameterMap] = ()
    """Parameter maps [plane, row, column] on the planes of ``headers``."""
    explanation: Explanation | None = None
    """Where the score came from, on a grid of its own."""


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """One PS3.10 object, ready for ``Ingest``. ``role``: sr, seg, explanation, pm or sc."""

    role: str
    modality: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    data: bytes


class EvidenceEncoder(Protocol):
    """Deterministic: the same input gives the same bytes."""

    @property
    def version(self) -> str:
        """Version of the encodings, part of every result key."""

    def encode(self, evidence: EvidenceInput) -> list[EncodedObject]:
        """Return the SR (always), the SEG (a region exists), the maps and the SC (flagged findings)."""
