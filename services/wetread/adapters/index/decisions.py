"""Decision traces, run inputs, manifests and quiet timers on SQL."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import and_, bindparam, delete, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import (
    decision_facts,
    decisions,
    manifests,
    quiet_watches,
    rule_sets,
    run_inputs,
    run_priors,
)
from wetread.adapters.index.upsert import insert_row, replace_row
from wetread.core.completeness import StudyManifest
from wetread.core.errors import NotFound
from wetread.core.ports.database import Transaction
from wetread.core.ports.orchestration import Decision, QuietWatch, RunInput
from wetread.core.priors import NO_PRIORS, Priors

# Statements of every evaluation, made once.
_SIGNALS: Final = select(decisions.c.signal).where(
    decisions.c.tenant == bindparam("of"),
    decisions.c.study_uid == bindparam("study"),
    decisions.c.generation == bindparam("number"),
)
_KNOWN_RULES: Final = select(rule_sets.c.digest).where(rule_sets.c.digest == bindparam("one"))
_MANIFEST: Final = select(manifests.c.manifest_json).where(
    manifests.c.tenant == bindparam("of"), manifests.c.study_uid == bindparam("study")
)
_WATCHED: Final = (quiet_watches.c.tenant == bindparam("of"), quiet_watches.c.study_uid == bindparam("study"))
_WATCH: Final = select(quiet_watches).where(*_WATCHED)
_UNWATCH: Final = delete(quiet_watches).where(*_WATCHED)


class SqlDecisions:
    """DecisionRepository on SQL."""

    def put(self, tx: Transaction, decision: Decision) -> None:
        """Insert or replace."""
        values = {
            "tenant": decision.tenant,
            "study_uid": decision.study_uid,
            "generation": decision.generation,
            "signal": decision.signal,
            "at": decision.at,
            "rules_digest": decision.rules_digest,
            "trace_json": json.dumps(decision.trace, sort_keys=True),
        }
        replace_row(connection_of(tx), decisions, values)
        if decision.kept_facts is not None:
            key = {name: values[name] for name in ("tenant", "study_uid", "generation", "signal")}
            packed = zlib.compress(orjson.dumps(decision.kept_facts), level=1)
            replace_row(connection_of(tx), decision_facts, {**key, "facts": packed})

    def signals(self, tx: Transaction, tenant: str, study_uid: str, generation: int) -> frozenset[str]:
        """Return the signals that were evaluated for a generation of a study."""
        where = {"of": tenant, "study": study_uid, "number": generation}
        return frozenset(connection_of(tx).execute(_SIGNALS, where).scalars())

    def of_study(self, tx: Transaction, tenant: str, study_uid: str) -> list[Decision]:
        """Return all decisions of a study, oldest first."""
        query = select(decisions).where(decisions.c.tenant == tenant, decisions.c.study_uid == study_uid)
        rows = connection_of(tx).execute(query.order_by(decisions.c.at, decisions.c.generation, decisions.c.signal))
        return [
            Decision(r.tenant, r.study_uid, r.generation, r.signal, r.at, r.rules_digest, json.loads(r.trace_json))
            for r in rows
        ]

    def facts(self, tx: Transaction, decision: Decision) -> Mapping[str, Any] | None:
        """Return the facts that a decision was made on; None when they were not kept."""
        query = select(decision_facts.c.facts).where(
            decision_facts.c.tenant == decision.tenant,
            decision_facts.c.study_uid == decision.study_uid,
            decision_facts.c.generation == decision.generation,
            decision_facts.c.signal == decision.signal,
        )
        packed = connection_of(tx).execute(query).scalar()
        return None if packed is None else dict(orjson.loads(zlib.decompress(packed)))


class SqlRuleSets:
    """RuleSetRepository on SQL."""

    def put(self, tx: Transaction, digest: str, workflows: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Keep a set unless it is kept already."""
        if connection_of(tx).execute(_KNOWN_RULES, {"one": digest}).first() is None:
            content = orjson.dumps(list(workflows())).decode()
            insert_row(connection_of(tx), rule_sets, {"digest": digest, "workflows_json": content})

    def get(self, tx: Transaction, digest: str) -> Sequence[Mapping[str, Any]] | None:
        """Return the workflow models of a set, or None."""
        query = select(rule_sets.c.workflows_json).where(rule_sets.c.digest == digest)
        content = connection_of(tx).execute(query).scalar()
        return None if content is None else list(orjson.loads(content))


class SqlRunInputs:
    """RunInputRepository on SQL."""

    def put(self, tx: Transaction, run_input: RunInput) -> None:
        """Store; the same digest again is ignored."""
        values = {
            "tenant": run_input.tenant,
            "digest": run_input.digest,
            "study_uid": run_input.study_uid,
            "series_uid": run_input.series_uid,
            "sop_uids": zlib.compress("\n".join(run_input.sop_instance_uids).encode()),
        }
        insert_row(connection_of(tx), run_inputs, values)
        if run_input.priors:
            handed = {"tenant": run_input.tenant, "digest": run_input.digest}
            insert_row(connection_of(tx), run_priors, handed | {"priors_json": run_input.priors.model_dump_json()})

    def get(self, tx: Transaction, tenant: str, digest: str) -> RunInput:
        """Return an input. Raises NotFound."""
        same = and_(run_priors.c.tenant == run_inputs.c.tenant, run_priors.c.digest == run_inputs.c.digest)
        query = (
            select(run_inputs, run_priors.c.priors_json)
            .outerjoin(run_priors, same)
            .where(run_inputs.c.tenant == tenant, run_inputs.c.digest == digest)
        )
        row = connection_of(tx).execute(query).one_or_none()
        if row is None:
            msg = "no such run input"
            raise NotFound(msg)
        uids = tuple(uid for uid in zlib.decompress(row.sop_uids).decode().split("\n") if uid)
        priors = Priors.model_validate_json(row.priors_json) if row.priors_json else NO_PRIORS
        return RunInput(row.tenant, row.digest, row.study_uid, row.series_uid, uids, priors)


class SqlManifests:
    """ManifestRepository on SQL."""

    def put(self, tx: Transaction, tenant: str, study_uid: str, manifest: StudyManifest, at: float) -> None:
        """Insert or replace."""
        values = {"tenant": tenant, "study_uid": study_uid, "at": at, "manifest_json": manifest.model_dump_json()}
        replace_row(connection_of(tx), manifests, values)

    def get(self, tx: Transaction, tenant: str, study_uid: str) -> StudyManifest | None:
        """Return the latest manifest, or None."""
        text = connection_of(tx).execute(_MANIFEST, {"of": tenant, "study": study_uid}).scalar()
        return StudyManifest.model_validate_json(text) if text else None


class SqlQuietWatches:
    """QuietWatchRepository on SQL."""

    def get(self, tx: Transaction, tenant: str, study_uid: str) -> QuietWatch | None:
        """Return the timer in flight, or None."""
        row = connection_of(tx).execute(_WATCH, {"of": tenant, "study": study_uid}).one_or_none()
        return QuietWatch(row.tenant, row.study_uid, row.sequence, row.since) if row else None

    def put(self, tx: Transaction, watch: QuietWatch) -> None:
        """Insert or replace."""
        values = {
            "tenant": watch.tenant,
            "study_uid": watch.study_uid,
            "sequence": watch.sequence,
            "since": watch.since,
        }
        replace_row(connection_of(tx), quiet_watches, values)

    def delete(self, tx: Transaction, tenant: str, study_uid: str) -> None:
        """Forget the timer: the study is quiet."""
        connection_of(tx).execute(_UNWATCH, {"of": tenant, "study": study_uid})
