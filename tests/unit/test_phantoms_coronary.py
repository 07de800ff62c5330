from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom.volume import assemble
from wetread.ffrct.solving import solve_request
from wetread.testing.phantoms.coronary import coronary_phantom, make_phantom, truth_document, write_phantom
from wetread.testing.phantoms.coronary_parameters import SEEDS, draw_spec
from wetread.testing.phantoms.coronary_tree import AORTA, AORTA_RADIUS, build_tree
from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, truth = make_phantom(20_001, size="tiny")
    again, same = make_phantom(20_001, size="tiny")
    other, _ = make_phantom(20_002, size="tiny")
    assert [d.PixelData for d in first] == [d.PixelData for d in again]
    assert json.dumps(truth) == json.dumps(same)
    assert first[40].PixelData != other[40].PixelData
    assert first[0].StudyInstanceUID != other[0].StudyInstanceUID


def test_seeds_for_tuning_figures_and_tests_are_disjoint() -> None:
    ranges = list(SEEDS.values())
    assert sum(len(r) for r in ranges) == len(set().union(*ranges))


def test_contrast_in_the_image_is_the_lumen_volume_of_the_truth() -> None:
    phantom = coronary_phantom(
        20_003, size="tiny", noise_hu=0.0, gradient=0.0, stenoses=1, severity=(0.5, 0.5), profiles=("cosine",)
    )
    spec, vessel = phantom.spec, phantom.tree.vessels[0]
    voxel = float(np.prod(phantom.grid.step))
    millilitres = float((phantom.image - spec.fat_hu).sum() * voxel / (spec.lumen_hu - spec.fat_hu))
    ends = 2.0 / 3.0 * np.pi * (vessel.radius[0] ** 3 + vessel.radius[-1] ** 3)  # a vessel ends round
    true = float(np.trapezoid(np.pi * vessel.radius**2, vessel.s) + ends)
    assert millilitres == pytest.approx(true, rel=0.03)


def test_noise_has_the_asked_size_and_is_not_white() -> None:
    quiet = coronary_phantom(20_004, size="tiny", noise_hu=0.0).image
    noise = coronary_phantom(20_004, size="tiny", noise_hu=30.0).image - quiet
    assert float(noise.std()) == pytest.approx(30.0, rel=0.02)
    assert float(np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]) > 0.3


def test_calcium_lies_in_the_wall_and_never_in_the_lumen() -> None:
    given_spec = {"size": "tiny", "noise_hu": 0.0, "stenoses": 1, "severity": (0.4, 0.4), "psf_mm": 0.05}
    soft = coronary_phantom(20_005, **given_spec)
    hard = coronary_phantom(20_005, calcium=True, **given_spec)
    added = hard.image - soft.image
    assert added.max() > 200.0
    assert added.min() > -1.0
    full = soft.image > 0.97 * soft.image.max()
    assert float(np.abs(added[full]).max()) < 0.2 * float(added.max())


def test_wall_calcium_covers_the_share_of_the_length_that_was_asked_for() -> None:
    given_spec = {"size": "tiny", "noise_hu": 0.0, "stenoses": 0}
    half = coronary_phantom(20_006, wall_calcium=0.5, **given_spec)
    added = half.image - coronary_phantom(20_006, **given_spec).image
    vessel = half.tree.vessels[0]
    columns = np.interp(vessel.points[:, 0], half.grid.x, np.arange(len(half.grid.x))).round().astype(int)
    beside = added.max(axis=(0, 1))[columns] > 50.0
    assert float(beside[vessel.s < 0.45 * vessel.s[-1]].mean()) > 0.95
    assert not beside[vessel.s > 0.55 * vessel.s[-1]].any()
    with pytest.raises(PhantomSpecError):
        draw_spec(20_006, wall_calcium=1.5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(20_000, 29_999))
def test_every_tree_obeys_its_own_junctions_and_can_be_solved(seed: int) -> None:
    spec = draw_spec(seed)
    tree = build_tree(spec)
    by_id = {v.id: v for v in tree.vessels}
    for vessel in tree.vessels:
        assert (vessel.radius > 0).all()
        assert (vessel.radius <= vessel.healthy + 1e-9).all()
        if vessel.parent is None:
            away = np.hypot(*(vessel.points[0, :2] - AORTA))
            assert away == pytest.approx(AORTA_RADIUS, abs=2.5)
        else:
            parent = by_id[vessel.parent]
            assert np.linalg.norm(parent.points - vessel.points[0], axis=1).min() < 1e-6
    x = spec.junction_exponent
    ends = by_id["lad"].healthy[0] ** x + by_id["lcx"].healthy[0] ** x
    assert ends == pytest.approx(by_id["lm"].healthy[-1] ** x, rel=1e-6)


def test_truth_is_a_tree_document_that_the_service_answers() -> None:
    spec = draw_spec(20_006, severity=(0.6, 0.6), profiles=("cosine",), stenoses=1)
    truth = truth_document(spec, build_tree(spec))
    result = solve_request({"tree": {**truth["tree"], "options": {"tier": "analytic", "uq_draws": 0}}})
    worst = max(lesion["diameter_stenosis_pct"] for lesion in result["lesions"])
    assert worst == pytest.approx(60.0, abs=1.0)


def test_written_series_assembles_to_the_image_that_was_rendered() -> None:
    phantom = coronary_phantom(20_007, size="tiny")
    objects = []
    for dataset in reversed(phantom.slices):
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        objects.append(buffer.getvalue())
    volume = assemble(objects, PydicomFrameDecoder())
    assert np.abs(volume.voxels - phantom.image).max() <= 0.5 + 1e-3
    assert volume.positions_mm == pytest.approx(phantom.grid.z, abs=1e-5)


def test_missing_slices_thickness_and_truth_file(tmp_path) -> None:
    truth = write_phantom(20_008, tmp_path, size="tiny", missing_slices=5)
    assert len(list(tmp_path.glob("CT*.dcm"))) == 91
    assert json.loads((tmp_path / "truth.json").read_text()) == json.loads(json.dumps(truth))
    assert make_phantom(20_008, size="tiny", thickness_mm=3.0)[0][0].SliceThickness == 3


@pytest.mark.parametrize(
    "overrides", [{"nonsense": 1}, {"size": "huge"}, {"severity": (0.8, 0.2)}, {"noise_hu": -1.0}, {"profiles": ()}]
)
def test_impossible_phantoms_are_refused(overrides: dict) -> None:
    with pytest.raises(PhantomSpecError):
        draw_spec(1, **overrides)
    with pytest.raises(PhantomSeedError):
        draw_spec(-1)
