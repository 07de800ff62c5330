"""Must show 5: every object that every bundled detector makes of its golden case, under dciodvfy and read back.

Here the detectors run as they are shipped, so it is slow. Odd headers and every other outcome: test_evidence_dciodvfy.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import highdicom as hd
import pytest
from pydicom import dcmread
from ruamel.yaml import YAML
from tests.conformance.test_evidence_dciodvfy import IODS, dciodvfy
from tests.evidence_cases import detected

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.dicom.dynamic import assemble_input
from wetread.detection.evaluation.measure import case_maker, drive
from wetread.detection.registry import InstalledDetector, bundled_folder, load, read_folder
from wetread.testing.contracts.folder_suite import objects_of
from wetread.testing.phantoms.series import series_of

pytestmark = [pytest.mark.slow, pytest.mark.server("dicom3tools"), pytest.mark.timeout(300)]
MADE = {
    "brain-volumetry": {"sr", "seg"},
    "echo-ef": {"sr", "sc"},
    "ich": {"sr", "seg", "sc", "explanation"},
    "lung-nodule": {"sr", "seg", "sc", "explanation"},
    "lvo": {"sr", "seg", "sc"},
    "perfusion": {"sr", "seg", "pm", "sc"},
}
"""Kinds of objects by detector; ffr-ct, which measures in another way, has test_ffrct_dciodvfy."""
READERS = {"sr": hd.sr.srread, "seg": hd.seg.segread, "explanation": hd.seg.segread}


def golden_objects(installed: InstalledDetector) -> list[bytes]:
    """The golden case as DICOM; a clip or a dynamic series is what the contract suite reads."""
    needs = installed.info.manifest.input
    if needs.cine is not None or needs.time is not None:
        return objects_of(installed.folder)
    recipe = YAML(typ="safe").load(installed.folder / "golden.yaml")
    case = case_maker(installed)(**recipe["input"])
    seen = {"modality": case.modality, "body_part": case.body_part, "attributes": case.attributes}
    return series_of(case.volume, seed=case.seed, **seen)


def test_every_detector_is_there():
    assert {path.parent.name for path in bundled_folder().glob("*/detector.yaml")} == {*MADE, "ffr-ct"}


@pytest.mark.parametrize("name", sorted(MADE))
def test_what_a_detector_makes_is_valid(name: str, tmp_path: Path) -> None:
    installed = read_folder(bundled_folder() / name)
    sources = golden_objects(installed)
    volume = assemble_input(sources, PydicomFrameDecoder(), installed.info.manifest.input)
    result = drive(load(installed), OnnxRuntimeClient(installed.networks), volume)
    assert result.state in {"positive", "measured"}
    objects = Encoder().encode(detected(installed.info.manifest.title, sources, volume, result))
    assert {item.role for item in objects} == MADE[name]
    for item in objects:
        lines = dciodvfy(item.data, tmp_path / f"{item.sop_instance_uid}.dcm")
        assert {**IODS, "pm": "ParametricMap"}[item.role] in lines, "it was recognised, so it was checked"
        assert [line for line in lines if line.startswith("Error")] == [], item.role
        read = READERS.get(item.role, dcmread)(BytesIO(item.data))
        assert read.SOPInstanceUID == item.sop_instance_uid
    if name == "echo-ef":
        lines = dciodvfy(sources[0], tmp_path / "clip.dcm")
        assert "USMultiFrameImage" in lines
        assert [line for line in lines if line.startswith("Error")] == [], "the phantom's own clip"
