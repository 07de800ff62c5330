"""Search answers put together from stored fragments are those that the general way renders."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from wetread.core.dicomweb.fragments import SeriesAnswers, instance_fragment
from wetread.core.dicomweb.levels import DEFAULTS, INSTANCE_FRAGMENT, Level
from wetread.core.dicomweb.query import Query
from wetread.core.ports.archive import Match
from wetread.gateway.qido import render

TAGS = sorted(
    {*INSTANCE_FRAGMENT, *(f"{tag:08X}" for tag in DEFAULTS[Level.INSTANCE])} - {"00081190", "00080056", "00083002"}
)
ENTRIES = st.fixed_dictionaries(
    {"vr": st.just("LO"), "Value": st.lists(st.sampled_from(["a\nb", ",", "\\", "1.2"]), min_size=1)}
)
BASE, STUDY, SERIES, SOP, SYNTAX = "http://h:1/dicom-web", "1.2", "1.3", "1.4", "1.2.840.10008.1.2.1"


@given(st.dictionaries(st.sampled_from(TAGS), ENTRIES))
def test_same_answer_as_the_general_way(data: dict[str, Any]) -> None:
    stored = instance_fragment(data)
    kept = orjson.loads(stored)
    assert {tag: entry for tag, entry in kept.items() if "Value" in entry} == data
    above = {"0020000D": {"vr": "UI", "Value": [STUDY]}, "0020000E": {"vr": "UI", "Value": [SERIES]}}
    attributes = above | kept | {"00083002": {"vr": "UI", "Value": [SYNTAX]}}
    match = Match(STUDY, SERIES, SOP, attributes)
    rendered = render(match, Query(Level.INSTANCE), BASE, within=(True, True))
    answer = SeriesAnswers(BASE, STUDY, SERIES).answer(stored, SOP, SYNTAX)
    assert answer == orjson.dumps(rendered)


def test_fragments_of_another_form_are_left_to_the_general_way() -> None:
    answers = SeriesAnswers(BASE, STUDY, SERIES)
    assert answers.answer(orjson.dumps({"00080018": {"vr": "UI"}}), SOP, SYNTAX) is None
    bulky = instance_fragment({"00280010": {"vr": "UN", "BulkDataURI": "/bulkdata/00280010"}})
    assert answers.answer(bulky, SOP, SYNTAX) is None
