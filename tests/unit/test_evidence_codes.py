from __future__ import annotations

import re

import pytest
from pydicom.sr._concepts_dict import concepts

from wetread.core.codes import (
    CONCEPTS,
    OURS,
    PRIVATE_SCHEME,
    PRIVATE_SCHEME_UID,
    PS316,
    UCUM_SOURCE,
    UNITS,
    concept,
    concept_of,
    unit_code,
)
from wetread.core.errors import ConfigurationError
from wetread.core.findings import Code
from wetread.core.identifiers import derived_uid

MEANINGS: dict[tuple[str, str], set[str]] = {}
for scheme, by_keyword in concepts.items():
    for by_value in by_keyword.values():
        for value, (meaning, _) in by_value.items():
            plain = re.sub(r" \((disorder|finding|body structure|procedure|observable entity)\)$", "", meaning)
            MEANINGS.setdefault((scheme, value), set()).update({meaning, plain})


@pytest.mark.parametrize("key", sorted(CONCEPTS))
def test_code_is_in_its_source(key: str) -> None:
    known = CONCEPTS[key]
    if known.source == PS316:
        assert known.code.meaning in MEANINGS[(known.code.scheme, known.code.value)]
    else:
        assert known.source == OURS
        assert known.code.scheme == PRIVATE_SCHEME
    assert len(known.code.value) <= 16  # SH
    assert len(known.code.meaning) <= 64  # LO


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_unit_is_in_its_source(unit: str) -> None:
    meaning, source = UNITS[unit]
    assert source in {PS316, UCUM_SOURCE}
    if source == PS316:
        assert meaning in MEANINGS[("UCUM", unit)]
    assert unit_code(unit) == Code(value=unit, scheme="UCUM", meaning=meaning)


def test_codes_are_unambiguous() -> None:
    pairs = [(c.code.scheme, c.code.value) for c in CONCEPTS.values()]
    assert len(pairs) == len(set(pairs))


def test_segmented_properties_are_concepts_themselves() -> None:
    for known in CONCEPTS.values():
        assert known.category in CONCEPTS
        assert known.property_type is None or known.property_type in CONCEPTS


def test_private_scheme_has_a_stable_uid() -> None:
    assert derived_uid("coding-scheme", PRIVATE_SCHEME) == PRIVATE_SCHEME_UID


def test_known_code_finds_its_concept() -> None:
    assert concept_of(concept("intracranial_hemorrhage").code).window == (40.0, 80.0)


def test_foreign_code_stands_for_itself() -> None:
    foreign = Code(value="T-1", scheme="99OTHER", meaning="Other thing")
    assert concept_of(foreign).code == foreign


@pytest.mark.parametrize("call", [lambda: concept("haemorrage"), lambda: unit_code("litre")])
def test_undefined_word_is_a_configuration_error(call) -> None:
    with pytest.raises(ConfigurationError):
        call()
