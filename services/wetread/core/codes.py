"""The dictionary of coded concepts: what a detector calls a thing, and the code that the world knows it by.

Detectors name concepts by key (``Observation.code``, ``Observation.types``, ``Measure.name``); encoders and the API
write the code. Every entry says where its code was read. A public code is used only when that source holds it; where
it does not (the sub-types of intracranial haemorrhage, for which public lists contradict one another), the concept is
a private one of ``99WETREAD`` (PS3.3 8.2, private coding schemes) instead of a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wetread.core.errors import ConfigurationError
from wetread.core.findings import Code

PRIVATE_SCHEME: Final = "99WETREAD"
PRIVATE_SCHEME_UID: Final = "2.25.76791391052808615754155878532105964228"
PRIVATE_SCHEME_NAME: Final = "wetread private concepts"

PS316: Final = "DICOM PS3.16, as tabulated by pydicom.sr"
"""Source of public codes: a test reads each from pydicom's tables."""
OURS: Final = "private to wetread"
UCUM_SOURCE: Final = "UCUM case-sensitive symbols"


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept with its code, the source of that code, and how it is drawn and segmented."""

    code: Code
    source: str
    window: tuple[float, float] | None = None
    """Window centre and width in HU in which a reader looks for it on CT."""
    category: str = "morphologically_abnormal_structure"
    """Key of its segmented property category (PS3.16 CID 7150)."""
    property_type: str | None = None
    """Key of its segmented property type (PS3.16 CID 7151); None: the concept itself."""


def _sct(value: str, meaning: str) -> Concept:
    return Concept(Code(value=value, scheme="SCT", meaning=meaning), PS316)


def _anatomy(value: str, meaning: str) -> Concept:
    return Concept(Code(value=value, scheme="SCT", meaning=meaning), PS316, category="anatomical_structure")


def _dcm(value: str, meaning: str) -> Concept:
    return Concept(Code(value=value, scheme="DCM", meaning=meaning), PS316)


def _ln(value: str, meaning: str) -> Concept:
    return Concept(Code(value=value, scheme="LN", meaning=meaning), PS316)


def _own_anatomy(value: str, meaning: str) -> Concept:
    return Concept(Code(value=value, scheme=PRIVATE_SCHEME, meaning=meaning), OURS, category="anatomical_structure")


def _own(value: str, meaning: str) -> Concept:
    return Concept(Code(value=value, scheme=PRIVATE_SCHEME, meaning=meaning), OURS)


CONCEPTS: Final[Mapping[str, Concept]] = {
    # Findings
    "intracranial_hemorrhage": Concept(
        Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage"),
        PS316,
        window=(40.0, 80.0),
        property_type="hemorrhage",
    ),
    "hemorrhage": _sct("50960005", "Hemorrhage"),
    "hematoma": _sct("35566002", "Hematoma"),
    "nodule": Concept(Code(value="27925004", scheme="SCT", meaning="Nodule"), PS316, window=(-500.0, 1500.0)),
    "hippocampus": Concept(
        Code(value="5366008", scheme="SCT", meaning="Hippocampus"), PS316, category="anatomical_structure"
    ),
    "brain": Concept(Code(value="12738006", scheme="SCT", meaning="Brain"), PS316, category="anatomical_structure"),
    "gray_matter": _anatomy("389081007", "Gray Matter"),
    "white_matter": _own_anatomy("white-matter", "White matter of brain"),
    "cerebrospinal_fluid": _own_anatomy("csf", "Cerebrospinal fluid space"),
    "intracranial_structure": _anatomy("128319008", "Intracranial structure"),
    "imported_region": _own_anatomy("imported-region", "Region named by an imported model"),
    # Sub-types of intracranial haemorrhage
    "EDH": _own("ich-edh", "Epidural hemorrhage"),
    "SDH": _own("ich-sdh", "Subdural hemorrhage"),
    "IPH": _own("ich-iph", "Intraparenchymal hemorrhage"),
    "IVH": _own("ich-ivh", "Intraventricular hemorrhage"),
    "SAH": _own("ich-sah", "Subarachnoid hemorrhage"),
    # Density and size category of a nodule of the lung
    "nodule_solid": _own("nod-solid", "Solid nodule"),
    "nodule_part_solid": _own("nod-part-solid", "Part-solid nodule"),
    "nodule_ground_glass": _own("nod-ground-glass", "Ground-glass nodule"),
    "nodule_category_2": _own("nod-size-2", "Size category 2 (Lung-RADS v2022 size table)"),
    "nodule_category_3": _own("nod-size-3", "Size category 3 (Lung-RADS v2022 size table)"),
    "nodule_category_4a": _own("nod-size-4a", "Size category 4A (Lung-RADS v2022 size table)"),
    "nodule_category_4b": _own("nod-size-4b", "Size category 4B (Lung-RADS v2022 size table)"),
    "nodule_mass": _own("nod-mass", "Mass: over 30 mm, no size category"),
    "from_lungs_x": _own("from-lungs-x", "Position from the middle of the lungs, towards left"),
    "from_lungs_y": _own("from-lungs-y", "Position from the middle of the lungs, towards posterior"),
    "from_lungs_z": _own("from-lungs-z", "Position from the middle of the lungs, towards head"),
    "lungs_height": _own("lungs-height", "Height of the lungs as far as imaged"),
    # What became of a finding since an earlier result
    "qualitative_difference": _dcm("111049", "Qualitative Difference"),
    "change_grown": _sct("15454001", "Increase in size"),
    "change_shrunk": _sct("19776001", "Decrease in size"),
    "change_stable": _sct("129723006", "No significant changes in the finding"),
    "change_new": _own("change-new", "New: the earlier result holds no such finding"),
    "study_date": _dcm("111060", "Study Date"),
    "study_instance_uid": _dcm("110180", "Study Instance UID"),
    "volume_change": _own("volume-change", "Change of volume since the earlier result"),
    "doubling_time": _own("doubling-time", "Volume doubling time"),
    # Coronary arteries
    "coronary_stenosis": _sct("415582006", "stenosis"),
    "left_main_artery": _anatomy("3227004", "Left Main Coronary Artery"),
    "lad_artery": _anatomy("59438005", "Left Anterior Descending Coronary Artery"),
    "lcx_artery": _anatomy("57396003", "Circumflex Coronary Artery"),
    "right_coronary_artery": _anatomy("13647002", "Right Coronary Artery"),
    "coronary_artery": _anatomy("41801008", "Coronary artery"),
    "calcification": _own("calcification", "Calcification of arterial wall"),
    "fractional_flow_reserve": _sct("371842003", "Fractional flow reserve"),
    "ffr_p5": _own("ffr-p5", "CT-derived FFR, 5th percentile"),
    "ffr_p95": _own("ffr-p95", "CT-derived FFR, 95th percentile"),
    "ffr_method": _own("ffr-method", "CT-derived FFR, reduced-order model"),
    "lumen_diameter_stenosis": _sct("408715008", "Lumen Diameter Stenosis"),
    "lumen_area_stenosis": _sct("408714007", "Lumen Area Stenosis"),
    "stenotic_lesion_length": _sct("408716009", "Stenotic Lesion Length"),
    "lumen_area": _sct("397415007", "Vessel lumen cross-sectional area"),
    # Perfusion of the brain
    "infarct_core": _own("infarct-core", "Estimated ischemic core"),
    "hypoperfused_tissue": _own("hypoperfused", "Hypoperfused tissue (Tmax > 6 s)"),
    "perfusion_mismatch": _own("perf-mismatch", "Perfusion mismatch"),
    "mismatch_volume": _own("mismatch-volume", "Volume of perfusion mismatch"),
    "mismatch_ratio": _own("mismatch-ratio", "Ratio of hypoperfused tissue to core"),
    "arterial_input": _own("arterial-input", "Arterial input function: where it was measured"),
    "venous_output": _own("venous-output", "Venous output function: where it was measured"),
    "position_x": _own("position-x", "Position in the patient, towards left"),
    "position_y": _own("position-y", "Position in the patient, towards posterior"),
    "position_z": _own("position-z", "Position in the patient, towards head"),
    "peak_enhancement": _own("peak-enhancement", "Peak enhancement"),
    "time_to_peak": _own("time-to-peak", "Time from first image to peak"),
    "cerebral_blood_flow": _dcm("113055", "Regional Cerebral Blood Flow"),
    "cerebral_blood_volume": _dcm("113056", "Regional Cerebral Blood Volume"),
    "mean_transit_time": _dcm("113052", "Mean Transit Time"),
    "tmax": _dcm("113084", "Tmax"),
    # Large-vessel occlusion
    "large_vessel_occlusion": Concept(
        Code(value="lvo", scheme=PRIVATE_SCHEME, meaning="Occlusion of large intracranial artery"),
        OURS,
        window=(200.0, 600.0),
    ),
    "ICA": _own("lvo-ica", "Terminal internal carotid artery"),
    "M1": _own("lvo-m1", "First segment of middle cerebral artery"),
    "M2": _own("lvo-m2", "Second segment of middle cerebral artery"),
    "cerebral_vessel_tree": _own_anatomy("vessel-tree", "Contrast-filled intracranial vessels of one side"),
    "missing_length": _own("missing-length", "Length of vessel that the other side has and this side lacks"),
    "proximal_length": _own("proximal-length", "Length of vessel, carotid end and first segment"),
    "distal_length": _own("distal-length", "Length of vessel, branches beyond the first segment"),
    # The beating heart
    "left_ventricle": _anatomy("87878005", "Left ventricle"),
    "left_ventricle_diastole": _own_anatomy("lv-diastole", "Cavity of left ventricle at end of diastole"),
    "left_ventricle_systole": _own_anatomy("lv-systole", "Cavity of left ventricle at end of systole"),
    "end_diastolic_volume": _ln("18026-5", "Left Ventricular End Diastolic Volume"),
    "end_systolic_volume": _ln("18148-7", "Left Ventricular End Systolic Volume"),
    "frame_time": _own("frame-time", "Time of the frame since the beginning of the clip"),
    # Measurements
    "volume": _sct("118565006", "Volume"),
    "area": _sct("42798000", "Area"),
    "length": _sct("410668003", "Length"),
    "diameter": _sct("81827009", "Diameter"),
    "long_axis": _sct("103339001", "Long axis"),
    "short_axis": _sct("103340004", "Short axis"),
    "solid_diameter": _own("solid-diameter", "Mean axial diameter of the solid part"),
    "major_axis": _sct("131187009", "Major Axis"),
    "minor_axis": _sct("131188004", "Minor Axis"),
    "perpendicular_axis": _sct("131189007", "Perpendicular Axis"),
    "midline_shift": _own("midline-shift", "Midline shift"),
    "max_attenuation": _dcm("112180", "Maximum Attenuation Coefficient"),
    "min_attenuation": _dcm("112179", "Minimum Attenuation Coefficient"),
    "mean_attenuation": _dcm("112181", "Mean Attenuation Coefficient"),
    "ejection_fraction": _sct("70822001", "Cardiac ejection fraction"),
    "score": _own("score", "Detector score"),
    "score_threshold": _own("threshold", "Detector score threshold"),
    "uncertainty": _sct("371884006", "+/-, range of measurement uncertainty"),
    # Structure of a result
    "comment": _dcm("121106", "Comment"),
    "presence": _dcm("121052", "Presence of property"),
    "present": _dcm("121053", "Present"),
    "absent": _dcm("121054", "Absent"),
    "undetermined": _dcm("121059", "Presence Undetermined"),
    "analysis_summary": _dcm("111065", "Summary of Analyses"),
    "succeeded": _dcm("111222", "Succeeded"),
    "failed": _dcm("111224", "Failed"),
    "not_attempted": _dcm("111225", "Not Attempted"),
    "ai_state": _own("ai-state", "AI result state"),
    "ai_reason": _own("ai-reason", "AI result reason"),
    "finding_type": _own("finding-type", "Type of finding"),
    "quality_flag": _own("quality-flag", "Quality flag"),
    "laterality": _sct("272741003", "Laterality"),
    "left": _sct("7771000", "Left"),
    "right": _sct("24028007", "Right"),
    "bilateral": _sct("51440002", "Bilateral"),
    "finding_site": _sct("363698007", "Finding Site"),
    "morphologically_abnormal_structure": _sct("49755003", "Morphologically Abnormal Structure"),
    "anatomical_structure": _sct("91723000", "Anatomical Structure"),
    "spatial_concept": _sct("309825002", "Spatial and Relational Concept"),
    "score_origin": Concept(
        Code(value="score-origin", scheme=PRIVATE_SCHEME, meaning="Where the score came from"),
        OURS,
        category="spatial_concept",
    ),
    "artificial_intelligence": _dcm("123110", "Artificial Intelligence"),
    # Whole slides
    "tissue": Concept(Code(value="85756007", scheme="SCT", meaning="Tissue"), PS316, category="anatomical_structure"),
    "tissue_area": _own("sl-tissue-area", "Area of tissue on the slide"),
    "tiles_planned": _own("sl-planned", "Tiles planned"),
    "tiles_done": _own("sl-done", "Tiles analysed"),
    "tiles_failed": _own("sl-failed", "Tiles that could not be analysed"),
    "class_share": _own("sl-class-share", "Share of analysed tissue"),
    "nuclei_density": _own("sl-nuclei", "Nuclei per area"),
    "region_area": _own("sl-region-area", "Area of region"),
    "tile_score": _own("sl-tile-score", "Score of tile model"),
    "slide_state": _own("sl-state", "State of slide analysis"),
    "nucleus": _own("sl-nucleus", "Nucleus found by colour deconvolution"),
    "slide_region": _own("sl-region", "Region of the target class"),
    # What was examined (PS3.16 CID 100), by modality
    "ct_examination": Concept(Code(value="25045-6", scheme="LN", meaning="CT unspecified body region"), PS316),
    "mr_examination": Concept(Code(value="25056-3", scheme="LN", meaning="MRI unspecified body region"), PS316),
    "imaging_examination": _sct("363679005", "Imaging procedure"),
}

UNITS: Final[Mapping[str, tuple[str, str]]] = {
    "mm": ("mm", PS316),
    "mm2": ("square millimeter", PS316),
    "mm3": ("cubic millimeter", PS316),
    "cm": ("cm", PS316),
    "mL": ("milliliter", UCUM_SOURCE),
    "%": ("Percent", PS316),
    "1": ("no units", PS316),
    "s": ("second", PS316),
    "d": ("day", PS316),
    "ml/[100]g/min": ("milliliter per 100 gram per minute", PS316),
    "ml/[100]ml": ("milliliter per 100 milliliter", PS316),
    "/mm2": ("per square millimeter", UCUM_SOURCE),
    "[hnsf'U]": ("Hounsfield unit", PS316),
}
"""UCUM unit -> (meaning, source)."""

_BY_CODE: Final = {(c.code.scheme, c.code.value): c for c in CONCEPTS.values()}


def concept(key: str) -> Concept:
    """Return the concept named *key*. Raises ConfigurationError: a detector uses a word that nobody defined."""
    try:
        return CONCEPTS[key]
    except KeyError:
        msg = f"no coded concept named {key!r}"
        raise ConfigurationError(msg) from None


def concept_of(code: Code) -> Concept:
    """Return what is known of *code*; an unknown one (a foreign result) stands for itself."""
    return _BY_CODE.get((code.scheme, code.value)) or Concept(code, source="given")


def unit_code(unit: str) -> Code:
    """Return the UCUM unit as a code. Raises ConfigurationError for a unit outside the dictionary."""
    try:
        meaning, _ = UNITS[unit]
    except KeyError:
        msg = f"no UCUM unit {unit!r} in the dictionary"
        raise ConfigurationError(msg) from None
    return Code(value=unit, scheme="UCUM", meaning=meaning)
