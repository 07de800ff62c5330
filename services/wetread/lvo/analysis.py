"""The whole chain: volume in, both sides' readings out. Arrays only; no file, clock or network."""

from __future__ import annotations

from dataclasses import dataclass

from wetread.core.detector import Volume
from wetread.lvo.asymmetry import SideReading, read_sides
from wetread.lvo.frame import HeadFrame, head_frame
from wetread.lvo.landmarks import Landmarks, find_landmarks
from wetread.lvo.vessels import Vessels, find_vessels


@dataclass(frozen=True, slots=True)
class Analysis:
    """Frame, vessels, landmarks and what each side lacks, left first."""

    frame: HeadFrame
    vessels: Vessels
    marks: Landmarks
    sides: tuple[SideReading, SideReading]


def analyse(volume: Volume) -> Analysis:
    """Find the vessels and compare the sides.

    Raises NotApplicable (body_part, contrast), NotProcessable (mixed_orientation, missing_slices, motion, noise,
    incomplete_coverage).
    """
    frame = head_frame(volume)
    vessels = find_vessels(frame.hu)
    marks = find_landmarks(vessels)
    return Analysis(frame, vessels, marks, read_sides(vessels, marks))
