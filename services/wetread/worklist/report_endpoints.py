"""Reports for who runs a reading service: turnaround against targets, and usage; as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel

from wetread.core.errors import InvalidInput, Unprocessable
from wetread.core.instants import iso_utc
from wetread.core.ports import Clock, Database
from wetread.core.ports.reports import ReportSource
from wetread.core.priority import TARGET_SECONDS
from wetread.core.reports import CLOCKS, PERCENTILES, Dimension, model_usage, sla, turnaround
from wetread.worklist.ports import tenant_of

MAX_STUDIES: Final = 50_000
"""Studies of one report: a month of a large site."""
_DAY: Final = 86_400.0

From = Annotated[AwareDatetime | None, Query(alias="from", description="first moment; default: a day before `to`")]
To = Annotated[AwareDatetime | None, Query(description="first moment no longer of the report; default: now")]
Format = Annotated[Literal["json", "csv"], Query(description="json or csv")]


class ClockOut(BaseModel):
    studies: int
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None


class SlaRowOut(BaseModel):
    """``in_target``: share read within the target of the class, of those read or past it."""

    group: dict[str, str]
    studies: int
    clocks: dict[str, ClockOut]
    in_target: float | None


class SlaOut(BaseModel):
    since: str
    until: str
    definitions: dict[str, str]
    targets_s: dict[str, float]
    rows: list[SlaRowOut]


class ModelUsageOut(BaseModel):
    detector: str
    version: str
    finished: int
    failed: int
    seconds: float


class UsageOut(BaseModel):
    """``gb_hours``: 10^9 bytes times hours in the time, of what is stored now."""

    since: str
    until: str
    studies: int
    gb_hours: float
    models: list[ModelUsageOut]


def router(database: Database, clock: Clock, source: ReportSource) -> APIRouter:
    """Return the routes, without their ``/api/v1`` prefix."""
    api = APIRouter(tags=["reports"])
    answers: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}}}

    @api.get("/reports/sla", response_model=SlaOut, responses=answers)
    def sla_report(
        request: Request,
        *,
        since: From = None,
        to: To = None,
        by: Annotated[str, Query(description="site, modality, class, finding, by comma")] = "",
        format: Format = "json",  # noqa: A002 - name of the parameter
    ) -> SlaOut | Response:
        """Turnaround of the studies received in a time, by group. Computed from events alone."""
        now = clock.now()
        start, end = _window(since, to, now)
        dimensions = _dimensions(by)
        with database.read() as tx:
            stories = source.stories(tx, tenant_of(request), since=start, until=end, limit=MAX_STUDIES + 1)
        if len(stories) > MAX_STUDIES:
            code = "window"
            raise Unprocessable(code, f"more than {MAX_STUDIES} studies were received in this time: ask for less")
        rows = sla((turnaround(story) for story in stories), dimensions, now=now)
        if format == "csv":
            return _csv(_sla_header(dimensions), (_sla_line(row, dimensions) for row in rows))
        return SlaOut(
            since=iso_utc(start),
            until=iso_utc(end),
            definitions=dict(CLOCKS),
            targets_s={str(name): seconds for name, seconds in TARGET_SECONDS.items()},
            rows=[SlaRowOut.model_validate(row) for row in rows],
        )

    @api.get("/usage", response_model=UsageOut, responses=answers)
    def usage(
        request: Request,
        *,
        since: From = None,
        to: To = None,
        format: Format = "json",  # noqa: A002 - name of the parameter
    ) -> UsageOut | Response:
        """What was used in a time: studies, storage, and runs by model version. CSV: a line per model version."""
        tenant = tenant_of(request)
        start, end = _window(since, to, clock.now())
        with database.read() as tx:
            models = model_usage(source.task_events(tx, tenant, since=start, until=end))
            studies = source.received(tx, tenant, since=start, until=end)
            stored = source.byte_seconds(tx, tenant, since=start, until=end)
        if format == "csv":
            header = ("detector", "version", "finished", "failed", "seconds")
            return _csv(header, ((m.detector, m.version, m.finished, m.failed, m.seconds) for m in models))
        return UsageOut(
            since=iso_utc(start),
            until=iso_utc(end),
            studies=studies,
            gb_hours=round(stored / 3.6e12, 6),
            models=[
                ModelUsageOut(
                    detector=m.detector, version=m.version, finished=m.finished, failed=m.failed, seconds=m.seconds
                )
                for m in models
            ],
        )

    return api


def _window(since: datetime | None, until: datetime | None, now: float) -> tuple[float, float]:
    end = now if until is None else until.astimezone(UTC).timestamp()
    start = end - _DAY if since is None else since.astimezone(UTC).timestamp()
    if start >= end:
        msg = "from is before to"
        raise InvalidInput(msg)
    return start, end


def _dimensions(by: str) -> list[Dimension]:
    try:
        return list(dict.fromkeys(Dimension(name.strip()) for name in by.split(",") if name.strip()))
    except ValueError as error:
        msg = f"by names some of {', '.join(Dimension)}"
        raise InvalidInput(msg) from error


def _sla_header(by: Sequence[Dimension]) -> list[str]:
    clocks = [f"{clock}_{name}" for clock in CLOCKS for name in ("studies", *(f"p{p}_s" for p in PERCENTILES))]
    return [*map(str, by), "studies", *clocks, "in_target"]


def _sla_line(row: dict[str, Any], by: Sequence[Dimension]) -> list[Any]:
    clocks = [value for clock in CLOCKS for value in row["clocks"][clock].values()]
    return [*(row["group"][str(name)] for name in by), row["studies"], *clocks, row["in_target"]]


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    for line in lines:
        writer.writerow(["" if value is None else _inert(value) for value in line])
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")


def _inert(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula (a site may be called anything)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
