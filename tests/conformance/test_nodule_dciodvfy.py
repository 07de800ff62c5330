"""SR, SEG and key images of a chest phantom with a nodule under dciodvfy: no line may begin with ``Error``."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from tests.evidence_cases import run

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import Change, Measure
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.ports import EvidenceInput
from wetread.core.priors import PriorResult, Priors
from wetread.core.results import result_set
from wetread.detection.registry import bundled_folder, companion, read_folder
from wetread.nodule.answer import result_of
from wetread.nodule.reading import marks_of, read
from wetread.testing.phantoms.chest import ChestSpec, chest_series, make_chest

IODS = {"sr": "Comprehensive3DSR", "seg": "Segmentation", "sc": "SCImage"}


@pytest.mark.server("dicom3tools")
def test_nodule_objects_are_valid_and_carry_units(tmp_path: Path) -> None:
    installed = read_folder(bundled_folder() / "lung-nodule")
    options = companion(installed, "cases").CONTRACT_OPTIONS
    phantom = make_chest(2_900_003, ChestSpec(**options))
    sources = chest_series(phantom)
    volume = assemble_input(sources, PydicomFrameDecoder(), installed.info.manifest.input)
    reading = read(volume)
    places = reading.frame.to_lps(reading.grid.place(reading.candidates.index))
    away = np.linalg.norm(places - np.array(phantom.nodules[0].centre_lps_mm), axis=1)
    # scores by distance: what is written, not what the network thinks, is under test
    result = result_of(reading, marks_of(reading, 1.0 - away / 400, 0.97, 3), 0.97, 1.0, None, mean_error=0.181)
    assert result.state == "positive"
    # as after a comparison with an earlier result
    prior = PriorResult(
        study_uid="2.25.77",
        result_key="9f" * 32,
        version="0.3.0",
        state="negative",
        study_date=date(2025, 10, 1),
        days=92,
    )
    measures = (Measure("volume_change", 100.0, "%", "against then"), Measure("doubling_time", 92.0, "d"))
    first = result.observations[0]
    grown = replace(first, measures=(*first.measures, *measures), change=Change("grown", prior))
    result = replace(result, observations=(grown, *result.observations[1:]))
    headers = [dcmread(BytesIO(data), stop_before_pixels=True) for data in sources]
    record = run(
        study_uid=str(headers[0].StudyInstanceUID),
        detector="lung-nodule",
        title=installed.info.manifest.title,
        priors=Priors(results=(prior,), left_out=("sex",)).record(),
    )
    evidence = EvidenceInput(
        result=result_set(record, result, volume.frames),
        headers=headers,
        mask=result.mask,
        read_plane=lambda plane: volume.voxels[plane],
    )
    objects = Encoder().encode(evidence)
    assert {item.role for item in objects} == set(IODS)
    for item in objects:
        path = tmp_path / f"{item.sop_instance_uid}.dcm"
        path.write_bytes(item.data)
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert IODS[item.role] in lines
        assert [line for line in lines if line.startswith("Error")] == [], item.role
    report = dcmread(BytesIO(next(item.data for item in objects if item.role == "sr")))
    text = str(report)
    for unit in (
        "cubic millimeter",
        "Long axis",
        "Short axis",
        "Hounsfield unit",
        "Increase in size",
        "Volume doubling time",
    ):
        assert unit in text
