"""Earlier studies of the same patients: what a reader will want beside a new study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, Select, and_, or_, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import results, studies
from wetread.core.findings import ResultSet
from wetread.core.ports.database import Transaction
from wetread.core.priors import PatientStudy, PriorCandidate

_LOOKED_AT: Final = 20
"""Earlier results that are looked at: a Patient ID that stands for nobody (``UNKNOWN``) may have thousands."""
_ISSUER: Final = "00100021"
_OF_STUDY: Final = (
    *(studies.c.study_uid, studies.c.patient_id, studies.c.birth_date, studies.c.sex),
    *(studies.c.study_date, studies.c.study_time, studies.c.attributes_json),
)


def prior_studies(tx: Transaction, tenant: str, study_uids: Sequence[str], *, limit: int = 20) -> list[str]:
    """Return UIDs of the patients' other studies, newest first, up to *limit* per study named. No Patient ID: none."""
    connection, found = connection_of(tx), []
    for uid in study_uids:
        patient = (
            select(studies.c.patient_id)
            .where(studies.c.tenant == tenant, studies.c.study_uid == uid, studies.c.patient_id != "")
            .scalar_subquery()
        )
        query = (
            select(studies.c.study_uid)
            .where(studies.c.tenant == tenant, studies.c.patient_id == patient, studies.c.study_uid.not_in(study_uids))
            .order_by(studies.c.study_date.desc(), studies.c.study_time.desc(), studies.c.study_uid)
            .limit(limit)
        )
        found += list(connection.execute(query).scalars())
    return list(dict.fromkeys(found))


def results_of_patient(
    connection: Connection, tenant: str, study_uid: str, detector: str
) -> tuple[PatientStudy, list[PriorCandidate]] | None:
    """Return the study, and a detector's current results on others of its Patient ID that are not on a later day.

    Newest first. None: no such study, or it names no patient. Whether it is one patient is not decided here.
    """
    this = _study(connection, tenant, study_uid)
    if this is None:
        return None
    query = (
        _others(tenant, this, detector)
        .add_columns(results.c.result_json)
        .where(or_(studies.c.study_date <= this.study_date, this.study_date == ""))
        .order_by(studies.c.study_date.desc(), studies.c.study_time.desc(), studies.c.study_uid)
        .limit(_LOOKED_AT)
    )
    found = [
        PriorCandidate(_patient_study(row), ResultSet.model_validate_json(row.result_json))
        for row in connection.execute(query)
    ]
    return _patient_study(this), found


def later_studies(connection: Connection, tenant: str, study_uid: str, detector: str) -> list[str]:
    """Return UIDs of the Patient ID's studies from the same day on that a detector has a current result on."""
    this = _study(connection, tenant, study_uid)
    if this is None or not this.study_date:
        return []
    query = (
        _others(tenant, this, detector)
        .where(studies.c.study_date >= this.study_date)
        .order_by(studies.c.study_date, studies.c.study_uid)
        .limit(_LOOKED_AT)
    )
    return [row.study_uid for row in connection.execute(query)]


def _study(connection: Connection, tenant: str, study_uid: str) -> Row[Any] | None:
    query: Select[Any] = select(*_OF_STUDY).where(studies.c.tenant == tenant, studies.c.study_uid == study_uid)
    row = connection.execute(query).one_or_none()
    return row if row is not None and row.patient_id else None


def _others(tenant: str, this: Row[Any], detector: str) -> Select[Any]:
    same = and_(
        results.c.tenant == studies.c.tenant,
        results.c.study_uid == studies.c.study_uid,
        results.c.detector == detector,
        results.c.current.is_(True),
    )
    return (
        select(*_OF_STUDY)
        .join(results, same)
        .where(
            studies.c.tenant == tenant, studies.c.patient_id == this.patient_id, studies.c.study_uid != this.study_uid
        )
    )


def _patient_study(row: Row[Any]) -> PatientStudy:
    issuer = orjson.loads(row.attributes_json).get(_ISSUER, {}).get("Value") or [""]
    return PatientStudy(
        study_uid=row.study_uid,
        issuer=str(issuer[0] or "").strip(),
        birth_date=row.birth_date,
        sex=row.sex,
        study_date=row.study_date,
        study_time=row.study_time,
    )
