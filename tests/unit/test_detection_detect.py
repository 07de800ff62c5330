"""``wetread detect``: a folder of DICOM in, results out, no server."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.errors import ConfigurationError, NotFound
from wetread.core.ruo import RUO_STATEMENT
from wetread.detection.artifact import read_mask
from wetread.detection.commands import detect
from wetread.detection.folder import studies_in
from wetread.testing.sections import ct_plane, part10
from wetread.testing.toy_detector import write_toy


@pytest.fixture
def models(tmp_path):
    write_toy(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def run(models, tmp_path):
    def go(folder=None, **options):
        return detect(
            options.pop("name", "toy"),
            folder or tmp_path / "dicom",
            decoder=PydicomFrameDecoder(),
            inference=lambda networks: OnnxRuntimeClient(networks, threads=1),
            threads=1,
            bundled=models,
            **options,
        )

    return go


def write_study(folder, count=5, *, bright=True, **attributes):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        values = np.full((8, 8), 1024, np.int16)
        if bright and k == 2:
            values[2:4, 2:6] = 1300
        header = ct_plane(values, (0, 0, 5.0 * k), number=k + 1, **attributes)
        (folder / f"{header.InstanceNumber}.dcm").write_bytes(part10(header))


def test_each_study_of_the_folder_has_one_result(run, tmp_path):
    write_study(tmp_path / "dicom" / "a")
    write_study(tmp_path / "dicom" / "b", series="b", bright=False, StudyInstanceUID="1.2.9")
    (tmp_path / "dicom" / "notes.txt").write_text("not DICOM")
    dark, bright = sorted(run(), key=lambda r: r["state"])
    assert (bright["state"], bright["detector"], bright["version"]) == ("positive", "toy", "1.0.0")
    assert bright["findings"][0]["volume_ml"] == pytest.approx(0.01)
    assert bright["ruo"] == RUO_STATEMENT
    assert (dark["state"], dark["study_uid"]) == ("negative", "1.2.9")
    json.dumps([dark, bright])


def test_where_the_score_came_from_is_written_too(run, tmp_path):
    write_study(tmp_path / "dicom")
    run(out=tmp_path / "out", parameters={"behave": "explain"})
    (path,) = (tmp_path / "out").glob("*/*")
    with np.load(path) as archive:
        assert (path.name, float(archive["values"].max())) == ("explanation.npz", 0.5)


def test_masks_are_written_where_asked(run, tmp_path):
    write_study(tmp_path / "dicom")
    run(out=tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert read_mask(path.read_bytes()).sum() == 8


@pytest.mark.parametrize(
    ("attributes", "count", "state", "reason"),
    [
        ({"Modality": "MR"}, 5, "not_applicable", "modality"),
        ({"ContrastBolusAgent": "Iohexol"}, 5, "not_applicable", "contrast"),
        ({"ImagePositionPatient": None}, 5, "not_processable", "no_geometry"),
        ({}, 2, "not_processable", "missing_slices"),
        ({"RescaleSlope": None}, 5, "not_processable", "rescale_missing"),
    ],
)
def test_refusals_are_answers(run, tmp_path, attributes, count, state, reason):
    write_study(tmp_path / "dicom", count, **attributes)
    (answer,) = run()
    assert (answer["state"], answer["reason"]) == (state, reason)
    assert answer["findings"] == []


def test_what_cannot_be_asked_is_said(run, tmp_path):
    (tmp_path / "dicom").mkdir()
    with pytest.raises(NotFound, match="no DICOM"):
        run()
    with pytest.raises(NotFound, match="no detector"):
        run(name="absent")
    write_study(tmp_path / "dicom")
    with pytest.raises(ConfigurationError, match="no parameter"):
        run(parameters={"colour": "red"})


def test_facts_of_a_real_folder(shared, tmp_path):
    with tarfile.open(shared / "head-ct" / "GE-HiSpeed-head-gantry-tilt.tar.xz", "r:xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (study,) = studies_in(tmp_path)
    (series,) = study.facts.series
    assert (series.modality, series.body_part, series.kernel, series.contrast) == ("CT", "HEAD", "STD+", False)
    assert len(series.instances) == len(study.files) == 28
    assert {i.gantry_tilt for i in series.instances} == {18.5}
