"""``wetread tasks``: look at the AI tasks of a running server and try again what ended without an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

from wetread.client import Client, Task, TaskDetail
from wetread.core.errors import Conflict, WetreadError


def run_list(client: Client, *, state: str | None, limit: int, as_json: bool) -> int:
    """Print tasks, latest change first; ``dead`` is a state, too. Returns the exit code."""

    def shown() -> str:
        tasks = client.tasks(state, limit)
        if as_json:
            return json.dumps({"tasks": [task.model_dump(mode="json") for task in tasks]})
        return "\n".join(map(_line, tasks)) or "no such tasks"

    return _run(client, shown, as_json=as_json)


def run_show(client: Client, study_uid: str, detector: str, *, as_json: bool) -> int:
    """Print one task with its events. Returns the exit code."""
    return _run(client, lambda: _shown(client.task(study_uid, detector), as_json=as_json), as_json=as_json)


def run_retry(client: Client, study_uid: str, detector: str, *, reason: str, as_json: bool) -> int:
    """Ask for another run. Returns the exit code: 1 when the task's state does not allow it."""

    def retried() -> str:
        return _shown(client.retry_task(study_uid, detector, reason), as_json=as_json)

    return _run(client, retried, as_json=as_json)


def run_operate(client: Client, verb: str, study_uid: str, detector: str, *, reason: str, as_json: bool) -> int:
    """Ask for cancel, discard, rerun or re-encode. Returns the exit code: 1 when the task's state does not allow it."""
    asked = {
        "cancel": client.cancel_task,
        "discard": client.discard_task,
        "rerun": client.rerun_task,
        "re-encode": client.reencode_task,
    }[verb]

    def shown() -> str:
        answer = asked(study_uid, detector, reason)
        if as_json:
            return answer.model_dump_json()
        return f"{verb} of {detector} accepted (the task was {answer.state}); see: wetread tasks show"

    return _run(client, shown, as_json=as_json)


def run_reevaluate(client: Client, study_uid: str, *, as_json: bool) -> int:
    """Ask for today's rules on a study. Returns the exit code."""

    def shown() -> str:
        client.reevaluate(study_uid)
        return json.dumps({"study_uid": study_uid}) if as_json else "re-evaluation accepted; see: wetread explain"

    return _run(client, shown, as_json=as_json)


def run_renotify(client: Client, after: int, *, as_json: bool) -> int:
    """Ask for events after a cursor to be delivered again. Returns the exit code."""

    def shown() -> str:
        answer = client.renotify(after)
        return (
            answer.model_dump_json() if as_json else f"{answer.deliveries} deliveries of {answer.events} events again"
        )

    return _run(client, shown, as_json=as_json)


def _run(client: Client, shown: Callable[[], str], *, as_json: bool) -> int:
    try:
        print(shown())
    except WetreadError as error:
        print(json.dumps(error.problem()) if as_json else f"wetread: {error.detail}", file=sys.stderr)
        if isinstance(error, Conflict):
            return 1
        return 3 if error.http_status >= 500 else 2
    finally:
        client.close()
    return 0


def _shown(task: TaskDetail, *, as_json: bool) -> str:
    return task.model_dump_json() if as_json else "\n".join(_lines(task))


def _line(task: Task) -> str:
    state = f"{task.state}({task.reason})" if task.reason else str(task.state)
    mark = " dead" if task.dead else " shadow" if task.shadow else ""
    return f"{task.updated_at.isoformat()}  {task.detector} {task.version}  {state}{mark}  {task.study_uid}"


def _lines(task: TaskDetail) -> Iterator[str]:
    yield _line(task)
    yield f"  {task.workflow or 'no workflow'}, {task.priority}, due {task.due_at.isoformat() if task.due_at else '-'}"
    yield f"  runs {task.runs}, attempt {task.attempt}, {task.progress} %"
    if task.detail:
        yield f"  {task.detail}"
    for event in task.events:
        parts = [event.type, str(event.state or ""), event.reason or "", event.text]
        yield f"  {event.offset_s:+10.3f} s  {'  '.join(part for part in parts if part)}"
