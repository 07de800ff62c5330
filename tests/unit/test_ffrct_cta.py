"""What an answered angiogram becomes: findings, mask, pictures, DICOM objects; and codes before that."""

from __future__ import annotations

import copy
import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from ruamel.yaml import YAML
from tests.ffrct_case import case, phantom, result_of

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.commands.ffr_ct import VERSION
from wetread.core.dicom.volume import assemble
from wetread.core.errors import ComputationFailed, NotApplicable, NotProcessable
from wetread.core.ports import EvidenceInput
from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct.cta import CALCIUM_LABEL, MAIN, answer, attachments, label_mask, observations, refuse
from wetread.ffrct.imaging.image import CtImage
from wetread.ffrct.imaging.quality import Refusal
from wetread.ffrct.outputs.colours import GREY, colours
from wetread.ffrct.outputs.curves import curves_of, from_ostium
from wetread.ffrct.series import header_refusal, image_of
from wetread.testing.phantoms.coronary import make_phantom


def test_the_command_writes_the_version_of_the_bundled_detector() -> None:
    model = Path(__file__).resolve().parents[2] / "models" / "ffr-ct"
    manifest = YAML(typ="safe").load((model / "detector.yaml").read_text(encoding="utf-8"))
    card = json.loads((model / "model-card.json").read_text(encoding="utf-8"))
    assert manifest["version"] == card["version"] == VERSION


def test_findings_hold_the_numbers_of_the_result_with_their_method() -> None:
    found = case()
    artery, lesion = observations(found)
    assert (artery.code, lesion.code) == ("right_coronary_artery", "coronary_stenosis")
    stated = {m.name: m for m in lesion.measures}
    result = found.result["lesions"][0]
    assert stated["lumen_diameter_stenosis"].value == result["diameter_stenosis_pct"]
    assert stated["fractional_flow_reserve"].value == result["ffr_distal_20mm"]
    assert stated["fractional_flow_reserve"].method == "ffr_method"
    assert stated["ffr_p5"].value < stated["fractional_flow_reserve"].value < stated["ffr_p95"].value
    end = {m.name: m.value for m in artery.measures}
    assert end["fractional_flow_reserve"] == found.result["vessels"][0]["ffr"][-1]


def test_a_closed_artery_is_named_and_has_no_ffr() -> None:
    found = case(closed=True)
    assert found.result["vessels"][0]["reason"] == "occluded"
    for seen in observations(found):
        assert not [m for m in seen.measures if "ffr" in m.name or m.name == "fractional_flow_reserve"]
    assert "occluded" in observations(found)[0].site


def test_mask_is_the_lumen_and_the_calcium_beside_it() -> None:
    found, made = case(), phantom()
    mask = label_mask(found)
    vessel = made.tree.vessels[0]
    ends = 2.0 / 3.0 * np.pi * (vessel.radius[0] ** 3 + vessel.radius[-1] ** 3)
    true = float(np.trapezoid(np.pi * vessel.radius**2, vessel.s) + ends)
    marked = int((mask == MAIN.index("RCA") + 1).sum()) * float(np.prod(made.grid.step))
    assert marked == pytest.approx(true, rel=0.05)
    assert not (mask == CALCIUM_LABEL).any()
    hard = label_mask(case(calcium=True)) == CALCIUM_LABEL
    assert hard.any()
    assert float(phantom(calcium=True).image[hard].min()) > made.spec.lumen_hu + 100.0


def test_attachments_are_what_their_names_say_and_all_say_research() -> None:
    files = {item.name: item for item in attachments(case())}
    assert set(files) == {"ffr.json", "tree.json", "tree.png", "tree.glb", "tree.vtp", "mpr-rca.png"}
    assert json.loads(files["ffr.json"].data)["disclaimer"].startswith(RUO_STATEMENT)
    assert RUO_STATEMENT in files["tree.vtp"].data.decode()
    for name in ("tree.png", "mpr-rca.png"):
        picture = Image.open(BytesIO(files[name].data))
        assert picture.mode == "RGB"
        assert min(picture.size) > 200
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
    assert [item.name for item in files.values() if item.capture] == ["mpr-rca.png"]
    assert files["ffr.json"].data == {i.name: i for i in attachments(case())}["ffr.json"].data


def test_glb_is_gltf_2_in_metres_with_y_up_and_ffr_per_ring() -> None:
    found = case()
    data = {i.name: i for i in attachments(found)}["tree.glb"].data
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    document = json.loads(data[20 : 20 + size])
    assert kind == b"JSON"
    assert RUO_STATEMENT in document["asset"]["copyright"]
    binary = data[20 + size + 8 :]
    assert len(binary) == document["buffers"][0]["byteLength"]
    view = document["bufferViews"][document["accessors"][0]["bufferView"]]
    first = np.frombuffer(binary, "<f4", 36, view["byteOffset"]).reshape(12, 3).mean(axis=0)
    x, y, z = found.tree["vessels"][0]["points_mm"][0]
    assert first == pytest.approx(np.array([x, z, -y]) / 1000.0, abs=2e-5)
    ffr = document["meshes"][0]["extras"]["ffr"]
    assert ffr == pytest.approx([round(v, 4) for v in found.result["vessels"][0]["ffr"]])


def test_colours_and_the_way_from_the_ostium() -> None:
    rgb = colours(np.array([1.0, 0.8, 0.5, 0.2, np.nan]))
    assert tuple(rgb[4]) == GREY
    assert tuple(rgb[2]) == tuple(rgb[3])
    assert rgb[0][2] > rgb[0][0]
    assert rgb[2][0] > rgb[2][2]
    tree = {
        "vessels": [
            {"id": "a", "parent": None, "points_mm": [[x, 0.0, 0.0] for x in range(11)], "radius_mm": [2.0] * 11},
            {"id": "b", "parent": "a", "points_mm": [[5.0, y, 0.0] for y in range(6)], "radius_mm": [1.0] * 6},
        ]
    }
    values = [{"ffr": [0.9] * n, "ffr_p5": None, "ffr_p95": None} for n in (11, 6)]
    way = from_ostium(curves_of(tree, {"vessels": values}), "b")
    assert way.points[:, 0].max() == 5.0
    assert len(way.points) == 12


def test_report_and_segmentation_say_what_the_json_says() -> None:
    found = case()
    result, mask, headers = result_of(found)
    captures = [item.data for item in attachments(found) if item.capture]
    evidence = EvidenceInput(result=result, headers=headers, mask=mask, read_plane=None, captures=captures)
    objects = {item.role: dcmread(BytesIO(item.data)) for item in Encoder().encode(evidence)}
    assert set(objects) == {"sr", "seg", "sc"}
    numbers = list(_numbers(objects["sr"]))
    lesion = found.result["lesions"][0]
    ffr = [n for n in numbers if n["code"] == "371842003"]
    assert float(f"{lesion['ffr_distal_20mm']:.6g}") in [n["value"] for n in ffr]
    assert all(n["method"] == ("ffr-method", "99WETREAD") for n in ffr)
    assert float(f"{lesion['mla_mm2']:.6g}") in [n["value"] for n in numbers if n["code"] == "397415007"]
    assert objects["seg"].SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "13647002"
    picture = Image.open(BytesIO(captures[0]))
    assert (objects["sc"].Columns, objects["sc"].Rows) == picture.size
    assert objects["sc"].pixel_array.tobytes() == picture.tobytes()


def _numbers(item: Any) -> Any:
    for content in item.get("ContentSequence", []):
        if content.ValueType == "NUM":
            methods = [
                (c.ConceptCodeSequence[0].CodeValue, c.ConceptCodeSequence[0].CodingSchemeDesignator)
                for c in content.get("ContentSequence", [])
                if c.ValueType == "CODE"
            ]
            yield {
                "code": content.ConceptNameCodeSequence[0].CodeValue,
                "value": float(content.MeasuredValueSequence[0].NumericValue),
                "method": methods[0] if methods else None,
            }
        yield from _numbers(content)


# --- codes before any pixel is looked at ---------------------------------------------------------------------------


def tiny(**overrides: Any) -> list[Any]:
    return make_phantom(20_101, size="tiny", noise_hu=0.0, **overrides)[0]


def test_headers_that_are_no_angiogram_are_refused_by_code() -> None:
    good = tiny()
    assert header_refusal(good) is None
    nothing = header_refusal([])
    assert nothing is not None
    assert nothing.code == "not_ct"
    for code, keyword, value in (
        ("not_ct", "Modality", "MR"),
        ("not_ct", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.4"),
        ("geometry_inconsistent", "PixelSpacing", ["0.9", "0.9"]),
        ("geometry_inconsistent", "FrameOfReferenceUID", "1.2.3"),
        ("not_cardiac", "BodyPartExamined", "HEAD"),
        ("slice_too_thick", "SliceThickness", "3"),
    ):
        series = copy.deepcopy(good[:6])
        setattr(series[3], keyword, value)
        refusal = header_refusal(series)
        assert refusal is not None, code
        assert refusal.code == code
        assert refusal.advice


def volume_of(datasets: list[Any]) -> Any:
    objects = []
    for dataset in datasets:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        objects.append(buffer.getvalue())
    return assemble(objects, PydicomFrameDecoder())


def spaced(step: float, count: int = 96) -> list[Any]:
    series = tiny()[:count]
    for number, dataset in enumerate(series):
        dataset.ImagePositionPatient = ["0", "0", f"{number * step:.4f}"]
    return series


def test_stacks_that_cannot_be_used_are_refused_by_code() -> None:
    usable = image_of(volume_of(spaced(0.7)))
    assert isinstance(usable, CtImage)
    assert usable.step_mm[0] == pytest.approx(0.7)
    gap = spaced(0.7)
    stacks = {
        "slice_too_thick": spaced(2.0, 40),
        "missing_slices": gap[:30] + gap[36:],
        "too_few_slices": spaced(0.5, 60),
    }
    for code, series in stacks.items():
        with pytest.raises(NotProcessable) as refused:
            answer(volume_of(series), {})
        assert refused.value.reason == code
        assert "ffr" not in json.dumps(refused.value.problem()).lower()
    with pytest.raises(NotApplicable) as other:
        answer(volume_of(spaced(0.7)), {})  # one artery in fat: no lung, no heart
    assert other.value.reason == "not_cardiac"


def test_refusals_become_the_right_state() -> None:
    assert isinstance(refuse(Refusal("not_ct", "x")), NotApplicable)
    assert isinstance(refuse(Refusal("no_ostia", "x")), NotProcessable)
    assert isinstance(refuse(Refusal("solver_diverged", "x")), ComputationFailed)
