"""Clips with a known ejection fraction, or without a left ventricle, for evaluation and the golden case."""

from __future__ import annotations

from typing import Any

import numpy as np

from wetread.detection.evaluation.cases import Case, CaseTruth
from wetread.testing.phantoms.echo import EchoPhantom, echo_phantom
from wetread.testing.phantoms.echo_dicom import echo_object

FACTS = ("frame_rate", "heart_rate", "depth_mm", "gain_db", "blood_db", "drop_out_db", "foreshortening")
FLAGS = ("mirrored", "arrhythmia", "ecg", "wild")
QUICK: dict[str, Any] = {"view": "a4c", "columns": 160.0, "frame_rate": 20.0, "duration_s": 1.7, "heart_rate": 75.0}
"""A clip that is quick to render and to read."""


def case(split: str, seed: int, **options: Any) -> Case:
    """Make the clip of a seed; options replace fields of `EchoSpec`. Truth: ejection fraction, volumes, cavity."""
    return case_of(echo_phantom(seed, split=split, **options))


def case_of(made: EchoPhantom) -> Case:
    """Return a clip as a case."""
    spec = made.spec
    facts: dict[str, str | float | int | bool] = {name: round(float(getattr(spec, name)), 3) for name in FACTS}
    facts |= {name: bool(getattr(spec, name)) for name in FLAGS} | {"view": spec.view}
    return Case(spec.split, spec.seed, made.to_cine(), CaseTruth(measures=measures_of(made)), facts, modality="US")


def measures_of(made: EchoPhantom) -> dict[str, float]:
    """Return the true measures by the names of the detector's own."""
    truth = made.truth
    if truth.ef is None or truth.edv_ml is None or truth.esv_ml is None:
        return {}
    return {
        "left_ventricle.ejection_fraction": truth.ef,
        "left_ventricle_diastole.end_diastolic_volume": truth.edv_ml,
        "left_ventricle_systole.end_systolic_volume": truth.esv_ml,
    }


def good_objects() -> list[bytes]:
    """Return one clip: what the table of bad input breaks, and what the contract suite reads."""
    made = echo_phantom(2_900_001, **QUICK, ef=55.0, calibration="right")
    assert np.any(made.cavity)
    return [echo_object(made)]
