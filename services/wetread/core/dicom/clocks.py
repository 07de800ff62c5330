"""What an image's headers say about when it was taken: several clocks, of which a dynamic series trusts one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydicom import Dataset

from wetread.core.dicom.dataset import first_number, first_text, whole

CLOCK_TAGS: Final = (
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "TriggerTime",
    "TemporalPositionIdentifier",
    "TemporalResolution",
)
"""Attributes that are read for ``Clocks``, beside the functional groups of enhanced objects."""

_MOMENT = re.compile(r"(\d{4})(\d{2})(\d{2})(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?(?:[+-]\d{4})?")


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds by each clock, None where it does not run. Only differences mean something.

    ``acquired``: (0018,9074), (0008,002A), or (0008,0022) with (0008,0032). ``triggered``: (0018,1060), which some
    MR scanners count from the start of the series. ``written``: (0008,0023) with (0008,0033). ``indexed``:
    (0020,0100) times (0020,0110), a nominal time.
    """

    acquired: float | None = None
    triggered: float | None = None
    written: float | None = None
    indexed: float | None = None

    @property
    def readings(self) -> tuple[float | None, ...]:
        """All clocks, the most trusted one first."""
        return (self.acquired, self.triggered, self.written, self.indexed)


def clocks_of(frame: Dataset) -> Clocks:
    """Read the clocks of one frame (a flat header: functional groups over the object's own attributes)."""
    acquired = (
        _moment(first_text(frame, "FrameAcquisitionDateTime"))
        or _moment(first_text(frame, "AcquisitionDateTime"))
        or _joined(frame, "AcquisitionDate", "AcquisitionTime")
    )
    triggered = first_number(frame, "TriggerTime")
    position, resolution = whole(frame, "TemporalPositionIdentifier"), first_number(frame, "TemporalResolution")
    if position is None:
        position = whole(frame, "TemporalPositionIndex")
    return Clocks(
        acquired=acquired,
        triggered=None if triggered is None else triggered / 1000.0,
        written=_joined(frame, "ContentDate", "ContentTime"),
        indexed=position * resolution / 1000.0 if position is not None and resolution else None,
    )


def trusted_times(clocks: Sequence[Clocks], places: Sequence[int]) -> list[float] | None:
    """Return seconds since the first image by the first clock that tells all images of one place apart.

    ``places``: which plane each image shows. None when no clock runs, or each stands still.
    """
    for readings in zip(*(c.readings for c in clocks), strict=True):
        known = [r for r in readings if r is not None]
        if len(known) < len(clocks):
            continue
        if len({(p, round(r, 3)) for p, r in zip(places, known, strict=True)}) == len(known):
            first = min(known)
            return [r - first for r in known]
    return None


def _joined(frame: Dataset, date: str, time: str) -> float | None:
    """Read a date and a time; without a date all images are taken to be of one day."""
    clock = first_text(frame, time).replace(":", "")
    if not clock:
        return None
    day = first_text(frame, date).replace(".", "")
    return _moment((day if len(day) == 8 else "20000101") + clock)


def _moment(text: str) -> float | None:
    """Return a DT value (PS3.5 6.2) as seconds; a zone is the same for a whole series and makes no difference."""
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction = found.groups()
    try:
        whole_second = datetime(
            int(year), int(month), int(day), int(hour), int(minute or 0), min(int(second or 0), 59), tzinfo=UTC
        )
    except ValueError:
        return None
    return whole_second.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
