"""Escalation: a time-critical finding that nobody acknowledges goes to the next channel, then the alarm is raised.

Nothing is remembered but events: which chains are open, and which steps were taken, follows from ``finding.*``. The id
of a step is a function of the finding and the step, so that a crash, a restart or a second process takes it once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from wetread.core.channels import ALARM, Escalation
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest, log_ref
from wetread.core.ports import Clock, Database, EventLog, ReadingOrder, Transaction
from wetread.core.priority import Priority

log = logging.getLogger(__name__)

HORIZON_SECONDS: Final = 48 * 3600.0
"""Findings older than this are not looked at: the longest chain takes a day."""
_TOLD: Final = (
    EventType.FINDING_POSITIVE,
    EventType.FINDING_RETRACTED,
    EventType.FINDING_ACKNOWLEDGED,
    EventType.FINDING_ESCALATED,
)
_CARRIED: Final = (
    "detector", "version", "result_key", "model_digest", "finding_id", "code", "scheme", "meaning", "score", "state",
    "preliminary",
)  # fmt: skip


@dataclass(slots=True)
class Chain:
    """A finding that waits for a person. ``taken``: steps that were taken."""

    positive: Event
    taken: set[int] = field(default_factory=set)


def open_chains(events: Iterable[Event]) -> list[Chain]:
    """Return what is neither acknowledged nor taken back, from events in their order. The clock of the first counts."""
    chains: dict[tuple[str, ...], Chain] = {}
    for event in events:
        key = (event.tenant, event.subject, str(event.data.get("detector")), str(event.data.get("code", "")))
        if event.type is EventType.FINDING_POSITIVE and not event.data.get("shadow"):
            chains.setdefault(key, Chain(event))
        elif event.type is EventType.FINDING_ESCALATED:
            if key in chains:
                chains[key].taken.add(int(event.data["step"]))
        elif event.type in {EventType.FINDING_RETRACTED, EventType.FINDING_ACKNOWLEDGED}:
            chains.pop(key, None)
    return list(chains.values())


class Escalator:
    """Takes the steps that are due. ``policy`` gives the chain of a tenant, None: it has none."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        events: EventLog,
        order: ReadingOrder,
        policy: Callable[[str], Escalation | None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._order = order
        self._policy = policy

    def sweep(self) -> int:
        """Take every due step of every tenant and return how many. Harmless to run twice at once."""
        with self._database.read() as tx:
            if not self._due(tx):
                return 0
        with self._database.write() as tx:  # looked at anew: somebody may have acknowledged in between
            due = self._due(tx)
            return sum(self._take(tx, *one) for one in due)

    def _due(self, tx: Transaction) -> list[tuple[Chain, Escalation, int]]:
        now = self._clock.now()
        due = []
        for chain in open_chains(self._events.told(tx, _TOLD, since=now - HORIZON_SECONDS)):
            policy = self._policy(chain.positive.tenant)
            steps = policy.due(now - chain.positive.time, chain.taken) if policy is not None else []
            if policy is not None and steps and self._critical(tx, chain.positive):
                due += [(chain, policy, step) for step in steps]
        return due

    def _critical(self, tx: Transaction, event: Event) -> bool:
        placed = self._order.priority(tx, event.tenant, event.subject)
        return placed is not None and placed[0] is Priority.STAT

    def _take(self, tx: Transaction, chain: Chain, policy: Escalation, step: int) -> bool:
        positive, now = chain.positive, self._clock.now()
        kind = EventType.FINDING_ESCALATED
        alarm = step == ALARM
        data = {key: positive.data[key] for key in _CARRIED if key in positive.data}
        event = Event(
            id=digest("event", str(kind), positive.tenant, positive.subject, positive.id, step),
            type=kind,
            tenant=positive.tenant,
            subject=positive.subject,
            time=now,
            data={
                **data,
                "step": step,
                "alarm": alarm,
                "channel": "" if alarm else policy.steps[step].channel,
                "waited_s": round(now - positive.time, 1),
            },
            stamps=positive.stamps,
            trace=positive.trace,
        )
        taken = self._events.append(tx, event)
        if taken and alarm:
            log.error("nobody has acknowledged a time-critical finding: %s", log_ref(positive.tenant, positive.id))
        return taken
