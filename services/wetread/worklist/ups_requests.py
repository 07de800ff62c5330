"""Reading UPS-RS requests: bodies, media types, query strings (PS3.18 8.3.4, 8.7 and chapter 11)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import orjson
from fastapi import Request

from wetread.core.dicomweb.strict import require_accept
from wetread.core.errors import InvalidInput, NotAcceptable, PayloadTooLarge, UnsupportedMediaType
from wetread.core.identifiers import is_uid
from wetread.core.ups_dataset import TRANSACTION_UID
from wetread.core.ups_matching import Key, attribute_path, looks_like_attribute, matching_key

DICOM_JSON: Final = "application/dicom+json"
_JSON_TYPES: Final = {DICOM_JSON, "application/json"}
_ACCEPTED: Final = {*_JSON_TYPES, "*/*", "application/*"}
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_OFFSET = re.compile(r"(?<=\d{8})\+(?=\d{4}(?:-|,|$))")
FUZZY_WARNING: Final = "The fuzzymatching parameter is not supported. Only literal matching has been performed."


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A parsed search. ``include`` None: all attributes."""

    keys: tuple[Key, ...]
    include: frozenset[str] | None
    limit: int | None
    offset: int
    warnings: tuple[str, ...]


async def read_body(request: Request, most: int, *, optional: bool = False) -> Any:
    """Return the parsed JSON body, None when it is empty and *optional*.

    Raises InvalidInput, PayloadTooLarge, UnsupportedMediaType.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        msg = "only the identity content encoding is accepted"
        raise UnsupportedMediaType(msg)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            msg = f"the body is larger than {most} bytes"
            raise PayloadTooLarge(msg)
    if not body.strip() and optional:
        return None
    media_type = request.headers.get("content-type", DICOM_JSON).partition(";")[0].strip().lower()
    if media_type not in _JSON_TYPES:
        msg = f"the body must be {DICOM_JSON}"
        raise UnsupportedMediaType(msg)
    try:
        return orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        msg = "the body is not valid JSON"
        raise InvalidInput(msg) from None


def check_accept(request: Request, *, strict: bool = False) -> None:
    """Refuse clients that take no DICOM JSON; no ``Accept`` header means any unless *strict*. Raises NotAcceptable."""
    if strict:
        require_accept(request.headers.get("accept"))
    query = dict(parse_qsl(request.url.query))
    header = query.get("accept") or ", ".join(request.headers.getlist("accept")) or "*/*"
    for media_range in header.split(","):
        media_type, *parameters = (part.strip().lower() for part in media_range.split(";"))
        refused = any(re.fullmatch(r"q\s*=\s*0(\.0*)?", parameter) for parameter in parameters)
        if media_type in _ACCEPTED and not refused:
            return
    msg = f"available: {DICOM_JSON}"
    raise NotAcceptable(msg)


def uid_parameter(query: str, *names: str) -> str | None:
    """Return the UID of ``?name=UID`` or of the older bare ``?UID``; None when the query holds neither.

    Raises InvalidInput for a named parameter that is not a UID.
    """
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        value = unquote_plus(value)
        if equals and unquote_plus(name) in names:
            if not is_uid(value):
                msg = f"{names[0]} is not a UID"
                raise InvalidInput(msg)
            return value
        if not equals and name and is_uid(unquote_plus(name)):
            return unquote_plus(name)
    return None


def ae_title(value: str) -> str:
    """Return a valid AE title without its insignificant spaces (PS3.5 6.2). Raises InvalidInput."""
    stripped = value.strip(" ")
    if not stripped or not _AE_TITLE.fullmatch(stripped):
        msg = "not an AE title"
        raise InvalidInput(msg)
    return stripped


def read_search(query: str) -> SearchRequest:
    """Parse the query of a workitem search (PS3.18 8.3.4). Raises InvalidInput."""
    keys: dict[tuple[str, ...], Key] = {}
    include: set[str] = set()
    everything = False
    numbers: dict[str, int] = {}
    warnings: list[str] = []
    for name, value in _pairs(query):
        if name in {"limit", "offset"}:
            numbers[name] = _unsigned(name, value)
        elif name == "includefield":
            everything = everything or value == "all"
            include |= {attribute_path(part)[0] for part in value.split(",") if part and part != "all"}
        elif name == "fuzzymatching":
            if _boolean(name, value):
                warnings.append(FUZZY_WARNING)
        elif looks_like_attribute(name):
            key = matching_key(name, value)
            if key.path in keys:
                msg = "a search key is given twice"
                raise InvalidInput(msg)
            keys[key.path] = key
        elif name != "accept":
            warnings.append("A query parameter that is not an attribute was ignored.")
    if TRANSACTION_UID in include:
        include.discard(TRANSACTION_UID)
        warnings.append("The Transaction UID is never returned.")
    asked = frozenset(include | {path[0] for path in keys})
    return SearchRequest(
        tuple(keys.values()),
        None if everything else asked,
        numbers.get("limit"),
        numbers.get("offset", 0),
        tuple(dict.fromkeys(warnings)),
    )


def read_subscription(query: str) -> tuple[bool, list[Key]]:
    """Return deletion lock and filter of a subscription.

    The filter is ``filter=key=value,key=value`` (PS3.18 11.10.1.2) or, from older clients, plain parameters. A part
    without ``=`` continues the value before it, so that lists of UIDs survive. Raises InvalidInput.
    """
    lock = False
    pairs: list[tuple[str, str]] = []
    for name, value in _pairs(query):
        if name == "deletionlock":
            lock = _boolean(name, value)
        elif name == "filter":
            pairs += _filter_pairs(value)
        elif looks_like_attribute(name):
            pairs.append((name, value))
        else:
            msg = "a subscription takes deletionlock and filter"
            raise InvalidInput(msg)
    return lock, [matching_key(name, value) for name, value in pairs]


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    """Yield names and values. ``+`` is a space, as form encoders write it, but for the offset of a date-time."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        # Kept in every value: what follows a date's eight digits and is itself four digits is its offset.
        kept = _OFFSET.sub("%2B", value)
        if name:
            yield unquote_plus(name), unquote_plus(kept)


def _filter_pairs(value: str) -> Sequence[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in value.split(","):
        name, equals, wanted = part.partition("=")
        if equals:
            pairs.append((name, wanted))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{part}")
        else:
            msg = "a filter is key=value,key=value"
            raise InvalidInput(msg)
    return pairs


def _unsigned(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        msg = f"{name} must be an unsigned integer"
        raise InvalidInput(msg)
    return int(value)


def _boolean(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        msg = f"{name} must be true or false"
        raise InvalidInput(msg)
    return value == "true"
