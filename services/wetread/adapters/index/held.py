"""Held evaluations on SQL: written on the ingest path, so its statements are compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, insert, select, update

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.statement import DriverStatement
from wetread.adapters.index.tables import held_evaluations as held
from wetread.core.ports.database import Transaction
from wetread.core.ports.orchestration import HeldEvaluation

_ONE: Final = (held.c.tenant == bindparam("of"), held.c.study_uid == bindparam("study"))
_REPLACE: Final = DriverStatement(
    update(held)
    .where(*_ONE)
    .values(due=bindparam("at"), arguments_json=bindparam("with_json"), trace=bindparam("in_trace"))
)
_INSERT: Final = DriverStatement(insert(held))
_OLDEST: Final = DriverStatement(
    select(held.c.tenant, held.c.study_uid, held.c.due, held.c.arguments_json, held.c.trace)
    .where(held.c.since <= bindparam("until"))
    .order_by(held.c.since)
    .limit(bindparam("most"))
)
_DELETE: Final = DriverStatement(delete(held).where(*_ONE))


class SqlHeldEvaluations:
    """HeldEvaluationRepository on SQL. Writers of a deployment take turns, so a look-up may precede a write."""

    def put(self, tx: Transaction, held: HeldEvaluation, now: float) -> None:
        """Insert or replace."""
        connection, arguments = connection_of(tx), orjson.dumps(dict(held.arguments)).decode()
        where = {"of": held.tenant, "study": held.study_uid, "at": held.due, "with_json": arguments}
        where["in_trace"] = held.trace
        if _REPLACE.count(connection, where) == 0:
            row = {"tenant": held.tenant, "study_uid": held.study_uid, "since": now}
            _INSERT.many(connection, [row | {"due": held.due, "arguments_json": arguments, "trace": held.trace}])

    def take(self, tx: Transaction, *, until: float, limit: int) -> Sequence[HeldEvaluation]:
        """Remove and return."""
        connection = connection_of(tx)
        rows = _OLDEST.all(connection, {"until": until, "most": limit})
        for row in rows:
            _DELETE.count(connection, {"of": row[0], "study": row[1]})
        return [HeldEvaluation(row[0], row[1], row[2], orjson.loads(row[3]), row[4]) for row in rows]
