"""Identifiers, priorities and the error tree."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core import errors
from wetread.core.errors import InvalidInput, Unprocessable, WetreadError, WorkitemStateError
from wetread.core.identifiers import canonical_json, check_uid, derived_uid, digest, is_uid, random_uid
from wetread.core.priority import TARGET_SECONDS, UPS_PRIORITY, Priority, due_at, most_urgent, queue_number
from wetread.core.ruo import RUO_SHORT, RUO_STATEMENT


def every_error() -> list[type[WetreadError]]:
    found, todo = [], [WetreadError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo.extend(kind.__subclasses__())
    return found


def test_error_tree_is_drawn_in_the_docstring() -> None:
    drawn = set(re.findall(r"- (\w+)", errors.__doc__ or "")) | {"WetreadError"}
    public = {kind.__name__ for kind in every_error() if kind.__module__ == errors.__name__ and kind.__name__[0] != "_"}
    assert public == drawn


def test_slugs_are_unique() -> None:
    slugs = [kind.slug for kind in every_error() if kind.__name__[0] != "_" and kind.__module__ == errors.__name__]
    assert len(slugs) == len(set(slugs))


def test_problem_carries_status_code_and_dicom_status() -> None:
    problem = WorkitemStateError("x", dicom_status=0xC301, http_status=400).problem("/dicom-web/workitems/1")
    assert problem == {
        "type": "urn:wetread:problem:workitem-state",
        "title": "Workitem state does not allow this",
        "status": 400,
        "detail": "x",
        "instance": "/dicom-web/workitems/1",
        "dicom_status": "C301",
    }
    assert Unprocessable("no_contrast").problem()["code"] == "no_contrast"


@pytest.mark.parametrize("bad", ["", "../etc", "1.2/3", "1.2\n", "1" * 65, "1.2.x", "1.2.%00", "\u0661.2"])
def test_uids_with_other_characters_are_refused(bad: str) -> None:
    assert not is_uid(bad)
    with pytest.raises(InvalidInput):
        check_uid(bad)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_derived_uids_are_valid_stable_and_distinct(parts: list[str]) -> None:
    uid = derived_uid(*parts)
    assert uid == derived_uid(*parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
    assert len(uid) <= 64
    assert uid != derived_uid(*parts, "x")


def test_digest_separates_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


def test_random_uids_differ() -> None:
    assert random_uid() != random_uid()


def test_ai_and_rules_may_only_raise() -> None:
    assert most_urgent(Priority.ROUTINE, Priority.STAT, Priority.URGENT) == Priority.STAT
    assert [p.rank for p in Priority] == sorted(p.rank for p in Priority)


def test_targets_grow_with_the_class_and_every_class_has_a_ups_priority() -> None:
    targets = [TARGET_SECONDS[p] for p in Priority]
    assert targets == sorted(targets)
    assert set(UPS_PRIORITY) == set(Priority)


@given(st.integers(1_600_000_000, 3_700_000_000), st.sampled_from(list(Priority)))
def test_queue_number_is_the_due_time_and_fits_31_bits(arrival: int, priority: Priority) -> None:
    due = due_at(arrival, priority)
    assert 1 <= queue_number(due) < 2**31
    assert queue_number(due) < queue_number(due + 1)


def test_old_routine_work_overtakes_new_urgent_work() -> None:
    now = 1_790_000_000.0
    assert queue_number(due_at(now - 4 * 3600, Priority.ROUTINE)) < queue_number(due_at(now, Priority.URGENT))


def test_statements() -> None:
    assert RUO_STATEMENT.startswith("Research use only. Not a medical device. Not for diagnosis or patient care.")
    assert len(RUO_SHORT) <= 64
