"""Follows the studies of a run by the event cursor until every one has a result or a typed reason.

Law 1 of the platform is that no state is silent. What breaks it here: a study without any detector's standing, a
standing that is final without a result and without a reason, a workitem that is neither COMPLETED nor CANCELED, or no
end at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from wetread.client import Client
from wetread.client.models import Event, Findings
from wetread.core.errors import NotFound, WetreadError
from wetread.core.states import FINAL, READ
from wetread.core.ups import UpsState

_OUTCOMES: Final = frozenset({"task.finished", "task.failed", "task.dead", "result.ready"})
_LOOK_SECONDS: Final = 2.0
"""Times are those of the server's events: looking more often would only load the server."""
_PAGE: Final = 1000
_AGAIN_SECONDS: Final = 15.0
"""A study that no event has moved is asked for anew after this time."""


@dataclass(slots=True)
class Course:
    """What became of one study. Times in Unix seconds, of the server's events.

    ``ended_at``: the last event of its tasks; 0: no end yet. ``starts``: seconds from commit to the first task start.
    ``occupied``: seconds for which runs had a detector process. ``outcomes``: detector -> "state" or "state(reason)".
    ``silent``: what is missing, empty when nothing is.
    """

    sent_at: float
    asked_at: float = 0.0
    ended_at: float = 0.0
    outcome_at: float = 0.0
    starts: dict[str, float] = field(default_factory=dict)
    inferred: list[float] = field(default_factory=list)
    occupied: float = 0.0
    outcomes: dict[str, str] = field(default_factory=dict)
    silent: str = "no end"

    @property
    def ended(self) -> bool:
        """Whether all of its tasks have ended."""
        return self.ended_at > 0


class Follower:
    """One thread that reads events. ``watch`` every study that was sent; *ended* is called in the thread."""

    def __init__(self, url: str, ended: Callable[[str, Course], None]) -> None:
        self._client = Client(url, timeout_seconds=120.0)
        self._ended = ended
        self._courses: dict[str, Course] = {}
        self._early: dict[str, list[Event]] = {}
        self._judged: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._cursor = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.close()

    def watch(self, study_uid: str, sent_at: float) -> None:
        """Follow a study from now on; events that came meanwhile count."""
        with self._lock:
            self._courses[study_uid] = Course(sent_at, asked_at=time.time())

    def wait(self, patience: float) -> None:
        """Wait until all studies have ended, or none has for *patience* seconds."""
        open_before, moved = -1, time.monotonic()
        while time.monotonic() - moved < patience and self.failure is None:
            with self._lock:
                left = sum(not course.ended for course in self._courses.values())
            if not left:
                return
            if left != open_before:
                open_before, moved = left, time.monotonic()
            time.sleep(0.1)

    @property
    def courses(self) -> Mapping[str, Course]:
        """What became of the studies so far."""
        with self._lock:
            return dict(self._courses)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._look()
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            self.failure = error

    def _look(self) -> None:
        try:
            page = self._client.events(after=self._cursor, limit=_PAGE)
        except WetreadError:  # the server is busy; the cursor misses nothing
            self._stopped.wait(1.0)
            return
        self._cursor = page.next
        for event in page.events:
            self._early.setdefault(event.subject, []).append(event)
        with self._lock:
            known = {uid: course for uid, course in self._courses.items() if not course.ended}
        for uid, course in known.items():
            events = self._early.pop(uid, [])
            for event in events:
                note(course, event)
            if uid in self._judged:
                if len(page.events) < _PAGE:  # what happened before it was judged has been read by now
                    self._end(uid, course)
                continue
            now = time.time()
            ends = any(event.type in _OUTCOMES or event.type == "study.stable" for event in events)
            if ends or now - course.asked_at > _AGAIN_SECONDS:
                course.asked_at = now
                self._ask(uid, course)
        if not page.events:
            self._stopped.wait(_LOOK_SECONDS)

    def _ask(self, uid: str, course: Course) -> None:
        try:
            findings = self._client.findings(uid)
            steps = self._client.workitems.search(keys={"StudyInstanceUID": uid}, everything=True)
        except NotFound:
            course.silent = "unknown to the server"
            return
        except WetreadError as error:
            course.silent = f"no answer: {error.slug}"
            return
        if not judge(findings, [step.state for step in steps], course):
            return
        early = course.outcome_at < course.sent_at and any(result.state in READ for result in findings.results)
        if early and time.time() - course.sent_at < _AGAIN_SECONDS:
            return  # read from a part of the study: its last images may still bring another run
        self._judged.add(uid)

    def _end(self, uid: str, course: Course) -> None:
        self._judged.discard(uid)
        course.ended_at = max(course.outcome_at, course.sent_at)
        self._ended(uid, course)


def note(course: Course, event: Event) -> None:
    """Keep what an event says of a study: when its task began, and when it moved last."""
    detector = str(event.data.get("detector", ""))
    stamps = event.data.get("stamps", {})
    if event.type == "task.started" and {"committed", "started"} <= stamps.keys():
        course.starts.setdefault(detector, seconds(stamps["started"]) - seconds(stamps["committed"]))
    if event.type == "result.ready" and {"started", "inferred"} <= stamps.keys():
        course.inferred.append(seconds(stamps["inferred"]) - seconds(stamps["started"]))
    if event.type == "task.finished" and {"started", "inferred"} <= stamps.keys():
        course.occupied += seconds(stamps["inferred"]) - seconds(stamps["started"])
    if event.type in _OUTCOMES:
        course.outcome_at = max(course.outcome_at, event.time.timestamp())


def judge(findings: Findings, steps: Iterable[UpsState], course: Course) -> bool:
    """Keep the standing of a study in *course*; True when every task has ended as law 1 wants it."""
    course.outcomes = {
        result.detector: result.state.value + (f"({result.reason})" if result.reason else "")
        for result in findings.results
    }
    course.silent = _silent(findings, steps)
    return not course.silent


def _silent(findings: Findings, steps: Iterable[UpsState]) -> str:
    if not findings.results:
        return "no detector has a standing"
    for result in findings.results:
        if result.state not in FINAL:
            return f"{result.detector} is still {result.state.value}"
        if result.state not in READ and not result.reason:
            return f"{result.detector} is {result.state.value} without a reason"
    return next((f"a workitem is still {state.value}" for state in steps if not state.final), "")


def seconds(stamp: str) -> float:
    """Return an event's stamp, ISO 8601, as Unix seconds."""
    return datetime.fromisoformat(stamp).timestamp()
