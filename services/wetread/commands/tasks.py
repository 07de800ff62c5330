"""``wetread tasks``: look at the AI tasks of a running server and try again what ended without an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import httpx

_SECONDS: Final = 30.0
_OUTCOMES: Final = {409: 1}
"""Exit code by HTTP status; other refusals are wrong input."""


class TaskClient:
    """The task calls of one server. *transport*: another way to it than the network, for tests."""

    def __init__(self, url: str, api_key: str | None, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        base = url.rstrip("/") + "/api/v1"
        self._http = httpx.Client(base_url=base, headers=headers, timeout=_SECONDS, transport=transport)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer. Raises httpx.TransportError."""
        return self._http.request(method, path, **options)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def run_list(client: TaskClient, *, state: str | None, limit: int, as_json: bool) -> int:
    """Print tasks, latest change first; ``dead`` is a state, too. Returns the exit code."""
    query = {"limit": limit} | ({"state": state} if state else {})
    body, code = _answer(client, "GET", "/tasks", as_json=as_json, params=query)
    if body is not None:
        rows = body["tasks"]
        print("\n".join(map(_line, rows)) if rows and not as_json else json.dumps(body) if as_json else "no such tasks")
    return code


def run_show(client: TaskClient, study_uid: str, detector: str, *, as_json: bool) -> int:
    """Print one task with its events. Returns the exit code."""
    return _one(client, "GET", f"/tasks/{study_uid}/{detector}", as_json=as_json)


def run_retry(client: TaskClient, study_uid: str, detector: str, *, reason: str, as_json: bool) -> int:
    """Ask for another run. Returns the exit code: 1 when the task's state does not allow it."""
    path = f"/tasks/{study_uid}/{detector}:retry"
    return _one(client, "POST", path, as_json=as_json, json={"reason": reason})


def _one(client: TaskClient, method: str, path: str, *, as_json: bool, **options: Any) -> int:
    body, code = _answer(client, method, path, as_json=as_json, **options)
    if body is not None:
        print(json.dumps(body) if as_json else "\n".join(_lines(body)))
    return code


def _answer(
    client: TaskClient, method: str, path: str, *, as_json: bool, **options: Any
) -> tuple[dict[str, Any] | None, int]:
    """Return the body and exit code 0, or None and the code of what went wrong (which is printed)."""
    try:
        answer = client.ask(method, path, **options)
    except httpx.TransportError:
        print("wetread: the server does not answer", file=sys.stderr)
        return None, 3
    finally:
        client.close()
    if answer.is_success:
        return answer.json(), 0
    try:
        problem = answer.json()
    except ValueError:
        problem = {"title": "no answer of wetread", "status": answer.status_code}
    said = problem.get("detail") or problem.get("title") or str(answer.status_code)
    print(json.dumps(problem) if as_json else f"wetread: {said}", file=sys.stderr)
    return None, 3 if answer.status_code >= 500 else _OUTCOMES.get(answer.status_code, 2)


def _line(task: dict[str, Any]) -> str:
    state = f"{task['state']}({task['reason']})" if task["reason"] else task["state"]
    mark = " dead" if task["dead"] else " shadow" if task["shadow"] else ""
    return f"{task['updated_at']}  {task['detector']} {task['version']}  {state}{mark}  {task['study_uid']}"


def _lines(task: dict[str, Any]) -> Iterator[str]:
    yield _line(task)
    yield f"  {task['workflow'] or 'no workflow'}, {task['priority']}, due {task['due_at'] or '-'}"
    yield f"  runs {task['runs']}, attempt {task['attempt']}, {task['progress']} %"
    if task["detail"]:
        yield f"  {task['detail']}"
    for event in task["events"]:
        parts = [event["type"], event["state"] or "", event["reason"] or "", event["text"]]
        yield f"  {event['offset_s']:+10.3f} s  {'  '.join(part for part in parts if part)}"
