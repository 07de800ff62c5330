"""Head CTA phantoms: seeds and splits, what occlusion and confounders do to the vessels, tilt, and the DICOM series."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from ruamel.yaml import YAML

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom.volume import assemble
from wetread.testing.phantoms.cta_artefacts import spoil
from wetread.testing.phantoms.cta_head import cta_phantom, head_to_lps, occlusion_of
from wetread.testing.phantoms.cta_parameters import DISTRIBUTIONS, CtaSpec, draw_cta
from wetread.testing.phantoms.cta_second import build_vessels as second_vessels
from wetread.testing.phantoms.cta_stamp import Grid
from wetread.testing.phantoms.cta_vessels import Branch, VesselTree, build_vessels, skull_radius
from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError

ROOT = Path(__file__).resolve().parents[2]
TINY = {"step_mm": 8.0, "pixel_mm": 4.0}


def tree(**changes) -> VesselTree:
    return build_vessels(CtaSpec(seed=7, **changes))


def named(found: VesselTree, name: str) -> Branch:
    return next(b for b in found.branches if b.name == name)


def test_the_committed_table_is_the_one_that_is_drawn_from() -> None:
    assert YAML(typ="safe").load(ROOT / "models" / "lvo" / "phantom.yaml") == DISTRIBUTIONS


def test_a_seed_gives_one_head_and_a_split_only_its_own_seeds() -> None:
    assert draw_cta(3_100_000, split="s2") == draw_cta(3_100_000, split="s2")
    assert draw_cta(3_200_000, split="s3").calcium
    drawn = [draw_cta(2_000_000 + k) for k in range(80)]
    occluded = [spec for spec in drawn if spec.occlusion]
    assert 25 < len(occluded) < 55
    assert {spec.occlusion for spec in occluded} == {"ICA", "M1", "M2"}
    assert {spec.side for spec in occluded} == {"left", "right"}
    assert any(spec.fade > 0 for spec in drawn)
    assert any(spec.carotid_share < 1 for spec in drawn)
    assert all(spec.stenosis == 0 for spec in occluded)
    one, other = (cta_phantom(2_000_001, **TINY).hu for _ in range(2))
    assert np.array_equal(one, other)
    with pytest.raises(PhantomSeedError):
        draw_cta(5, split="s0")
    for wrong in ({"stenosis": 1.0}, {"pixel_mm": 0.0}, {"colour": 1}):
        with pytest.raises(PhantomSpecError):
            draw_cta(2_000_000, **wrong)


@pytest.mark.parametrize("site", ["ICA", "M1", "M2"])
@pytest.mark.parametrize("make", [build_vessels, second_vessels])
def test_an_occlusion_stops_its_segment_and_dims_what_lies_behind(make, site) -> None:
    spec = CtaSpec(seed=7, occlusion=site, side="right", collateral=0.2)
    found = make(spec)
    assert found.stop is not None
    assert found.stop[0] < 0
    branch = named(found, {"M2": "M2a"}.get(site, site) + "-right")
    gap = np.linalg.norm(branch.points - found.stop, axis=1) < 1e-9
    assert gap.any()
    first = int(np.flatnonzero(gap)[0])
    assert branch.filling[first - 1] == 1.0
    assert branch.filling[first] < 0.2
    behind = [b for b in found.branches if b.name.endswith("-right") and b.name.startswith("M2a")]
    assert behind
    assert max(float(b.filling[-1]) for b in behind) <= 0.2
    assert all(float(b.filling.min()) == 1.0 for b in found.branches if b.name == "M1-left")


def test_confounders_change_the_vessels_of_their_side_only() -> None:
    plain = tree()
    assert plain.stop is None
    narrow = tree(stenosis=0.6, other_side="left")
    ratio = named(narrow, "M1-left").radius / named(plain, "M1-left").radius
    assert ratio.min() == pytest.approx(0.4, abs=0.02)
    assert np.array_equal(named(narrow, "M1-right").radius, named(plain, "M1-right").radius)
    neck = tree(carotid_share=0.7, other_side="left")
    assert named(neck, "M2a-left").filling.max() == pytest.approx(0.7)
    slow = tree(fade=0.5)
    assert named(slow, "M2a-left").filling[-1] < named(slow, "M1-left").filling[0] < 1.0
    short = tree(early_fork_mm=10.0, other_side="left")
    assert len(named(short, "M1-left").points) < len(named(short, "M1-right").points)
    scar = tree(old_infarct=True, other_side="right")
    assert named(scar, "M2b-right").filling[-1] == pytest.approx(0.5)
    assert named(scar, "M2b-right").filling[0] == 1.0


def test_vessels_stay_inside_the_skull() -> None:
    for seed in range(5):
        spec = draw_cta(seed, split="train")
        for branch in build_vessels(spec).branches:
            upper = branch.points[branch.points[:, 2] > 0]
            assert len(upper) == 0 or float(skull_radius(upper, spec).max()) < 1.0, branch.name


@pytest.mark.parametrize("tilt", [0.0, 14.0])
def test_the_end_point_lies_where_contrast_ends(tilt) -> None:
    spec = {"step_mm": 1.0, "pixel_mm": 1.0, "half_width_mm": 56.0, "half_length_mm": 72.0, "height_mm": 30.0}
    made = cta_phantom(
        2_000_003,
        **{**spec, "below_mm": 6.0, "noise_hu": 0.0, "occlusion": "M1", "tilt_deg": tilt, "collateral": 0.0},
        lumen_hu=400.0,
        calcium=False,
        veins=0.0,
        shift_mm=5.0,
        clot_hu=40.0,
    )
    assert made.stop_lps_mm == occlusion_of(made.spec)
    branch = named(made.tree, f"M1-{made.spec.side}")
    stop = int(np.flatnonzero(np.all(branch.points == made.tree.stop, axis=1))[0])
    volume = made.to_volume()
    down = volume.column_direction
    seen = []
    for offset in (-8, 8):  # 4 mm before and behind
        place = head_to_lps(made.spec, branch.points[stop + offset])
        rows = (place[1] - volume.origins[:, 1]) / down[1]
        plane = int(np.abs(volume.origins[:, 2] + rows * down[2] - place[2]).argmin())
        row, column = round(float(rows[plane])), round(float(place[0] - volume.origins[plane, 0]))
        seen.append(float(volume.voxels[plane, row - 1 : row + 2, column - 1 : column + 2].max()))
    assert seen[0] > 250.0 > 120.0 > seen[1]


@pytest.mark.parametrize("changes", [{"motion_mm": 6.0}, {"streak_hu": 200.0}, {"ring_hu": 20.0}])
def test_artefacts_leave_their_marks(changes) -> None:
    spec = CtaSpec(seed=3, pixel_mm=2.0, **changes)
    axis = np.arange(-40.0, 40.0, 2.0)
    grid = Grid(z=axis, y=axis, x=axis, tilt=0.0, shift=0.0)
    plain = np.full((40, 40, 40), 40.0, dtype=np.float32)
    plain[:, 10:30, 10:30] = 400.0
    spoilt = spoil(plain.copy(), spec, grid)
    assert float(np.abs(spoilt - plain).max()) > 10.0
    assert np.array_equal(spoil(plain.copy(), CtaSpec(seed=3), grid), plain)


def test_a_head_that_is_cut_off_lacks_its_top() -> None:
    given = {**TINY, "motion_mm": 0.0, "streak_hu": 0.0, "ring_hu": 0.0}
    whole, cut = (cta_phantom(3_300_001, split="s4", **given, cut_mm=mm).hu for mm in (0.0, 24.0))
    assert np.array_equal(whole[:-3], cut)


def test_the_other_generator_has_a_skull_brain_and_vessels_of_its_own() -> None:
    made = cta_phantom(3_400_001, split="s5", **TINY)
    hu = made.hu
    assert (hu > 600).mean() > 0.02
    assert ((hu > 0) & (hu < 80)).mean() > 0.05
    assert not np.array_equal(named(made.tree, "M1-left").points, named(build_vessels(made.spec), "M1-left").points)


def test_the_series_is_a_contrast_head_ct_and_gives_the_volume_back() -> None:
    made = cta_phantom(2_000_004, **TINY, tilt_deg=10.0)
    objects = made.to_objects()
    header = dcmread(io.BytesIO(objects[0]), stop_before_pixels=True)
    assert (header.Modality, header.BodyPartExamined, header.ContrastBolusAgent) == ("CT", "HEAD", "Iohexol")
    assert "PHANTOM" in str(header.PatientName)
    volume, direct = assemble(objects, PydicomFrameDecoder()), made.to_volume()
    assert volume.tilt_deg == pytest.approx(10.0, abs=0.1)
    assert volume.origins == pytest.approx(direct.origins, abs=1e-3)
    assert volume.voxels == pytest.approx(direct.voxels, abs=0.51)
