"""Earlier studies of the same patients: what a reader will want beside a new study."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import studies
from wetread.core.ports.database import Transaction


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
