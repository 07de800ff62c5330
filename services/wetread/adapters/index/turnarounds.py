"""Turnaround as histograms that outlive processes: counted in the transaction of the event that ends a clock.

A worker of the embedded profile is scraped by nobody and a pod forgets when it ends, so the counts are rows. A
repeated event is one event, and so it is counted once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

import orjson
from sqlalchemy import Connection, distinct, func, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import events, results, series, studies, turnarounds
from wetread.adapters.index.upsert import add_to_row
from wetread.core.codes import CONCEPTS
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest
from wetread.core.ports import Transaction

BOUNDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
"""Upper bounds in seconds. The targets of the classes (300, 1800, 14400) are bounds, so that the share within target is
exact; below them one to two per octave, where runs of detectors lie."""
MAX_SITES: Final = 40
"""Named sites per tenant; later ones count as ``other``."""
OTHER: Final = "other"
_MODALITIES: Final = frozenset({
    "CR", "CT", "DX", "ECG", "ES", "IO", "IVUS", "MG", "MR", "NM", "OCT",
    "OP", "OPT", "PT", "PX", "RF", "RG", "SC", "SM", "US", "XA",
})  # fmt: skip
_CONCEPTS: Final = {concept.code.value: name for name, concept in CONCEPTS.items()}


class SqlTurnarounds:
    """Clocks from the last received byte: ``result`` stored, study ``raised`` by a finding, somebody ``notified``."""

    def note(self, tx: Transaction, event: Event) -> None:
        """Count an event that has just been appended, when it ends a clock."""
        if event.data.get("shadow"):
            return
        if event.type is EventType.RESULT_READY and not _told_early(connection_of(tx), event):
            self._count(tx, "result", event, at=event.time)
        elif event.type is EventType.PRIORITY_CHANGED and event.data.get("source") == "ai":
            self._count(tx, "raised", event, at=event.time)

    def notified(self, tx: Transaction, event: Event, *, at: float) -> None:
        """Count a delivered event, when it tells of a positive finding."""
        if event.type is EventType.FINDING_POSITIVE:
            self._count(tx, "notified", event, at=at)

    def _count(self, tx: Transaction, clock: str, event: Event, *, at: float) -> None:
        received = event.stamps.get("received")
        if received is None:  # a person asked for the run: the images came long before
            return
        connection = connection_of(tx)
        seconds = max(0.0, at - received)
        modality, finding = _of_result(connection, event)
        key = {
            "tenant": event.tenant,
            "clock": clock,
            "site": _site(connection, event),
            "modality": modality,
            "finding": finding,
            "bucket": bisect_left(BOUNDS, seconds),
        }
        add_to_row(connection, turnarounds, key, {"count": 1, "seconds": seconds})


def histograms(connection: Connection) -> Iterator[tuple[tuple[str, str, str, str], list[int], float]]:
    """Return (clock, site, modality, finding), counts per bucket (one more than there are bounds) and summed seconds.

    Over all tenants.
    """
    labels = (turnarounds.c.clock, turnarounds.c.site, turnarounds.c.modality, turnarounds.c.finding)
    query = select(
        *labels, turnarounds.c.bucket, func.sum(turnarounds.c.count), func.sum(turnarounds.c.seconds)
    ).group_by(*labels, turnarounds.c.bucket)
    found: dict[tuple[str, str, str, str], tuple[list[int], list[float]]] = {}
    for clock, site, modality, finding, bucket, count, seconds in connection.execute(query):
        counts, sums = found.setdefault((clock, site, modality, finding), ([0] * (len(BOUNDS) + 1), []))
        counts[bucket] += int(count)
        sums.append(float(seconds))
    for key, (counts, sums) in sorted(found.items()):
        yield key, counts, sum(sums)


def _told_early(connection: Connection, event: Event) -> bool:
    """Whether a final result was ready as a preliminary one before: the reader has had it since then."""
    if event.data.get("preliminary"):
        return False
    early = digest("event", str(event.type), event.tenant, event.subject, event.data.get("result_key"), True)
    query = select(events.c.cursor).where(events.c.tenant == event.tenant, events.c.id == early)
    return connection.execute(query).first() is not None


def _of_result(connection: Connection, event: Event) -> tuple[str, str]:
    """Return modality and finding of the current result that an event is about."""
    query = select(results.c.result_json).where(
        results.c.tenant == event.tenant,
        results.c.study_uid == event.subject,
        results.c.detector == str(event.data.get("detector") or ""),
        results.c.current,
    )
    text = connection.execute(query).scalar()
    result: dict[str, Any] = orjson.loads(text) if text else {}
    positive = [found["code"]["value"] for found in result.get("findings", ()) if found["state"] == "positive"]
    code = str(event.data.get("code") or (positive[0] if positive else ""))
    run = result.get("run", {})
    of_series = select(series.c.modality).where(
        series.c.tenant == event.tenant,
        series.c.study_uid == event.subject,
        series.c.series_uid == str(run.get("series_uid") or ""),
    )
    modality = connection.execute(of_series).scalar() or ""
    return (
        modality if modality in _MODALITIES else OTHER,
        _CONCEPTS.get(code, OTHER) if code else "none",
    )


def _site(connection: Connection, event: Event) -> str:
    """Return the label of the study's site: its name while there are few enough of them."""
    query = select(studies.c.source_json).where(studies.c.tenant == event.tenant, studies.c.study_uid == event.subject)
    text = connection.execute(query).scalar()
    site = str(orjson.loads(text).get("site") or "")[:64] if text else ""
    if not site:
        return ""
    mine = turnarounds.c.tenant == event.tenant
    if connection.execute(select(turnarounds.c.site).where(mine, turnarounds.c.site == site).limit(1)).first():
        return site
    known = connection.execute(select(func.count(distinct(turnarounds.c.site))).where(mine)).scalar() or 0
    return site if known < MAX_SITES else OTHER
