"""SR and picture of an echocardiographic clip under dciodvfy: no line may begin with ``Error``."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.evidence_cases import run

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.ports import EvidenceInput
from wetread.core.results import result_set
from wetread.detection.evaluation.measure import drive
from wetread.detection.registry import bundled_folder, companion, load, read_folder

IODS = {"sr": "Comprehensive3DSR", "sc": "SCImage", "source": "USMultiFrameImage"}


@pytest.mark.slow
@pytest.mark.server("dicom3tools")
def test_objects_of_a_clip_and_the_clip_itself_are_valid(tmp_path: Path) -> None:
    installed = read_folder(bundled_folder() / "echo-ef")
    (source,) = companion(installed, "cases").good_objects()
    volume = assemble_input([source], PydicomFrameDecoder(), installed.info.manifest.input)
    result = drive(load(installed), OnnxRuntimeClient(installed.networks), volume)
    assert result.state == "measured"
    header = dcmread(BytesIO(source), stop_before_pixels=True)
    record = run(study_uid=str(header.StudyInstanceUID), detector="echo-ef", title=installed.info.manifest.title)
    evidence = EvidenceInput(
        result=result_set(record, result, volume.frames),
        headers=[header],
        mask=result.mask,
        read_plane=lambda plane: volume.voxels[plane],
        captures=[item.data for item in result.attachments if item.capture],
    )
    objects = {item.role: item.data for item in Encoder().encode(evidence)}
    assert set(objects) == {"sr", "sc"}
    for role, data in (*objects.items(), ("source", source)):
        path = tmp_path / f"{role}.dcm"
        path.write_bytes(data)
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert IODS[role] in lines
        assert [line for line in lines if line.startswith("Error")] == [], role
