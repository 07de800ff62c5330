"""The condition language: what it accepts, how it decides about what is missing, and that nothing gets past it."""

from __future__ import annotations

import ast
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.core.errors import WetreadError
from wetread.core.expression_patterns import linear_pattern
from wetread.core.expression_types import (
    FIELDS,
    TAGS,
    UNKNOWN,
    ExpressionError,
    Kind,
    Namespace,
    conjunction,
    disjunction,
    negate,
)
from wetread.core.expressions import MAX_DEPTH, MAX_NODES, MAX_STEPS, compile_expression


def thing(kind: Kind, **values: Any) -> dict[str, Any]:
    return {name: values.get(name, UNKNOWN) for name in FIELDS[kind]}


def names(
    *series: dict[str, Any],
    study: dict[str, Any] | None = None,
    instances: tuple[dict[str, Any], ...] = (),
    results: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
) -> Namespace:
    return Namespace(
        study=thing(Kind.STUDY, **(study or {})),
        source=thing(Kind.SOURCE, **(source or {})),
        now=thing(Kind.NOW, hour=2.0, weekday=6.0),
        series=tuple(thing(Kind.SERIES, **s) for s in series),
        instances=tuple(thing(Kind.INSTANCE, **i) for i in instances),
        results={n: thing(Kind.RESULT, **r) for n, r in (results or {}).items()},
    )


HEAD = {"modality": "CT", "body_part": "HEAD", "contrast": False, "instance_count": 30.0, "thickness_mm": 5.0}
CHEST = {"modality": "CT", "body_part": "CHEST", "contrast": True, "instance_count": 200.0}
SILENT = {"modality": "CT"}

SPEC_RULE = """
any(s.modality == 'CT' and (like(s.body_part, '*HEAD*') or like(s.description, '*BRAIN*', '*HEAD*'))
    and s.contrast is False for s in series)
"""


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ((HEAD,), True),
        ((CHEST,), False),
        ((CHEST, HEAD), True),
        ((SILENT,), False),  # `is False` is never Unknown, and False decides an `and`
        (({"modality": "CT", "contrast": False},), UNKNOWN),
        (({"modality": "CT", "contrast": False, "description": "Brain 5.0 H31s"},), True),
        ((), False),
    ],
)
def test_the_rule_of_the_specification(series: tuple[dict[str, Any], ...], expected: Any) -> None:
    assert compile_expression(SPEC_RULE).evaluate(names(*series)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count(series) == 3", True),
        ("count(s for s in series if s.modality == 'CT') == 3", True),
        ("count(s for s in series if s.body_part == 'HEAD') == 1", UNKNOWN),
        ("count(s for s in series if s.contrast is True) == 1", True),
        ("all(s.modality == 'CT' for s in series)", True),
        ("all(s.contrast is not None for s in series)", False),
        ("all(s.body_part == 'HEAD' for s in series if s.contrast is False)", True),
        ("any(s.body_part == 'HEAD' for s in series if s.contrast is True)", False),
        ("max(s.instance_count for s in series if s.contrast is not None) >= 200", True),
        ("min(s.instance_count for s in series) < 5", UNKNOWN),
        ("max(1, 2, 3) == 3 and min(2, 1) == 1", True),
        ("first(s.body_part for s in series) == 'HEAD'", True),
        ("first(s for s in series if s.contrast is True).body_part == 'CHEST'", True),
        ("first(s for s in series if s.contrast is True and s.modality == 'MR').body_part is None", True),
        ("count(select(s for s in series if s.contrast is False)) == 1", True),
        ("first(select(s for s in series if s.contrast is False)).thickness_mm == 5", True),
        ("first(select(s for s in series if s.body_part == 'X')).thickness_mm == 5", UNKNOWN),
        ("any(tag(s, 'BodyPartExamined') == 'CHEST' for s in series)", True),
        ("tag(study, 'PatientSex') == 'F'", True),
        ("age_years(study) >= 18 and age_years(study) < 90", True),
        ("study.waited > hours(1) / 2 and study.waited < hours(2)", True),
        ("study.waited + hours(1) > hours(1.5)", True),
        ("study.waited * 2 == hours(2)", True),
        ("hours(3) / hours(1.5) == 2", True),
        ("1 + 2 * 3 - 4 / 2 == 5", True),
        ("-1 < 0", True),
        ("1 / 0 == 1", UNKNOWN),
        ("1e308 * 1e308 > 0", UNKNOWN),
        ("0 < age_years(study) <= 40", True),
        ("source.ae in ('CT_ER', 'CT_2')", True),
        ("source.ae not in ['CT_2']", True),
        ("source.client in ('x',)", UNKNOWN),
        ("source.client is None", True),
        ("source.client is not None", False),
        ("'AXIAL' in first(i.image_type for i in instances)", True),
        ("any('LOCALIZER' in i.image_type for i in instances)", UNKNOWN),
        ("now.hour < 6 or now.weekday >= 5", True),
        ("result('ich').state == 'positive' and result('ich').volume_ml > 10", True),
        ("result('other').state == 'positive'", UNKNOWN),
        ("like(study.description, '*TRAUMA*')", True),
        ("like(study.description, 'poly?rauma h*')", True),
        ("like(study.description, 'Poly[ts]rauma')", False),
        ("matches(study.description, '^Poly.*Head$')", True),
        ("matches(study.description, '[0-9]{2,3}')", False),
        ("not study.description is None", True),
        ("True and not False", True),
        ("s1 == s1 if True else False", ExpressionError),
    ],
)
def test_meanings(text: str, expected: Any) -> None:
    space = names(
        HEAD,
        CHEST,
        SILENT,
        study={"description": "PolyTrauma Head", "sex": "F", "age_years": 40.0, "waited": 3600.0},
        instances=({"image_type": ("ORIGINAL", "PRIMARY", "AXIAL")}, {}),
        results={"ich": {"state": "positive", "volume_ml": 12.0}},
        source={"ae": "CT_ER"},
    )
    if expected is ExpressionError:
        with pytest.raises(ExpressionError):
            compile_expression(text)
        return
    expression = compile_expression(text, results=frozenset({"ich", "other"}))
    assert expression.evaluate(space) is expected
    assert expression.explain(space).value is expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("study.nonsense == 1", "no attribute"),
        ("patient.name == 'x'", "unknown name"),
        ("study.__class__ is None", "no attribute"),
        ("().__class__.__bases__", ""),
        ("__import__('os')", "can be called"),
        ("eval('1')", "can be called"),
        ("series[0].modality == 'CT'", "Subscript"),
        ("[s for s in series]", "ListComp"),
        ("(lambda: True)()", "can be called"),
        ("f'{study}' == 'x'", "JoinedStr"),
        ("study.description == 3", "cannot be compared"),
        ("study.description < 'a'", "no order"),
        ("study.description", "not a truth value"),
        ("study.description + 'x' == 'y'", "does not take"),
        ("2 ** 8 == 256", "does not take"),
        ("7 % 2 == 1", "does not take"),
        ("hours(1) + 1 > hours(1)", "does not take"),
        ("age_years(study) > hours(1)", "cannot be compared"),
        ("like(study.description, study.sex)", "literal"),
        ("like(study.description)", "pattern"),
        ("like(now.hour, '1')", "text and its pattern"),
        ("any(s for s in series)", "generator of"),
        ("any(series)", "generator of"),
        ("any(True for s in study)", "gone through"),
        ("any(x for s in series for t in series)", "one `for`"),
        ("any(True for series in series)", "already a name"),
        ("any(True for a, b in series)", "plain name"),
        ("any(s.contrast for s in series, True)", ""),
        ("all(s.modality == 'CT' for s in series) and s.contrast", "unknown name"),
        ("count(series, series) == 1", "needs"),
        ("count(study) == 1", "needs"),
        ("first(study).sex == 'F'", "needs"),
        ("max(1) == 1", "at least two"),
        ("max(1, hours(1)) == 1", "at least two"),
        ("tag(study, 'PatientName') == 'x'", "not kept"),
        ("tag(source, 'Modality') == 'x'", "no DICOM"),
        ("tag(study) == 'x'", "needs"),
        ("result('nobody').state == 'positive'", "no task"),
        ("result('ich').state == 'postive'", "none of"),
        ("result('ich').state in ('positive', 'pos')", "none of"),
        ("'positve' == result('ich').state", "none of"),
        ("study.sex == 'female'", "none of"),
        ("1 is 1", "`is` is for"),
        ("study.sex is 'F'", "`is` is for"),
        ("1 in (1, 2)", "texts only"),
        ("'a' in ()", "at least one"),
        ("'a' in 'abc'", "list of texts"),
        ("3 in ('a',)", "looks for a text"),
        ("not 3", "not a truth value"),
        ("~1 == 1", "part of the language"),
        ("-study.description == 1", "part of the language"),
        ("b'x' == b'x'", "literals"),
        ("... is None", "literals"),
        ("study.waited > hours(x=1)", "keyword"),
        ("hours('1') > hours(1)", "number of hours"),
        ("age_years(source) > 1", "needs the study"),
        ("1 if True else 2", "IfExp"),
        ("(x := 1) == 1", "NamedExpr"),
        ("await study", ""),
        ("True and", "not an expression"),
        ("", "not an expression"),
        ("\x00", ""),
        ("1" * 5000, "longer than"),
        ("matches(study.description, '(a|b)+')", "group"),
        ("matches(study.description, '(?=a)')", "look-around"),
        ("matches(study.description, r'(a)\\1')", "escape"),
        ("matches(study.description, 'a**')", "quantifier"),
        ("matches(study.description, '.*.*.*')", "bounded"),
        ("matches(study.description, 'a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?')", "bounded"),
        ("matches(study.description, 'a{1,99}')", "repeat count"),
        ("matches(study.description, '[abc')", "not closed"),
        ("matches(study.description, '(abc')", "regular expression"),
        ("matches(study.description, '" + "a" * 120 + "')", "longer than"),
        ("like(study.description, '" + "*" * 120 + "')", "longer than"),
    ],
)
def test_refusals_say_why_and_where(text: str, says: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, results=frozenset({"ich"}))
    assert says in caught.value.detail
    assert caught.value.line >= 1
    assert caught.value.column >= 1


def test_the_place_of_a_fault_is_its_own() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression("now.hour < 6 and study.nonsense == 1")
    assert caught.value.column == len("now.hour < 6 and ") + 1


def test_limits() -> None:
    many = " or ".join(f"now.hour == {n}" for n in range(MAX_NODES))
    with pytest.raises(ExpressionError, match="nodes"):
        compile_expression(many)
    deep = "not " * MAX_DEPTH + "True"
    with pytest.raises(ExpressionError, match="deeper"):
        compile_expression(deep)
    costly = compile_expression("any(i.rows == 3 and i.columns == 3 for i in instances)")
    few = names(instances=tuple({"rows": 512.0, "columns": 512.0} for _ in range(10)))
    assert costly.evaluate(few) is False
    crowd = names(instances=tuple({"rows": 512.0, "columns": 512.0} for _ in range(MAX_STEPS)))
    assert costly.evaluate(crowd) is UNKNOWN
    explained = costly.explain(crowd)
    assert explained.value is UNKNOWN
    assert str(MAX_STEPS) in explained.note


def test_the_explanation_has_every_part_that_was_looked_at() -> None:
    explanation = compile_expression(SPEC_RULE).explain(names(CHEST, HEAD))
    assert explanation.steps is not None
    shown = explanation.steps.as_json()
    assert shown["value"] is True
    text = str(shown)
    assert "'s.body_part', 'value': 'CHEST'" in text
    assert "like(s.description, '*BRAIN*', '*HEAD*')" in text
    assert "'unknown': True" in text
    assert UNKNOWN.__repr__() == "Unknown"
    with pytest.raises(TypeError):
        bool(UNKNOWN)


def test_other_types_than_conditions() -> None:
    assert compile_expression("count(series)", expect=None).evaluate(names(HEAD, CHEST)) == 2.0
    with pytest.raises(ExpressionError):
        compile_expression("count(series)")


def test_every_kept_tag_is_a_field() -> None:
    for kind, keywords in TAGS.items():
        assert set(keywords.values()) <= set(FIELDS[kind])


kleene = st.sampled_from([True, False, UNKNOWN])


@given(st.lists(kleene, max_size=6))
def test_kleene_laws(values: list[Any]) -> None:
    assert negate(conjunction(values)) is disjunction([negate(v) for v in values])
    assert conjunction(values) is conjunction(list(reversed(values)))
    possible = [[True, False] if v is UNKNOWN else [v] for v in values]
    outcomes = {all(world) for world in _worlds(possible)}
    assert conjunction(values) is (UNKNOWN if len(outcomes) == 2 else outcomes.pop())


def _worlds(possible: list[list[bool]]) -> list[list[bool]]:
    worlds: list[list[bool]] = [[]]
    for choices in possible:
        worlds = [[*w, c] for w in worlds for c in choices]
    return worlds


atoms = st.sampled_from(
    ["s.modality == 'CT'", "s.contrast is False", "like(s.body_part, '*HEAD*')", "s.thickness_mm < 3", "now.hour > 1"]
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        inner.map(lambda a: f"not ({a})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} and {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} or {p[1]})"),
    ),
    max_leaves=6,
)
some_series = st.fixed_dictionaries(
    {},
    optional={
        "modality": st.sampled_from(["CT", "MR"]),
        "contrast": st.booleans(),
        "body_part": st.sampled_from(["HEAD", "CHEST"]),
        "thickness_mm": st.floats(0.5, 10),
    },
)


@settings(max_examples=60, deadline=None)
@given(conditions, st.lists(some_series, max_size=3))
def test_explaining_never_changes_the_answer_and_more_knowledge_never_flips_it(
    condition: str, series: list[dict[str, Any]]
) -> None:
    try:
        expression = compile_expression(f"any({condition} for s in series)")
    except ExpressionError:
        return  # nested deeper than allowed
    space = names(*series)
    answer = expression.evaluate(space)
    assert expression.explain(space).value is answer
    defaults = {"modality": "CT", "contrast": True, "body_part": "HEAD", "thickness_mm": 1.0}
    full = [defaults | s for s in series]
    known = expression.evaluate(names(*full))
    assert answer is UNKNOWN or "is False" in condition or known is answer


VOCABULARY = """
series study source now s i instances any all count like matches first select tag result ( ) [ ] , . == != < in is not
and or None True 'CT' '*HEAD*' 3 1e9 + - * / if for lambda : ** % := \\ ' eval __class__ modality state
"""
words = st.sampled_from(VOCABULARY.split())


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(words, max_size=25).map(" ".join), st.text(max_size=60)))
def test_fuzz_never_raises_past_the_typed_error(text: str) -> None:
    try:
        expression = compile_expression(text, results=frozenset({"ich"}), expect=None)
    except WetreadError:
        return
    assert ast.parse(expression.text, mode="eval")
    expression.evaluate(names(HEAD, SILENT))
    expression.explain(names(HEAD, SILENT))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab.*+?|()[]{},12^$\\d", max_size=24))
def test_accepted_patterns_are_quick(pattern: str) -> None:
    try:
        search = linear_pattern(pattern)
    except ExpressionError:
        return
    started = time.perf_counter()
    search("ab" * 64 + "!")
    search("a" * 128)
    assert time.perf_counter() - started < 2.0
