"""Searches over real files of many makers and character sets: pydicom's reading of the values is the oracle."""

from __future__ import annotations

import collections
from typing import Any
from urllib.parse import quote

import pydicom
import pytest
from pydicom.datadict import keyword_for_tag
from tests.conformance.conftest import Kept, Variety

from wetread.core.dicomweb.levels import Level, level_of

STUDY_KEYS = ("PatientID", "AccessionNumber", "StudyID", "StudyDate", "StudyDescription", "PatientName")
INSTANCE_KEYS = (
    "SOPClassUID",
    "InstanceNumber",
    "Rows",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "Manufacturer",
)
SIMPLE = frozenset({"CS", "LO", "SH", "UI", "AE", "IS", "US", "DA"})


@pytest.fixture(scope="module")
def instances(variety: Variety) -> dict[str, pydicom.Dataset]:
    """Return the data sets by SOP Instance UID; those of which a study holds several readings are left out."""
    return {item.path.rsplit("/", 1)[1]: item.data for item in variety.kept}


def plain(value: Any) -> bool:
    """Return whether *value* is one that a key can name literally."""
    text = str(value)
    return bool(text) and len(text) < 60 and not set(text) & set("*?\\\r\n,\x1b=-") and text.isprintable()


def found(variety: Variety, query: str) -> set[str]:
    answer = variety.site.get(f"/instances?{query}")
    assert answer.status_code == 200, (query, answer.text)
    assert not [text for text in answer.headers.get_list("warning") if "additional" in text]
    return {item["00080018"]["Value"][0] for item in answer.json()}


def value_of(data: pydicom.Dataset, keyword: str) -> Any:
    try:
        return data.get(keyword)
    except Exception:  # noqa: BLE001 - a value that the oracle cannot read
        return None


@pytest.mark.parametrize("keyword", INSTANCE_KEYS)
def test_single_values_find_exactly_their_instances(
    variety: Variety, instances: dict[str, pydicom.Dataset], keyword: str
) -> None:
    """Keys of the series level are those of the series: a series whose instances disagree is not asked for."""
    by_value: dict[str, set[str]] = collections.defaultdict(set)
    series: dict[str, set[str]] = collections.defaultdict(set)
    for uid, data in instances.items():
        value = value_of(data, keyword)
        text = "" if value is None or not plain(value) else str(value)
        if keyword == "InstanceNumber" and text:
            text = str(int(text))
        by_value[text].add(uid)
        series[data.SeriesInstanceUID].add(text)
    odd = {uid for uid, data in instances.items() if len(series[data.SeriesInstanceUID]) > 1}
    asked = 0
    for text, expected in sorted(by_value.items())[:12]:
        if not text:
            continue
        got = found(variety, f"{keyword}={quote(text, safe='')}")
        if keyword in ("Modality", "SeriesDescription", "BodyPartExamined", "Manufacturer"):
            assert got - odd == expected - odd, (keyword, text)
        else:
            assert got == expected, (keyword, text)
        asked += 1
    assert asked >= 5


def groups(name: Any) -> list[str]:
    return [group for group in (name.alphabetic, name.ideographic, name.phonetic) if group]


def test_names_of_all_character_sets(variety: Variety, instances: dict[str, pydicom.Dataset]) -> None:
    """Each name is found by itself, by its first letters with a wild card, and fuzzily by a part of it in any case."""
    sets, asked = set(), 0
    names: set[tuple[str, str]] = set()
    for uid, data in instances.items():
        name = value_of(data, "PatientName")
        if not str(name or "").strip("^ ") or "\ufffd" in str(name) or not all(plain(group) for group in groups(name)):
            continue
        study = f"&StudyInstanceUID={data.StudyInstanceUID}"
        mates = [other for other in instances.values() if other.StudyInstanceUID == data.StudyInstanceUID]
        if len({str(value_of(mate, "PatientName") or "") for mate in mates}) > 1:
            continue
        charset = str(data.get("SpecificCharacterSet") or "")
        if (charset, str(name)) in names:
            continue
        names.add((charset, str(name)))
        sets.add(charset)
        for group in groups(name):
            assert uid in found(variety, f"PatientName={quote(group[:2])}*{study}"), group
            asked += 1
        assert uid in found(variety, f"PatientName={quote(groups(name)[0])}{study}"), name
        token = next((part for part in groups(name)[-1].split("^") if part.strip()), "")
        if token:
            assert uid in found(variety, f"PatientName={quote(token.upper())}&fuzzymatching=true{study}"), token
    assert asked >= 40
    assert len(sets) >= 8, sets


def test_sequence_paths_find_exactly_their_instances(variety: Variety, instances: dict[str, pydicom.Dataset]) -> None:
    """Keys through one sequence, by keyword and by tag."""
    expected: dict[tuple[int, int, str], set[str]] = collections.defaultdict(set)
    for uid, data in instances.items():
        for element in data:
            # Of a study or series the first instance speaks, so only instance attributes are those of each instance.
            if element.VR != "SQ" or not keyword_for_tag(element.tag) or level_of(element.tag) is not Level.INSTANCE:
                continue
            for item in element.value:
                for inner in item:
                    if inner.VR in SIMPLE and inner.VM == 1 and keyword_for_tag(inner.tag) and plain(inner.value):
                        expected[element.tag, inner.tag, str(inner.value)].add(uid)
    keys = sorted(expected)[:: max(len(expected) // 24, 1)]
    for outer, inner, text in keys:
        by_keyword = f"{keyword_for_tag(outer)}.{keyword_for_tag(inner)}={quote(text, safe='')}"
        by_tag = f"{outer:08X}.{inner:08X}={quote(text, safe='')}"
        one = instances[next(iter(expected[outer, inner, text]))]
        study = f"&StudyInstanceUID={one.StudyInstanceUID}"
        got = found(variety, by_tag + study)
        assert got == found(variety, by_keyword + study)
        here = {uid for uid in expected[outer, inner, text] if instances[uid].StudyInstanceUID == one.StudyInstanceUID}
        assert got == here, by_keyword
    assert len(keys) >= 20


def test_counts_and_modalities(variety: Variety, instances: dict[str, pydicom.Dataset]) -> None:
    studies: dict[str, list[pydicom.Dataset]] = collections.defaultdict(list)
    for data in instances.values():
        studies[data.StudyInstanceUID].append(data)
    listed = variety.site.get("/studies?limit=5000").json()
    assert {item["0020000D"]["Value"][0] for item in listed} == studies.keys()
    for item in listed:
        members = studies[item["0020000D"]["Value"][0]]
        assert item["00201208"]["Value"] == [len(members)]
        assert item["00201206"]["Value"] == [len({member.SeriesInstanceUID for member in members})]
        modalities = {str(member.get("Modality") or "") for member in members} - {""}
        assert set(item["00080061"].get("Value", [])) == modalities
    for modality in ("CT", "MR", "US", "SR"):
        got = variety.site.get(f"/studies?ModalitiesInStudy={modality}").json()
        assert {item["0020000D"]["Value"][0] for item in got} == {
            uid for uid, members in studies.items() if any(member.get("Modality") == modality for member in members)
        }


def test_paging_walks_through_everything_once(variety: Variety, instances: dict[str, pydicom.Dataset]) -> None:
    seen: list[str] = []
    while True:
        answer = variety.site.get(f"/instances?limit=37&offset={len(seen)}")
        page = [item["00080018"]["Value"][0] for item in answer.json()]
        seen += page
        rest = len(instances) - len(seen)
        warned = [text for text in answer.headers.get_list("warning") if "additional results" in text]
        assert bool(warned) == bool(rest)
        if warned:
            assert f"There are {rest} additional results that can be requested" in warned[0]
        if not rest or not page:
            break
    assert sorted(seen) == sorted(instances)


def test_includefield_all_has_every_attribute_of_the_level(variety: Variety) -> None:
    """PS3.18 10.6.1.1: what the metadata hold of the instance level comes with includefield=all, bulk values apart."""

    def of_level(item: Kept) -> set[str]:
        (metadata,) = variety.site.get(f"{item.path}/metadata").json()
        return {
            key
            for key, entry in metadata.items()
            if level_of(int(key, 16)) is Level.INSTANCE and "BulkDataURI" not in entry
        }

    for item in variety.kept[::9]:
        study, series, uid = item.path.split("/")[2::2]
        query = f"/studies/{study}/series/{series}/instances?SOPInstanceUID={uid}&includefield=all"
        (found_one,) = variety.site.get(query).json()
        assert of_level(item) <= found_one.keys(), item.name
