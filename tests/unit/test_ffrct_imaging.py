"""Stages of the image chain against closed forms and an independent implementation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wetread.ffrct.imaging import curves
from wetread.ffrct.imaging.aorta import Aorta, find_aorta
from wetread.ffrct.imaging.image import Blood, CtImage
from wetread.ffrct.imaging.lumen import Lumen, _apart, _bridge, _line, _tip, _unblurred
from wetread.ffrct.imaging.neighbours import Course, clearance
from wetread.ffrct.imaging.quality import (
    EDGE_PER_SD,
    check_calcium,
    check_contents,
    check_motion,
    edge_width,
    scan_blur,
    slab_shift,
)
from wetread.ffrct.imaging.resample import blood_pool, cubic
from wetread.ffrct.imaging.sections import LEAST_FREE, SPILL_MM, WIDEST_MM, _circle, measure, sample
from wetread.ffrct.imaging.tree import name_arteries
from wetread.ffrct.imaging.vesselness import _threads, eigenvalues

AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
FAT, LUMEN = -80.0, 400.0


def image(hu: Any, step: tuple[float, float, float] = (0.5, 0.4, 0.4)) -> CtImage:
    return CtImage(np.asarray(hu, dtype=np.float32), np.array([-3.0, 5.0, 10.0]), AXES, np.array(step))


def blurred_tube(
    diameter: float, angle: float, noise: float, psf_mm: float = 0.75, seed: int = 1
) -> tuple[CtImage, Any]:
    """A straight tube in fat at *angle* to the slices, supersampled, blurred, with noise; and its centreline."""
    step, shape = np.array([0.5, 0.4, 0.4]), (60, 48, 48)
    axis = np.array([0.0, np.sin(angle), np.cos(angle)])
    fine = [(np.arange(n * 3) - (n * 3 - 1) / 2) * s / 3 for n, s in zip(shape, step, strict=True)]
    z, y, x = (fine[i].reshape([-1 if k == i else 1 for k in range(3)]) for i in range(3))
    along = y * axis[1] + z * axis[2]
    distance = np.sqrt(np.maximum(x**2 + y**2 + z**2 - along**2, 0.0))
    inside = (distance <= 0.5 * diameter).astype(np.float32)
    share = inside.reshape(shape[0], 3, shape[1], 3, shape[2], 3).mean(axis=(1, 3, 5))
    hu = ndimage.gaussian_filter(FAT + share * (LUMEN - FAT), psf_mm / 2.355 / step)
    grain = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    ct = CtImage((hu + noise * grain / grain.std()).astype(np.float32), np.zeros(3), AXES, step)
    middle = ct.points_of((np.array(shape) - 1) / 2)
    return ct, middle + np.arange(-4.0, 4.01, 0.25)[:, None] * axis


@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("diameter", [1.0, 1.5, 2.0, 3.0, 4.0])
def test_area_of_a_noisy_blurred_tube_has_no_bias(diameter: float, angle: float) -> None:
    ct, line = blurred_tube(diameter, angle, 0.0)
    clean = measure(sample(ct, line), np.full(len(line), LUMEN)).area
    assert abs(float(np.mean(2.0 * np.sqrt(clean / np.pi))) - diameter) <= 0.05
    ct, line = blurred_tube(diameter, angle, 25.0)
    noisy = 2.0 * np.sqrt(measure(sample(ct, line), np.full(len(line), LUMEN)).area / np.pi) - diameter
    assert abs(float(np.mean(noisy))) <= 0.1
    assert float(np.std(noisy)) <= 0.15


def test_area_with_muscle_on_one_side_only() -> None:
    ct, line = blurred_tube(2.4, 0.0, 0.0)
    beside = np.arange(48) > 24 + (1.2 + 1.6) / 0.4
    hu = ct.hu.copy()
    hu[:, :, beside] = 100.0
    found = measure(sample(replace(ct, hu=hu), line), np.full(len(line), LUMEN))
    assert 2.0 * np.sqrt(found.area / np.pi) == pytest.approx(2.4, abs=0.12)


def test_calcium_beside_the_lumen_is_seen_and_not_counted() -> None:
    ct, line = blurred_tube(2.4, 0.0, 0.0, psf_mm=0.5)
    hu = ct.hu.copy()
    hu[28:32, 23:25, 24 + 4 : 24 + 7] = 1100.0
    found = measure(sample(replace(ct, hu=hu), line), np.full(len(line), LUMEN))
    assert found.calcium.any()
    assert not found.calcium.all()
    assert float(2.0 * np.sqrt(found.area.max() / np.pi)) < 2.4 + 0.2


@pytest.mark.parametrize("free", [0, 1, 3, LEAST_FREE, 24])
@pytest.mark.parametrize("around", [FAT, LUMEN - 5.0, LUMEN, LUMEN + 200.0])
def test_no_section_is_larger_than_what_was_looked_at(around: float, free: int) -> None:
    """Inside a chamber full of contrast, or with hardly a wall of its own: never a quotient by next to nothing."""
    ct, line = blurred_tube(1.2, 0.3, 20.0)
    hu = np.where(ct.hu > 0.5 * (FAT + LUMEN), ct.hu, around + 0.1 * (ct.hu - FAT)).astype(np.float32)
    sections = sample(replace(ct, hu=hu), line)
    clear = np.where(np.arange(24) < free, np.inf, 0.3)[None, :].repeat(len(line), axis=0)
    found = measure(sections, np.full(len(line), LUMEN), clear)
    widest = WIDEST_MM + SPILL_MM
    assert np.isfinite(found.area).all()
    assert (found.area <= np.pi * widest**2).all()
    assert (found.half_radius <= WIDEST_MM).all()


def test_shift_leads_back_to_the_middle() -> None:
    ct, line = blurred_tube(2.5, 0.4, 0.0)
    off = line + np.array([0.4, 0.0, 0.0])
    found = measure(sample(ct, off), np.full(len(off), LUMEN))
    assert found.shift[:, 0] == pytest.approx(-0.4, abs=0.12)


def test_throats_survive_the_fit_along_the_vessel() -> None:
    s = np.arange(0.0, 40.0, 0.25)
    radius = 1.5 * (1.0 - 0.33 * (1.0 + np.cos(np.pi * np.clip((s - 20.0) / 4.0, -1.0, 1.0))))
    true = np.pi * radius**2
    blurred = ndimage.gaussian_filter1d(true, 0.4 / 0.25)
    noisy = blurred + np.random.default_rng(1).normal(0.0, 0.05, len(s))
    found = _unblurred(noisy, 0.4)
    assert abs(found.min() - true.min()) < abs(blurred.min() - true.min())
    assert 2.0 * np.sqrt(found[78:83].mean() / np.pi) == pytest.approx(2.0 * radius.min(), abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_closed_form_eigenvalues_are_those_of_lapack(seed: int) -> None:
    h = np.random.default_rng(seed).normal(size=(20, 6)) * 100.0
    matrices = np.empty((20, 3, 3))
    for (i, j), k in {(0, 0): 0, (1, 1): 1, (2, 2): 2, (0, 1): 3, (0, 2): 4, (1, 2): 5}.items():
        matrices[:, i, j] = matrices[:, j, i] = h[:, k]
    assert np.stack(eigenvalues(h), axis=1) == pytest.approx(np.linalg.eigvalsh(matrices), abs=1e-6)


# --- arteries beside one another ------------------------------------------------------------------------------------


@cache
def fork(throat: float, shift: float = 0.0) -> tuple[CtImage, list[Course]]:
    """A vessel of 3 mm along x, narrowed to *throat* of that where one of 2.4 mm leaves it at 50 degrees; and both
    courses as a tracer would give them, the first off its middle by *shift* mm towards the branch."""
    step, shape = np.array([0.5, 0.4, 0.4]), (24, 64, 100)
    z, y, x = (
        ((np.arange(2 * n) + 0.5) / 2 - n / 2).reshape([-1 if k == i else 1 for k in range(3)]) * step[i]
        for i, n in enumerate(shape)
    )
    along = np.array([0.0, np.sin(0.87), np.cos(0.87)])
    radius = 1.5 * (1.0 - (1.0 - throat) * 0.5 * (1.0 + np.cos(np.pi * np.clip((x - 2.0) / 4.0, -1.0, 1.0))))
    main = np.hypot(y, z) <= radius
    far = y * along[1] + x * along[2]
    side = (np.sqrt(np.maximum(x**2 + y**2 + z**2 - far**2, 0.0)) <= 1.2) & (far > 0.0)
    share = (main | side).reshape(shape[0], 2, shape[1], 2, shape[2], 2).mean(axis=(1, 3, 5))
    hu = ndimage.gaussian_filter(FAT + share * (LUMEN - FAT), 0.3 / step)
    ct = CtImage(hu.astype(np.float32), np.zeros(3), AXES, step)
    middle = ct.points_of((np.array(shape) - 1) / 2)
    t = np.arange(-10.0, 10.01, 0.25)
    trunk = middle + np.stack([t, np.where(abs(t) < 4.0, shift, 0.0), 0.0 * t], axis=1)
    branch = middle + t[t >= 0.0][:, None] * np.array([along[2], along[1], 0.0])
    own = 1.5 * (1.0 - (1.0 - throat) * 0.5 * (1.0 + np.cos(np.pi * np.clip((t - 2.0) / 4.0, -1.0, 1.0))))
    return ct, [Course(trunk, own, -1), Course(branch, np.full(len(branch), 1.2), 0)]


@pytest.mark.parametrize("throat", [1.0, 0.4])
def test_a_lesion_where_a_branch_leaves_is_measured_on_the_wall_that_is_left(throat: float) -> None:
    ct, courses = fork(throat)
    sections = sample(ct, courses[0].points)
    full = np.full(len(courses[0].points), LUMEN)
    clear = clearance(courses, 0, sections)
    beside = np.isfinite(clear).any(axis=1)
    assert beside.any()
    assert not beside[:24].any()  # before the fork nothing is in the way
    s = np.arange(-10.0, 10.01, 0.25)
    behind = (s > 2.0) & (s < 5.0)
    truth = 1.5 * (1.0 - (1.0 - throat) * 0.5 * (1.0 + np.cos(np.pi * np.clip((s - 2.0) / 4.0, -1.0, 1.0))))
    blind = np.sqrt(measure(sections, full).area / np.pi)
    found = measure(sections, full, clear)
    assert (found.free[behind] >= LEAST_FREE).all()
    error = np.sqrt(found.area / np.pi)[behind] - truth[behind]
    assert np.abs(error).max() < 0.15
    assert np.abs(blind[behind] - truth[behind]).max() > 2.0 * np.abs(error).max()


def test_the_start_of_a_branch_lies_in_its_parent_and_is_held_not_measured() -> None:
    ct, courses = fork(1.0)
    sections = sample(ct, courses[1].points)
    found = measure(sections, np.full(len(courses[1].points), LUMEN), clearance(courses, 1, sections))
    inside = np.arange(len(courses[1].points)) * 0.25 < 1.0
    assert (found.free[inside] < LEAST_FREE).all()
    assert (found.free[-16:] >= LEAST_FREE).all()
    assert np.sqrt(found.area[-16:] / np.pi) == pytest.approx(1.2, abs=0.1)


def test_behind_a_fork_the_lumen_is_that_of_the_wider_artery() -> None:
    """The longer course goes into the side branch: its origin lies in the wider vessel and is no lesion."""
    ct, (trunk, branch) = fork(1.0)
    half = len(trunk.points) // 2
    bent = np.concatenate([trunk.points[:half], branch.points])
    radius = np.concatenate([np.full(half, 1.5), np.full(len(branch.points), 1.2)])
    courses = [Course(bent, radius, -1), Course(trunk.points[half:], np.full(len(trunk.points) - half, 1.5), 0)]
    sections = sample(ct, bent)
    found = measure(sections, np.full(len(bent), LUMEN), clearance(courses, 0, sections))
    behind = slice(half + 1, half + 6)
    assert (found.free[behind] < LEAST_FREE).all()
    known = found.free >= LEAST_FREE
    assert np.sqrt(found.area[known] / np.pi).min() > 1.0


def test_a_course_pulled_into_a_fork_goes_back_to_its_own_middle() -> None:
    ct, courses = fork(0.4, 0.35)
    centred = _apart(ct, courses, LUMEN)[0].points
    straight = fork(0.4)[1][0].points
    near = np.abs(straight[:, 0] - straight[40, 0] - 2.8) < 1.0  # behind the opening
    assert np.abs(centred[near, 1] - straight[near, 1]).max() < 0.2


def test_the_wall_across_another_artery_is_that_of_the_circle_through_the_rest() -> None:
    angle = 2.0 * np.pi * np.arange(24) / 24
    x, y, radius = 0.3, -0.2, 1.4
    along = x * np.cos(angle) + y * np.sin(angle)
    edge = (along + np.sqrt(radius**2 - x**2 - y**2 + along**2))[None].repeat(2, axis=0)
    free = np.stack([np.arange(24) < 14, np.arange(24) < 24])
    spoiled = np.where(free, edge, 3.0)
    assert _circle(spoiled, free) == pytest.approx(edge, abs=0.02)


def test_a_thread_of_contrast_in_fat_is_a_candidate_and_an_edge_is_none() -> None:
    rng = np.random.default_rng(4)
    hu = np.full((60, 60, 60), FAT)
    hu[:, :20] = 40.0  # muscle: an edge, two dimensions of it
    hu[:, 38:41, 29:32] = -5.0  # what a lumen of 0.8 mm looks like after blur
    aorta_mask = np.zeros(hu.shape, dtype=np.bool_)
    aorta_mask[:, 46:, 40:] = True
    hu[aorta_mask] = LUMEN
    hu += ndimage.gaussian_filter(rng.normal(size=hu.shape), 0.8) * 70.0
    smooth = ndimage.gaussian_filter(hu, 0.9).astype(np.float32)
    aorta = Aorta(aorta_mask, np.full(hu.shape, np.float32(99.0)), Blood(LUMEN, 20.0), 0, np.zeros(2))
    found = _threads(smooth, aorta, 0.4)
    assert found[6:54, 39, 30].mean() > 0.8
    found[:, 37:42, 28:33] = False
    assert found.mean() < 2e-3


def test_blur_of_the_scan_is_what_is_left_of_the_edge_after_resampling() -> None:
    scan, working = image(np.zeros((2, 2, 2)), (0.7, 0.5, 0.5)), image(np.zeros((2, 2, 2)), (0.4, 0.4, 0.4))
    seen = np.sqrt(0.35**2 + (0.5**2 + 0.4**2) / 6.0 + 0.1**2)
    assert scan_blur(EDGE_PER_SD * seen, scan, working) == pytest.approx(0.35)
    assert scan_blur(0.1, scan, working) == 0.0


def test_frames_do_not_twist_and_are_orthonormal() -> None:
    t = np.linspace(0.0, 6.0, 200)
    tangent, first, second = curves.frames(np.stack([np.cos(t), np.sin(t), 0.3 * t], axis=1))
    for a, b in ((tangent, first), (tangent, second), (first, second)):
        assert np.abs(np.einsum("ij,ij->i", a, b)).max() < 1e-6
    assert np.einsum("ij,ij->i", first[1:], first[:-1]).min() > 0.99


def test_smoothing_keeps_ends_and_straight_lines() -> None:
    line = np.linspace([0.0, 0.0, 0.0], [10.0, 5.0, 2.0], 60)
    assert curves.smooth(line, 4.0) == pytest.approx(line, abs=1e-9)
    bent = curves.even(np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [5.0, 5.0, 0.0]]), 0.25)
    assert np.diff(curves.arc(bent)) == pytest.approx(0.25, abs=0.08)


def test_resampling_is_linear_interpolation_as_simpleitk_does_it() -> None:
    sitk = pytest.importorskip("SimpleITK")
    hu = np.random.default_rng(3).normal(size=(20, 30, 28)).astype(np.float32) * 100.0
    ct = image(hu, (0.7, 0.5, 0.45))
    ours = cubic(ct, np.array([9.5, 14.5, 13.5]))
    theirs = sitk.GetImageFromArray(hu)
    theirs.SetSpacing((0.45, 0.5, 0.7))
    wanted = sitk.Image([int(n) for n in ours.hu.shape[::-1]], sitk.sitkFloat32)
    wanted.SetSpacing((0.4, 0.4, 0.4))
    assert ours.hu == pytest.approx(sitk.GetArrayFromImage(sitk.Resample(theirs, wanted)), abs=2e-3)
    corner = np.array([5, 6, 7])
    assert ct.index_of(ours.points_of(corner)) * ct.step_mm == pytest.approx(corner * 0.4)


# --- aorta, contrast, quality --------------------------------------------------------------------------------------


@cache
def chest(blood: float = 400.0, blur_mm: float = 0.3, shift_mm: float = 0.0) -> CtImage:
    """Two lungs, soft tissue, a ventricle below an aorta, and a descending aorta behind, 1 mm voxels."""
    z, y, x = np.meshgrid(np.arange(80.0), np.arange(110.0), np.arange(110.0), indexing="ij", sparse=True)
    hu = np.full((80, 110, 110), 40.0)
    hu[np.broadcast_to((x < 22) | (x > 88), hu.shape)] = -850.0
    hu[np.broadcast_to(np.hypot(y - 50, x - 52) < 13, hu.shape) & (z > 30)] = blood
    hu[np.broadcast_to(np.hypot(np.hypot((y - 52) / 1.0, (x - 58) / 1.6), z - 15) < 17, hu.shape)] = blood
    hu[np.broadcast_to(np.hypot(y - 92, x - 66) < 10, hu.shape)] = blood
    hu = ndimage.gaussian_filter(hu, blur_mm)
    if shift_mm:
        hu[40:] = np.roll(hu[40:], round(shift_mm), axis=2)
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=hu.shape), 0.6)
    return CtImage((hu + 20.0 * noise / noise.std()).astype(np.float32), np.zeros(3), AXES, np.ones(3))


def test_ascending_aorta_is_the_one_in_front_and_its_contrast_is_read() -> None:
    ct = chest()
    centre = blood_pool(ct)
    assert centre is not None
    working = cubic(ct, centre)
    aorta = find_aorta(working)
    assert aorta is not None
    assert aorta.blood.hu == pytest.approx(400.0, abs=5.0)
    assert working.points_of(np.array([aorta.bottom, *aorta.centre]))[:2] == pytest.approx([52.0, 50.0], abs=1.5)
    behind = working.index_of(np.array([66.0, 92.0, 60.0])).round().astype(int)
    assert not aorta.mask[tuple(behind)]
    assert edge_width(working, aorta) < 2.5


def test_no_contrast_no_lung_and_shifted_slabs_are_noticed() -> None:
    assert blood_pool(chest(blood=60.0)) is None
    assert check_contents(chest()) is None
    solid = chest()
    refusal = check_contents(replace(solid, hu=np.maximum(solid.hu, -100.0)))
    assert refusal is not None
    assert refusal.code == "not_cardiac"
    assert slab_shift(chest()) <= 1.0
    moved = chest(shift_mm=4.0)
    assert slab_shift(moved) == pytest.approx(4.0, abs=0.6)
    for ct, width in ((moved, 1.0), (chest(), 3.5)):
        refusal = check_motion(ct, width)
        assert refusal is not None
        assert refusal.code == "motion"


def test_contrast_along_a_vessel_is_a_falling_line_fitted_without_outliers() -> None:
    rng = np.random.default_rng(2)
    distance = np.linspace(0.0, 90.0, 300)
    values = 420.0 - 0.4 * distance + rng.normal(0.0, 15.0, 300)
    values[100:130] += 300.0
    level, slope = _line(distance, values, Blood(425.0, 25.0))
    assert level == pytest.approx(420.0, abs=6.0)
    assert slope == pytest.approx(-0.4, abs=0.12)
    assert _line(distance[:20], values[:20], Blood(425.0, 25.0)) == (425.0, 0.0)


def test_junctions_are_bridged_in_area() -> None:
    s = np.arange(0.0, 20.0, 0.25)
    radius = np.where(s < 10.0, 2.0, 1.6)
    radius[36:46] = 3.0
    _bridge(s, radius, (s > 8.7) & (s < 11.6))
    assert radius.max() == pytest.approx(2.0)
    assert np.diff(radius).max() < 1e-9


def test_the_rounded_end_of_an_artery_is_cut_and_a_taper_is_kept() -> None:
    taper = np.linspace(1.6, 1.3, 120)
    assert _tip(taper) == 120
    rounded = taper.copy()
    rounded[-6:] *= np.linspace(0.95, 0.4, 6)
    assert 114 <= _tip(rounded) <= 116
    gone = np.concatenate([taper, np.full(9, 0.2)])
    assert _tip(gone) == 120
    assert _tip(np.full(14, 1.0)) == 14


# --- naming --------------------------------------------------------------------------------------------------------


def lumen(points: Any, parent: int, at: float, radius: float, calcium: float = 0.0) -> Lumen:
    line = curves.even(np.array(points, dtype=np.float64), 0.25)
    n = len(line)
    hard = np.arange(n) < calcium * n
    return Lumen(parent, at, line, np.full(n, radius), np.full(n, 0.05), np.ones(n), hard, np.full(n, 400.0), parent)


def test_arteries_are_named_by_their_course() -> None:
    left = lumen([[0, 0, 0], [10, 0, 0], [30, -40, -40]], -1, 0.0, 1.9)
    circumflex = lumen([[10, 0, 0], [25, 40, -10]], 0, 10.0, 1.6)
    side = lumen([[18, -16, -16], [40, -20, -40]], 0, 30.0, 0.9)
    right = lumen([[-20, 0, 0], [-50, 0, -40]], -1, 0.0, 1.7)
    named = {a.id: a for a in name_arteries([left, circumflex, side, right])}
    assert [(a.id, a.parent, a.label) for a in named.values()] == [
        ("lm", None, "LM"),
        ("lad", "lm", "LAD"),
        ("lcx", "lm", "LCx"),
        ("left_1", "lad", "left_1"),
        ("rca", None, "RCA"),
    ]
    assert np.linalg.norm(named["lm"].points_mm[-1] - named["lad"].points_mm[0]) == 0.0


def test_a_single_right_artery_is_no_left_one() -> None:
    assert [a.label for a in name_arteries([lumen([[0, 0, 0], [-40, 0, -30]], -1, 0.0, 1.7)])] == ["RCA"]
    assert name_arteries([]) == ()


def test_too_much_calcium_is_refused_by_length() -> None:
    line = [[0, 0, 0], [60, 0, 0]]
    assert check_calcium([lumen(line, -1, 0.0, 1.5, calcium=0.2)]) is None
    refusal = check_calcium([lumen(line, -1, 0.0, 1.5, calcium=0.6)])
    assert refusal is not None
    assert refusal.code == "too_calcified"
