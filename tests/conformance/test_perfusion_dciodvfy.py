"""SR, SEG, Parametric Maps and picture of a perfusion phantom under dciodvfy: no line may begin with ``Error``."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.evidence_cases import run

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import DynamicVolume
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.ports import EvidenceInput
from wetread.core.results import result_set
from wetread.detection.registry import bundled_folder, read_folder
from wetread.perfusion.analysis import analyse
from wetread.perfusion.answer import METHOD, result_of
from wetread.testing.phantoms.perfusion import perfusion_phantom
from wetread.testing.phantoms.perfusion_dicom import perfusion_images
from wetread.testing.sections import part10

IODS = {"sr": "Comprehensive3DSR", "seg": "Segmentation", "pm": "ParametricMap", "sc": "SCImage"}


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_perfusion_objects_are_valid(tmp_path: Path, modality: str) -> None:
    made = perfusion_phantom(
        2_900_010, modality=modality, matrix=64, planes=3, step_mm=10.0, interval_s=2.0, duration_s=50.0, side="left"
    )
    sources = [part10(image) for image in perfusion_images(made)]
    manifest = read_folder(bundled_folder() / "perfusion").info.manifest
    volume = assemble_input(sources, PydicomFrameDecoder(), manifest.input)
    assert isinstance(volume, DynamicVolume)
    result = result_of(analyse(volume), volume)
    headers = [dcmread(BytesIO(data), stop_before_pixels=True) for data in sources[: len(volume.frames)]]
    record = run(study_uid=str(headers[0].StudyInstanceUID), detector="perfusion", title=manifest.title)
    evidence = EvidenceInput(
        result=result_set(record, result, volume.frames),
        headers=headers,
        mask=result.mask,
        read_plane=None,
        captures=[item.data for item in result.attachments if item.capture],
        maps=result.maps,
    )
    objects = Encoder().encode(evidence)
    assert [item.role for item in objects] == ["sr", "seg", "pm", "pm", "pm", "pm", "sc"]
    assert METHOD.encode() in objects[0].data, "its explanation is the rule with its numbers"
    for item in objects:
        path = tmp_path / f"{item.sop_instance_uid}.dcm"
        path.write_bytes(item.data)
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert IODS[item.role] in lines
        assert [line for line in lines if line.startswith("Error")] == [], item.role
