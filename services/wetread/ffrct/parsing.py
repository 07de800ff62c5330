"""Bytes to checked documents. Imports no science, so that a web process starts without SciPy."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import FfrDocumentInvalid
from .science.problems import Problem

Document = TypeVar("Document", bound=BaseModel)


def parse_json(data: bytes) -> Any:
    """Parse JSON bytes; raises :class:`FfrDocumentInvalid` with ``invalid_json``."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FfrDocumentInvalid((Problem("invalid_json", "", "the document is not JSON"),)) from error


def validate(model: type[Document], value: Any) -> Document:
    """Validate *value*; raises :class:`FfrDocumentInvalid` with a pointer per fault and none of the values."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = tuple(
            Problem("schema_invalid", "/" + "/".join(str(part) for part in fault["loc"]), fault["msg"])
            for fault in error.errors(include_url=False, include_input=False)[:20]
        )
        raise FfrDocumentInvalid(problems) from None
