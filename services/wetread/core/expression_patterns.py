"""Text patterns of the condition language: case-blind globs, and regular expressions that cannot run away."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Final

from wetread.core.expression_types import ExpressionError

MAX_PATTERN: Final = 100
MAX_TEXT: Final = 128
"""Longer texts are cut before matching: most header texts have at most 64 characters (PS3.5 6.2)."""
_MAX_BITS: Final = 22
_REPEAT_BITS: Final = 7
"""log2 of MAX_TEXT: what a repeat of open length can multiply the work of a backtracking matcher by."""
_MAX_COUNT: Final = 64
_CLASS_ESCAPES: Final = frozenset("dDwWsS")
_SET_OPERATION = re.compile(r"(?<!\\)(?:\[|--|&&|~~|\|\|)")
"""What ``re`` warns of in a class (a FutureWarning): its meaning may change with the Python version."""
_TOKEN = re.compile(
    r"(?P<repeat>[*+?]|\{\d{1,3}(?:,\d{0,3})?\})|(?P<escape>\\.)|(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<bar>\|)|(?P<anchor>[\^$])|(?P<atom>[^\[\\])",
    re.DOTALL,
)


def globs(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a matcher of shell patterns (``* ? [...]``) over the whole text, blind to case: any of them will do."""
    if any(len(pattern) > MAX_PATTERN for pattern in patterns):
        msg = f"pattern longer than {MAX_PATTERN} characters"
        raise ExpressionError(msg)
    compiled = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns), re.IGNORECASE)
    return lambda text: compiled.match(text[:MAX_TEXT]) is not None


def linear_pattern(pattern: str) -> Callable[[str], bool]:
    r"""Return a searcher for a regular expression of the accepted subset.

    Accepted: literals, ``.``, classes, ``\d \w \s``, anchors, plain groups, alternation, and ``* + ? {m,n}`` on single
    characters or classes. Refused: back-references, look-around, quantified groups (but ``?``), and patterns whose
    worst case over 128 characters exceeds 2^22 steps: each repeat counts 7 bits, each ``?`` and each ``|`` one.
    """
    if len(pattern) > MAX_PATTERN:
        msg = f"pattern longer than {MAX_PATTERN} characters"
        raise ExpressionError(msg)
    _check(pattern)
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError) as error:
        msg = f"not a regular expression: {error}"
        raise ExpressionError(msg) from error
    return lambda text: compiled.search(text[:MAX_TEXT]) is not None


def _check(pattern: str) -> None:
    position, bits = 0, _REPEAT_BITS  # the search may start at any character
    before = ""  # what a quantifier would apply to
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            msg = "a character class is not closed, or a backslash has nothing after it"
            raise ExpressionError(msg)
        kind = token.lastgroup or ""
        if kind == "repeat":
            bits += _repeat_bits(token.group(), before)
        elif kind == "class" and _SET_OPERATION.search(token.group()[1:-1]):
            msg = "a character class holds '[' or a doubled '-', '&', '~' or '|', which may one day mean set operations"
            raise ExpressionError(msg)
        elif kind == "escape" and token.group()[1].isalnum() and token.group()[1] not in _CLASS_ESCAPES:
            msg = f"escape {token.group()} is not accepted"
            raise ExpressionError(msg)
        bits += kind == "bar"
        before, position = kind, token.end()
    if bits > _MAX_BITS:
        msg = "too many repeats, options or alternatives: the matching time would not be bounded"
        raise ExpressionError(msg)


def _repeat_bits(quantifier: str, before: str) -> int:
    if before not in {"atom", "class", "escape", "close"}:
        msg = "a quantifier needs a character, a class or a group before it; look-around and nesting are refused"
        raise ExpressionError(msg)
    if before == "close" and quantifier != "?":
        msg = "a group may only be repeated with ?"
        raise ExpressionError(msg)
    if quantifier in "*+?":
        return 1 if quantifier == "?" else _REPEAT_BITS
    least, _, most = quantifier[1:-1].partition(",")
    if max(int(least), int(most or 0)) > _MAX_COUNT:
        msg = f"a repeat count over {_MAX_COUNT}"
        raise ExpressionError(msg)
    return 0 if "," not in quantifier or least == most else _REPEAT_BITS
