"""What becomes of the parts of a group against what is stored: new, identical, in another's place, or refused.

The rule is PS3.18 10.5 with the tenant's policy for the same SOP Instance UID with other content (ADR 0209): ``reject``
(45070), ``keep_first`` (B006, not stored), ``replace`` (stored, the former content goes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import orjson

from wetread.core.ports.archive import IndexEntry, KnownInstance
from wetread.core.ports.objects import ObjectRef
from wetread.core.tenants import DuplicatePolicy
from wetread.gateway import reasons
from wetread.gateway.prepare import Prepared

if TYPE_CHECKING:
    from wetread.gateway.ingest import Batch

REPLACES: Final = "replaces"
"""In the description of a record: locator of the record that it takes the place of."""


@dataclass(slots=True)
class Candidate:
    """A part on its way through a group."""

    batch: Batch
    position: int
    part: Prepared
    ref: ObjectRef | None = None
    twin: bool = False
    """Its duplicate is in the same group: it stands and falls with that."""
    replaces: str | None = None
    """Locator of the record in whose place its own is meant to be; written down with it."""
    displaced: str | None = None
    """Locator of the record that it is about to displace in the index: another one when somebody was faster."""

    @property
    def described(self) -> bytes:
        """The description of its record."""
        if self.replaces is None:
            return self.part.description
        return orjson.dumps({**orjson.loads(self.part.description), REPLACES: self.replaces})

    @property
    def entry(self) -> IndexEntry:
        """What it adds to the index, once its bytes are stored."""
        assert self.ref is not None
        return self.part.entry(self.ref)

    def refuse(self, reason: int, comment: str) -> None:
        """It is not stored."""
        outcome = self.part.outcome
        self.batch.outcomes[self.position] = replace(
            outcome, failure_reason=reason, warning_reason=None, comment=comment, duplicate=False
        )


@dataclass(slots=True)
class Settlement:
    """A group, sorted. ``fresh`` and ``replacing`` are to be stored, in the order of the parts."""

    fresh: list[Candidate] = field(default_factory=list)
    replacing: list[Candidate] = field(default_factory=list)
    later: list[Candidate] = field(default_factory=list)
    """They replace what is in the same group: their turn comes when that is stored."""
    lost: list[Candidate] = field(default_factory=list)
    """Their bytes are stored and nobody will ever ask for them."""
    stored: list[Candidate] = field(default_factory=list)
    """All that is to be stored, in order."""

    def take(self, candidate: Candidate) -> None:
        """It is to be stored, new or in the place of another."""
        (self.fresh if candidate.displaced is None else self.replacing).append(candidate)
        self.stored.append(candidate)

    def drop(self, candidate: Candidate) -> None:
        """It is not to be stored after all."""
        self.replacing.remove(candidate)
        self.stored.remove(candidate)
        self.lost.append(candidate)


Own = Callable[[KnownInstance], bool]
"""Whether an instance was written by wetread itself."""


def settle(
    known: Mapping[str, KnownInstance], candidates: Sequence[Candidate], policy: DuplicatePolicy, own: Own
) -> Settlement:
    """Sort *candidates*; those that are settled have their outcomes.

    Asked twice: before the bytes are stored, and, since other processes store too, in the transaction that indexes
    them.
    """
    result = Settlement()
    group: dict[str, Candidate] = {}
    for candidate in candidates:
        uid = candidate.part.sop_uid
        candidate.displaced = None
        earlier, before = known.get(uid), group.get(uid)
        if before is not None:
            _beside(candidate, before, policy, result)
        elif earlier is None:
            group[uid] = candidate
            result.take(candidate)
        elif candidate.ref is not None and candidate.ref.locator == earlier.locator:
            pass  # a starting neighbour found the record and indexed it
        elif _stands(candidate, earlier, policy, own):
            group[uid] = candidate
            candidate.displaced = earlier.locator
            if candidate.ref is None:
                candidate.replaces = earlier.locator
            result.take(candidate)
        elif candidate.ref is not None:
            result.lost.append(candidate)
    return result


def settle_replayed(known: Mapping[str, KnownInstance], candidates: Sequence[Candidate]) -> Settlement:
    """Sort records that were stored before. What they say counts, not the policy of today.

    ``lost`` are those that nothing explains: another record holds their instance, and they do not say that they
    replace it.
    """
    result = Settlement()
    group: set[str] = set()
    for candidate in candidates:
        uid = candidate.part.sop_uid
        assert candidate.ref is not None
        earlier = known.get(uid)
        candidate.displaced = None
        if uid in group:
            result.later.append(candidate)
        elif earlier is None or candidate.replaces == earlier.locator:
            group.add(uid)
            candidate.displaced = None if earlier is None else earlier.locator
            result.take(candidate)
        elif earlier.locator != candidate.ref.locator:
            result.lost.append(candidate)
    return result


def _beside(candidate: Candidate, before: Candidate, policy: DuplicatePolicy, result: Settlement) -> None:
    """Settle a part whose UID another part of the group has."""
    first = before.part
    assert first.facts is not None
    there = KnownInstance(first.study_uid, first.series_uid, first.facts.content_hash, "")
    if _stands(candidate, there, policy, lambda _there: first.own_result):
        result.later.append(candidate)
    else:
        candidate.twin = candidate.batch.outcomes[candidate.position].duplicate


def _stands(candidate: Candidate, earlier: KnownInstance, policy: DuplicatePolicy, own: Own) -> bool:
    """Return whether a part takes the place of *earlier*; when not, it gets its outcome."""
    part = candidate.part
    assert part.facts is not None
    if earlier.content_hash == part.facts.content_hash:
        candidate.batch.outcomes[candidate.position] = replace(part.outcome, duplicate=True)
        if not part.own_result:
            candidate.batch.transfer.repeated.add(part.study_uid)
        return False
    if (earlier.study_uid, earlier.series_uid) != (part.study_uid, part.series_uid):
        candidate.refuse(reasons.ATTRIBUTE_MISSING, "this SOP Instance UID is stored under another study or series")
        return False
    if policy == "keep_first":
        candidate.batch.outcomes[candidate.position] = replace(
            part.outcome,
            warning_reason=reasons.WARNING_DISCARDED,
            comment="this SOP Instance UID is stored with other content, which was kept",
            duplicate=True,
        )
        return False
    # What wetread found is not for others to rewrite, and it rewrites nothing of theirs.
    if policy == "replace" and own(earlier) == part.own_result:
        return True
    candidate.refuse(reasons.CONFLICT, "this SOP Instance UID is stored with other content")
    return False
