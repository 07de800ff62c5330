"""What an echocardiographic clip is made of: every parameter, drawn from a seed or given by name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np

from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.seeds import require_split

GENERATOR_VERSION: Final = "echo/1"
View = Literal["a4c", "a2c", "plax", "psax", "subcostal", "liver", "carotid", "lung", "cyst", "noise"]
APICAL: Final[tuple[View, ...]] = ("a4c", "a2c")
OTHER: Final[tuple[View, ...]] = ("plax", "psax", "subcostal", "liver", "carotid", "lung", "cyst", "noise")
Calibration = Literal["right", "missing", "outside"]

DISTRIBUTIONS: Final[dict[str, Any]] = {
    "generator": GENERATOR_VERSION,
    "base": {
        "columns": [280.0, 440.0],
        "frame_rate": [24.0, 60.0],
        "duration_s": [1.6, 2.4],
        "heart_rate": [52.0, 110.0],
        "ef": [15.0, 76.0],
        "long_axis_mm": [68.0, 100.0],
        "slenderness": [0.24, 0.33],
        "third_axis": [0.92, 1.06],
        "truncation": [0.25, 0.6],
        "bend_mm": [-4.0, 4.0],
        "wall_mm": [7.0, 12.0],
        "apex_mm": [14.0, 34.0],
        "tilt_deg": [-14.0, 14.0],
        "shift_mm": [-10.0, 10.0],
        "sector_deg": [66.0, 100.0],
        "depth_mm": [130.0, 190.0],
        "axial_mm": [0.5, 1.0],
        "lateral_deg": [0.7, 1.5],
        "dynamic_range_db": [48.0, 72.0],
        "gain_db": [-16.0, 4.0],
        "attenuation_db_cm": [-0.25, 0.7],
        "blood_db": [-36.0, -20.0],
        "background_db": [-34.0, -9.0],
        "patchiness_db": [1.0, 7.0],
        "drop_out_db": [0.0, 14.0],
        "clutter_db": [-60.0, -14.0],
        "speckle_memory": [0.3, 0.85],
        "sway_mm": [0.0, 3.0],
        "foreshortening": [0.0, 0.06],
        "rr_spread": [0.0, 0.04],
        "papillary_mm": [3.5, 6.0],
        "rib_db": [8.0, 26.0],
        "gamma": [0.75, 1.25],
        "skip_db": [0.0, 0.0],
    },
    "chances": {
        "apical": 0.78,
        "mirrored": 0.15,
        "rib": 0.2,
        "overlay": 0.7,
        "colour_bar": 0.5,
        "ecg": 0.5,
        "arrhythmia": 0.1,
        "wild": 0.1,
    },
    "sets": {
        "train": {},
        "tune": {},
        "s0": {},
        "s1": {
            "columns": [440.0, 560.0],
            "frame_rate": [20.0, 90.0],
            "axial_mm": [0.9, 1.4],
            "lateral_deg": [1.4, 2.2],
            "dynamic_range_db": [40.0, 80.0],
            "gain_db": [-22.0, 8.0],
            "gamma": [0.6, 1.5],
        },
        "s2": {
            "long_axis_mm": [58.0, 112.0],
            "slenderness": [0.2, 0.38],
            "bend_mm": [-7.0, 7.0],
            "wall_mm": [6.0, 15.0],
            "tilt_deg": [-22.0, 22.0],
            "arrhythmia": 0.4,
            "heart_rate": [42.0, 130.0],
        },
        "s3": {"apical": 0.35},
        "s4": {
            "rib": 0.6,
            "drop_out_db": [8.0, 24.0],
            "clutter_db": [-26.0, -6.0],
            "attenuation_db_cm": [0.2, 1.1],
            "foreshortening": [0.05, 0.16],
            "sway_mm": [2.0, 6.0],
            "skip_db": [0.0, 12.0],
        },
        "s5": {},
    },
}
"""Intervals, chances and what the shift sets change; its YAML is ``models/echo-ef/phantom.yaml``. s5 is another
generator (``echo_second``): another ventricle, another speckle, another motion."""


@dataclass(frozen=True, slots=True)
class EchoSpec:
    """Every choice of one clip. mm, degrees, decibel, seconds and fractions."""

    seed: int
    split: str = "s0"
    view: View = "a4c"
    columns: float = 320.0
    """Width of the picture; its height is three quarters of it."""
    frame_rate: float = 40.0
    duration_s: float = 2.0
    heart_rate: float = 70.0
    start: float = 0.0
    """Where in the first cycle the clip begins, 0 (end of diastole) to 1."""
    ef: float = 55.0
    """Per cent of the beats; the truth of a clip is ``EchoTruth.ef``."""
    long_axis_mm: float = 85.0
    """Apex to mitral plane at the end of diastole."""
    slenderness: float = 0.28
    """Half width of the whole ellipsoid over the long axis, at the end of diastole."""
    third_axis: float = 1.0
    """Half width out of the plane over that in it."""
    truncation: float = 0.4
    """How far past its middle the ellipsoid is cut, as a share of its half axis."""
    bend_mm: float = 0.0
    wall_mm: float = 9.0
    apex_mm: float = 22.0
    tilt_deg: float = 0.0
    shift_mm: float = 0.0
    sector_deg: float = 80.0
    depth_mm: float = 160.0
    axial_mm: float = 0.7
    """Standard deviation of the point spread function along the beam."""
    lateral_deg: float = 1.0
    """The same across the beam: wider in mm with depth."""
    dynamic_range_db: float = 60.0
    gain_db: float = 0.0
    attenuation_db_cm: float = 0.2
    """What time-gain compensation leaves."""
    blood_db: float = -28.0
    background_db: float = -18.0
    """Lung and tissue around the heart."""
    patchiness_db: float = 3.0
    """Standard deviation of slow changes of brightness over the picture."""
    drop_out_db: float = 6.0
    """Loss of walls that run along the beam."""
    clutter_db: float = -40.0
    """Near-field clutter against heart muscle."""
    speckle_memory: float = 0.6
    """Correlation of speckle from frame to frame at 40 frames a second."""
    sway_mm: float = 1.0
    foreshortening: float = 0.0
    """Share of the long axis that the plane misses."""
    rr_spread: float = 0.02
    """Standard deviation of the cycle length over its mean."""
    papillary_mm: float = 4.5
    rib_db: float = 0.0
    """Shadow behind a rib; 0: none."""
    gamma: float = 1.0
    skip_db: float = 0.0
    """Loss of random frames' gain: poor contact."""
    mirrored: bool = False
    overlay: bool = True
    colour_bar: bool = True
    ecg: bool = True
    arrhythmia: bool = False
    wild: bool = False
    """Contrast curve and texture beyond what is physically plausible."""
    calibration: Calibration = "right"

    @property
    def apical(self) -> bool:
        """Whether the clip shows the left ventricle from its apex."""
        return self.view in APICAL


def draw_echo(seed: int, *, split: str = "s0", **overrides: Any) -> EchoSpec:
    """Draw the parameters of a seed of *split*; *overrides* replace fields by name and change no others.

    Raises PhantomSeedError and PhantomSpecError.
    """
    require_split(seed, split)
    unknown = sorted(set(overrides) - {f.name for f in fields(EchoSpec)} - {"seed", "split"})
    if unknown:
        raise PhantomSpecError(f"no such parameter: {', '.join(unknown)}")
    rng = np.random.default_rng([seed, 77])
    table = {**DISTRIBUTIONS["base"], **DISTRIBUTIONS["chances"], **DISTRIBUTIONS["sets"][split]}
    number: dict[str, Any] = {name: float(rng.uniform(*table[name])) for name in DISTRIBUTIONS["base"]}
    chance = {name: bool(rng.random() < table[name]) for name in DISTRIBUTIONS["chances"]}
    apical = chance.pop("apical")
    choices = APICAL if apical else OTHER
    view = choices[int(rng.integers(0, len(choices)))]
    calibrations: tuple[Calibration, ...] = ("right", "missing", "outside")
    calibration = calibrations[int(rng.choice(3, p=(0.7, 0.15, 0.15)))]
    start = float(rng.random())
    if not chance.pop("rib"):
        number["rib_db"] = 0.0
    if chance["arrhythmia"]:
        number["rr_spread"] = 0.18
    if chance["wild"]:
        number["gamma"] *= float(rng.uniform(0.6, 1.6))
        number["dynamic_range_db"] *= float(rng.uniform(0.7, 1.4))
        number["blood_db"] += float(rng.uniform(-8.0, 8.0))
    # Two ejections have to fit: a clip without a full beat is asked for by name.
    number["duration_s"] = max(number["duration_s"], 125.0 / number["heart_rate"])
    spec = EchoSpec(seed=seed, split=split, view=view, calibration=calibration, start=start, **number, **chance)
    spec = replace(spec, **overrides)
    if min(spec.columns, spec.frame_rate, spec.duration_s, spec.depth_mm, spec.long_axis_mm) <= 0:
        raise PhantomSpecError("sizes and times are positive")
    if not 0.0 < spec.ef < 90.0:
        raise PhantomSpecError("an ejection fraction lies between 0 and 90 per cent")
    return spec
