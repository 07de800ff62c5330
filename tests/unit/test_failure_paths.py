"""Every failure path, provoked: its typed reason in the task, the workitem, the metrics and the timeline.

Run with ``-s`` to see the table. The same reasons are in ``core.reasons`` and in docs/workflows.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.external_site import Site
from tests.orchestration_fakes import STUDY, TENANT
from tests.orchestration_world import World

from wetread.adapters.telemetry.metrics import DatabaseCollector
from wetread.core import reasons
from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.errors import ComputationFailed, NotProcessable, Unavailable
from wetread.core.ports.orchestration import DeadWork
from wetread.core.states import AiState
from wetread.core.ups import UpsState
from wetread.core.ups_dataset import code, element
from wetread.core.workqueue import EVALUATE
from wetread.orchestration.loops import Outcomes
from wetread.orchestration.requests import Verb

ROOT = Path(__file__).resolve().parents[2]
TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))
CLOSED = range(1, 9)
Row = tuple[str, str, str, str]


def deliver(world: World, numbers: Any = CLOSED) -> None:
    world.deliver(numbers, transfer_end=True)


def queued(world: World) -> None:
    deliver(world)
    world.step()
    assert world.task().state is AiState.QUEUED


def errors(error: Exception) -> Callable[[World], None]:
    def provoke(world: World) -> None:
        world.runner.errors = [error] * 9
        deliver(world)

    return provoke


def asked(verb: Verb, before: Callable[[World], None] = queued) -> Callable[[World], None]:
    def provoke(world: World) -> None:
        before(world)
        world.requests.ask(TENANT, verb, STUDY, "ich", "by hand")

    return provoke


def failed_before(world: World) -> None:
    errors(ComputationFailed("crashed", "boom"))(world)
    world.settle()


def broken_selection(world: World) -> None:
    world.runner.select_error = KeyError("bug")
    deliver(world)


def refused(world: World) -> None:
    world.runner.select_error = NotProcessable("mixed_orientation", "two orientations")
    deliver(world)


def too_few(world: World) -> None:
    deliver(world, range(1, 3))


def ups_cancel(world: World) -> None:
    queued(world)
    with world.database.write() as tx:
        world.requests.workitem_changed(tx, TENANT, world.task().workitem_uid, UpsState.CANCELED)


def deleted(world: World) -> None:
    queued(world)
    del world.studies.studies[TENANT, STUDY]
    with world.database.write() as tx:
        world.outbox.study_removed(tx, TENANT, STUDY)


def ended(state: str) -> Callable[[World], None]:
    """The durable workflow of the run ended without running our code."""

    def provoke(world: World) -> None:
        queued(world)
        control = SimpleNamespace(end_states=lambda ids: dict.fromkeys(ids, state), dead=lambda _names, *, since: [])
        check(world, control)

    return provoke


def evaluation_lost(world: World) -> None:
    world.index(CLOSED)
    lost = {"tenant": TENANT, "study_uid": STUDY, "generation": 1}
    work = DeadWork("w", EVALUATE, "MAX_RECOVERY_ATTEMPTS_EXCEEDED", lost)
    check(world, SimpleNamespace(end_states=lambda _ids: {}, dead=lambda _names, *, since: [work]))


def check(world: World, control: Any) -> None:
    ports = replace(world.ports, control=control)
    Outcomes(ports, world.rules, world.evaluator, world.execution, world.composition).check()


OWN: dict[str, tuple[Callable[[World], None], str, str]] = {
    "detector error": (errors(ComputationFailed("crashed", "boom")), "failed", "crashed"),
    "over its time": (errors(ComputationFailed("timeout", "30 s")), "failed", "timeout"),
    "out of memory": (errors(ComputationFailed("out_of_memory", "")), "failed", "out_of_memory"),
    "model missing": (errors(ComputationFailed("model_unavailable", "")), "failed", "model_unavailable"),
    "transient to the end": (errors(Unavailable("lock")), "failed", "dead_letter"),
    "an error without a type": (errors(KeyError("bug")), "failed", "crashed"),
    "selection broken": (broken_selection, "failed", "crashed"),
    "kills its process": (ended("MAX_RECOVERY_ATTEMPTS_EXCEEDED"), "failed", "dead_letter"),
    "workflow error": (ended("ERROR"), "failed", "crashed"),
    "workflow time limit": (ended("CANCELLED"), "failed", "timeout"),
    "evaluation lost": (evaluation_lost, "failed", "dead_letter"),
    "discarded": (asked(Verb.DISCARD, failed_before), "failed", "discarded"),
    "refused by the data": (refused, "not_processable", "mixed_orientation"),
    "too few images": (too_few, "not_processable", "missing_slices"),
    "called off by an operator": (asked(Verb.CANCEL), "cancelled", "operator"),
    "called off over UPS": (ups_cancel, "cancelled", "ups_request"),
    "study deleted": (deleted, "cancelled", "study_deleted"),
}


def unclaimed(site: Site) -> None:
    site.offered()
    site.world.advance(3601)


def overdue(site: Site) -> None:
    site.offered()
    site.claim()
    site.world.advance(601)


def lost(site: Site) -> None:
    site.offered()
    site.claim()
    site.fall_silent()


def given_up(site: Site) -> None:
    site.offered()
    site.claim()
    uid = site.task.workitem_uid
    progress = {"0074100E": element("SQ", code("110501", "DCM", "Equipment failure"))}
    site.ups.update(TENANT, uid, "2.25.7", {"00741002": element("SQ", progress)})
    body = {"00741000": element("CS", "CANCELED"), "00081195": element("UI", "2.25.7")}
    site.ups.change_state(TENANT, uid, body)


def outputs_deleted(site: Site) -> None:
    site.offered()
    site.claim()
    site.store()
    facts = site.world.studies.studies[TENANT, STUDY]
    site.world.settle = lambda: None  # type: ignore[method-assign]  # the import waits in the queue
    site.complete()
    del site.world.settle
    kept = tuple(s for s in facts.series if s.modality != "SR")
    site.world.studies.studies[TENANT, STUDY] = replace(facts, series=kept)


EXTERNAL: dict[str, tuple[Callable[[Site], None], dict[str, Any], str]] = {
    "nobody claims": (unclaimed, {}, "not_claimed"),
    "performer over its time": (overdue, {}, "timeout"),
    "performer silent": (lost, {"on_lease_lost": "fail", "timeout": "1h"}, "performer_lost"),
    "performer gives up": (given_up, {}, "performer_discontinued"),
    "outputs deleted": (outputs_deleted, {}, "outputs_missing"),
}


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, Row]]:
    rows: dict[str, Row] = {}
    yield rows
    width = max((len(path) for path in rows), default=0)
    print()
    for path, row in rows.items():
        print(f"{path:<{width}}  " + "  ".join(f"{part:<34}" for part in row))


def seen(world: World, detector: str) -> Row:
    """Return what the four views say."""
    task = world.task(detector)
    with world.reads() as tx:
        workitem = world.ports.workitems.get(tx, TENANT, task.workitem_uid) if task.workitem_uid else None
    ups = "no workitem"
    if workitem is not None:
        [progress] = workitem.dataset["00741002"]["Value"]
        [item] = progress["0074100E"]["Value"]
        ups = f"{workitem.state} {(item.get('00080100') or item.get('00080119'))['Value'][0]}"
    family = next(f for f in DatabaseCollector(world.database).collect() if f.name == "wetread_task_reasons")
    [metric] = [s.labels for s in family.samples if s.labels["detector"] == detector]
    ends = [e for e in world.log("task.failed", "task.finished", "task.discarded") if e.data["detector"] == detector]
    timeline = f"{ends[-1].type} {ends[-1].data['reason']}"
    return f"{task.state}({task.reason})", ups, f"{metric['state']}({metric['reason']})", timeline


@pytest.mark.parametrize("path", list(OWN))
def test_a_failure_of_our_own_task_has_its_reason_everywhere(path: str, tmp_path: Path, table: dict[str, Row]) -> None:
    provoke, state, reason = OWN[path]
    world = World(tmp_path, policy=TRUSTED)
    try:
        provoke(world)
        world.settle()
        row = table[path] = seen(world, "ich")
    finally:
        world.close()
    kind = {"failed": "task.failed", "not_processable": "task.finished", "cancelled": "task.finished"}[state]
    told = "task.discarded" if reason == "discarded" else kind
    # A discarded task's workitem has ended before, for the reason that it had then; a lost evaluation never had one.
    item = {"discarded": "CANCELED crashed"}.get(reason, f"CANCELED {reason}")
    expected = "no workitem" if path == "evaluation lost" else item
    assert row == (f"{state}({reason})", expected, f"{state}({reason})", f"{told} {reason}")


@pytest.mark.parametrize("path", list(EXTERNAL))
def test_a_failure_of_an_external_performer_has_its_reason_everywhere(
    path: str, tmp_path: Path, table: dict[str, Row]
) -> None:
    provoke, spec, reason = EXTERNAL[path]
    site = Site(tmp_path, **spec)
    try:
        provoke(site)
        site.world.settle()
        row = table[path] = seen_external(site, path)
    finally:
        site.world.close()
    ups = {"performer gives up": "CANCELED 110501", "outputs deleted": "COMPLETED"}.get(path, f"CANCELED {reason}")
    assert row == (f"failed({reason})", ups, f"failed({reason})", f"task.failed {reason}")


def seen_external(site: Site, path: str) -> Row:
    if path != "outputs deleted":
        return seen(site.world, "lvo")
    state = site.workitem()["00741000"]["Value"][0]  # the performer's own end of it stands
    task = site.task
    [event] = site.world.log("task.failed")
    family = next(f for f in DatabaseCollector(site.world.database).collect() if f.name == "wetread_task_reasons")
    [metric] = [s.labels for s in family.samples]
    shown = f"{metric['state']}({metric['reason']})"
    return f"{task.state}({task.reason})", state, shown, f"{event.type} {event.data['reason']}"


def test_every_reason_is_provoked_and_documented() -> None:
    provoked = {reason for _, state, reason in OWN.values() if state in {"failed", "cancelled"}}
    provoked |= {reason for _, _, reason in EXTERNAL.values()}
    assert provoked == set(reasons.FAILED) | set(reasons.CANCELLED)
    text = (ROOT / "docs" / "workflows.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `((?:failed|cancelled)\([a-z_]+\))` \| (.+) \|$", text, re.MULTILINE))
    wanted = {f"failed({name})": meaning for name, meaning in reasons.FAILED.items()}
    wanted |= {f"cancelled({name})": meaning for name, meaning in reasons.CANCELLED.items()}
    assert rows == wanted


def test_no_other_reason_is_written_anywhere() -> None:
    """Every literal that the orchestration ends a task with is in the table."""
    literal = re.compile(r"conclusions\.(?:fail|cancel)\(\s*tx,\s*\w+,\s*\"([a-z_]+)\"")
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "services" / "wetread" / "orchestration").glob("*.py"))
    found = set(literal.findall(source))
    assert len(found) > 5
    assert found <= set(reasons.FAILED) | set(reasons.CANCELLED)
