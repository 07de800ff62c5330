"""Time of the worklist query over 10,000 open studies; goal G4: p95 <= 50 ms.

``python loadtest/worklist_query.py``. CPU time is printed beside, for machines that are busy with other things.
"""

from __future__ import annotations

import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.tables import decisions, reading_order, series, studies, tasks
from wetread.adapters.index.worklist import SqlWorklist
from wetread.core.ports import WorklistFilter, WorklistPage
from wetread.core.priority import Priority
from wetread.core.states import StudyAiState

STUDIES, REPEATS, SEED, NOW = 10_000, 60, 1, 1_772_323_200.0


def fill(database: SqlDatabase) -> None:
    """Write open studies of all classes, three tasks each, with rows as wide as real ones."""
    rng = random.Random(SEED)
    rows: dict[Any, list[dict[str, Any]]] = {table: [] for table in (studies, series, tasks, decisions, reading_order)}
    for number in range(STUDIES):
        uid, arrival = f"1.2.826.0.1.3680043.8.498.{number:020d}", NOW - rng.random() * 6 * 3600
        key = {"tenant": "default", "study_uid": uid}
        rows[studies].append(
            {**key, "patient_id": f"P{number}", "patient_name": f"DOE^{number}", "description": "CT HEAD",
             "received_at": arrival, "last_received_at": arrival, "attributes_json": b"x" * 1500}
        )  # fmt: skip
        rows[series].append(
            {**key, "series_uid": f"{uid}.1", "modality": "CT", "received_at": arrival, "attributes_json": b"x" * 800}
        )
        rows[decisions].append(
            {
                **key,
                "generation": 1,
                "signal": "transfer_end",
                "at": arrival,
                "rules_digest": "",
                "trace_json": "x" * 500,
            }
        )
        priority = rng.choices(list(Priority), [5, 20, 60, 15])[0]
        rows[reading_order].append(
            {**key, "priority": priority, "firm_priority": rng.choice([priority, Priority.ROUTINE]), "arrival": arrival,
             "due_at": arrival + 300, "updated_at": arrival}
        )  # fmt: skip
        rows[tasks].extend(
            {**key, "detector": f"d{k}", "version": "1.0.0", "priority": "routine", "due_at": arrival,
             "state": rng.choice(["negative", "queued", "positive", "failed"]), "updated_at": arrival}
            for k in range(3)
        )  # fmt: skip
    with database.write() as tx:
        for table, values in rows.items():
            tx.connection.execute(insert(table), values)


def measure(name: str, call: Callable[[], object]) -> None:
    """Print p50 and p95 in milliseconds."""
    walls, cpus = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append((time.perf_counter() - wall) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
    for kind, times in (("wall", sorted(walls)), ("CPU", sorted(cpus))):
        p50, p95 = times[REPEATS // 2], times[int(REPEATS * 0.95)]
        print(f"{name:24s} {kind:4s} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms")


def main() -> None:
    """Fill, measure, print."""
    print(f"{STUDIES} open studies, N={REPEATS}, seed {SEED}, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        database, worklist = SqlDatabase(Path(folder) / "wetread.db"), SqlWorklist()
        database.create_schema()
        fill(database)

        def page(limit: int = 50, cursor: str | None = None, **wanted: Any) -> WorklistPage:
            with database.read() as tx:
                return worklist.page(
                    tx, "default", now=NOW, wanted=WorklistFilter(**wanted), limit=limit, cursor=cursor
                )

        measure("first page of 50", page)
        measure("first page of 200", lambda: page(200))
        deep = page()
        for _ in range(60):
            deep = page(cursor=deep.next)
        measure("page 62 of 50", lambda: page(cursor=deep.next))
        measure("modality CT", lambda: page(modality="CT"))
        measure("state positive", lambda: page(state=StudyAiState.POSITIVE))
        measure("state measured (none)", lambda: page(state=StudyAiState.MEASURED))
        measure("text (few)", lambda: page(text="doe 99"))
        database.close()


if __name__ == "__main__":
    main()
