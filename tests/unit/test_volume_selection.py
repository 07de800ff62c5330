"""Series selection: which stack is taken, and the typed reason when none is."""

from __future__ import annotations

import pytest

from wetread.core.dicom.kernels import kernel_class
from wetread.core.dicom.selection import applicable, body_part_fits, select
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.manifest import BodyPart, InputNeeds
from wetread.testing.sections import ENHANCED_CT_CLASS, instance_facts, series_facts, study_facts


def needs(**changes):
    values = {
        "modality": ["CT"],
        "body_part": {"any": ["HEAD", "BRAIN", "SKULL"], "from": ["tags", "image_content"]},
        "contrast": "absent",
        "series": {
            "min_slices": 12,
            "max_step_mm": 12.5,
            "coverage_mm": 100,
            "orientation": "axial",
            "max_tilt_deg": 30,
            "kernels_prefer": ["soft", "standard"],
        },
        "lossy": {"allowed": True, "max_ratio": 15},
        "select": "thinnest_soft",
    }
    series = changes.pop("series", {})
    return InputNeeds.model_validate({**values, **changes, "series": {**values["series"], **series}})


def head(step=5.0, count=30, uid="1.1", name=None, instance=None, **changes):
    planes = [instance_facts(k * step, number=k + 1, series=name or uid, **(instance or {})) for k in range(count)]
    return series_facts(planes, uid=uid, **changes)


def refusal(series, **changes):
    with pytest.raises((NotApplicable, NotProcessable)) as caught:
        select(needs(**changes), study_facts(*series))
    return type(caught.value).__name__, caught.value.reason


def test_thinnest_soft_stack_wins_over_thick_and_sharp_ones():
    thick = head(5.0, 30, "1.1")
    thin = head(1.25, 120, "1.2")
    sharp = head(0.625, 240, "1.3", kernel="BONEPLUS")
    chosen = select(needs(), study_facts(thick, sharp, thin))
    assert chosen.series_instance_uid == "1.2"
    assert len(chosen.sop_instance_uids) == 120
    assert chosen.completeness == "enough"
    assert chosen.lacking == ""
    assert "soft kernel" in chosen.reason


def test_a_sharp_series_is_taken_when_there_is_no_other():
    assert select(needs(), study_facts(head(uid="1.3", kernel="BONE"))).series_instance_uid == "1.3"


def test_an_original_is_preferred_to_a_thinner_reformat():
    reformat = head(1.0, 150, "1.1", instance={"image_type": ("DERIVED", "SECONDARY", "REFORMATTED")})
    assert select(needs(), study_facts(reformat, head(uid="1.2"))).series_instance_uid == "1.2"


def test_ties_are_broken_by_series_uid_and_order_does_not_matter():
    a, b = head(uid="1.5"), head(uid="1.4")
    assert select(needs(), study_facts(a, b)) == select(needs(), study_facts(b, a))
    assert select(needs(), study_facts(a, b)).series_instance_uid == "1.4"


def test_a_complete_series_is_taken_before_one_still_arriving():
    arriving = head(1.0, 40, "1.1")
    assert select(needs(), study_facts(arriving, head(uid="1.2"))).series_instance_uid == "1.2"


def test_localizers_and_own_results_are_never_selected():
    scout = head(uid="1.0", count=2, instance={"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")})
    own = head(0.5, 300, "1.01", detector_result=True)
    assert select(needs(), study_facts(scout, own, head(uid="1.9"))).series_instance_uid == "1.9"
    assert refusal([scout, own]) == ("NotApplicable", "no_suitable_series")
    assert refusal([own]) == ("NotApplicable", "no_suitable_series")


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (head(modality="MR"), ("NotApplicable", "modality")),
        (head(body_part="CHEST"), ("NotApplicable", "body_part")),
        (head(body_part="", description="CHEST 5mm"), ("NotApplicable", "body_part")),
        (head(contrast=True), ("NotApplicable", "contrast")),
        (head(instance={"position": None}), ("NotProcessable", "no_geometry")),
        (head(instance={"orientation": (1, 0, 0, 0, 0, -1)}), ("NotApplicable", "no_suitable_series")),
        (head(instance={"lossy": True, "lossy_ratio": 20.0}), ("NotProcessable", "lossy_not_allowed")),
    ],
)
def test_what_more_images_cannot_cure_is_refused_with_its_reason(series, expected):
    assert refusal([series]) == expected


def test_the_refusal_that_came_furthest_is_the_one_told():
    others = [head(uid="1.1", modality="SR"), head(uid="1.2", body_part="KNEE"), head(uid="1.3", contrast=True)]
    assert refusal(others) == ("NotApplicable", "contrast")


def test_scattered_orientations_are_mixed():
    planes = [
        instance_facts(k, series=f"m{n}", orientation=orientation)
        for k in range(8)
        for n, orientation in enumerate(((1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)))
    ]
    assert refusal([series_facts(planes)]) == ("NotProcessable", "mixed_orientation")


@pytest.mark.parametrize(
    ("series", "lacking"),
    [
        (head(5.0, 3), "missing_slices"),
        (head(2.0, 20), "incomplete_coverage"),
        (series_facts([instance_facts(z, number=z) for z in [*range(0, 60, 5), *range(80, 150, 5)]]), "missing_slices"),
        (head(13.0, 20), "slice_spacing"),
        (head(13.0, 5), "slice_spacing"),
    ],
)
def test_what_more_images_may_cure_waits_and_names_what_is_lacking(series, lacking):
    chosen = select(needs(), study_facts(series))
    assert (chosen.completeness, chosen.lacking) == ("incomplete", lacking)


def test_a_bridged_hole_can_be_run_but_is_not_yet_enough():
    holes = series_facts([instance_facts(z, number=z) for z in [*range(0, 60, 5), *range(65, 150, 5), 155]])
    chosen = select(needs(), study_facts(holes))
    assert (chosen.completeness, chosen.lacking) == ("incomplete", "")


def test_a_regular_stack_may_be_demanded():
    holes = series_facts([instance_facts(z, number=z) for z in [*range(0, 60, 5), *range(70, 150, 5)]])
    chosen = select(needs(series={"max_step_ratio": 1.5}), study_facts(holes))
    assert chosen.lacking == "missing_slices"


def test_every_second_instance_number_missing_is_not_enough():
    half = series_facts([instance_facts(k * 5.0, number=2 * k + 1) for k in range(30)])
    assert select(needs(), study_facts(half)).completeness == "incomplete"
    unnumbered = series_facts([instance_facts(k * 5.0) for k in range(30)])
    assert select(needs(), study_facts(unnumbered)).completeness == "enough"


def test_an_enhanced_object_is_complete_in_itself():
    whole = instance_facts(0, sop_class_uid=ENHANCED_CT_CLASS, position=None, orientation=None, number_of_frames=40)
    chosen = select(needs(), study_facts(series_facts([whole])))
    assert chosen.completeness == "enough"
    few = instance_facts(0, sop_class_uid=ENHANCED_CT_CLASS, position=None, orientation=None, number_of_frames=4)
    assert select(needs(), study_facts(series_facts([few]))).lacking == "missing_slices"


def test_applicable_answers_from_headers():
    assert applicable(needs(), study_facts(head())).applicable
    assert applicable(needs(), study_facts(head(modality="MR"))).reason == "modality"
    assert applicable(needs(), study_facts()).reason == "no_suitable_series"
    assert applicable(needs(), study_facts(head(contrast=True), head(modality="MR"))).reason == "contrast"


def test_planes_too_far_apart_are_named_before_contrast_agent_and_make_a_case_that_cannot_be_read():
    coarse, thin = head(13.0, 20, "1.1", contrast=True), head(uid="1.2", contrast=True)
    assert refusal([coarse]) == ("NotProcessable", "slice_spacing")
    assert applicable(needs(), study_facts(coarse)).applicable
    assert refusal([coarse, thin]) == ("NotApplicable", "contrast"), "the thin one came furthest"
    assert applicable(needs(), study_facts(coarse, thin)).reason == "contrast"
    assert select(needs(), study_facts(coarse, head(uid="1.3"))).series_instance_uid == "1.3"
    assert refusal([head(5.0, 3, contrast=True)]) == ("NotApplicable", "contrast"), "more images may still come"


def test_without_the_agent_that_a_detector_needs_thick_planes_are_another_examination():
    assert refusal([head(13.0, 20)], contrast="present") == ("NotApplicable", "contrast")


def test_contrast_may_be_demanded_and_unknown_contrast_is_not_held_against():
    assert refusal([head()], contrast="present") == ("NotApplicable", "contrast")
    assert select(needs(contrast="present"), study_facts(head(contrast=None))).completeness == "enough"
    assert select(needs(), study_facts(head(contrast=None))).completeness == "enough"


@pytest.mark.parametrize(
    ("tag", "description", "fits"),
    [
        ("HEAD", "", True),
        ("HEADNECK", "", True),
        ("", "CT BRAIN W/O", True),
        ("", "2.5/5mm", True),
        ("CHEST", "", False),
        ("", "Abdomen/Pelvis", False),
        ("CHEST", "HEAD routine", True),
    ],
)
def test_body_part_by_tag_then_by_words_then_left_to_the_image(tag, description, fits):
    part = BodyPart.model_validate({"any": ["HEAD", "BRAIN"], "from": ["tags", "image_content"]})
    series = head(body_part=tag, description=description)
    assert body_part_fits(part, study_facts(series), series) is fits


def test_without_an_image_check_the_tags_must_name_the_part():
    part = BodyPart.model_validate({"any": ["HEAD"], "from": ["tags"]})
    series = head(body_part="", description="2.5/5mm")
    assert not body_part_fits(part, study_facts(series), series)


def test_an_unknown_rule_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="no_such_rule"):
        select(needs(select="no_such_rule"), study_facts(head()))


@pytest.mark.parametrize(
    ("kernel", "description", "expected"),
    [
        ("SOFT", "", "soft"),
        ("STANDARD", "", "standard"),
        ("STD+", "", "standard"),
        ("BONEPLUS", "", "sharp"),
        ("H30s", "", "soft"),
        ("J45s", "", "standard"),
        ("Br64d", "", "sharp"),
        ("Hr38f\\3", "", "soft"),
        ("FC21", "", "soft"),
        ("FC13-H", "", "standard"),
        ("FC30", "", "sharp"),
        ("FC64", "", "unknown"),
        ("UB", "", "standard"),
        ("D", "", "sharp"),
        ("xyz", "bone", "unknown"),
        ("", "Head BONE 1mm", "sharp"),
        ("", "Soft tissue", "soft"),
        ("", "5mm", "unknown"),
    ],
)
def test_kernel_classes(kernel, description, expected):
    assert kernel_class(kernel, description) == expected
