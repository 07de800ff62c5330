"""Errors of CT-derived FFR: a coded 422, never a number beside an error."""

from __future__ import annotations

from typing import Any, NoReturn

from wetread.core.errors import InvalidInput, PayloadTooLarge, Unprocessable

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

    def __reduce__(self) -> tuple[Any, ...]:
        """Come through the border of a process whole."""
        return type(self), (self.problems,)

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """RFC 9457 object with ``code`` and ``errors[]`` (code, pointer, advice)."""
        return {**super().problem(instance), "errors": _errors(self.problems)}


class FfrDocumentInvalid(InvalidInput):
    """The document is no JSON (``invalid_json``) or does not follow the schema (``schema_invalid``)."""

    slug, title = "ffr-document-invalid", "Not a document of the FFR call"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems[0].advice)
        self.code = problems[0].code
        self.problems = problems

    def __reduce__(self) -> tuple[Any, ...]:
        """Come through the border of a process whole."""
        return type(self), (self.problems,)

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """RFC 9457 object with ``code`` and ``errors[]``."""
        return {**super().problem(instance), "code": self.code, "errors": _errors(self.problems)}


class FfrTooLarge(PayloadTooLarge):
    """More vessels, points, items or bytes than one call takes (``too_large``)."""

    code = "too_large"

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """RFC 9457 object with ``code``."""
        return {**super().problem(instance), "code": self.code}


def _errors(problems: tuple[Problem, ...]) -> list[dict[str, str]]:
    return [{"code": item.code, "pointer": item.pointer, "detail": item.advice} for item in problems]


def raise_problems(problems: tuple[Problem, ...]) -> NoReturn:
    """Raise what the science reported: a broken document is a 400, unusable content a 422."""
    if problems[0].code == "schema_invalid":
        raise FfrDocumentInvalid(problems)
    raise FfrUnprocessable(problems)
