"""Where a score came from as SEG FRACTIONAL of the key slices, on the SC, and in words."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from tests.evidence_cases import evidence, headers, positive, without

from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.evidence.explanation import reduction, sampled
from wetread.adapters.evidence.overlay import LINE, TINT, Caption, overlay_image
from wetread.core.detector import Explanation, Observation
from wetread.core.ports import EncodedObject, EvidenceInput
from wetread.core.ruo import RUO_STATEMENT

CELL_MM = (10.0, 5.0, 5.0)


def explanation(values: np.ndarray | None = None) -> Explanation:
    """Cells of 10 x 5 x 5 mm over the synthetic head; the strongest lies at (-8, 1, 20) mm, near the region."""
    grid = np.zeros((6, 8, 8), np.float32)
    grid[2, 2:5, 1:4] = 0.5
    grid[2, 3, 2] = 1.0
    return Explanation(
        "cam",
        grid if values is None else values,
        np.array([-18.0, -14.0, 0.0]),
        np.array([1.0, 0, 0]),
        np.array([0, 1.0, 0]),
        CELL_MM,
        "Said beside it.",
    )


def case(given: Explanation | None = None, **changes) -> EvidenceInput:
    return replace(evidence(**changes), explanation=given or explanation())


def objects(given: EvidenceInput, role: str) -> list[EncodedObject]:
    return [item for item in Encoder().encode(given) if item.role == role]


def read(given: EvidenceInput) -> Dataset:
    (item,) = objects(given, "explanation")
    return hd.seg.segread(BytesIO(item.data))


def test_it_is_a_fractional_segmentation_of_the_key_slices_that_says_what_it_is() -> None:
    given = case()
    dataset = read(given)
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    (segment,) = dataset.SegmentSequence
    assert segment.SegmentLabel == "Where the score came from"
    assert "does not say why" in segment.SegmentDescription
    assert "Said beside it." in segment.SegmentDescription
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "score-origin"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Spatial and Relational Concept"
    assert dataset.SeriesDescription == "ich 1.2.0 score origin Research use only."
    assert dataset.ImageComments.endswith(RUO_STATEMENT)
    # the key slices are 4, 5, 6 and 9; nothing of the map reaches plane 9
    sources = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in dataset.PerFrameFunctionalGroupsSequence
    }
    assert sources == {given.headers[plane].SOPInstanceUID for plane in (4, 5)}
    assert len(objects(given, "explanation")[0].data) < 10_000


@pytest.mark.parametrize("tilt_deg", [0.0, 18.5])
def test_every_pixel_lies_where_its_value_was_taken(tilt_deg: float) -> None:
    """Read positions and values back with highdicom and ask the map itself: half a step of 1/255 at most."""
    given, made = case(sources=headers(tilt_deg=tilt_deg)), explanation()
    dataset = read(given)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    across = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient[:3], float)
    down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient[3:], float)
    row_mm, column_mm = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    assert (row_mm, column_mm) == (2.5, 2.5)  # half a cell, five source pixels
    stored = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns) / 255.0
    for frame, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, stored, strict=True):
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        i, j = np.unravel_index(pixels.argmax(), pixels.shape)
        place = corner + i * row_mm * down + j * column_mm * across
        cell = made.cells(place)
        low = np.floor(cell).astype(int)
        weight = cell - low
        expected = sum(
            made.values[tuple(np.clip(low + step, 0, np.array(made.values.shape) - 1))]
            * np.prod(np.where(step, weight, 1 - weight))
            for step in np.ndindex(2, 2, 2)
        )
        assert pixels[i, j] == pytest.approx(expected, abs=0.5 / 255 + 1e-4)


def test_the_strongest_cell_is_found_on_the_plane_that_it_lies_on() -> None:
    values = sampled(explanation(), headers()[4])
    i, j = np.unravel_index(values.argmax(), values.shape)
    factor = reduction(explanation(), headers()[4])
    x, y = -20 + 0.5 * ((j + 0.5) * factor - 0.5), -16 + 0.5 * ((i + 0.5) * factor - 0.5)
    assert abs(x + 8) <= 2.5 / 2 + 1e-6
    assert abs(y - 1) <= 2.5 / 2 + 1e-6
    assert not sampled(explanation(), headers(40)[35]).any(), "above the topmost cell nothing is claimed"


def test_the_same_input_gives_the_same_bytes() -> None:
    assert [o.data for o in Encoder().encode(case())] == [o.data for o in Encoder().encode(case())]


@pytest.mark.parametrize(
    "given",
    [
        evidence(),
        case(explanation(np.zeros((6, 8, 8), np.float32))),
        case(result=positive(observations=(), state="negative")),
        case(sources=without(headers(), "ImagePositionPatient")),
    ],
    ids=["no map", "an empty map", "nothing flagged", "no geometry"],
)
def test_nothing_is_written_where_nothing_is_to_be_said(given: EvidenceInput) -> None:
    assert objects(given, "explanation") == []
    (report,) = objects(given, "sr")
    assert b"Where the score came from" not in report.data


def test_the_report_names_the_map_and_lists_it_as_evidence() -> None:
    given = case()
    report = dcmread(BytesIO(objects(given, "sr")[0].data))
    texts = [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert sum("Where the score came from" in text and "series 9005" in text for text in texts) == 1
    uid = read(given).SOPInstanceUID
    listed = [
        image.ReferencedSOPInstanceUID
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in report.get(keyword, [])
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    ]
    assert listed.count(uid) == 1


def test_the_capture_is_tinted_and_its_line_is_not() -> None:
    plain, tinted = (
        [dcmread(BytesIO(o.data)).pixel_array for o in objects(given, "sc")] for given in (evidence(), case())
    )
    assert len(plain) == len(tinted)
    band = tinted[0].shape[0] - plain[0].shape[0]
    assert band > 0, "one more line says what the blue is"
    assert [p.shape for p in plain][-1] == tinted[-1].shape, "nothing of the map reaches the last slice"
    reddest = tinted[0].astype(int)
    assert ((reddest == LINE).all(axis=2)).sum() == ((plain[0].astype(int) == LINE).all(axis=2)).sum()
    assert (reddest[..., 2] - reddest[..., 0] > 20).sum() > 500


def test_a_tint_takes_red_away_and_leaves_black_and_what_it_does_not_cover() -> None:
    plane = np.tile(np.float32([0.0, 50.0, 100.0, 50.0]), (4, 1))
    tint = np.zeros((4, 4), np.float32)
    tint[:, :3] = 1.0
    picture = overlay_image(plane, None, (50.0, 100.0), Caption(), width=4, tint=tint).astype(int)
    assert (picture[:, 0] == 0).all()
    assert (picture[:, 3] == 128).all()
    red, green, blue = picture[0, 2]
    assert red < green < blue == 255
    assert TINT[0] < TINT[1] < TINT[2]


def test_only_flagged_findings_have_slices() -> None:
    measured = Observation("hippocampus", "measured", label=1)
    assert objects(case(result=positive(observations=(measured,), state="measured")), "explanation") == []
