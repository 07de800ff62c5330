"""Result sets by result key, at most one current per (study, detector); superseded ones are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, select, update

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.priors import later_studies, results_of_patient
from wetread.adapters.index.tables import results
from wetread.adapters.index.upsert import replace_row
from wetread.core.errors import NotFound
from wetread.core.findings import ResultSet, StoredSeries
from wetread.core.ports.database import Clock, Transaction
from wetread.core.priors import PatientStudy, PriorCandidate

Stored = tuple[ResultSet, tuple[StoredSeries, ...]]

# Statements of every evaluation, made once.
_CURRENT: Final = (
    select(results)
    .where(results.c.tenant == bindparam("of"), results.c.study_uid == bindparam("study"), results.c.current.is_(True))
    .order_by(results.c.detector)
)
_BY_KEY: Final = select(results).where(results.c.tenant == bindparam("of"), results.c.result_key == bindparam("key"))


class SqlResults:
    """ResultRepository on SQL."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def put(self, tx: Transaction, result: ResultSet, stored: Sequence[StoredSeries], *, current: bool = True) -> bool:
        """Store a result; the former current one becomes superseded. A preliminary one is replaced by its final."""
        connection, run = connection_of(tx), result.run
        former = self._row(tx, run.tenant, run.result_key)
        if former is not None:
            known = ResultSet.model_validate_json(former.result_json)
            if not known.preliminary or result.preliminary:
                if current and not former.current:  # an older input has come back
                    self._supersede(tx, result)
                    self._update(tx, run.tenant, run.result_key, current=True)
                return False
        if current:
            self._supersede(tx, result)
        objects = [s.model_dump() for s in stored] if former is None or stored else json.loads(former.stored_json)
        values = {
            "tenant": run.tenant,
            "result_key": run.result_key,
            "study_uid": run.study_uid,
            "detector": run.detector,
            "current": current,
            "created_at": former.created_at if former else self._clock.now(),
            "result_json": result.model_dump_json(by_alias=True),
            "stored_json": json.dumps(objects),
        }
        replace_row(connection, results, values)
        return True

    def attach(self, tx: Transaction, tenant: str, result_key: str, stored: Sequence[StoredSeries]) -> None:
        """Note the DICOM objects of a result once they are stored. Raises NotFound."""
        self._update(tx, tenant, result_key, stored_json=json.dumps([s.model_dump() for s in stored]))

    def get(self, tx: Transaction, tenant: str, result_key: str) -> Stored | None:
        """Return a result set by key."""
        row = self._row(tx, tenant, result_key)
        return _stored(row) if row else None

    def current(self, tx: Transaction, tenant: str, study_uid: str) -> list[Stored]:
        """Return the current result sets of a study, by detector name."""
        return [_stored(row) for row in connection_of(tx).execute(_CURRENT, {"of": tenant, "study": study_uid})]

    def of_patient(
        self, tx: Transaction, tenant: str, study_uid: str, detector: str
    ) -> tuple[PatientStudy, list[PriorCandidate]] | None:
        """Return the study, and a detector's current results on others of its Patient ID that are not later."""
        return results_of_patient(connection_of(tx), tenant, study_uid, detector)

    def read_later(self, tx: Transaction, tenant: str, study_uid: str, detector: str) -> list[str]:
        """Return later studies of the Patient ID on which a detector has a current result."""
        return later_studies(connection_of(tx), tenant, study_uid, detector)

    def _row(self, tx: Transaction, tenant: str, result_key: str) -> Row[Any] | None:
        return connection_of(tx).execute(_BY_KEY, {"of": tenant, "key": result_key}).one_or_none()

    def _supersede(self, tx: Transaction, result: ResultSet) -> None:
        run = result.run
        connection_of(tx).execute(
            update(results)
            .where(
                results.c.tenant == run.tenant,
                results.c.study_uid == run.study_uid,
                results.c.detector == run.detector,
                results.c.result_key != run.result_key,
            )
            .values(current=False)
        )

    def _update(self, tx: Transaction, tenant: str, result_key: str, **changes: Any) -> None:
        where = (results.c.tenant == tenant, results.c.result_key == result_key)
        if connection_of(tx).execute(update(results).where(*where).values(**changes)).rowcount == 0:
            msg = "no such result"
            raise NotFound(msg)


def _stored(row: Row[Any]) -> Stored:
    objects = tuple(StoredSeries.model_validate(item) for item in json.loads(row.stored_json))
    return ResultSet.model_validate_json(row.result_json), objects
