"""Follows the chains of the audit trail from end to end: by command, and once a day for the whole deployment."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from wetread.adapters.index.upkeep import AUDIT_CHAIN, SqlUpkeep
from wetread.core.ports.access import Chain
from wetread.core.ports.database import Clock, Database

logger = logging.getLogger("wetread.audit")

EVERY_SECONDS: Final = 24 * 3600.0
_PAGE: Final = 5000


def broken_links(database: Database, chain: Chain, *, page: int = _PAGE) -> list[tuple[str, int]]:
    """Return tenant and number of each entry whose digest does not follow from the tenant's entry before it.

    The oldest entry of a tenant has nothing to follow: others may have expired. No transaction is longer than a page.
    """
    newest: dict[str, str] = {}
    broken: list[tuple[str, int]] = []
    last = 0
    while True:
        # The last one is read again: when it has expired meanwhile, what is left begins anew.
        with database.read() as tx:
            found = list(chain.audit_links(tx, max(last - 1, 0), limit=page + 1))
        if found and found[0].number == last:
            del found[0]
        else:
            newest.clear()
        if not found:
            return broken
        for link in found:
            if link.tenant in newest and not link.follows(newest[link.tenant]):
                broken.append((link.tenant, link.number))
            newest[link.tenant] = link.digest
        last = found[-1].number


class ChainWatch:
    """Looks once a day, in one process of all, and leaves the count of faults for the metrics."""

    def __init__(self, database: Database, chains: Sequence[Chain], clock: Clock) -> None:
        self._database = database
        self._chains = chains
        self._clock = clock
        self._upkeep = SqlUpkeep()

    def look(self) -> None:
        """Follow the chains if that is due. Called again and again."""
        begun = self._clock.now()
        with self._database.write() as tx:
            if not self._upkeep.begin(tx, AUDIT_CHAIN, now=begun, every_seconds=EVERY_SECONDS):
                return
        broken = sum(len(broken_links(self._database, chain)) for chain in self._chains)
        if broken:
            logger.error("the audit trail is not whole", extra={"entries": broken})
        with self._database.write() as tx:
            self._upkeep.end(tx, AUDIT_CHAIN, begun=begun, ended=self._clock.now(), faults=broken)
