"""The safe condition language of workflows: a typed, bounded subset of Python's expressions, interpreted by us.

Parsed with ``ast``, checked against a white list, typed at load against the declared name space and compiled to
closures: never ``eval``, never ``exec``. Missing attributes are Unknown and logic is Kleene's three-valued one.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from wetread.core.expression_calls import CALLS, CallSite
from wetread.core.expression_operators import arithmetic, comparison
from wetread.core.expression_types import (
    BOOL,
    ELEMENT,
    FIELDS,
    KEYWORDS,
    NAMES,
    NUMBER,
    TEXT,
    TEXTS,
    UNKNOWN,
    ExpressionError,
    Kind,
    Namespace,
    Type,
    conjunction,
    negate,
)

MAX_LENGTH: Final = 4000
MAX_NODES: Final = 200
MAX_DEPTH: Final = 10
MAX_STEPS: Final = 2000

Env = dict[str, Any]
Run = Callable[[Env], Any]
_BUDGET: Final = "#steps"

_UNCOUNTED: Final = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.comprehension)


class _OutOfSteps(Exception):  # noqa: N818 - control flow, never seen outside
    pass


@dataclass(frozen=True, slots=True)
class Step:
    """One sub-expression with the value it had: the explanation of a decision."""

    text: str
    value: Any
    parts: tuple[Step, ...] = ()
    tag: str = ""
    """Keyword of the DICOM attribute that an attribute of the name space was read from (PS3.6)."""

    def as_json(self) -> dict[str, Any]:
        """Return the tree as a JSON value; Unknown is written ``"Unknown"`` under its own key."""
        entry: dict[str, Any] = {"expression": self.text}
        if self.value is UNKNOWN:
            entry["unknown"] = True
        else:
            entry["value"] = _plain(self.value)
        if self.tag:
            entry["tag"] = self.tag
        if self.parts:
            entry["parts"] = [part.as_json() for part in self.parts]
        return entry


@dataclass(frozen=True, slots=True)
class Explanation:
    """The value of a condition with every sub-expression's. ``note`` says what cut it short."""

    value: Any
    steps: Step | None
    note: str = ""


@dataclass(slots=True)
class _Recorder:
    stack: list[list[Step]] = field(default_factory=lambda: [[]])


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition or number. Build with ``compile_expression``."""

    text: str
    type: Type
    names_instances: bool
    """Whether it looks at single instances."""
    _run: Run
    _traced: Callable[[_Recorder], Run]

    def evaluate(self, namespace: Namespace) -> Any:
        """Return the value: True, False or ``UNKNOWN`` for a condition. More than 2,000 steps are Unknown."""
        try:
            return self._run(_environment(namespace))
        except _OutOfSteps:
            return UNKNOWN

    def explain(self, namespace: Namespace) -> Explanation:
        """Return the value with the value of every sub-expression that was looked at."""
        recorder = _Recorder()
        try:
            value = self._traced(recorder)(_environment(namespace))
        except _OutOfSteps:
            return Explanation(UNKNOWN, None, f"more than {MAX_STEPS} steps")
        return Explanation(value, recorder.stack[0][0] if recorder.stack[0] else None)


def compile_expression(text: str, *, results: frozenset[str] = frozenset(), expect: Type | None = BOOL) -> Expression:
    """Parse, check and type *text*. ``results``: names that ``result`` may be asked for.

    Raises ExpressionError with the place, for anything outside the language.
    """
    if len(text) > MAX_LENGTH:
        msg = f"longer than {MAX_LENGTH} characters"
        raise ExpressionError(msg)
    source = " ".join(line.strip() for line in text.strip().splitlines())
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        msg = f"not an expression: {error.msg}"
        raise ExpressionError(msg, error.lineno or 1, error.offset or 1) from error
    except (ValueError, RecursionError, MemoryError) as error:
        msg = "not an expression"
        raise ExpressionError(msg) from error
    _limit(tree)
    kind, run = _Compiler(source, results, None).build(tree, {})
    if expect is not None and kind.kind is not expect.kind:
        msg = f"this is {kind.kind.value}, not {expect.kind.value}"
        raise ExpressionError(msg)

    def traced(recorder: _Recorder) -> Run:
        return _Compiler(source, results, recorder).build(tree, {})[1]

    instances = any(isinstance(node, ast.Name) and node.id == "instances" for node in ast.walk(tree))
    return Expression(source, kind, instances, run, traced)


def _environment(namespace: Namespace) -> Env:
    return {
        "study": namespace.study,
        "source": namespace.source,
        "now": namespace.now,
        "series": namespace.series,
        "instances": namespace.instances,
        "#results": namespace.results,
        _BUDGET: [MAX_STEPS],
    }


def _limit(tree: ast.expr) -> None:
    count = 0
    pending: list[tuple[ast.AST, int]] = [(tree, 1)]
    while pending:
        node, depth = pending.pop()
        counted = not isinstance(node, _UNCOUNTED)
        count += counted
        if count > MAX_NODES:
            msg = f"more than {MAX_NODES} nodes"
            raise ExpressionError(msg)
        if depth > MAX_DEPTH and counted:
            msg = f"nested deeper than {MAX_DEPTH}"
            raise _at(node, msg)
        pending.extend((child, depth + counted) for child in ast.iter_child_nodes(node))


def _at(node: ast.AST, detail: str) -> ExpressionError:
    return ExpressionError(detail, getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1)


def _size(node: ast.AST) -> int:
    return sum(not isinstance(n, _UNCOUNTED) for n in ast.walk(node))


def _keyword(node: ast.expr, scope: dict[str, Type]) -> str:
    """Return the DICOM keyword behind ``s.description`` and its like, or nothing."""
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return ""
    owner = scope.get(node.value.id) or NAMES.get(node.value.id)
    return KEYWORDS.get(owner.kind, {}).get(node.attr, "") if owner else ""


class _Compiler:
    """Turns checked nodes into (type, closure); with a recorder, closures note their values."""

    def __init__(self, source: str, results: frozenset[str], recorder: _Recorder | None) -> None:
        self._source = source
        self._results = results
        self._recorder = recorder

    def build(self, node: ast.expr, scope: dict[str, Type]) -> tuple[Type, Run]:
        handler = getattr(self, f"_{type(node).__name__.lower()}", None)
        if handler is None:
            raise _at(node, f"{type(node).__name__} is not part of the language")
        try:
            kind, run = handler(node, scope)
        except ExpressionError as error:
            if (error.line, error.column) == (1, 1):
                raise _at(node, error.detail) from error
            raise
        if self._recorder is None or isinstance(node, ast.Constant | ast.Tuple | ast.List | ast.Name):
            return kind, run
        return kind, self._recorded(node, run, self._recorder, _keyword(node, scope))

    def _recorded(self, node: ast.expr, run: Run, recorder: _Recorder, tag: str) -> Run:
        text = ast.get_source_segment(self._source, node) or ast.unparse(node)

        def traced(env: Env) -> Any:
            recorder.stack.append([])
            try:
                value = run(env)
            finally:
                parts = tuple(recorder.stack.pop())
            recorder.stack[-1].append(Step(text, value, parts, tag))
            return value

        return traced

    # --- literals and names ----------------------------------------------------------------------------------------

    def _constant(self, node: ast.Constant, _scope: dict[str, Type]) -> tuple[Type, Run]:
        value = node.value
        if isinstance(value, bool):
            return BOOL, lambda _env: value
        if value is None:
            return Type(Kind.NONE), lambda _env: None
        if isinstance(value, str):
            return TEXT, lambda _env: value
        if isinstance(value, int | float):
            try:
                number = float(value)
            except OverflowError as error:
                raise _at(node, "number out of range") from error
            return NUMBER, lambda _env: number
        raise _at(node, f"{type(value).__name__} literals are not part of the language")

    def _sequence(self, node: ast.Tuple | ast.List, _scope: dict[str, Type]) -> tuple[Type, Run]:
        values = tuple(e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str))
        if len(values) != len(node.elts) or not values:
            raise _at(node, "a list may hold texts only, and at least one")
        return TEXTS, lambda _env: values

    _tuple = _sequence
    _list = _sequence

    def _name(self, node: ast.Name, scope: dict[str, Type]) -> tuple[Type, Run]:
        name = node.id
        kind = scope.get(name) or NAMES.get(name)
        if kind is None:
            raise _at(node, f"unknown name {name!r}; known are {', '.join([*NAMES, *scope])}")
        return kind, lambda env: env[name]

    def _attribute(self, node: ast.Attribute, scope: dict[str, Type]) -> tuple[Type, Run]:
        owner, run = self.build(node.value, scope)
        fields = FIELDS.get(owner.kind)
        if fields is None or node.attr not in fields:
            offered = f"; it has {', '.join(fields)}" if fields else ""
            raise _at(node, f"{owner.kind.value} has no attribute {node.attr!r}{offered}")
        name = node.attr
        if isinstance(node.value, ast.Name):  # a name is never Unknown: the hot path of every rule
            variable = node.value.id
            return fields[name], lambda env: env[variable][name]

        def get(env: Env) -> Any:
            value = run(env)
            return UNKNOWN if value is UNKNOWN else value[name]

        return fields[name], get

    # --- operators -------------------------------------------------------------------------------------------------

    def _boolop(self, node: ast.BoolOp, scope: dict[str, Type]) -> tuple[Type, Run]:
        runs = [self._condition(value, scope) for value in node.values]
        decisive = isinstance(node.op, ast.Or)

        def fold(env: Env) -> Any:  # conjunction or disjunction, written out: this is the hot path of every rule
            result: Any = not decisive
            for run in runs:
                value = run(env)
                if value is decisive:
                    return decisive
                if value is UNKNOWN:
                    result = UNKNOWN
            return result

        return BOOL, fold

    def _condition(self, node: ast.expr, scope: dict[str, Type]) -> Run:
        kind, run = self.build(node, scope)
        if kind.kind is not Kind.BOOL:
            raise _at(node, f"this is {kind.kind.value}, not a truth value")
        return run

    def _unaryop(self, node: ast.UnaryOp, scope: dict[str, Type]) -> tuple[Type, Run]:
        if isinstance(node.op, ast.Not):
            run = self._condition(node.operand, scope)
            return BOOL, lambda env: negate(run(env))
        kind, value = self.build(node.operand, scope)
        if not isinstance(node.op, ast.USub) or kind.kind not in {Kind.NUMBER, Kind.DURATION}:
            raise _at(node, "only not, and - before a number, are part of the language")

        def minus(env: Env) -> Any:
            number = value(env)
            return UNKNOWN if number is UNKNOWN else -number

        return kind, minus

    def _binop(self, node: ast.BinOp, scope: dict[str, Type]) -> tuple[Type, Run]:
        left, run_left = self.build(node.left, scope)
        right, run_right = self.build(node.right, scope)
        kind, compute = arithmetic(node.op, left, right)
        return kind, lambda env: compute(run_left(env), run_right(env))

    def _compare(self, node: ast.Compare, scope: dict[str, Type]) -> tuple[Type, Run]:
        operands = [node.left, *node.comparators]
        built = [self.build(operand, scope) for operand in operands]
        tests: list[Run] = []
        for index, operator in enumerate(node.ops):
            (left, run_left), (right, run_right) = built[index], built[index + 1]
            test = comparison(operator, (left, operands[index]), (right, operands[index + 1]))
            constant = operands[index + 1]
            if isinstance(operator, ast.Eq) and isinstance(constant, ast.Constant):
                tests.append(_equals(run_left, run_right({})))
                continue
            tests.append(lambda env, t=test, a=run_left, b=run_right: t(a(env), b(env)))  # type: ignore[misc]
        if len(tests) == 1:
            return BOOL, tests[0]
        return BOOL, lambda env: conjunction(test(env) for test in tests)

    # --- generators and calls --------------------------------------------------------------------------------------

    def _call(self, node: ast.Call, scope: dict[str, Type]) -> tuple[Type, Run]:
        if not isinstance(node.func, ast.Name) or node.func.id not in CALLS:
            raise _at(node, f"only {', '.join(sorted(CALLS))} can be called")
        if node.keywords:
            raise _at(node, "calls take no keyword arguments")
        arguments: list[tuple[Type, Run] | None] = []
        generator: tuple[Type, Callable[[Env], Any]] | None = None
        for argument in node.args:
            if isinstance(argument, ast.GeneratorExp):
                if len(node.args) != 1:
                    raise _at(argument, "a generator must be the only argument")
                generator = self._generator(argument, scope)
            else:
                arguments.append(self.build(argument, scope))
        site = CallSite(node.func.id, tuple(node.args), tuple(a for a in arguments if a), generator, self._results)
        return CALLS[node.func.id](site)

    def _generator(self, node: ast.GeneratorExp, scope: dict[str, Type]) -> tuple[Type, Callable[[Env], Any]]:
        """Return the element type and a producer of (kept, element closure value) pairs."""
        if len(node.generators) != 1:
            raise _at(node, "one `for` per generator")
        clause = node.generators[0]
        if clause.is_async or not isinstance(clause.target, ast.Name):
            raise _at(node, "`for` takes one plain name")
        name = clause.target.id
        if name in scope or name in NAMES:
            raise _at(clause.target, f"{name!r} is already a name")
        source_type, source = self.build(clause.iter, scope)
        element = ELEMENT.get(source_type.kind)
        if element is None:
            raise _at(clause.iter, f"this is {source_type.kind.value}: only series and instances can be gone through")
        inner = {**scope, name: element}
        filters = [self._condition(test, inner) for test in clause.ifs]
        kind, body = self.build(node.elt, inner)
        cost = _size(node.elt) + sum(_size(test) for test in clause.ifs)

        def produce(env: Env) -> Any:
            items = source(env)
            if items is UNKNOWN:
                yield UNKNOWN, lambda: UNKNOWN
                return
            budget = env[_BUDGET]
            for item in items:
                budget[0] -= cost
                if budget[0] < 0:
                    raise _OutOfSteps
                bound = {**env, name: item}
                kept = conjunction(test(bound) for test in filters) if filters else True
                yield kept, partial(body, bound)

        return kind, produce


def _equals(run: Run, wanted: Any) -> Run:
    """Return the test for one constant, the commonest comparison, without a detour."""

    def test(env: Env) -> Any:
        value = run(env)
        return UNKNOWN if value is UNKNOWN else value == wanted

    return test


def _plain(value: Any) -> Any:
    """Return a JSON form of a value: objects show what names them, never more."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "keys"):
        return {key: _plain(item) for key, item in value.items() if item is not UNKNOWN and not key.startswith("_")}
    return value
