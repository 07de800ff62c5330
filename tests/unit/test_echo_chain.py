"""From a clip and the network's answers to findings and DICOM; the answers here are the phantom's own outlines."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from tests.evidence_cases import run

from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import CineCalibration
from wetread.core.errors import NotProcessable
from wetread.core.ports import EvidenceInput
from wetread.core.results import result_set
from wetread.echo.analysis import analyse, band_of, prepare
from wetread.echo.answer import DIASTOLE, SYSTOLE, result_of
from wetread.echo.sector import to_grid
from wetread.orchestration.compose import Composition
from wetread.testing.phantoms.echo import echo_phantom
from wetread.testing.phantoms.echo_dicom import echo_dataset

OPTIONS = {
    "view": "a4c",
    "columns": 160.0,
    "frame_rate": 25.0,
    "duration_s": 1.4,
    "heart_rate": 95.0,
    "start": 0.85,
    "ef": 57.0,
    "rr_spread": 0.0,
    "arrhythmia": False,
    "foreshortening": 0.0,
    "calibration": "right",
    "third_axis": 1.0,
    "mirrored": False,
}
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def made():
    return echo_phantom(2_900_030, **OPTIONS)


@pytest.fixture(scope="module")
def cine(made):
    return made.to_cine()


def answers(made, cine, view=(4.0, 1.0, -3.0), factor=12.0):
    """What a network that outlines as the truth does would answer."""
    clip = prepare(cine)
    cover = to_grid(made.cavity[clip.chosen].astype(np.float32), clip.sector.square)
    lv = (factor * (cover - 0.5))[:, None]
    return clip, {"lv": lv, "view": np.tile(np.array(view, np.float32), (len(lv), 1))}


def refusal(cine, clip, outputs):
    with pytest.raises(NotProcessable) as caught:
        analyse(cine, clip, outputs, view_threshold=THRESHOLD)
    return caught.value.reason


@pytest.fixture(scope="module")
def found(made, cine):
    clip, outputs = answers(made, cine)
    return analyse(cine, clip, outputs, view_threshold=THRESHOLD)


def test_true_outlines_give_the_true_fraction_and_volumes(made, found):
    assert found.fraction == pytest.approx(made.truth.ef, abs=2.5)
    assert len(found.beats) == made.truth.beats
    assert found.volume_ml(found.shown.full) == pytest.approx(made.truth.edv_ml, rel=0.08)
    assert found.volume_ml(found.shown.emptied) == pytest.approx(made.truth.esv_ml, rel=0.12)
    assert found.view == 0
    assert found.cell_mm == pytest.approx(made.mm_per_pixel * found.clip.sector.square.step)
    assert band_of(found, {"half_width": 5.0}) == pytest.approx(np.hypot(5.0, found.spread))


def test_the_result_says_measured_and_shows_where(made, cine, found):
    result = result_of(found, cine, 6.0)
    whole, diastole, systole = result.observations
    assert result.state == "measured"
    fraction = whole.measures[0]
    assert (fraction.name, fraction.unit, fraction.uncertainty) == ("ejection_fraction", "%", 6.0)
    assert [m.unit for m in (*diastole.measures, *systole.measures)] == ["s", "mL", "s", "mL"]
    for seen, label in ((diastole, DIASTOLE), (systole, SYSTOLE)):
        assert set(np.unique(result.mask[seen.key_plane])) == {0, label}
        true, marked = made.cavity[seen.key_plane], result.mask[seen.key_plane] > 0
        assert 2 * (true & marked).sum() / (true.sum() + marked.sum()) > 0.95
    assert set(np.flatnonzero(result.mask.any(axis=(1, 2)))) == {diastole.key_plane, systole.key_plane}
    document = json.loads(result.attachments[0].data)
    assert [o["frame"] for o in document["outlines"]] == [diastole.key_plane + 1, systole.key_plane + 1]
    assert len(document["outlines"][0]["points"]) == 90
    assert document["mm_per_pixel"] == pytest.approx(made.mm_per_pixel, rel=1e-3)


def test_the_objects_say_fraction_band_and_frames_and_write_no_segmentation(made, cine, found):
    header = echo_dataset(made)
    result = result_of(found, cine, 6.0)
    record = run(study_uid=str(header.StudyInstanceUID), detector="echo-ef")
    del header.PixelData
    frames = tuple(replace(f, sop_instance_uid=str(header.SOPInstanceUID)) for f in cine.frames)
    evidence = EvidenceInput(
        result=result_set(record, result, frames),
        headers=[header],
        mask=result.mask,
        read_plane=lambda plane: cine.voxels[plane],
        captures=[item.data for item in result.attachments if item.capture],
    )
    assert {finding.volume_ml() for finding in evidence.result.findings} == {None}, "the two are never added up"
    objects = {item.role: dcmread(BytesIO(item.data)) for item in Encoder().encode(evidence)}
    assert set(objects) == {"sr", "sc"}
    said_in = "\n".join(str(e.value) for e in objects["sr"].iterall() if e.VR != "SQ")
    for said in ("Cardiac ejection fraction", "18026-5", "18148-7", "segmentation_omitted", "range of measurement"):
        assert said in said_in
    shown = {str(e.value) for e in objects["sr"].iterall() if e.keyword == "ReferencedFrameNumber"}
    assert shown == {str(seen.key_plane + 1) for seen in result.observations}
    assert objects["sc"].SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID


@pytest.mark.parametrize(
    ("calibration", "flag"),
    [
        (lambda right: None, None),
        (lambda right: replace(right, mm=(0.2 * right.mm[0],) * 2), "calibration_implausible"),
        (lambda right: replace(right, mm=(right.mm[0], 1.4 * right.mm[0])), "calibration_not_of_picture"),
        (lambda right: CineCalibration(right.mm, (0, 0, 40, 40)), "calibration_not_of_picture"),
    ],
)
def test_no_millilitres_without_a_calibration_of_this_picture(made, cine, calibration, flag):
    clip, outputs = answers(made, cine)
    other = replace(cine, calibration=calibration(cine.calibration))
    result = result_of(analyse(other, clip, outputs, view_threshold=THRESHOLD), other, 5.0)
    assert "mL" not in {m.unit for seen in result.observations for m in seen.measures}
    assert result.observations[0].measures[0].value > 40, "a ratio needs no millimetres"
    assert flag is None or flag in result.flags


def test_what_cannot_be_measured_has_a_typed_reason(made, cine):
    clip, outputs = answers(made, cine)
    count = len(outputs["lv"])
    assert refusal(cine, clip, outputs | {"view": np.tile(np.float32([0, 0, 5]), (count, 1))}) == "view"
    none = outputs | {"lv": np.full_like(outputs["lv"], -9.0)}
    assert refusal(cine, clip, none) == "ventricle_not_found"
    rare = outputs["lv"].copy()
    rare[::2] = -9.0
    assert refusal(cine, clip, outputs | {"lv": rare}) == "ventricle_not_found"
    still = np.repeat(outputs["lv"][:1], count, axis=0)
    assert refusal(cine, clip, outputs | {"lv": still}) == "no_full_beat"
    grown = outputs["lv"].copy()
    grown[::2] = np.maximum(grown[::2], np.roll(grown[::2], 14, axis=3))
    assert refusal(cine, clip, outputs | {"lv": grown}) == "unsteady_outline"


def lose(outputs, frames):
    """Answers in which the outline of some frames shrinks to a piece near the apex."""
    lv = outputs["lv"].copy()
    for frame in frames:
        rows = np.flatnonzero((lv[frame, 0] > 0).any(axis=1))
        lv[frame, 0, rows[len(rows) // 5] :] = lv.min()
    return outputs | {"lv": lv}


def test_a_beat_in_which_the_outline_is_lost_is_left_out_and_a_clip_of_such_beats_refused():
    made = echo_phantom(2_900_030, **OPTIONS | {"duration_s": 1.6, "frame_rate": 50.0})
    cine = made.to_cine()
    clip, outputs = answers(made, cine)
    found = analyse(cine, clip, outputs, view_threshold=THRESHOLD)
    first, second = found.beats
    without = analyse(cine, clip, lose(outputs, [second.systole]), view_threshold=THRESHOLD)
    assert [(beat.diastole, beat.systole) for beat in without.beats] == [(first.diastole, first.systole)]
    assert without.fraction == pytest.approx(100 * first.fraction, abs=0.5)
    assert refusal(cine, clip, lose(outputs, [first.systole, second.systole])) == "unsteady_outline"
    between = analyse(cine, clip, lose(outputs, [first.systole + 8]), view_threshold=THRESHOLD)
    assert between.fraction == pytest.approx(found.fraction, abs=0.5), "it ejects nothing there"


def test_a_ventricle_that_empties_by_85_per_cent_has_not_lost_its_outline():
    strong = echo_phantom(2_900_031, **OPTIONS | {"ef": 85.0})
    clip, outputs = answers(strong, strong.to_cine())
    assert analyse(strong.to_cine(), clip, outputs, view_threshold=THRESHOLD).fraction == pytest.approx(85, abs=4)


def test_flow_in_colour_is_refused_and_fast_clips_are_thinned(cine):
    inside = prepare(cine).sector.inside
    with pytest.raises(NotProcessable) as caught:
        prepare(replace(cine, coloured=inside & (np.arange(inside.shape[1]) % 3 == 0)))
    assert caught.value.reason in {"colour_flow", "no_picture"}
    fast = replace(cine, times_s=cine.times_s / 5)
    assert len(prepare(fast).chosen) == -(-len(cine.voxels) // 2)
    assert prepare(cine, longest_s=1.0).times_s[-1] <= 1.0


def test_the_source_of_a_clip_is_read_once_for_its_report_not_once_a_frame():
    asked = []
    composition = object.__new__(Composition)
    studies = SimpleNamespace(locate=lambda tx, tenant, study, uids: asked.extend(uids))
    composition._ports = SimpleNamespace(studies=studies)
    run_of = SimpleNamespace(tenant="t", study_uid="1")
    composition._located(None, SimpleNamespace(run=run_of, sop_instance_uids=("1.2", "1.2", "1.2")))
    assert asked == ["1.2"]
