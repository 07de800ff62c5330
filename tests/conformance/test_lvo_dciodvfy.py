"""SR, SEG and pictures of a head CTA phantom under dciodvfy: no line may begin with ``Error``."""

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
from wetread.testing.phantoms.cta_head import cta_phantom

IODS = {"sr": "Comprehensive3DSR", "seg": "Segmentation", "sc": "SCImage"}


@pytest.mark.slow
@pytest.mark.server("dicom3tools")
def test_objects_of_an_occlusion_are_valid(tmp_path: Path) -> None:
    installed = read_folder(bundled_folder() / "lvo")
    options = companion(installed, "cases").CONTRACT_OPTIONS
    sources = cta_phantom(2_900_001, **options).to_objects()
    volume = assemble_input(sources, PydicomFrameDecoder(), installed.info.manifest.input)
    result = drive(load(installed), OnnxRuntimeClient(()), volume)
    assert result.state == "positive"
    headers = [dcmread(BytesIO(data), stop_before_pixels=True) for data in sources]
    record = run(study_uid=str(headers[0].StudyInstanceUID), detector="lvo", title=installed.info.manifest.title)
    evidence = EvidenceInput(
        result=result_set(record, result, volume.frames),
        headers=headers,
        mask=result.mask,
        read_plane=lambda plane: volume.voxels[plane],
        captures=[item.data for item in result.attachments if item.capture],
        maps=result.maps,
    )
    objects = Encoder().encode(evidence)
    assert {"sr", "seg", "sc"} == {item.role for item in objects}
    for item in objects:
        path = tmp_path / f"{item.sop_instance_uid}.dcm"
        path.write_bytes(item.data)
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert IODS[item.role] in lines
        assert [line for line in lines if line.startswith("Error")] == [], item.role
