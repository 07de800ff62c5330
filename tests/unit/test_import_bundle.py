"""A bundle's steps become ours: read as data, found again in the planes of the source; a repository likewise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.detector import FrameRef, Volume
from wetread.core.errors import NotProcessable
from wetread.detection.artifact import read_mask
from wetread.detection.commands import detect
from wetread.detection.importing.bundle_steps import Unknowable, steps_of
from wetread.detection.importing.door import Accepted, bring_in, look
from wetread.detection.importing.errors import ImportRefused
from wetread.detection.importing.triton_config import read
from wetread.detection.recipes.index_space import of_volume
from wetread.detection.recipes.segmentation import Normalise, Orient, Scale, Spacing, Steps, labelled, prepared, windows
from wetread.detection.registry import discover, read_network
from wetread.testing.onnx_bytes import elementwise_model
from wetread.testing.phantoms.series import series_of

WINDOW = [16, 16, 16]
METADATA = {
    "version": "0.3.0",
    "network_data_format": {
        "inputs": {"image": {"modality": "CT", "num_channels": 1, "spatial_shape": ["8*n", "8*n", "8*n"]}},
        "outputs": {"pred": {"num_channels": 1, "channel_def": {"0": "bright region"}}},
    },
}
INFERENCE = {
    "bundle_root": "$os.path.dirname(__file__)",
    "pixdim": [3.0, 3.0, 3.0],
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "a_min": -100, "a_max": 300, "b_min": -1, "b_max": 1, "clip": True},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": WINDOW, "sw_batch_size": 4, "overlap": 0.5},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Invertd", "transform": "@preprocessing"},
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "SaveImaged", "output_dir": "$__import__('os').mkdir('made')"},
        ],
    },
}
LITERALS = {**INFERENCE, "postprocessing": {"transforms": INFERENCE["postprocessing"]["transforms"][1:2]}}


def changed(part: str, number: int, **values) -> dict:
    """The configuration with one step changed."""
    copy = json.loads(json.dumps(LITERALS))
    copy[part]["transforms"][number] |= values
    return copy


def bundle(folder: Path, inference: dict, weights: bytes, name: str = "model.onnx") -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    (folder / "models" / name).write_bytes(weights)
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004")
    return folder


def ball(*, flip: bool = False) -> Volume:
    """Soft tissue with a ball of 200 HU and 14 mm radius, left, in front and high of the middle."""
    size, step = 40, 2.5
    x = (np.arange(size) - (size - 1) / 2) * 2.0
    z, y, x = np.meshgrid((np.arange(30) - 14.5) * step, x, x, indexing="ij")
    voxels = np.where((x - 12) ** 2 + (y + 9) ** 2 + (z - 10) ** 2 < 14.0**2, 200.0, 0.0).astype(np.float32)
    origins = np.column_stack([np.full((30, 2), -39.0), (np.arange(30) - 14.5) * step])
    across = np.array([1.0, 0, 0])
    if flip:
        voxels, across = np.ascontiguousarray(voxels[:, :, ::-1]), -across
        origins[:, 0] = 39.0
        voxels, origins = np.ascontiguousarray(voxels[::-1]), origins[::-1].copy()
    frames = tuple(FrameRef(f"1.2.{k}") for k in range(30))
    return Volume(voxels, origins, across, np.array([0, 1.0, 0]), (2.0, 2.0), np.full(30, step), frames)


SIGMOID = elementwise_model("Sigmoid", input_name="x", output_name="p", shape=(-1, 1, *WINDOW))


def test_a_bundle_comes_in_as_a_detector_that_finds_its_region_in_a_series(tmp_path) -> None:
    """From the folder that its authors ship to the mask on the planes of a CT series; nothing of it was evaluated."""
    source = bundle(tmp_path / "source", INFERENCE, SIGMOID)
    seen = look(source)
    assert (seen.form, seen.licence) == ("monai", "Apache-2.0")
    (folder,) = bring_in(source, tmp_path / "detectors", "bright", Accepted(seen.digest, "Apache-2.0"))
    assert not (tmp_path / "made").exists()
    installed = discover(str(tmp_path / "detectors"))["bright"]
    assert installed.info.card.shadow
    assert json.loads((folder / "model-card.json").read_text())["origin"]["bundle"]["steps"] == "mapped"
    for flip in (False, True):
        volume, scratch = ball(flip=flip), tmp_path / f"series-{flip}"
        scratch.mkdir()
        for number, data in enumerate(series_of(volume, seed=3, modality="CT")):
            (scratch / f"{number}.dcm").write_bytes(data)
        (answer,) = detect(
            "bright",
            scratch,
            decoder=PydicomFrameDecoder(),
            inference=lambda networks: OnnxRuntimeClient(networks, threads=1),
            detectors=str(tmp_path / "detectors"),
            out=tmp_path / f"out-{flip}",
        )
        (finding,) = answer["findings"]
        assert answer["state"] == "measured"
        assert finding["meaning"] == "Region named by an imported model"
        assert finding["volume_ml"] == pytest.approx(4 / 3 * math.pi * 1.4**3, rel=0.08)
        (path,) = (tmp_path / f"out-{flip}").glob("*.npz")
        found, truth = read_mask(path.read_bytes()) > 0, volume.voxels > 100
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93


def test_the_steps_are_those_of_the_configuration() -> None:
    bundled = steps_of(LITERALS, METADATA)
    assert bundled.modality == "CT"
    assert bundled.steps == Steps(
        before=(Orient("RAS"), Spacing((3.0, 3.0, 3.0)), Scale(-100.0, 300.0, -1.0, 1.0, clip=True)),
        window=(16, 16, 16),
        overlap=0.5,
        activation="none",
        threshold=0.5,
        channels=("bright region",),
    )


@pytest.mark.parametrize(
    ("inference", "names"),
    [
        (changed("preprocessing", 2, axcodes="SAR"), "Orientationd"),
        (changed("preprocessing", 3, pixdim=[1, 1]), "Spacingd"),
        (changed("preprocessing", 3, mode="bicubic"), "Spacingd"),
        (changed("preprocessing", 4, a_max=-200), "ScaleIntensityRanged"),
        (changed("preprocessing", 4, a_min=float("nan")), "ScaleIntensityRanged"),
        (changed("preprocessing", 4, _target_="my.code.RandFogd"), "RandFogd"),
        (changed("postprocessing", 0, _target_="KeepLargestConnectedComponentd"), "KeepLargestConnectedComponentd"),
        ({**LITERALS, "inferer": {**LITERALS["inferer"], "mode": "gaussian"}}, "SlidingWindowInferer"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name(inference, names) -> None:
    with pytest.raises(ImportRefused, match=names) as refused:
        steps_of(inference, METADATA)
    assert refused.value.code == "unknown_transform"


@pytest.mark.parametrize(
    ("inference", "metadata"),
    [
        (changed("preprocessing", 3, pixdim="$print(open('/etc/passwd').read())"), METADATA),
        (changed("preprocessing", 3, pixdim=["$1", 1, 1]), METADATA),
        (changed("preprocessing", 3, pixdim="@elsewhere"), METADATA),
        (changed("preprocessing", 3, _disabled_="$1"), METADATA),
        ({**LITERALS, "inferer": {"_target_": "SimpleInferer"}}, METADATA),
        (LITERALS, {"network_data_format": {}}),
    ],
)
def test_what_only_running_the_bundle_would_tell_stays_unknown(inference, metadata) -> None:
    with pytest.raises(Unknowable):
        steps_of(inference, metadata)


def test_a_step_that_the_bundle_switches_off_is_left_out() -> None:
    steps = steps_of(changed("preprocessing", 3, _disabled_=True), METADATA).steps
    assert not any(isinstance(step, Spacing) for step in steps.before)


def test_a_step_outside_the_list_keeps_the_whole_bundle_out(tmp_path) -> None:
    for number, part in enumerate(("preprocessing", "postprocessing")):
        source = bundle(tmp_path / str(number), changed(part, 0, _target_="my.code.Evil"), SIGMOID)
        with pytest.raises(ImportRefused, match="Evil") as refused:
            look(source)
        assert refused.value.code == "unknown_transform"


def test_axes_sizes_and_values_after_the_steps() -> None:
    for flip in (False, True):
        image = prepared(of_volume(ball(flip=flip)), (Orient("RAS"), Spacing((3.0, 3.0, 3.0))))
        assert np.allclose(np.diag(image.affine)[:3], 3.0)
        where = np.argwhere(image.values > 100).mean(axis=0) @ image.affine[:3, :3].T + image.affine[:3, 3]
        assert where == pytest.approx((-12.0, 9.0, 10.0), abs=0.4), "RAS mm: left is negative"
    left = prepared(of_volume(ball()), (Orient("LPS"),))
    assert np.sign(np.diag(left.affine)[:3]).tolist() == [-1, -1, 1]
    clipped = prepared(of_volume(ball()), (Scale(50.0, 150.0, 0.0, 1.0, clip=True),)).values
    assert (clipped.min(), clipped.max()) == (0.0, 1.0)
    own = prepared(of_volume(ball()), (Scale(None, None, -1.0, 1.0),)).values
    assert (own.min(), own.max()) == (-1.0, 1.0)
    scored = prepared(of_volume(ball()), (Normalise(nonzero=False),)).values
    assert (float(scored.mean()), float(scored.std())) == pytest.approx((0.0, 1.0), abs=1e-3)
    empty = Volume(**{n: getattr(ball(), n) for n in Volume.__dataclass_fields__} | {"voxels": np.zeros((30, 40, 40))})
    for step in (Normalise(nonzero=True), Scale(None, None, 0.0, 1.0)):
        with pytest.raises(NotProcessable):
            prepared(of_volume(empty), (step,))
    with pytest.raises(NotProcessable):
        prepared(of_volume(ball()), (Spacing((0.01, 0.01, 0.01)),))


@pytest.mark.parametrize(("shape", "overlap"), [((16, 16, 16), 0.5), ((17, 40, 33), 0.25), ((64, 16, 20), 0.9)])
def test_windows_cover_everything_and_stay_inside(shape, overlap) -> None:
    seen = np.zeros(shape, int)
    for place in windows(shape, (16, 16, 16), overlap):
        assert seen[place].shape == (16, 16, 16)
        seen[place] += 1
    assert seen.min() >= 1


def test_labels_by_strongest_channel_and_by_threshold() -> None:
    values = np.array([[3.0, 0.0, -5.0], [1.0, 2.0, -4.0], [0.0, 1.9, -9.0]], np.float32).reshape(3, 3, 1, 1)

    def of(activation, threshold, channels):
        return labelled(values, Steps((), (1, 1, 1), 0.0, activation, threshold, channels)).ravel().tolist()

    assert of("softmax", None, ("background", "liver", "spleen")) == [0, 1, 1]
    assert of("sigmoid", 0.5, ("heart", "liver", "spleen")) == [1, 2, 0]
    assert of("none", None, ("heart", "background", "spleen")) == [1, 0, 0]


# --- Triton ----------------------------------------------------------------------------------------------------------

CONFIG = """
name: "blur"  # the platform is named, not the backend
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x", data_type: TYPE_FP32, dims: [ 1, 8, 8 ] } ]
output { name: 'p' data_type: TYPE_FP32 dims: 1 dims: 8 dims: 8 }
instance_group [{ kind: KIND_CPU, count: 1 }]
dynamic_batching { priority_levels: 2; default_priority_level: 2 }
parameters: { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: { string_value: "no" } }
"""


def repository(folder: Path, config: str = CONFIG, **weights: bytes) -> Path:
    for version, data in weights.items():
        (folder / version.removeprefix("v")).mkdir(parents=True)
        (folder / version.removeprefix("v") / "model.onnx").write_bytes(data)
    (folder / "config.pbtxt").write_text(config)
    return folder


def test_a_configuration_is_read_as_text() -> None:
    said = read(CONFIG.encode())
    assert (said.kind, said.inputs, said.outputs) == ("onnx", (("x", (1, 8, 8)),), (("p", (1, 8, 8)),))
    unbatched = read(b'backend: "pytorch" input { name: "INPUT__0" dims: [-1, 3, 4] }')
    assert (unbatched.kind, unbatched.inputs) == ("torchscript", (("INPUT__0", (3, 4)),))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('backend: "python"', "code_in_weights"),
        ('backend: "tensorrt"', "unknown_architecture"),
        ("", "unknown_architecture"),
        ('platform: "ensemble"', "unknown_architecture"),
        ("input [ {", "unknown_format"),
        ("}", "unknown_format"),
        ("input { dims: [ x ] } backend: 'onnxruntime'", "unknown_format"),
        ("a { " * 40, "unknown_format"),
        ("\x00\xff`", "unknown_format"),
    ],
)
def test_a_configuration_of_something_else_has_its_reason(config, reason) -> None:
    with pytest.raises(ImportRefused) as refused:
        read(config.encode())
    assert refused.value.code == reason


def test_a_repository_comes_in_with_its_highest_version_and_what_its_configuration_says(tmp_path) -> None:
    fixed = elementwise_model("Sigmoid", input_name="x", output_name="p", shape=(-1, 1, -1, -1))
    older = elementwise_model("Relu", input_name="x", output_name="p", shape=(-1, 1, -1, -1))
    source = repository(tmp_path / "blur", v2=older, v10=fixed)
    (source / "10" / "model.py").write_text("raise SystemExit('a program')")
    seen = look(source)
    assert (seen.form, seen.weights) == ("triton", ("10/model.onnx (onnx)",))
    (folder,) = bring_in(source, tmp_path / "in", "blur", Accepted(seen.digest, "MIT"))
    network = read_network(folder)
    assert network.tensors.inputs[0].shape == (-1, 1, 8, 8), "the sizes that the file leaves open"
    assert (folder / "1" / "model.onnx").read_bytes() == fixed


def test_a_repository_that_contradicts_itself_is_refused(tmp_path) -> None:
    other = elementwise_model("Sigmoid", input_name="volume", output_name="p", shape=(-1, 1, 8, 8))
    (tmp_path / "no-weights").mkdir()
    cases = (
        (repository(tmp_path / "other-names", v1=other), "unknown_format"),
        (repository(tmp_path / "no-weights"), "unknown_format"),
        (repository(tmp_path / "program", 'backend: "python"', v1=SIGMOID), "code_in_weights"),
    )
    for source, reason in cases:
        with pytest.raises(ImportRefused) as refused:
            bring_in(source, tmp_path / "in", "blur", Accepted(look(source).digest, "MIT"))
        assert refused.value.code == reason


def test_a_network_that_answers_differently_each_time_is_not_equivalent(tmp_path) -> None:
    path = tmp_path / "dice.onnx"
    path.write_bytes(elementwise_model("RandomNormalLike", input_name="x", output_name="p", shape=(-1, 1, 8, 8)))
    with pytest.raises(ImportRefused) as refused:
        bring_in(path, tmp_path / "in", "dice", Accepted(look(path).digest, "MIT"))
    assert refused.value.code == "not_equivalent"
    assert not (tmp_path / "in").exists()
