"""QIDO-RS: search for studies, series and instances (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from wetread.core.dicomweb.fragments import SeriesAnswers
from wetread.core.dicomweb.levels import AVAILABILITY, DEFAULTS, REQUIRED, RETRIEVE_URL, Level, level_of
from wetread.core.dicomweb.query import Query, parse_query
from wetread.core.errors import InvalidInput
from wetread.core.identifiers import check_uid
from wetread.core.ports.archive import COUNT_LIMIT, Archive, Match, SearchPage
from wetread.core.ports.database import Database
from wetread.gateway.responses import accepted, base_url, data_response, etag_of, warning_299
from wetread.gateway.settings import GatewaySettings
from wetread.gateway.threads import beside
from wetread.gateway.xml_answers import wants_xml, xml_response


class UriTooLong(InvalidInput):
    """The request target exceeds the limit (RFC 9110 15.5.15)."""

    status, slug, title = 414, "uri-too-long", "URI too long"


class SearchEndpoints:
    """The six search resources."""

    def __init__(self, database: Database, archive: Archive, settings: GatewaySettings) -> None:
        self._database = database
        self._archive = archive
        self._settings = settings

    async def studies(self, request: Request) -> Response:
        """``GET /studies``."""
        return await self._search(request, Level.STUDY)

    async def series(self, request: Request) -> Response:
        """``GET /series`` and ``GET /studies/{s}/series``."""
        return await self._search(request, Level.SERIES)

    async def instances(self, request: Request) -> Response:
        """``GET /instances``, and the same below a study or a series."""
        return await self._search(request, Level.INSTANCE)

    async def _search(self, request: Request, level: Level) -> Response:
        text = request.url.query
        if len(text) > self._settings.url_bytes:
            msg = f"the query is longer than {self._settings.url_bytes} bytes"
            raise UriTooLong(msg)
        ranges = accepted(request, self._settings)
        as_xml = wants_xml(ranges)
        study, series = request.path_params.get("study"), request.path_params.get("series")
        for uid, name in ((study, "Study Instance UID"), (series, "Series Instance UID")):
            if uid is not None:
                check_uid(uid, name)
        query = parse_query(level, text)
        if query.warnings and "handling=strict" in request.headers.get("prefer", "").replace(" ", "").lower():
            raise InvalidInput(query.warnings[0])
        tenant = getattr(request.state, "tenant", "default")
        base = base_url(request, self._settings)
        page, body = await beside(self._run, tenant, query, study, series, base)
        warnings = [warning_299(base, warning) for warning in query.warnings]
        if page.remaining:
            least = "at least " if page.at_least else ""
            warnings.append(
                warning_299(base, f"There are {least}{page.remaining} additional results that can be requested")
            )
        if not page.matches and (as_xml or self._settings.qido_empty_status == 204):
            return Response(status_code=204)
        if as_xml:
            return await run_sync(self._as_xml, request, (tenant, body, warnings), body, warnings)
        return data_response(request, body, etag=etag_of(tenant, body, warnings), warnings=warnings)

    @staticmethod
    def _as_xml(request: Request, version: object, body: bytes, warnings: list[str]) -> Response:
        return xml_response(request, orjson.loads(body), version=version, warnings=warnings)

    def _run(
        self, tenant: str, query: Query, study: str | None, series: str | None, base: str
    ) -> tuple[SearchPage, bytes]:
        plain = self._plain(tenant, query, study, series, base)
        if plain is not None:
            return plain
        with self._database.read() as tx:
            page = self._archive.search(tx, tenant, query, study_uid=study, series_uid=series)
        within = (study is not None, series is not None)
        return page, orjson.dumps([render(match, query, base, within=within) for match in page.matches])

    def _plain(
        self, tenant: str, query: Query, study: str | None, series: str | None, base: str
    ) -> tuple[SearchPage, bytes] | None:
        """Answer for all instances of a series from their fragments, nothing parsed; None for any other search."""
        asks_more = query.keys or query.include or query.include_all or not query.page
        if study is None or series is None or query.level is not Level.INSTANCE or asks_more:
            return None
        with self._database.read() as tx:
            page = self._archive.fragments(tx, tenant, study, series, limit=query.page, offset=query.offset)
        answers = SeriesAnswers(base, study, series)
        objects = [answers.answer(one.attributes, one.sop_uid, one.transfer_syntax_uid) for one in page.instances]
        if not objects or None in objects:
            return None
        matches = tuple(Match(study, series, one.sop_uid, {}) for one in page.instances)
        found = SearchPage(matches, min(page.remaining, COUNT_LIMIT), page.remaining >= COUNT_LIMIT)
        return found, b"[" + b",".join(filter(None, objects)) + b"]"


def render(match: Match, query: Query, base: str, *, within: tuple[bool, bool]) -> dict[str, Mapping[str, Any]]:
    """Return one result with the attributes that were asked for.

    ``within``: the path names the study, the series; their attributes are then left out unless asked for
    (PS3.18 10.6.3.3).
    """
    wanted = _wanted(query.level, query.include, within)
    result = _required(query.level, wanted)
    for key, entry in match.attributes.items():
        chosen = key in wanted or (query.include_all and level_of(int(key, 16)) is query.level)
        if chosen and "BulkDataURI" not in entry:
            result[key] = entry
    url = f"{base}/studies/{match.study_uid}"
    if match.series_uid is not None:
        url += f"/series/{match.series_uid}"
    if match.sop_uid is not None:
        url += f"/instances/{match.sop_uid}"
    result[f"{RETRIEVE_URL:08X}"] = {"vr": "UR", "Value": [url]}
    result[f"{AVAILABILITY:08X}"] = {"vr": "CS", "Value": ["ONLINE"]}
    return dict(sorted(result.items()))


@lru_cache(maxsize=1024)
def _wanted(level: Level, include: frozenset[int], within: tuple[bool, bool]) -> frozenset[str]:
    wanted = DEFAULTS[level] | include
    if level >= Level.SERIES:
        wanted |= {0x0020000D} if within[0] else DEFAULTS[Level.STUDY]
    if level is Level.INSTANCE:
        wanted |= {0x0020000E} if within[1] else DEFAULTS[Level.SERIES]
    return frozenset(f"{tag:08X}" for tag in wanted)


def _required(level: Level, wanted: frozenset[str]) -> dict[str, Mapping[str, Any]]:
    """Return the attributes that are present even when empty."""
    return {
        f"{tag:08X}": {"vr": vr}
        for each, required in REQUIRED.items()
        if each <= level
        for tag, vr in required.items()
        if f"{tag:08X}" in wanted
    }
