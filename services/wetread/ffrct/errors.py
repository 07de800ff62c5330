"""Errors of CT-derived FFR: a coded 422, never a number beside an error."""

from __future__ import annotations

from typing import Any

from wetread.core.errors import Unprocessable

from .science.problems import Problem


class FfrUnprocessable(Unprocessable):
    """The tree, network or boundary conditions cannot be computed.

    ``code`` is the first problem's stable code; ``problems`` holds all of them with a JSON pointer.
    """

    slug, title = "ffr-unprocessable", "CT-derived FFR cannot be computed from this input"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        super().__init__(first.code, first.advice)
        self.problems = problems

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """RFC 9457 object with ``code`` and ``errors[]`` (code, pointer, advice)."""
        errors = [
            {"code": item.code, "pointer": item.pointer, "detail": item.advice}
            for item in self.problems
        ]
        return {**super().problem(instance), "errors": errors}


def refuse(code: str, pointer: str, advice: str) -> FfrUnprocessable:
    """Build the error of one problem."""
    return FfrUnprocessable((Problem(code, pointer, advice),))
