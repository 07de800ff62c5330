"""C-FIND SCP of the patient root and study root models over the index (PS3.4 C.4.1)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydicom.dataset import Dataset

from wetread.core.dicomweb.query import MAXIMUM, Query
from wetread.core.errors import InvalidInput, PayloadTooLarge, WetreadError
from wetread.core.ports.archive import Match
from wetread.dimse import statuses
from wetread.dimse.audit import Auditor
from wetread.dimse.identifier import PATIENT_ROOT, STUDY_ROOT, Identifier, answer, find_identifier
from wetread.dimse.peers import Peer
from wetread.dimse.ports import DimsePorts
from wetread.dimse.quotas import Quotas

log = logging.getLogger(__name__)

PATIENT_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"

_PATIENT_STUDIES: Final = "00201200"
_PATIENT_SERIES: Final = "00201202"
_PATIENT_INSTANCES: Final = "00201204"

Attributes = Mapping[str, Mapping[str, Any]]


class TooManyMatchesError(Exception):
    """The search matches more than one C-FIND may return."""


class FindService:
    """Answers C-FIND requests of all associations."""

    def __init__(self, ports: DimsePorts, quotas: Quotas, ae_title: str, limit: int) -> None:
        self._ports = ports
        self._quotas = quotas
        self._ae_title = ae_title
        self._limit = limit
        self._audit = Auditor(ports)

    def __call__(self, event: Any) -> Iterator[tuple[Any, Dataset | None]]:
        """Yield (status, identifier) pairs (``evt.EVT_C_FIND``); the last one is the final response."""
        started = time.perf_counter()
        peer: Peer = event.assoc.peer
        status, comment, count = statuses.SUCCESS, "", 0
        if "find" not in peer.may:
            status, comment = statuses.NOT_AUTHORIZED, "this application entity may not search"
        elif not self._quotas.pace(peer):
            status, comment = statuses.OUT_OF_RESOURCES, "more requests per second than are allowed"
        else:
            try:
                asked = _identifier(event)
                for found in self._matches(peer.tenant, asked):
                    if event.is_cancelled:
                        status = statuses.CANCELLED
                        break
                    count += 1
                    yield statuses.PENDING, answer(found, asked, self._ae_title)
            except InvalidInput as error:
                too_large = isinstance(error, PayloadTooLarge)
                status = statuses.OUT_OF_RESOURCES if too_large else statuses.DOES_NOT_MATCH
                comment = error.detail
            except TooManyMatchesError:
                status, comment = statuses.OUT_OF_RESOURCES, f"more than {self._limit} matches: add a key"
            except WetreadError as error:
                status, comment = statuses.CANNOT_UNDERSTAND, error.detail
            except Exception as error:
                log.exception("a search failed", exc_info=error)
                status, comment = statuses.CANNOT_UNDERSTAND, "internal error"
        self._audit.record(peer, "C-FIND", "", f"{status:04X}, {count} matches", event.assoc.address)
        self._ports.meter.request("C-FIND", status, time.perf_counter() - started)
        final = Dataset()
        final.Status = status
        if comment:
            final.ErrorComment = comment[:64]
        yield final, None

    def _matches(self, tenant: str, asked: Identifier) -> Iterator[Attributes]:
        if asked.level == "PATIENT":
            yield from self._patients(tenant, asked.query)
            return
        for match in self._search(tenant, asked.query):
            yield match.attributes

    def _search(self, tenant: str, query: Query) -> Iterator[Match]:
        """Yield all matches, page by page; each page is a snapshot of its own, none is held open for a slow peer."""
        offset = 0
        while True:
            page_size = min(MAXIMUM[query.level], 1000)
            with self._ports.database.read() as tx:
                page = self._ports.archive.search(
                    tx, tenant, replace(query, limit=page_size, offset=offset), study_uid=None, series_uid=None
                )
            for match in page.matches:
                if offset >= self._limit:
                    raise TooManyMatchesError
                offset += 1
                yield match
            if not page.remaining:
                return

    def _patients(self, tenant: str, query: Query) -> Iterator[Attributes]:
        """Yield one match per patient, with what its matching studies hold together."""
        patients: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
        for match in self._search(tenant, query):
            found = match.attributes
            key = (_first(found, "00100020"), _first(found, "00100021"))
            patient = patients.setdefault(key, {k: v for k, v in found.items() if k.startswith("0010")})
            for total, part in (
                (_PATIENT_STUDIES, None),
                (_PATIENT_SERIES, "00201206"),
                (_PATIENT_INSTANCES, "00201208"),
            ):
                more = 1 if part is None else int(_first(found, part) or 0)
                patient[total] = {"vr": "IS", "Value": [int(_first(patient, total) or 0) + more]}
        yield from patients.values()


def _identifier(event: Any) -> Identifier:
    """Return the request's identifier. Raises InvalidInput."""
    sop_class = str(event.request.AffectedSOPClassUID)
    levels = {PATIENT_ROOT_FIND: PATIENT_ROOT, STUDY_ROOT_FIND: STUDY_ROOT}.get(sop_class)
    if levels is None:
        msg = "the SOP class is not one of the accepted models"
        raise InvalidInput(msg)
    try:
        data = event.identifier
        return find_identifier(data, levels)
    except InvalidInput:
        raise
    except Exception as error:
        msg = "the identifier cannot be read"
        raise InvalidInput(msg) from error


def _first(found: Attributes, key: str) -> str:
    values = found.get(key, {}).get("Value") or [""]
    return "" if values[0] is None else str(values[0])
