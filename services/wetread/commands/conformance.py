"""The tables of docs/conformance-statement.md, written from the tables that the code works with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from wetread.adapters.index.search import INDEXED, VERIFY_LIMIT
from wetread.core import errors
from wetread.core.dicom.dictionary import keyword_of
from wetread.core.dicom.header import HeaderLimits
from wetread.core.dicom.transfer_syntax import TransferSyntax, known_syntaxes
from wetread.core.dicomweb.levels import DEFAULTS, REQUIRED, Level, level_of
from wetread.core.dicomweb.media_types import ALIASES
from wetread.core.dicomweb.query import KEY_LIMIT, MAXIMUM
from wetread.core.errors import ConfigurationError
from wetread.core.ports.archive import COUNT_LIMIT
from wetread.gateway import endpoints as _endpoints  # noqa: F401 - its modules define problems of their own
from wetread.gateway import reasons
from wetread.gateway.documents import OFFERED
from wetread.gateway.settings import GatewaySettings, IngestSettings

# Newer than the dictionary of the library.
_NAMES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
_BLOCK: Final = re.compile(r"<!-- table: ([a-z-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def rendered_statement(text: str) -> str:
    """Return the statement with its tables written anew. Raises ConfigurationError for a table that is not known."""

    def table(match: re.Match[str]) -> str:
        make = TABLES.get(match[1])
        if make is None:
            msg = f"the conformance statement asks for an unknown table {match[1]}"
            raise ConfigurationError(msg)
        return f"<!-- table: {match[1]} -->\n{make()}\n<!-- end -->"

    return _BLOCK.sub(table, text)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _transfer_syntaxes() -> str:
    def native(syntax: TransferSyntax) -> str:
        if not syntax.encapsulated:
            return "yes"
        try:
            return "yes" if get_decoder(UID(syntax.uid)).is_available else "no"
        except NotImplementedError:
            return "no"

    rows = [
        (
            f"`{syntax.uid}`",
            _NAMES.get(syntax.uid) or UID(syntax.uid).name,
            "lossy" if syntax.lossy else "lossless",
            "yes" if syntax.on_the_wire else "by UID only",
            native(syntax),
            f"`{syntax.media_type}`" if syntax.media_type else "",
        )
        for syntax in known_syntaxes()
    ]
    return _rows(("UID", "name", "", "sent for `*`", "as Explicit VR LE", "frames"), rows)


def _query_keys() -> str:
    rows = [
        (f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keyword_of(tag), level_of(tag).name.lower())
        for tag in sorted(INDEXED, key=lambda tag: (level_of(tag), tag))
    ]
    return _rows(("tag", "keyword", "level"), rows)


def _returned() -> str:
    rows = []
    for level in Level:
        for tag in sorted(DEFAULTS[level]):
            always = "always" if tag in REQUIRED[level] else "where it exists"
            rows.append((level.name.lower(), f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keyword_of(tag), always))
    return _rows(("level", "tag", "keyword", "returned"), rows)


def _reasons() -> str:
    found = {name: value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, int)}
    rows = [
        (f"{value:04X}", str(value), name.lower().replace("_", " "))
        for name, value in sorted(found.items(), key=lambda item: item[1])
    ]
    return _rows(("hex", "decimal", "meaning"), rows)


def _statuses() -> str:
    rows = []
    pending: list[type[errors.WetreadError]] = [errors.WetreadError]
    while pending:
        kind = pending.pop()
        if kind.__module__ == errors.__name__ or kind.__module__.startswith("wetread.gateway."):
            rows.append((str(kind.status), f"`urn:wetread:problem:{kind.slug}`", kind.title))
        pending += kind.__subclasses__()
    return _rows(("status", "problem type", "title"), sorted(set(rows)))


def _limits() -> str:
    limits: dict[str, Any] = {"search keys and include fields per request": KEY_LIMIT}
    limits |= {f"{level.name.lower()} results per answer": MAXIMUM[level] for level in Level}
    limits |= {"candidates verified per search": VERIFY_LIMIT, "remaining results counted up to": COUNT_LIMIT}
    for values in (IngestSettings(), GatewaySettings(), HeaderLimits()):
        for each in fields(values):
            value = getattr(values, each.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                limits[f"`{each.name}`"] = value
    return _rows(("limit", "default"), [(name, f"{value:,}") for name, value in limits.items()])


def _aliases() -> str:
    return _rows(("taken", "as"), [(f"`{name}`", f"`{standard}`") for name, standard in sorted(ALIASES.items())])


def _rendered_types() -> str:
    rows = [(kind.value, ", ".join(f"`{media}`" for media in types) or "404") for kind, types in OFFERED.items()]
    return _rows(("category", "media types, the default first"), rows)


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "transfer-syntaxes": _transfer_syntaxes,
    "query-keys": _query_keys,
    "returned-attributes": _returned,
    "reasons": _reasons,
    "statuses": _statuses,
    "limits": _limits,
    "media-type-aliases": _aliases,
    "rendered-types": _rendered_types,
}
