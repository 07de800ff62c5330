"""All tables of wetread. Tenant is part of every key; times are Unix seconds UTC; ``*_json`` holds JSON text."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)

from wetread.adapters.index.columns import Integer, Text
from wetread.adapters.index.columns import ShortText as String

metadata = MetaData()

# --- studies -------------------------------------------------------------------------------------------------------

studies = Table(
    "studies",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("patient_id", String, nullable=False, default=""),
    Column("patient_name", String, nullable=False, default=""),
    Column("patient_name_folded", String, nullable=False, default=""),
    Column("birth_date", String, nullable=False, default=""),
    Column("sex", String, nullable=False, default=""),
    Column("age_years", Float),
    Column("study_date", String, nullable=False, default=""),
    Column("study_time", String, nullable=False, default=""),
    Column("accession_number", String, nullable=False, default=""),
    Column("referring_physician", String, nullable=False, default=""),
    Column("referring_physician_folded", String, nullable=False, default=""),
    Column("study_id", String, nullable=False, default=""),
    Column("description", String, nullable=False, default=""),
    Column("institution", String, nullable=False, default=""),
    Column("modalities", String, nullable=False, default="\\"),  # "\CT\SR\": matched with LIKE
    Column("series_count", Integer, nullable=False, default=0),
    Column("instance_count", Integer, nullable=False, default=0),
    Column("generation", Integer, nullable=False, default=0),
    Column("received_at", Float, nullable=False),
    Column("last_received_at", Float, nullable=False),
    Column("source_json", Text, nullable=False, default="{}"),
    Column("attributes_json", LargeBinary, nullable=False),  # QIDO fragment, DICOM JSON of the level
    PrimaryKeyConstraint("tenant", "study_uid"),
    Index("studies_patient", "tenant", "patient_id"),
    Index("studies_accession", "tenant", "accession_number"),
    Index("studies_date", "tenant", "study_date", "study_time", "study_uid"),
    Index("studies_name", "tenant", "patient_name_folded"),
)

series = Table(
    "series",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("modality", String, nullable=False, default=""),
    Column("series_number", Integer),
    Column("description", String, nullable=False, default=""),
    Column("body_part", String, nullable=False, default=""),
    Column("series_date", String, nullable=False, default=""),
    Column("series_time", String, nullable=False, default=""),
    Column("performed_date", String, nullable=False, default=""),
    Column("performed_time", String, nullable=False, default=""),
    Column("own_result", Boolean, nullable=False, default=False),
    Column("instance_count", Integer, nullable=False, default=0),
    Column("version", Integer, nullable=False, default=0),  # counts changes: ETag of its metadata
    Column("received_at", Float, nullable=False),
    Column("facts_json", Text, nullable=False, default="{}"),  # series-level header facts
    Column("attributes_json", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "study_uid", "series_uid"),
    Index("series_uid", "tenant", "series_uid"),
    Index("series_modality", "tenant", "modality"),
)

instances = Table(
    "instances",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("sop_uid", String, nullable=False),
    Column("sop_class_uid", String, nullable=False),
    Column("instance_number", Integer),
    Column("rows", Integer),
    Column("columns", Integer),
    Column("number_of_frames", Integer, nullable=False, default=1),
    Column("transfer_syntax_uid", String, nullable=False),
    Column("content_hash", String, nullable=False),
    Column("locator", String, nullable=False),
    Column("length", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("warnings", String, nullable=False, default=""),
    Column("facts_json", Text, nullable=False),
    Column("attributes_json", LargeBinary, nullable=False),  # QIDO fragment of the level
    Column("metadata_json", LargeBinary, nullable=False),  # full DICOM JSON without bulk values, zlib
    Column("frames_json", Text, nullable=False, default="{}"),  # pixel offset and frame table
    PrimaryKeyConstraint("tenant", "sop_uid"),
    Index("instances_series", "tenant", "study_uid", "series_uid", "instance_number", "sop_uid"),
)

object_marks = Table(  # newest indexed record per writer and tenant of the object store: replay begins behind it
    "object_marks",
    metadata,
    Column("stream", String, primary_key=True),
    Column("locator", String, nullable=False),
)

tombstones = Table(  # deleted records: answer 410, and keep a rebuild from bringing them back; never cleared
    "tombstones",
    metadata,
    Column("tenant", String, nullable=False),
    Column("locator", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("sop_uid", String, nullable=False),
    Column("generation", Integer, nullable=False),  # of the study when it was deleted: a new copy counts on
    Column("removed_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "locator"),
    Index("tombstones_path", "tenant", "study_uid", "series_uid", "sop_uid"),
    Index("tombstones_instance", "tenant", "sop_uid"),
)

deletion_keys = Table(  # Idempotency-Key of deletions that were done: their repetition is answered alike
    "deletion_keys",
    metadata,
    Column("tenant", String, nullable=False),
    Column("key", String, nullable=False),  # SHA-256
    Column("path", String, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "key"),
    Index("deletion_keys_age", "tenant", "at"),
)

dead_records = Table(  # records that hold no instance: replaced, or lost against another; never cleared
    "dead_records",
    metadata,
    Column("tenant", String, nullable=False),
    Column("locator", String, nullable=False),
    Column("sop_uid", String, nullable=False),
    Column("dead_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "locator"),
)

erased_records = Table(  # dead records whose bytes are gone
    "erased_records",
    metadata,
    Column("tenant", String, nullable=False),
    Column("locator", String, nullable=False),
    Column("erased_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "locator"),
)

change_counters = Table(  # newest sequence number of each tenant's change feed
    "change_counters",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("last", Integer, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("tenant", String, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("sop_uid", String, nullable=False),
    Column("action", String, nullable=False),  # create, update, delete
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "sequence"),
    Index("changes_instance", "tenant", "sop_uid", "sequence"),
)

audit_log = Table(  # append-only; UIDs and names of credentials, no patient data
    "audit_log",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False, default=""),
    Column("sop_uid", String, nullable=False, default=""),
    Column("outcome", String, nullable=False),
    Column("request_id", String, nullable=False, default=""),
    Column("digest", String, nullable=False),  # over this entry and the digest of the tenant's entry before it
    Index("audit_log_tenant", "tenant", "number"),
    sqlite_autoincrement=True,
)

access_log = Table(  # append-only; who accessed what: UIDs of studies and names of credentials, no patient data
    "access_log",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),  # empty: nobody was recognised
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("address", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("count", Integer, nullable=False),  # equal accesses between the two times
    Column("request_id", String, nullable=False),
    Column("digest", String, nullable=False),  # over this entry and the digest of the tenant's entry before it
    Index("access_log_tenant", "tenant", "number"),
    Index("access_log_study", "study_uid", "number"),
    sqlite_autoincrement=True,
)

# --- work ----------------------------------------------------------------------------------------------------------

tasks = Table(
    "tasks",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("detector", String, nullable=False),
    Column("version", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("detail", Text, nullable=False, default=""),
    Column("shadow", Boolean, nullable=False, default=False),
    Column("workflow", String, nullable=False, default=""),
    Column("priority", String, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("input_digest", String),
    Column("result_key", String),
    Column("run_id", String),
    Column("workitem_uid", String),
    Column("attempt", Integer, nullable=False, default=0),
    Column("progress", Integer, nullable=False, default=0),
    Column("updated_at", Float, nullable=False),
    Column("runs", Integer, nullable=False, default=0),
    Column("early", Boolean, nullable=False, default=False),
    PrimaryKeyConstraint("tenant", "study_uid", "detector"),
    Index("tasks_run", "run_id"),
    Index("tasks_workitem", "tenant", "workitem_uid"),
    Index("tasks_state", "tenant", "state"),
    Index("tasks_detector", "tenant", "detector", "updated_at"),
)

results = Table(
    "results",
    metadata,
    Column("tenant", String, nullable=False),
    Column("result_key", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("detector", String, nullable=False),
    Column("current", Boolean, nullable=False, default=True),
    Column("created_at", Float, nullable=False),
    Column("result_json", Text, nullable=False),
    Column("stored_json", Text, nullable=False, default="[]"),
    PrimaryKeyConstraint("tenant", "result_key"),
    Index("results_study", "tenant", "study_uid", "detector", "current"),
)

decisions = Table(  # decision trace: which rules were evaluated on which facts, with which outcome
    "decisions",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("signal", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("rules_digest", String, nullable=False),
    Column("trace_json", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "study_uid", "generation", "signal"),
)

decision_facts = Table(  # what the conditions of a decision saw
    "decision_facts",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("signal", String, nullable=False),
    Column("facts", LargeBinary, nullable=False),  # zlib of JSON
    PrimaryKeyConstraint("tenant", "study_uid", "generation", "signal"),
)

rule_sets = Table(  # every set of workflows that ever decided
    "rule_sets",
    metadata,
    Column("digest", String, primary_key=True),
    Column("workflows_json", Text, nullable=False),
)

run_inputs = Table(  # the exact input of each run, by its digest
    "run_inputs",
    metadata,
    Column("tenant", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("sop_uids", LargeBinary, nullable=False),  # zlib of newline-separated UIDs
    PrimaryKeyConstraint("tenant", "digest"),
    Index("run_inputs_study", "tenant", "study_uid"),
)

run_priors = Table(  # earlier results that a run was handed, by the digest of its input; most runs have none
    "run_priors",
    metadata,
    Column("tenant", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("priors_json", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "digest"),
)

manifests = Table(  # what a sender says its study holds
    "manifests",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("manifest_json", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "study_uid"),
)

held_evaluations = Table(  # at most one per study: evaluations that wait until its next images have had a chance
    "held_evaluations",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("since", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("arguments_json", Text, nullable=False),
    Column("trace", String),
    PrimaryKeyConstraint("tenant", "study_uid"),
    Index("held_evaluations_since", "since"),
)

quiet_watches = Table(  # the quiet timer in flight of each study
    "quiet_watches",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("since", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "study_uid"),
)

executors = Table(
    "executors",
    metadata,
    Column("id", String, primary_key=True),
    Column("service", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("lease_until", Float, nullable=False),
)

upkeep = Table(  # what is looked after once for the whole deployment
    "upkeep",
    metadata,
    Column("name", String, primary_key=True),
    Column("begun_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("faults", Integer),  # found when it ended last
)

# --- workitems (UPS) -----------------------------------------------------------------------------------------------

workitems = Table(
    "workitems",
    metadata,
    Column("tenant", String, nullable=False),
    Column("uid", String, nullable=False),
    Column("state", String, nullable=False),
    Column("priority", String, nullable=False),
    Column("priority_rank", Integer, nullable=False),
    Column("scheduled_start", String, nullable=False, default=""),  # UTC, sortable
    Column("study_uid", String, nullable=False, default=""),
    Column("patient_id", String, nullable=False, default=""),
    Column("patient_name_folded", String, nullable=False, default=""),
    Column("label", String, nullable=False, default=""),
    Column("transaction_hash", String),  # SHA-256 of the Transaction UID: a lock, never shown
    Column("performer", String, nullable=False, default=""),  # "", ours, external
    Column("ours", Boolean, nullable=False, default=False),  # scheduled by our own orchestration
    Column("claimed_at", Float),
    Column("flagged_at", Float),  # an external performer fell silent
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("search_json", Text, nullable=False),  # the dataset less its lists of instances: what a search scans
    Column("dataset_json", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "uid"),
    Index("workitems_patient", "tenant", "patient_id"),
    Index("workitems_state", "tenant", "state", "updated_at"),
    Index("workitems_order", "tenant", "priority_rank", "scheduled_start", "created_at", "uid"),
    Index("workitems_study", "tenant", "study_uid"),
)

workitem_tombstones = Table(  # workitems removed after completion: their UIDs answer 410 and are not used again
    "workitem_tombstones",
    metadata,
    Column("tenant", String, nullable=False),
    Column("uid", String, nullable=False),
    Column("removed_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "uid"),
)

ups_subscriptions = Table(  # one row per AE title and workitem, or per AE title and well-known worklist UID
    "ups_subscriptions",
    metadata,
    Column("tenant", String, nullable=False),
    Column("aet", String, nullable=False),
    Column("workitem_uid", String, nullable=False),
    Column("origin", String, nullable=False),  # the UID that was subscribed to: itself or a well-known one
    Column("deletion_lock", Boolean, nullable=False, default=False),
    Column("filter_json", Text, nullable=False, default="[]"),
    Column("created_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "aet", "workitem_uid"),
    Index("ups_subscriptions_workitem", "tenant", "workitem_uid"),
)

ups_events = Table(  # one row per event and subscribed AE title, written with the change that caused it
    "ups_events",
    metadata,
    Column("cursor", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),
    Column("aet", String, nullable=False),
    Column("workitem_uid", String, nullable=False),
    Column("type", Integer, nullable=False),
    Column("attributes_json", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("ups_events_subscriber", "tenant", "aet", "cursor"),
    sqlite_autoincrement=True,  # a cursor is never used twice, also after old events are removed
)

ups_deliveries = Table(  # how far each AE title has received its events
    "ups_deliveries",
    metadata,
    Column("tenant", String, nullable=False),
    Column("aet", String, nullable=False),
    Column("cursor", Integer, nullable=False),
    PrimaryKeyConstraint("tenant", "aet"),
)

# --- reading order and events --------------------------------------------------------------------------------------

reading_order = Table(
    "reading_order",
    metadata,
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("priority", String, nullable=False),
    Column("firm_priority", String, nullable=False),  # the class without AI findings: the guard treats a flag apart
    Column("arrival", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("reasons_json", Text, nullable=False, default="[]"),
    Column("state", String, nullable=False, default="open"),
    Column("updated_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "study_uid"),
    Index("reading_order_open", "tenant", "state", "priority", "due_at"),
    Index("reading_order_arrival", "tenant", "state", "arrival", "study_uid"),
)

reading_claims = Table(  # append-only but for its end: who took which study from the list, and what it passed
    "reading_claims",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("reader", String, nullable=False),
    Column("band", String, nullable=False),
    Column("passed", Boolean, nullable=False),  # time-critical, taken while an overdue study waited
    Column("claimed_at", Float, nullable=False),
    Column("lapses_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String, nullable=False, default=""),  # "", released, read, lapsed
    Index("reading_claims_order", "tenant", "number"),
    Index("reading_claims_open", "tenant", "ended_at", "lapses_at"),
    Index("reading_claims_study", "tenant", "study_uid", "number"),
    sqlite_autoincrement=True,
)

breakers = Table(  # detectors that flagged more than their cards predict
    "breakers",
    metadata,
    Column("tenant", String, nullable=False),
    Column("detector", String, nullable=False),
    Column("opened_at", Float),  # null: closed
    PrimaryKeyConstraint("tenant", "detector"),
)

events = Table(
    "events",
    metadata,
    Column("cursor", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),
    Column("id", String, nullable=False),
    Column("type", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("time", Float, nullable=False),
    Column("data_json", Text, nullable=False),
    Column("stamps_json", Text, nullable=False, default="{}"),
    UniqueConstraint("tenant", "id"),
    Index("events_subject", "tenant", "subject"),
    Index("events_type", "type", "time"),
    # A cursor is never given out twice, even when the newest events are deleted.
    sqlite_autoincrement=True,
)

turnarounds = Table(  # counts per bucket of the turnaround histograms: never cleared, they are counters
    "turnarounds",
    metadata,
    Column("tenant", String, nullable=False),
    Column("site", String, nullable=False),
    Column("clock", String, nullable=False),  # result, raised, notified
    Column("modality", String, nullable=False),
    Column("finding", String, nullable=False),
    Column("bucket", Integer, nullable=False),  # number of the bucket, not cumulative
    Column("count", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "site", "clock", "modality", "finding", "bucket"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("tenant", String, nullable=False),
    Column("id", String, nullable=False),
    Column("url", String, nullable=False),
    Column("types_json", Text, nullable=False, default="[]"),
    Column("secrets_json", Text, nullable=False),
    Column("include_patient", Boolean, nullable=False, default=False),
    Column("active", Boolean, nullable=False, default=True),
    Column("created_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("tenant", String, nullable=False),
    Column("subscription_id", String, nullable=False),
    Column("event_id", String, nullable=False),
    Column("state", String, nullable=False),  # pending, sent, dead
    Column("attempts", Integer, nullable=False, default=0),
    Column("last_error", String, nullable=False, default=""),
    Column("sent_at", Float),
    Column("next_attempt_at", Float),  # null: waits for an earlier event of its study
    Column("updated_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "subscription_id", "event_id"),
    Index("deliveries_state", "state", "next_attempt_at"),
    Index("deliveries_subscription", "tenant", "subscription_id", "state", "updated_at"),
)

# --- results sent to DICOM destinations ----------------------------------------------------------------------------

dicom_sends = Table(
    "dicom_sends",
    metadata,
    Column("tenant", String, nullable=False),
    Column("destination", String, nullable=False),  # AE title
    Column("event_id", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_json", Text, nullable=False),
    Column("state", String, nullable=False),  # pending, sent, dead
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", Float, nullable=False),
    Column("last_error", String, nullable=False, default=""),
    Column("updated_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "destination", "event_id"),
    Index("dicom_sends_due", "state", "tenant", "destination", "due_at"),
)

dicom_send_cursors = Table(  # how far each destination has seen the events
    "dicom_send_cursors",
    metadata,
    Column("tenant", String, nullable=False),
    Column("destination", String, nullable=False),
    Column("cursor", Integer, nullable=False),
    PrimaryKeyConstraint("tenant", "destination"),
)
