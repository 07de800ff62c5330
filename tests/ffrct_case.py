"""An answered angiogram for tests of what follows the image chain: a tiny phantom with its own true artery."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

from wetread.core.detector import Result
from wetread.core.findings import ResultSet, Run
from wetread.core.results import result_set
from wetread.ffrct.cta import Answer, calcium_observation, label_mask, observations, solved
from wetread.ffrct.imaging.chain import Extraction
from wetread.ffrct.imaging.image import Blood, CtImage
from wetread.ffrct.imaging.tree import Artery
from wetread.testing.phantoms.coronary import CoronaryPhantom, coronary_phantom

AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@cache
def phantom(calcium: bool = False) -> CoronaryPhantom:
    return coronary_phantom(
        20_100,
        size="tiny",
        stenoses=1,
        severity=(0.55, 0.55),
        profiles=("cosine",),
        calcium=calcium,
        ostium_mm=(3.0, 3.0),
    )


def image(made: CoronaryPhantom) -> CtImage:
    grid = made.grid
    return CtImage(made.image, np.array([grid.x[0], grid.y[0], grid.z[0]]), AXES, grid.step)


@cache
def case(calcium: bool = False, closed: bool = False) -> Answer:
    """Return the answer for the phantom's true artery; *closed*: with an occlusion in it."""
    made = phantom(calcium)
    vessel = made.tree.vessels[0]
    radius = vessel.radius.copy()
    if closed:
        radius[60:66] = 0.1
    count = len(radius)
    hard = np.zeros(count, dtype=bool)
    if calcium:
        lesion = made.tree.lesions[0]
        hard = np.abs(vessel.s - lesion.centre_mm) < 0.5 * lesion.length_mm
    artery = Artery("rca", None, "RCA", vessel.points, radius, np.full(count, 0.08), np.ones(count), hard)
    extraction = Extraction((artery,), (), Blood(made.spec.lumen_hu, 30.0), ("ostia_unusual",))
    return solved(image(made), extraction, {"patient": {"q_hyp_ml_min": 150.0}, "options": {"uq_draws": 64}})


def result_of(found: Answer) -> tuple[ResultSet, Any, list[Dataset]]:
    """Return the result set, the mask, and the headers of the phantom's slices."""
    made = phantom(bool(found.extraction.arteries[0].calcium.any()))
    headers = []
    for dataset in made.slices:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        buffer.seek(0)
        headers.append(dcmread(buffer, stop_before_pixels=True))
    mask = label_mask(found)
    seen, calcium = observations(found), calcium_observation(mask)
    result = Result("measured", (*seen, calcium) if calcium else seen, mask=mask, flags=tuple(found.result["flags"]))
    from wetread.core.detector import FrameRef

    frames = tuple(FrameRef(str(h.SOPInstanceUID)) for h in headers)
    return result_set(run_of(headers[0]), result, frames), mask, headers


def run_of(header: Dataset) -> Run:
    return Run(
        result_key="ab" * 32,
        tenant="default",
        study_uid=str(header.StudyInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        detector="ffr-ct",
        version="0.1.0",
        title="CT-derived FFR",
        model_digest="cd" * 32,
        params_digest="ef" * 32,
        input_digest="01" * 32,
        rules_digest="23" * 32,
        software="wetread test",
        engine="none",
        started_at=1_772_323_200.0,
    )
