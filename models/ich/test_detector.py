"""The haemorrhage detector: geometry, findings, refusals, and the golden case through ONNX Runtime."""

import hashlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from ruamel.yaml import YAML

from wetread.core.detector import Context, FrameRef, Volume
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.core.manifest import Card, Manifest
from wetread.testing.phantoms import BleedType, HeadSpec, make, to_volume

HERE = Path(__file__).parent
SETTINGS = {"pixel_threshold": 0.5, "peak_threshold": 0.6, "offset": -2.0, "logit_weight": 1.0, "volume_weight": 1.0}
CARD = {
    "name": "ich",
    "version": "0.1.1",
    "case_model": SETTINGS,
    "operating_points": [{"name": "sens90", "threshold": 0.5, "set": "tune", "sensitivity": 0.9, "specificity": 0.9}],
    "default_operating_point": "sens90",
}


def load(name):
    found = importlib.util.spec_from_file_location(f"wetread_model_ich_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


MODULE = load("detector")
MANIFEST = Manifest.model_validate(YAML(typ="safe").load(HERE / "detector.yaml"))


@pytest.fixture(scope="module")
def detector():
    return MODULE.Detector(MANIFEST, Card.model_validate(CARD))


def simple_head(count=30, size=200, pixel=1.1, step=5.0) -> Volume:
    """A skull ellipse around 30 HU with a dense block on the left, two thirds up."""
    axis = (np.arange(size) - (size - 1) / 2) * pixel
    radius = np.hypot(axis[None, :] / 70, axis[:, None] / 88)
    slab = np.where(radius < 1, 30.0, np.where(radius < 1.1, 1000.0, -1000.0)).astype(np.float32)
    voxels = np.repeat(slab[None], count, axis=0)
    voxels[18:22, 90:110, 130:150] = 70.0
    corner = axis[0]
    origins = np.stack([np.full(count, corner), np.full(count, corner), 100 + step * np.arange(count)], axis=1)
    return Volume(
        voxels=voxels,
        origins=origins,
        row_direction=np.array([1.0, 0, 0]),
        column_direction=np.array([0, 1.0, 0]),
        pixel_spacing=(pixel, pixel),
        weights_mm=np.full(count, step),
        frames=tuple(FrameRef(f"1.2.{k}") for k in range(count)),
    )


HEAD = simple_head()
_GRID = np.arange(256) - 127.5
INNER = np.hypot(_GRID[None, :] / 60, _GRID[:, None] / 78) < 1


def block_in(hu):
    """The dense block on the slab grid (the skull's blurred edge has such values too)."""
    return (hu > 60) & (hu < 90) & INNER


def reversed_planes(volume):
    # the same scene with planes from the top down: columns run to the front, so the normal points down
    return replace(
        volume,
        voxels=volume.voxels[::-1, ::-1],
        origins=volume.origins[::-1] + volume.column_direction * volume.pixel_spacing[0] * (volume.voxels.shape[1] - 1),
        column_direction=-volume.column_direction,
        weights_mm=volume.weights_mm[::-1],
        frames=volume.frames[::-1],
    )


def transposed(volume):
    return replace(
        volume,
        voxels=volume.voxels.transpose(0, 2, 1),
        row_direction=volume.column_direction,
        column_direction=volume.row_direction,
        pixel_spacing=volume.pixel_spacing[::-1],
    )


def mirrored(volume):
    return replace(
        volume,
        voxels=volume.voxels[:, :, ::-1],
        origins=volume.origins + volume.row_direction * volume.pixel_spacing[1] * (volume.voxels.shape[2] - 1),
        row_direction=-volume.row_direction,
    )


TURNS = {"reversed": reversed_planes, "transposed": transposed, "mirrored": mirrored}


@pytest.mark.parametrize("turn", TURNS)
def test_the_same_scene_in_another_order_gives_the_same_slabs(turn):
    one, other = MODULE.make_slabs(HEAD), MODULE.make_slabs(TURNS[turn](HEAD))
    assert one.hu.shape == other.hu.shape
    assert np.abs(one.hu - other.hu).max() < 0.5


def test_pixels_flipped_without_the_geometry_swap_sides():
    one = MODULE.make_slabs(HEAD).hu
    other = MODULE.make_slabs(replace(HEAD, voxels=HEAD.voxels[:, :, ::-1])).hu
    left, right = (np.argwhere(block_in(hu))[:, 2].mean() - 127.5 for hu in (one, other))
    assert left > 10
    assert right == pytest.approx(-left, abs=1.2)


def test_left_of_the_patient_is_the_high_column_side():
    slabs = MODULE.make_slabs(HEAD)
    dense = np.argwhere(block_in(slabs.hu))
    assert dense[:, 2].mean() > 140


def test_a_rod_along_the_normal_stays_in_place_under_gantry_tilt():
    angle = np.radians(20)
    column = np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross([1.0, 0, 0], column)
    step = 5 / normal[2]
    tilted = replace(HEAD, column_direction=column)
    along_table = np.arange(30)[:, None] * np.array([0, 0, step])
    origins = HEAD.origins[:1] + along_table
    # the rod's place in the image shifts from plane to plane, as the table moves along z
    shift = along_table @ column / HEAD.pixel_spacing[0]
    voxels = np.stack([np.roll(HEAD.voxels[19], -round(s), axis=0) for s in shift])
    slabs = MODULE.make_slabs(replace(tilted, voxels=voxels, origins=origins))
    dense = [np.argwhere(block_in(s)).mean(axis=0) for s in slabs.hu[3:12]]
    # uncorrected, it would drift by 1.8 mm per plane: 14 mm over these slabs
    assert np.ptp([d[0] for d in dense]) < 3.0


def test_irregular_planes_are_read_at_their_true_positions():
    heights = np.array([0, 1, 2, 4, 7, 11, 12, 19, 25, 30.0, 34, 41, 45, 50, 56, 60])
    gaps = np.diff(heights)
    weights = (np.r_[gaps[:1], gaps] + np.r_[gaps, gaps[-1:]]) / 2
    base = HEAD.voxels[0]
    voxels = np.where(base[None] == 30, heights[:, None, None], base[None]).astype(np.float32)
    origins = np.repeat(HEAD.origins[:1], len(heights), axis=0)
    origins[:, 2] = heights
    slabs = MODULE.make_slabs(
        replace(HEAD, voxels=voxels, origins=origins, weights_mm=weights, frames=HEAD.frames[: len(heights)])
    )
    middle = slabs.hu[:, 120:136, 120:136].mean(axis=(1, 2))
    assert np.abs(middle - slabs.heights_mm).max() < 2.5
    assert np.all(np.diff(middle) > 0)


def test_windows_neighbours_and_depth_make_the_channels(detector):
    slabs = detector.preprocess(HEAD)["slabs"]
    assert slabs.shape[1:] == tuple(detector.manifest.tensors.inputs[0].shape[1:])
    assert slabs.dtype == np.float32
    assert slabs.min() >= -1
    assert slabs.max() <= 1
    assert np.array_equal(slabs[1:, 0:3], slabs[:-1, 3:6])
    assert np.array_equal(slabs[:-1, 6:9], slabs[1:, 3:6])


def test_a_heads_own_brightness_does_not_reach_the_network(detector):
    """A scanner that reads 9 HU too much, or blood cells too few: the brain is moved to one value first."""
    one = detector.preprocess(HEAD)["slabs"]
    brighter = HEAD.voxels + np.where(np.abs(HEAD.voxels - 40) < 60, 9.0, 0.0)
    other = detector.preprocess(replace(HEAD, voxels=brighter.astype(np.float32)))["slabs"]
    inside = one[:, 10] > -0.5
    assert inside.sum() > 50_000
    assert np.abs(one[:, 3] - other[:, 3])[inside].max() < 0.01


def test_depth_is_the_distance_from_the_inner_table():
    hu = np.full((1, 256, 256), -1000.0, dtype=np.float32)
    rows, columns = np.mgrid[:256, :256]
    radius = np.hypot(rows - 127.5, columns - 127.5)
    hu[0][radius < 80] = 1000.0
    hu[0][radius < 74] = 32.0
    depth = MODULE.brain_depth(hu)[0]
    assert depth[radius > 75].max() == 0
    assert np.abs(depth - (74 - radius))[radius < 70].max() < 6  # the grid has 2 mm, closing takes one of its pixels
    assert MODULE.brain_level(hu, depth[None]) == 32.0
    hu[0][100:156, 190:] = -1000.0  # a gap in the bone: nothing is enclosed
    assert MODULE.brain_depth(hu).max() == 0


def answers(slabs, box=None, kind=3, logit=-4.0):
    """Network outputs that mark `box` (slab, row, column slices) as blood of one type."""
    count = len(slabs.hu)
    prob = np.zeros((count, 6, 256, 256), dtype=np.float32)
    prob[:, 0] = 1.0
    logits = np.full((count, 1), logit, dtype=np.float32)
    cam = np.full((count, 32, 32), -6.0, dtype=np.float32)
    if box is not None:
        prob[box[0], 0, box[1], box[2]] = 0.02
        prob[box[0], kind, box[1], box[2]] = 0.98
        logits[box[0]] = 5.0
        cam[box[0], 14:18, 19:22] = 4.0
    return {"prob": prob, "case_logit": logits, "cam": cam}


def explanation_place(explanation, k, i, j):
    """Where a cell lies in the patient, by the documented formula."""
    normal = np.cross(explanation.row_direction, explanation.column_direction)
    planes, rows, columns = explanation.spacing_mm
    return (
        explanation.origin_mm
        + k * planes * normal
        + i * rows * explanation.column_direction
        + j * columns * explanation.row_direction
    )


def test_a_positive_by_volume_alone_has_an_empty_map_and_a_negative_none(detector):
    slabs = MODULE.make_slabs(HEAD)
    box = (slice(18, 22), slice(100, 130), slice(100, 130))
    silent = answers(slabs, box) | {"cam": np.full((len(slabs.hu), 32, 32), -6.0, dtype=np.float32)}
    positive = detector.postprocess(silent, Context(HEAD))
    assert positive.state == "positive"
    assert not positive.explanation.values.any()
    assert detector.postprocess(answers(slabs), Context(HEAD)).explanation is None


@pytest.mark.parametrize("turn", [None, *TURNS])
def test_findings_come_back_on_the_source_planes(detector, turn):
    volume = HEAD if turn is None else TURNS[turn](HEAD)
    slabs = MODULE.make_slabs(volume)
    index = np.argwhere(block_in(slabs.hu))
    low, high = index.min(axis=0), index.max(axis=0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    result = detector.postprocess(answers(slabs, box), Context(volume))
    truth = (volume.voxels > 60) & (volume.voxels < 90)
    overlap = 2 * (truth & (result.mask > 0)).sum() / (truth.sum() + (result.mask > 0).sum())
    observation = result.observations[0]
    measures = {m.name: m.value for m in observation.measures}
    assert result.state == "positive"
    assert overlap > 0.9
    assert observation.types == ("IPH",)
    assert observation.laterality == "left"
    assert truth[observation.key_plane].any()
    assert measures["volume"] == pytest.approx(float(truth.sum(axis=(1, 2)) @ volume.voxel_volumes_ml), rel=0.1)
    assert 60 < measures["max_attenuation"] < 90
    explanation = result.explanation
    k, i, j = np.unravel_index(explanation.values.argmax(), explanation.values.shape)
    place = explanation_place(explanation, k, i, j)
    lit = np.argwhere(truth)
    points = volume.origins[lit[:, 0]] + (
        lit[:, 2:] * volume.pixel_spacing[1] * volume.row_direction
        + lit[:, 1:2] * volume.pixel_spacing[0] * volume.column_direction
    )
    assert explanation.values.max() > 0.9
    # the marked cells are 4 slabs by 4 x 3 cells that begin up to a cell before the block
    assert np.linalg.norm(points - place, axis=1).min() < 12
    assert np.round(explanation.cells(place[None]), 6).tolist() == [[k, i, j]]


def test_nothing_found_is_negative_with_an_empty_mask(detector):
    result = detector.postprocess(answers(MODULE.make_slabs(HEAD)), Context(HEAD))
    assert result.state == "negative"
    assert not result.mask.any()
    assert result.observations[0].measures == ()
    assert result.observations[0].key_plane is None
    assert result.score < result.threshold


def test_calcium_and_specks_are_not_blood():
    hu = np.full((6, 256, 256), 30.0, dtype=np.float32)
    box = (slice(1, 4), slice(100, 110), slice(100, 110))
    hu[box] = 400.0
    slabs = MODULE.make_slabs(HEAD)
    calcium, _ = MODULE.find_bleeds(answers(replace(slabs, hu=hu), box)["prob"], hu, SETTINGS)
    hu[box] = 65.0
    blood, highest = MODULE.find_bleeds(answers(replace(slabs, hu=hu), box)["prob"], hu, SETTINGS)
    speck = (slice(2, 3), slice(100, 105), slice(100, 105))
    small, _ = MODULE.find_bleeds(answers(replace(slabs, hu=hu), speck)["prob"], hu, SETTINGS)
    assert not calcium.any()
    assert (blood > 0).sum() == 300
    assert highest == pytest.approx(65.0)
    assert not small.any()


def test_what_is_no_axial_head_is_refused(detector):
    sagittal = replace(HEAD, row_direction=np.array([0, 1.0, 0]), column_direction=np.array([0, 0, -1.0]))
    with pytest.raises(NotProcessable) as turned:
        detector.preprocess(sagittal)
    block = np.where(HEAD.voxels > -500, 40.0, -1000.0).astype(np.float32)
    with pytest.raises(NotApplicable) as belly:
        detector.preprocess(replace(HEAD, voxels=block))
    with pytest.raises(NotApplicable) as air:
        detector.preprocess(replace(HEAD, voxels=np.full_like(HEAD.voxels, -1000.0)))
    assert (turned.value.reason, belly.value.reason, air.value.reason) == (
        "mixed_orientation",
        "body_part",
        "body_part",
    )


def test_a_card_without_thresholds_is_a_configuration_error():
    bare = MODULE.Detector(MANIFEST, Card(name="ich", version="0.1.1"))
    with pytest.raises(ConfigurationError):
        bare.postprocess(answers(MODULE.make_slabs(HEAD)), Context(HEAD))


def study(**series) -> StudyFacts:
    usual = {"series_instance_uid": "1.2", "modality": "CT", "instances": (), "body_part": "HEAD"}
    facts = SeriesFacts(**(usual | series))
    return StudyFacts(tenant="t", study_instance_uid="1", series=(facts,), patient_age_years=60)


def test_applicability_by_headers(detector):
    assert detector.applicable(study()).applicable
    assert detector.applicable(study(modality="MR")).reason == "modality"
    assert detector.applicable(study(contrast=True)).reason == "contrast"
    assert detector.applicable(study(body_part="CHEST")).reason == "body_part"
    child = replace(study(), patient_age_years=1.0)
    assert detector.applicable(child).reason == "patient_age"
    with pytest.raises(NotApplicable):
        detector.select(child)


def test_mirror_registration_finds_a_displaced_ventricle():
    volume = simple_head()
    voxels = volume.voxels.copy()
    voxels[:, 90:110, 130:150] = 30.0
    voxels[:, 70:130, 92:98] = 5.0
    voxels[:, 70:130, 102:108] = 5.0
    centred = MODULE.midline_shift(MODULE.make_slabs(replace(volume, voxels=voxels)).hu)
    moved = np.where(voxels == 5.0, 30.0, voxels)
    moved[:, 70:130, 97:103] = 5.0
    moved[:, 70:130, 107:113] = 5.0
    displaced = MODULE.midline_shift(MODULE.make_slabs(replace(volume, voxels=moved)).hu)
    assert centred[0] == pytest.approx(0.0, abs=0.6)
    assert displaced[0] == pytest.approx(5.5, abs=1.2)


# --- the committed weights ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def session():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(HERE / "1" / "model.onnx"), options)


def infer(session, tensors):
    parts = [session.run(None, {"slabs": tensors[i : i + 16]}) for i in range(0, len(tensors), 16)]
    return {n: np.concatenate([p[i] for p in parts]) for i, n in enumerate(("prob", "case_logit", "cam"))}


def test_weights_are_those_of_the_manifest(session):
    data = (HERE / "1" / "model.onnx").read_bytes()
    assert hashlib.sha256(data).hexdigest() == MANIFEST.model.sha256
    assert len(data) <= 8 << 20
    names = {tensor.name: tensor.shape for tensor in MANIFEST.tensors.outputs}
    assert [i.name for i in session.get_inputs()] == [t.name for t in MANIFEST.tensors.inputs]
    assert all(tuple(o.shape[1:]) == tuple(names[o.name][1:]) for o in session.get_outputs())


@pytest.fixture(scope="module")
def golden(session):
    recipe = YAML(typ="safe").load(HERE / "golden.yaml")
    wanted = recipe["input"]
    phantom = make(
        wanted["seed"],
        HeadSpec(
            split=wanted["split"],
            thickness_mm=5.0,
            step_mm=5.0,
            regular=True,
            bleeds=tuple(BleedType[t] for t in wanted["bleeds"]),
            volume_ml=wanted["volume_ml"],
        ),
    )
    volume, truth = to_volume(phantom)
    ours = MODULE.Detector(MANIFEST, Card.model_validate_json((HERE / "model-card.json").read_text()))
    tensors = ours.preprocess(volume)
    outputs = infer(session, tensors["slabs"])
    return recipe, volume, truth, outputs, ours.postprocess(outputs, Context(volume)), ours


def test_golden_case(golden):
    recipe, _, truth, _, result, _ = golden
    expected, tolerance = recipe["expected"], recipe["tolerance"]
    stored = np.load(HERE / "golden.npz")
    mask = np.unpackbits(stored["mask"], count=truth.size).reshape(truth.shape).astype(bool)
    found = result.mask > 0
    dice = 2 * (mask & found).sum() / max(1, mask.sum() + found.sum())
    measures = {m.name: m.value for m in result.observations[0].measures}
    assert result.state == expected["state"]
    assert result.score == pytest.approx(expected["score"], abs=tolerance["score"])
    assert list(result.observations[0].types) == expected["types"]
    assert result.observations[0].key_plane == expected["key_plane"]
    assert measures["volume"] == pytest.approx(expected["volume_ml"], rel=tolerance["volume_rel"])
    assert dice >= tolerance["dice"]


def test_the_activation_of_the_golden_case_lies_on_its_blood(golden):
    """Strictly: the middle of the strongest cell is a bloody voxel of the phantom."""
    _, volume, truth, outputs, result, _ = golden
    explanation = result.explanation
    place = explanation_place(explanation, *np.unravel_index(explanation.values.argmax(), explanation.values.shape))
    plane = int(np.abs(volume.positions_mm - place @ volume.normal).argmin())
    within = place - volume.origins[plane]
    row = round(float(within @ volume.column_direction) / volume.pixel_spacing[0])
    column = round(float(within @ volume.row_direction) / volume.pixel_spacing[1])
    assert truth[plane, row, column] > 0
    assert outputs["cam"].shape[1:] == (32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("turn", TURNS)
def test_the_network_gives_the_same_answer_for_the_same_scene(golden, session, turn):
    _, volume, _, _, result, ours = golden
    turned = TURNS[turn](volume)
    other = ours.postprocess(infer(session, ours.preprocess(turned)["slabs"]), Context(turned))
    assert other.score == pytest.approx(result.score, abs=1e-3)
    assert other.observations[0].laterality == result.observations[0].laterality
    back = {
        "reversed": lambda m: m[::-1, ::-1],
        "transposed": lambda m: m.transpose(0, 2, 1),
        "mirrored": lambda m: m[:, :, ::-1],
    }[turn](other.mask)
    total = (back > 0).sum() + (result.mask > 0).sum()
    assert 2 * ((back > 0) & (result.mask > 0)).sum() >= 0.99 * total


def test_card_and_manifest_agree():
    card = json.loads((HERE / "model-card.json").read_text())
    assert (card["name"], card["version"]) == (MANIFEST.name, MANIFEST.version)
    assert card["digests"]["model_onnx_sha256"] == MANIFEST.model.sha256
    assert any(p["name"] == MANIFEST.triage.needs_operating_point for p in card["operating_points"])
