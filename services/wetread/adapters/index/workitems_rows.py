"""Rows of the workitem table: what is derived from a dataset for searching and ordering, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Row

from wetread.core.ports.ups import Performer, UpsRow
from wetread.core.ups import UpsState
from wetread.core.ups_attributes import LABEL, PRIORITY, START, STATE
from wetread.core.ups_dataset import text, values
from wetread.core.ups_matching import TIMEZONE, folded, study_uid, utc_instant

INSTANCES: Final = "00081199"
"""Referenced SOP Sequence."""
_RANK: Final = {"HIGH": 0, "MEDIUM": 1, "LOW": 2}


def columns(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that follow from *dataset*."""
    priority = text(dataset, PRIORITY)
    return {
        "state": text(dataset, STATE),
        "priority": priority,
        "priority_rank": _RANK.get(priority, len(_RANK)),
        "scheduled_start": utc_instant(text(dataset, START), text(dataset, TIMEZONE) or "+0000"),
        "study_uid": study_uid(dataset),
        "patient_id": text(dataset, "00100020"),
        "patient_name_folded": "\n".join(map(folded, person_names(dataset))),
        "label": text(dataset, LABEL),
        "search_json": orjson.dumps(searched(dataset)).decode(),
        "dataset_json": orjson.dumps(dataset).decode(),
    }


def person_names(dataset: Mapping[str, Any]) -> list[str]:
    """Return every component group of the patient's name."""
    names = values(dataset, "00100010")
    return [str(group) for name in names for group in (name.values() if isinstance(name, dict) else [name])]


def searched(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return *dataset* without `INSTANCES` anywhere: a study may have thousands, and no required key leads there."""
    return {tag: _searched(value) for tag, value in dataset.items() if tag != INSTANCES}


def _searched(element: Mapping[str, Any]) -> Mapping[str, Any]:
    if element["vr"] != "SQ" or "Value" not in element:
        return element
    return {"vr": "SQ", "Value": [searched(item) for item in element["Value"]]}


def read_row(row: Row[Any]) -> UpsRow:
    """Return a table row as the port's value."""
    return UpsRow(
        tenant=row.tenant,
        uid=row.uid,
        state=UpsState(row.state),
        dataset=orjson.loads(row.dataset_json),
        transaction_hash=row.transaction_hash,
        performer=Performer(row.performer),
        ours=row.ours,
        claimed_at=row.claimed_at,
        updated_at=row.updated_at,
    )
