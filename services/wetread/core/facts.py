"""Header facts: what rules, completeness and detectors may know of a study without opening its pixels.

Written once at ingest, kept beside the index row, never re-read from the images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Vector3 = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """One SOP instance. Lengths in mm, angles in degrees, positions in patient space (LPS, PS3.3 C.7.6.2)."""

    sop_instance_uid: str
    sop_class_uid: str
    content_hash: str
    """SHA-256 over the data set after group 0002 and the transfer syntax UID."""
    transfer_syntax_uid: str
    instance_number: int | None = None
    number_of_frames: int = 1
    rows: int | None = None
    columns: int | None = None
    position: Vector3 | None = None
    orientation: Orientation | None = None
    pixel_spacing: tuple[float, float] | None = None
    """(between rows, between columns)."""
    slice_thickness: float | None = None
    gantry_tilt: float | None = None
    image_type: tuple[str, ...] = ()
    frame_of_reference_uid: str | None = None
    lossy: bool = False
    lossy_ratio: float | None = None
    acquisition_number: int | None = None


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """One series: attributes shared by its instances (first seen wins) and the instances themselves."""

    series_instance_uid: str
    modality: str
    instances: tuple[InstanceFacts, ...]
    description: str = ""
    body_part: str = ""
    protocol: str = ""
    kernel: str = ""
    contrast: bool | None = None
    """True: a contrast agent is named; False: CT/MR without one named; None: not decidable."""
    manufacturer: str = ""
    series_number: int | None = None
    declared_instances: int | None = None
    """(0020,1209) Number of Series Related Instances, where the sender writes it into the images."""
    detector_result: bool = False
    """True for series that wetread itself wrote: rules and selection never see those."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where instances came from: the DIMSE AE title, API client and site, as far as known."""

    ae: str = ""
    client: str = ""
    site: str = ""


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """A study as rules and detectors see it. ``generation`` counts its commit groups."""

    tenant: str
    study_instance_uid: str
    series: tuple[SeriesFacts, ...]
    generation: int = 0
    description: str = ""
    patient_age_years: float | None = None
    patient_sex: str = ""
    received_at: float = 0.0
    last_received_at: float = 0.0
    """Unix seconds, UTC: first and latest commit."""
    source: Source = field(default_factory=Source)
