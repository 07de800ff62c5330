"""The functions of the condition language. Each is typed at load and never raises when it runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from wetread.core.expression_patterns import globs, linear_pattern
from wetread.core.expression_types import (
    BOOL,
    DURATION,
    ELEMENT,
    FIELDS,
    NUMBER,
    TAGS,
    UNKNOWN,
    ExpressionError,
    Kind,
    Type,
    conjunction,
    disjunction,
    negate,
)

Env = dict[str, Any]
Run = Callable[[Env], Any]
Pair = tuple[Any, Callable[[], Any]]
"""(whether the element is kept, its value on demand)."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """One call with its typed arguments; ``generator`` is set when the only argument is a generator."""

    name: str
    nodes: tuple[ast.expr, ...]
    arguments: tuple[tuple[Type, Run], ...]
    generator: tuple[Type, Callable[[Env], Iterator[Pair]]] | None
    results: frozenset[str]

    def fail(self, detail: str) -> ExpressionError:
        """Return the error of this call."""
        return ExpressionError(f"{self.name}(): {detail}")

    def literal(self, index: int) -> str:
        """Return the text literal at *index*."""
        node = self.nodes[index] if index < len(self.nodes) else None
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            raise self.fail("needs a text literal here")
        return node.value

    def pairs(self, element: frozenset[Kind]) -> tuple[Type, Callable[[Env], Iterator[Pair]]]:
        """Return the generator whose elements are one of these kinds."""
        if self.generator is None or self.generator[0].kind not in element:
            wanted = " or ".join(sorted(kind.value for kind in element))
            raise self.fail(f"needs a generator of {wanted}")
        return self.generator


Builder = Callable[[CallSite], tuple[Type, Run]]


def _any(site: CallSite) -> tuple[Type, Run]:
    _, produce = site.pairs(frozenset({Kind.BOOL}))

    def some(env: Env) -> Any:
        result: Any = False
        for kept, value in produce(env):
            found = value() if kept is True else kept if kept is False else conjunction((kept, value()))
            if found is True:
                return True
            if found is UNKNOWN:
                result = UNKNOWN
        return result

    return BOOL, some


def _all(site: CallSite) -> tuple[Type, Run]:
    _, produce = site.pairs(frozenset({Kind.BOOL}))
    return BOOL, lambda env: conjunction(
        True if kept is False else disjunction((negate(kept), value())) for kept, value in produce(env)
    )


def _count(site: CallSite) -> tuple[Type, Run]:
    if site.generator is None:
        if len(site.arguments) != 1 or site.arguments[0][0].kind not in ELEMENT:
            raise site.fail("needs series, instances, select(...) or a generator")
        run = site.arguments[0][1]

        def length(env: Env) -> Any:
            value = run(env)
            return UNKNOWN if value is UNKNOWN else float(len(value))

        return NUMBER, length
    _, produce = site.generator

    def count(env: Env) -> Any:
        total = 0.0
        for kept, _value in produce(env):
            if kept is UNKNOWN:
                return UNKNOWN
            total += kept
        return total

    return NUMBER, count


_ANY_SCALAR: Final = frozenset(
    {Kind.BOOL, Kind.NUMBER, Kind.DURATION, Kind.TEXT, Kind.TEXTS, Kind.SERIES, Kind.INSTANCE}
)


def _first(site: CallSite) -> tuple[Type, Run]:
    if site.generator is None:
        if len(site.arguments) != 1 or site.arguments[0][0].kind not in ELEMENT:
            raise site.fail("needs series, instances, select(...) or a generator")
        kind, run = site.arguments[0]

        def head(env: Env) -> Any:
            value = run(env)
            return value[0] if value is not UNKNOWN and value else UNKNOWN

        return ELEMENT[kind.kind], head
    kind, produce = site.pairs(_ANY_SCALAR)

    def first(env: Env) -> Any:
        for kept, value in produce(env):
            if kept is UNKNOWN:
                return UNKNOWN
            if kept:
                return value()
        return UNKNOWN

    return kind, first


def _extreme(choose: Callable[[list[Any]], Any]) -> Builder:
    def build(site: CallSite) -> tuple[Type, Run]:
        if site.generator is not None:
            kind, produce = site.pairs(frozenset({Kind.NUMBER, Kind.DURATION}))

            def over(env: Env) -> Any:
                values = []
                for kept, value in produce(env):
                    if kept is False:
                        continue
                    values.append(UNKNOWN if kept is UNKNOWN else value())
                return UNKNOWN if not values or UNKNOWN in values else choose(values)

            return kind, over
        kinds = {kind.kind for kind, _ in site.arguments}
        if len(site.arguments) < 2 or len(kinds) != 1 or not kinds <= {Kind.NUMBER, Kind.DURATION}:
            raise site.fail("needs a generator of numbers, or at least two numbers or durations")
        runs = [run for _, run in site.arguments]

        def among(env: Env) -> Any:
            values = [run(env) for run in runs]
            return UNKNOWN if UNKNOWN in values else choose(values)

        return site.arguments[0][0], among

    return build


def _select(site: CallSite) -> tuple[Type, Run]:
    kind, produce = site.pairs(frozenset({Kind.SERIES, Kind.INSTANCE}))
    collection = Type(Kind.SERIES_LIST if kind.kind is Kind.SERIES else Kind.INSTANCE_LIST)

    def select(env: Env) -> Any:
        chosen = []
        for kept, value in produce(env):
            if kept is UNKNOWN:
                return UNKNOWN
            if kept:
                chosen.append(value())
        return tuple(chosen)

    return collection, select


def _matcher(make: Callable[[list[str]], Callable[[str], bool]], most: int) -> Builder:
    def build(site: CallSite) -> tuple[Type, Run]:
        if not 2 <= len(site.arguments) <= most or site.arguments[0][0].kind is not Kind.TEXT:
            raise site.fail("needs a text and its pattern")
        run = site.arguments[0][1]
        test = make([site.literal(index) for index in range(1, len(site.arguments))])

        def match(env: Env) -> Any:
            text = run(env)
            return UNKNOWN if text is UNKNOWN else test(text)

        return BOOL, match

    return build


def _tag(site: CallSite) -> tuple[Type, Run]:
    if len(site.arguments) != 2:
        raise site.fail("needs an object and a DICOM keyword")
    kind, run = site.arguments[0]
    keywords = TAGS.get(kind.kind)
    if keywords is None:
        raise site.fail(f"{kind.kind.value} has no DICOM attributes")
    name = keywords.get(site.literal(1))
    if name is None:
        raise site.fail(f"{site.literal(1)!r} is not kept for {kind.kind.value}; kept are {', '.join(keywords)}")

    def read(env: Env) -> Any:
        owner = run(env)
        return UNKNOWN if owner is UNKNOWN else owner[name]

    return FIELDS[kind.kind][name], read


def _age_years(site: CallSite) -> tuple[Type, Run]:
    if len(site.arguments) != 1 or site.arguments[0][0].kind is not Kind.STUDY:
        raise site.fail("needs the study")
    run = site.arguments[0][1]
    return NUMBER, lambda env: run(env)["age_years"]


def _hours(site: CallSite) -> tuple[Type, Run]:
    if len(site.arguments) != 1 or site.arguments[0][0].kind is not Kind.NUMBER:
        raise site.fail("needs a number of hours")
    run = site.arguments[0][1]

    def seconds(env: Env) -> Any:
        value = run(env)
        return UNKNOWN if value is UNKNOWN else value * 3600.0

    return DURATION, seconds


def _result(site: CallSite) -> tuple[Type, Run]:
    if len(site.arguments) != 1:
        raise site.fail("needs the name of a task")
    name = site.literal(0)
    if name not in site.results:
        raise site.fail(f"there is no task {name!r}; tasks are {', '.join(sorted(site.results)) or 'none'}")
    return Type(Kind.RESULT), lambda env: env["#results"].get(name, UNKNOWN)


CALLS: Final[dict[str, Builder]] = {
    "any": _any,
    "all": _all,
    "count": _count,
    "first": _first,
    "min": _extreme(min),
    "max": _extreme(max),
    "like": _matcher(globs, 17),
    "matches": _matcher(lambda patterns: linear_pattern(patterns[0]), 2),
    "tag": _tag,
    "age_years": _age_years,
    "hours": _hours,
    "result": _result,
    "select": _select,
}
