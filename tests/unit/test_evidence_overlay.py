from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tests.evidence_cases import headers

from wetread.adapters.evidence.orientation import direction, directions
from wetread.adapters.evidence.overlay import LINE, Caption, overlay_image, render_overlay, windowed
from wetread.core.errors import InvalidInput
from wetread.core.ruo import RUO_SHORT


def plane(rows: int = 64, columns: int = 64) -> np.ndarray:
    return np.full((rows, columns), 40.0, np.float32)


def drawn(image: np.ndarray) -> np.ndarray:
    return (image == LINE).all(axis=2)


def test_window_maps_its_ends_to_black_and_white() -> None:
    values = np.array([[-1000, 0, 40, 80, 3000, np.nan]], np.float32)
    assert windowed(values, (40, 80)).tolist() == [[0, 0, 128, 255, 255, 0]]


def test_line_follows_the_mask_and_nothing_else_is_coloured() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 40:50] = 1
    image = overlay_image(plane(), mask, (40, 80), Caption(), width=64)
    rows, columns = np.nonzero(drawn(image))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 19, 40, 49)
    assert drawn(image).sum() == 36
    grey = image[~drawn(image)]
    assert (grey[:, 0] == grey[:, 1]).all()


def test_interior_of_the_region_stays_visible() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 40:50] = 1
    image = overlay_image(plane(), mask, (40, 80), Caption(), width=64)
    assert not drawn(image)[11:19, 41:49].any()


def test_enlarged_line_stays_on_the_border_pixels() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10, 40] = 1
    image = overlay_image(plane(), mask, (40, 80), Caption(), width=256)
    rows, columns = np.nonzero(drawn(image))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 43, 160, 163)


def test_rectangular_pixels_are_drawn_square() -> None:
    image = overlay_image(plane(50, 100), None, (40, 80), Caption(), width=100, pixel_aspect=2.0)
    assert image.shape == (100, 100, 3)


def test_text_stands_in_bands_beside_the_anatomy() -> None:
    bare = overlay_image(plane(), None, (40, 80), Caption(), width=512)
    framed = overlay_image(plane(), None, (40, 80), Caption(("above",), (RUO_SHORT,)), width=512)
    extra = framed.shape[0] - bare.shape[0]
    assert extra > 0
    matches = [top for top in range(extra + 1) if (framed[top : top + 512] == bare).all()]
    assert len(matches) == 1
    top = matches[0]
    assert framed[:top].max() > 200  # text above
    assert framed[top + 512 :].max() > 200  # text below


def test_long_text_wraps_instead_of_leaving_the_image() -> None:
    one = overlay_image(plane(), None, (40, 80), Caption(below=("word",)), width=512)
    many = overlay_image(plane(), None, (40, 80), Caption(below=("word " * 100,)), width=512)
    assert many.shape[1] == 512
    assert many.shape[0] > one.shape[0] + 50


def test_direction_marks_stand_at_their_sides() -> None:
    image = overlay_image(np.full((64, 64), -1000, np.float32), None, (40, 80), Caption(directions=("R", "L", "", "")))
    columns = np.nonzero(image.max(axis=2) > 200)[1]
    assert columns.min() < 40
    assert columns.max() > 470
    assert not ((columns > 60) & (columns < 450)).any()


@pytest.mark.parametrize(("fmt", "magic"), [("PNG", b"\x89PNG"), ("JPEG", b"\xff\xd8")])
def test_thumbnail_has_its_width_and_keeps_small_bleeds(fmt, magic) -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[250:253, 100:103] = 1
    data = render_overlay(plane(512, 512), mask, (40, 80), RUO_SHORT, width=192, fmt=fmt)
    assert data.startswith(magic)
    image = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    assert image.shape[1] == 192
    assert (image[:192, :, 0] - image[:192, :, 1]).max() > 80


def test_thumbnail_is_deterministic() -> None:
    arguments = (plane(), None, (40, 80), RUO_SHORT)
    assert render_overlay(*arguments) == render_overlay(*arguments)


@pytest.mark.parametrize(("shape", "mask_shape"), [((64, 64), (64, 63)), ((0, 64), None), ((4, 4, 4), None)])
def test_what_is_no_plane_is_refused(shape, mask_shape) -> None:
    mask = None if mask_shape is None else np.zeros(mask_shape, np.uint8)
    with pytest.raises(InvalidInput):
        render_overlay(np.zeros(shape, np.float32), mask, (40, 80), "")


def test_axial_image_has_right_on_its_left_and_anterior_on_top() -> None:
    assert directions(headers(1)[0]) == ("R", "L", "A", "P")


def test_tilted_image_names_both_directions() -> None:
    assert directions(headers(1, tilt_deg=25)[0]) == ("R", "L", "AH", "PF")


def test_unknown_orientation_has_no_directions() -> None:
    source = headers(1)[0]
    del source.ImageOrientationPatient
    assert directions(source) == ("", "", "", "")


@pytest.mark.parametrize(
    ("vector", "letters"), [((0, 0, 1), "H"), ((-1, 0, 0), "R"), ((0.7, -0.7, 0), "LA"), ((0, 0.95, -0.31), "PF")]
)
def test_direction_letters(vector, letters) -> None:
    assert direction(vector) == letters
