"""Header facts from DICOM JSON."""

from __future__ import annotations

import pytest

from wetread.core.dicom.attributes import folded, integer, number, numbers, person_name, text
from wetread.core.dicom.facts import age_years, contrast_of, instance_facts, instance_facts_from_json, series_header


def data(**values: object) -> dict[str, dict[str, object]]:
    return {
        key.strip("t"): {"vr": "LO", "Value": value if isinstance(value, list) else [value]}
        for key, value in values.items()
    }


@pytest.mark.parametrize(
    "agent", ["NONE", "no", "No Contrast", "W/O", "without contrast", "-", "n", "NON CONTRAST", "none."]
)
def test_words_for_no_agent(agent: str) -> None:
    assert contrast_of(data(t00180010=agent), "CT") is False
    assert contrast_of(data(t00180010=agent), "US") is None


@pytest.mark.parametrize("agent", ["OMNIPAQUE 350", "APPLIED", "IV", "Oral & IV", "ISOVUE", "YES", "Nonionic contrast"])
def test_named_agents(agent: str) -> None:
    assert contrast_of(data(t00180010=agent), "CT") is True


def test_agent_sequence_names_one_too() -> None:
    assert contrast_of(data(t00180012=[{"00080100": {"vr": "SH"}}]), "MR") is True
    assert contrast_of({}, "MR") is False
    assert contrast_of({}, "CR") is None


@pytest.mark.parametrize(
    ("age", "born", "studied", "expected"),
    [
        ("063Y", "", "", 63.0),
        ("006M", "", "", 0.5),
        ("", "19640131", "20240131", 60.0),
        ("", "1964.01.31", "20240131", 60.0),
        ("", "20250101", "20240131", None),
        ("", "19649999", "20240131", None),
        ("junk", "", "20240131", None),
    ],
)
def test_age(age: str, born: str, studied: str, expected: float | None) -> None:
    found = age_years(data(t00101010=age, t00100030=born, t00080020=studied))
    assert found == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_days_and_weeks() -> None:
    assert age_years(data(t00101010="365D")) == pytest.approx(1, abs=0.01)
    assert age_years(data(t00101010="052W")) == pytest.approx(1, abs=0.01)


def test_instance_facts_round_trip() -> None:
    found = instance_facts(
        data(
            t00080018="1.2",
            t00080016="1.3",
            t00200032=[0, 1, 2.5],
            t00200037=[1, 0, 0, 0, 1, 0],
            t00280030=[0.5, 0.6],
            t00080008=["ORIGINAL", None],
            t00200013=7,
            t00282110="01",
            t00282112=10.5,
            t00181120="-12.5",
        ),
        content_hash="h",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    assert found.position == (0.0, 1.0, 2.5)
    assert found.image_type == ("ORIGINAL", "")
    assert (found.lossy, found.lossy_ratio, found.gantry_tilt) == (True, 10.5, -12.5)
    from dataclasses import asdict

    assert instance_facts_from_json(asdict(found)) == found


def test_enhanced_geometry_from_functional_groups() -> None:
    groups = [{"00289110": {"vr": "SQ", "Value": [data(t00280030=[0.7, 0.7], t00180050=2)]}}]
    frame = [{"00209113": {"vr": "SQ", "Value": [data(t00200032=[1, 2, 3])]}}]
    found = instance_facts(data(t52009229=groups, t52009230=frame), content_hash="", transfer_syntax_uid="")
    assert (found.pixel_spacing, found.slice_thickness, found.position) == ((0.7, 0.7), 2.0, (1.0, 2.0, 3.0))


def test_broken_values_are_absent() -> None:
    broken = data(t00200032=[0, "x", 2], t00280010="many", t00200013=1.5, t00280008="-3", t00280030=[0.5])
    found = instance_facts(broken, content_hash="", transfer_syntax_uid="")
    assert (found.position, found.rows, found.instance_number, found.number_of_frames) == (None, None, None, 1)
    assert found.pixel_spacing is None
    assert series_header({}).modality == ""


def test_accessors() -> None:
    assert text(data(t00100020=[None]), "00100020") == ""
    assert person_name({"Alphabetic": "A^B", "Phonetic": "c"}) == "A^B==c"
    assert text({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}}, "00100010") == "A^B"
    assert number(data(t0="NaN"), "0") is None
    assert integer(data(t0="1e300"), "0") is None
    assert numbers(data(t0=[1, 2]), "0", 3) is None
    assert folded("Müller^JÜRGEN") == "muller^jurgen"
