"""The index as the gateway needs it: what an instance adds, what a search finds, where frames lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from wetread.core.dicom.attributes import Attributes
from wetread.core.dicom.facts import SeriesHeader
from wetread.core.dicomweb.query import Query
from wetread.core.facts import InstanceFacts, Source
from wetread.core.ports.changes import AuditLog, ChangeFeed, Removal
from wetread.core.ports.database import Transaction
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.studies import StudyIndex

COUNT_LIMIT: Final = 1000
"""Further results of a search are counted up to here, so that the first page stays fast."""


@dataclass(frozen=True, slots=True)
class KnownInstance:
    """Identity of an instance that is already indexed, and the record that holds it."""

    study_uid: str
    series_uid: str
    content_hash: str
    locator: str


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Everything that one stored instance adds to the index. ``metadata``: its DICOM JSON object, zlib."""

    study_uid: str
    series_uid: str
    facts: InstanceFacts
    series: SeriesHeader
    age_years: float | None
    attributes: Attributes
    metadata: bytes
    frames: Mapping[str, Any]
    ref: ObjectRef
    received_at: float
    source: Source
    own_result: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyAddition:
    """Effect of a group on one study. ``replaced``: instances that were there and have another content now."""

    study_uid: str
    generation: int
    first: bool
    new_instances: int
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class ArchivedInstance:
    """What retrieval needs of one instance."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    instance_number: int | None
    transfer_syntax_uid: str
    content_hash: str
    lossy: bool
    ref: ObjectRef
    frames: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Match:
    """One result of a search, with the attributes of its level and of the levels above."""

    study_uid: str
    series_uid: str | None
    sop_uid: str | None
    attributes: dict[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of results. ``remaining``: how many more there are; ``at_least`` when counting stopped early."""

    matches: tuple[Match, ...]
    remaining: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class InstanceFragment:
    """What the index keeps of an instance for searches; ``attributes`` is made by ``core.dicomweb.fragments``."""

    sop_uid: str
    transfer_syntax_uid: str
    attributes: bytes


@dataclass(frozen=True, slots=True)
class FragmentPage:
    """Instances of one series in their order, and how many more there are."""

    instances: tuple[InstanceFragment, ...]
    remaining: int


@dataclass(frozen=True, slots=True)
class SeriesMetadata:
    """Stored metadata of a series' instances: (SOP Instance UID, zlib DICOM JSON), and the version of its ETag."""

    study_uid: str
    series_uid: str
    version: int
    instances: tuple[tuple[str, bytes], ...]


class Archive(StudyIndex, ChangeFeed, AuditLog, Protocol):
    """Write and search side of the index."""

    def known(self, tx: Transaction, tenant: str, sop_uids: Sequence[str]) -> dict[str, KnownInstance]:
        """Return those of *sop_uids* that are indexed."""

    def existing(self, tx: Transaction, tenant: str, study_uids: Sequence[str]) -> set[str]:
        """Return those of *study_uids* that are indexed."""

    def add(
        self, tx: Transaction, tenant: str, entries: Sequence[IndexEntry], *, at: float, replayed: bool = False
    ) -> list[StudyAddition]:
        """Insert instances that are not known yet; raise counters, generations and versions of what holds them.

        The change feed tells them in the same transaction. ``at``: Unix seconds of the commit. ``replayed``: the feed
        may have told them already.
        """

    def replace(self, tx: Transaction, tenant: str, entries: Sequence[IndexEntry], *, at: float) -> list[StudyAddition]:
        """Give indexed instances another content: rows, counters, generations and versions follow.

        The records that held them are dead from now on, as after ``discard``. The change feed tells an update and the
        audit log who sent it, in the same transaction. ``at``: Unix seconds of the commit.
        """

    def own_result(self, tx: Transaction, tenant: str, study_uid: str, series_uid: str) -> bool:
        """Return whether a series was written by wetread itself."""

    def discard(self, tx: Transaction, tenant: str, records: Sequence[tuple[str, str]], *, at: float) -> None:
        """Note that (SOP Instance UID, locator) records hold no instance: never indexed, or not any more.

        Outlives ``clear``. What is indexed from one of them goes out of the index again: a rebuild met the record
        before the note about it.
        """

    def remove(self, tx: Transaction, tenant: str, removal: Removal, *, replayed: bool = False) -> int:
        """Take instances out of the index for good and return how many were not removed before.

        Their tombstones outlive ``clear``; the change feed and the audit log tell the removal.
        """

    def removed_by_key(self, tx: Transaction, tenant: str, key: str, *, since: float) -> str | None:
        """Return the path of the removal that had this key and is not older than *since*; None when there is none."""

    def dead(self, tx: Transaction, tenant: str, records: Sequence[tuple[str, str]]) -> set[str]:
        """Return the locators of those (SOP Instance UID, locator) records that were removed, replaced or discarded."""

    def erasable(self, tx: Transaction, *, until: float, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return (tenant, locator) of records that died before *until* and are not erased yet, behind *after*.

        Never one that an instance is indexed from.
        """

    def erased(self, tx: Transaction, records: Sequence[tuple[str, str]], *, at: float) -> None:
        """Note that the bytes of (tenant, locator) records are gone."""

    def next_generation(self, tx: Transaction, tenant: str, study_uid: str) -> int:
        """Count a commit group that added nothing (the end of a transfer) and return the study's generation."""

    def marks(self, tx: Transaction) -> list[str]:
        """Return the locator of the newest indexed record per writer and tenant (high-water marks)."""

    def move_marks(self, tx: Transaction, locators: Sequence[str]) -> None:
        """Advance the marks to *locators* (the last ones of a group)."""

    def clear(self, tx: Transaction) -> None:
        """Forget studies, series, instances and marks (before a rebuild); dead records, changes and audit stay."""

    def search(
        self, tx: Transaction, tenant: str, query: Query, *, study_uid: str | None, series_uid: str | None
    ) -> SearchPage:
        """Run a search below the given study and series."""

    def fragments(
        self, tx: Transaction, tenant: str, study_uid: str, series_uid: str, *, limit: int, offset: int
    ) -> FragmentPage:
        """Return a page of a series' instances in the form that default answers of a search are made of."""

    def instances(
        self,
        tx: Transaction,
        tenant: str,
        study_uid: str,
        series_uid: str | None = None,
        sop_uid: str | None = None,
    ) -> list[ArchivedInstance]:
        """Return the instances of a study, series or instance path in series and instance order. Raises NotFound."""

    def metadata(
        self, tx: Transaction, tenant: str, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> list[SeriesMetadata]:
        """Return stored metadata below a path. Raises NotFound."""

    def versions(self, tx: Transaction, tenant: str, study_uid: str, series_uid: str | None = None) -> list[int]:
        """Return the versions of a study's series (one series: its own). Raises NotFound."""
