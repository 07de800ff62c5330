"""Stacks from header facts: order, steps, tilt, duplicates, splits."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.dicom.stacking import arrange, plane_of, stacks, valid_orientation
from wetread.testing.sections import AXIAL, ENHANCED_CT_CLASS, instance_facts, series_facts

HEIGHTS = [k * 5.0 for k in range(20)]


def geometry_of(heights, **changes):
    instances = [instance_facts(z, number=k + 1, **changes) for k, z in enumerate(heights)]
    (stack,) = stacks(series_facts(instances))
    assert stack.geometry is not None
    return stack


def test_order_is_by_position_whatever_the_arrival():
    instances = [instance_facts(z, number=k) for k, z in enumerate(HEIGHTS)]
    random.Random(3).shuffle(instances)
    (stack,) = stacks(series_facts(instances))
    assert [i.position[2] for i in stack.instances] == HEIGHTS
    assert stack.geometry.gap_free
    assert stack.geometry.flags == ()
    assert stack.plane == "axial"
    assert stack.numbers_closed
    assert stack.geometry.coverage_mm == pytest.approx(100)


def test_weights_are_half_the_distance_to_both_neighbours():
    geometry = geometry_of([0.0, 4.0, 8.0, 15.0]).geometry
    assert geometry.weights_mm == pytest.approx([4.0, 4.0, 5.5, 7.0])
    assert geometry.steps_mm == pytest.approx([4, 4, 7])
    assert set(geometry.flags) == {"irregular_spacing", "holes_bridged"}


def test_single_plane_has_no_depth():
    geometry = geometry_of([7.0]).geometry
    assert list(geometry.weights_mm) == [0.0]
    assert geometry.largest_step_mm == 0.0


def test_tilt_comes_from_positions_and_not_from_a_tag():
    angle = math.radians(18.5)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))
    instances = [instance_facts(z, number=k, orientation=orientation, gantry_tilt=0.0) for k, z in enumerate(HEIGHTS)]
    (stack,) = stacks(series_facts(instances))
    assert stack.geometry.tilt_deg == pytest.approx(18.5, abs=0.01)
    assert stack.geometry.median_step_mm == pytest.approx(5 * math.cos(angle))
    assert "gantry_tilt" in stack.geometry.flags
    assert stack.plane == "axial"


def test_an_oblique_stack_along_its_normal_has_no_tilt():
    angle = math.radians(20)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))
    normal = np.array([0, math.sin(angle), math.cos(angle)])
    origins = np.outer(np.arange(10) * 3.0, normal)
    geometry = arrange(origins, orientation, [(0, k, str(k)) for k in range(10)])
    assert geometry.tilt_deg == pytest.approx(0, abs=1e-6)
    assert geometry.median_step_mm == pytest.approx(3.0)


def test_a_jumping_origin_is_flagged_and_not_taken_for_tilt():
    origins = np.array([[40.0 if k == 5 else 0.0, 0.0, k * 5.0] for k in range(12)])
    geometry = arrange(origins, AXIAL, [(0, k, str(k)) for k in range(12)])
    assert geometry.tilt_deg == pytest.approx(0)
    assert geometry.flags == ("origins_irregular",)


def test_of_duplicates_the_latest_acquisition_stays():
    old = instance_facts(10.0, number=3, acquisition_number=1)
    new = instance_facts(10.004, number=2, acquisition_number=2)
    others = [instance_facts(z, number=9) for z in (0.0, 5.0, 15.0)]
    for order in ([old, new, *others], [new, *others, old]):
        (stack,) = stacks(series_facts(order))
        assert len(stack.instances) == 4
        assert new in stack.instances
        assert old not in stack.instances
        assert "duplicates_dropped" in stack.geometry.flags


def test_localizers_and_projections_are_left_out():
    scout = instance_facts(0, series="scout", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    mip = instance_facts(1, series="mip", image_type=("DERIVED", "SECONDARY", "MIP"))
    assert stacks(series_facts([scout, mip])) == []


def test_orientations_and_sizes_are_split_largest_first():
    axial = [instance_facts(z, series="ax") for z in HEIGHTS]
    coronal = [instance_facts(z, series="co", orientation=(1, 0, 0, 0, 0, -1), position=(0, z, 0)) for z in HEIGHTS[:4]]
    small = [instance_facts(z, series="sm", rows=256) for z in HEIGHTS[:6]]
    found = stacks(series_facts([*coronal, *small, *axial]))
    assert [(s.planes, s.plane) for s in found] == [(20, "axial"), (6, "axial"), (4, "coronal")]


def test_images_without_usable_geometry_form_no_stack():
    broken = [
        instance_facts(0, position=None),
        instance_facts(1, orientation=(0, 0, 0, 0, 0, 0)),
        instance_facts(2, position=(0, 0, math.nan)),
        instance_facts(3, pixel_spacing=None),
        instance_facts(4, number_of_frames=30, position=None),
    ]
    assert stacks(series_facts(broken)) == []


@pytest.mark.parametrize("position", [None, (0.0, 0.0, 0.0)])
def test_an_enhanced_object_is_a_stack_whose_geometry_is_inside(position):
    """Header facts may show the place of its first frame, which says nothing about the others."""
    whole = instance_facts(0, sop_class_uid=ENHANCED_CT_CLASS, position=position, number_of_frames=40)
    (stack,) = stacks(series_facts([whole]))
    assert stack.geometry is None
    assert stack.planes == 40
    assert stack.plane == "axial"
    (unknown,) = stacks(
        series_facts([instance_facts(0, sop_class_uid=ENHANCED_CT_CLASS, orientation=None, number_of_frames=9)])
    )
    assert unknown.plane is None


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [(AXIAL, "axial"), ((1, 0, 0, 0, 0, -1), "coronal"), ((0, 1, 0, 0, 0, -1), "sagittal")],
)
def test_anatomical_plane(orientation, plane):
    assert plane_of(orientation) == plane


@pytest.mark.parametrize("bad", [None, (1, 0, 0), (0,) * 6, (1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (math.nan,) * 6])
def test_unusable_orientations_are_told(bad):
    assert not valid_orientation(bad)


@given(
    st.lists(st.integers(0, 4000), min_size=1, max_size=40, unique=True),
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.randoms(use_true_random=False),
)
def test_arrange_orders_any_oblique_stack_and_its_weights_cover_it(ticks, a, b, shuffler):
    row = np.array([1.0, a, 0.0]) / math.hypot(1, a)
    helper = np.array([0.0, b, 1.0])
    column = np.cross(helper, row)
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    shuffler.shuffle(ticks)
    origins = np.array([normal * tick / 10 for tick in ticks])
    geometry = arrange(origins, (*row, *column), [(0, 0, str(k)) for k in range(len(ticks))])
    assert [ticks[k] for k in geometry.order] == sorted(ticks)
    assert geometry.tilt_deg < 0.01
    if len(ticks) > 1:
        ends = (geometry.steps_mm[0] + geometry.steps_mm[-1]) / 2
        assert geometry.coverage_mm == pytest.approx((max(ticks) - min(ticks)) / 10 + ends)
