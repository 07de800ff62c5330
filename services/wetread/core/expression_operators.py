"""Comparisons and arithmetic of the condition language: typed at load, Unknown in, Unknown out."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, Final

from wetread.core.expression_types import DURATION, NUMBER, UNKNOWN, ExpressionError, Kind, Type

Binary = Callable[[Any, Any], Any]
Operand = tuple[Type, ast.expr]

_ORDER: Final[dict[type[ast.cmpop], Binary]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EQUAL: Final[dict[type[ast.cmpop], Binary]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_ARITHMETIC: Final[dict[type[ast.operator], Binary]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SCALARS: Final = frozenset({Kind.BOOL, Kind.NUMBER, Kind.DURATION, Kind.TEXT})


def comparison(op: ast.cmpop, left: Operand, right: Operand) -> Binary:
    """Return the test of one comparison. Raises ExpressionError when the types do not fit."""
    (left_type, left_node), (right_type, right_node) = left, right
    if isinstance(op, ast.Is | ast.IsNot):
        return _identity(op, right_node)
    if isinstance(op, ast.In | ast.NotIn):
        if left_type.kind is not Kind.TEXT or right_type.kind is not Kind.TEXTS:
            msg = "`in` looks for a text in a list of texts"
            raise ExpressionError(msg)
        _check_words(left_type, right_node)
        inside: Binary = lambda a, b: a in b  # noqa: E731
        outside: Binary = lambda a, b: a not in b  # noqa: E731
        return _strict(inside if isinstance(op, ast.In) else outside)
    if left_type.kind is not right_type.kind or left_type.kind not in _SCALARS:
        msg = f"{left_type.kind.value} cannot be compared with {right_type.kind.value}"
        raise ExpressionError(msg)
    if type(op) in _EQUAL:
        _check_words(left_type, right_node)
        _check_words(right_type, left_node)
        return _strict(_EQUAL[type(op)])
    if left_type.kind not in {Kind.NUMBER, Kind.DURATION}:
        msg = f"{left_type.kind.value} has no order"
        raise ExpressionError(msg)
    return _strict(_ORDER[type(op)])


def arithmetic(op: ast.operator, left: Type, right: Type) -> tuple[Type, Binary]:
    """Return type and function of ``+ - * /`` on numbers and durations. Division by zero is Unknown."""
    kinds = (left.kind, right.kind)
    both_numbers = kinds == (Kind.NUMBER, Kind.NUMBER)
    both_durations = kinds == (Kind.DURATION, Kind.DURATION)
    result: Type | None = None
    if isinstance(op, ast.Add | ast.Sub):
        result = NUMBER if both_numbers else DURATION if both_durations else None
    elif isinstance(op, ast.Mult):
        mixed = set(kinds) == {Kind.NUMBER, Kind.DURATION}
        result = NUMBER if both_numbers else DURATION if mixed else None
    elif isinstance(op, ast.Div):
        scaled = kinds == (Kind.DURATION, Kind.NUMBER)
        result = NUMBER if both_numbers or both_durations else DURATION if scaled else None
    if result is None:
        msg = f"{type(op).__name__} does not take {left.kind.value} and {right.kind.value}"
        raise ExpressionError(msg)
    compute = _ARITHMETIC[type(op)]

    def bounded(a: Any, b: Any) -> Any:
        if a is UNKNOWN or b is UNKNOWN:
            return UNKNOWN
        try:
            value = compute(a, b)
        except ArithmeticError:
            return UNKNOWN
        return value if math.isfinite(value) else UNKNOWN

    return result, bounded


def _strict(test: Binary) -> Binary:
    return lambda a, b: UNKNOWN if a is UNKNOWN or b is UNKNOWN else test(a, b)


def _identity(op: ast.cmpop, node: ast.expr) -> Binary:
    """``is None`` asks whether the value is missing; ``is True`` and ``is False`` are never Unknown."""
    if not isinstance(node, ast.Constant) or not (node.value is None or isinstance(node.value, bool)):
        msg = "`is` is for None, True and False"
        raise ExpressionError(msg)
    wanted = UNKNOWN if node.value is None else node.value
    if isinstance(op, ast.Is):
        return lambda a, _b: a is wanted
    return lambda a, _b: a is not wanted


def _check_words(kind: Type, node: ast.expr) -> None:
    """Refuse a literal that a closed vocabulary does not have: it could never match."""
    if kind.words is None:
        return
    literals = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    for literal in literals:
        if isinstance(literal, ast.Constant) and literal.value not in kind.words:
            msg = f"{literal.value!r} is none of {', '.join(sorted(kind.words))}"
            raise ExpressionError(msg)
