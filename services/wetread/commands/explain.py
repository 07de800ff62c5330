"""``wetread explain``: why a study was decided on as it was, replayed from what was recorded then."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wetread.client import Client
from wetread.core.errors import WetreadError

_LINE: Final = 110
"""Sub-expressions are cut to this many characters on the screen; ``--json`` has them whole."""


def run_explain(client: Client, study_uid: str, *, every: bool, as_json: bool) -> int:
    """Print the decision; exit code 1: a recorded decision did not come out again."""
    try:
        answer = client.explanation(study_uid, every=every)
    except WetreadError as error:
        print(json.dumps(error.problem()) if as_json else f"wetread: {error.detail}", file=sys.stderr)
        return 3 if error.http_status >= 500 else 2
    finally:
        client.close()
    print(answer.model_dump_json() if as_json else "\n".join(_lines(answer.decisions)))
    if not as_json:
        print(answer.ruo)
    return 1 if any(d["replayed"] and not d["agrees"] for d in answer.decisions) else 0


def _lines(decisions: tuple[dict[str, Any], ...]) -> Iterator[str]:
    for decision in decisions:
        whole = decision["completeness"] or {}
        level = f"{whole.get('level', '?')} by {whole.get('by', '?')}"
        yield f"{decision['at']}  on {decision['signal']}, generation {decision['generation']}: study {level}"
        for plan in decision["detectors"]:
            because = ": ".join(part for part in (plan["reason"], plan["detail"]) if part)
            owner = f" by {plan['workflow']}, {plan['priority']}" if plan["workflow"] else ""
            yield f"  detector {plan['detector']}: {plan['verdict']}{owner}{f' ({because})' if because else ''}"
        if not decision["replayed"]:
            yield "  decided before facts were kept: it cannot be replayed"
            continue
        yield f"  replayed: {'the same decision' if decision['agrees'] else 'NOT THE SAME DECISION'}"
        for rule in decision["workflows"]:
            yield from _rule(rule)
        yield from _today(decision)


def _rule(rule: Mapping[str, Any]) -> Iterator[str]:
    yield f"  workflow {rule['workflow']}@{rule['version']}: {_matched(rule)} {rule['when']['note']}".rstrip()
    yield from _steps(rule["when"]["steps"], 4)
    for place, condition in rule.get("conditions", {}).items():
        yield f"    {place}: {_word(condition['value'])}"
        yield from _steps(condition["steps"], 6)


def _today(decision: Mapping[str, Any]) -> Iterator[str]:
    if not decision["rules_changed"]:
        yield "  the rules of today are the same"
        return
    yield "  the rules of today would say:"
    for rule in decision["today"]:
        yield f"    workflow {rule['workflow']}@{rule['version']}: {_matched(rule)}"


def _matched(rule: Mapping[str, Any]) -> str:
    return {True: "matched", False: "not matched"}.get(rule["matched"], "unknown")


def _word(value: Any) -> str:
    return str(value).lower()


def _steps(step: Mapping[str, Any] | None, indent: int) -> Iterator[str]:
    if step is None:
        return
    text = step["expression"]
    text = text if len(text) <= _LINE else text[: _LINE - 3] + "..."
    value = "unknown" if step.get("unknown") else step.get("value")
    shown = f"({len(value)})" if isinstance(value, list | dict) else _word(value)
    origin = f"  [{step['tag']}]" if step.get("tag") else ""
    yield f"{' ' * indent}{shown:<9} {text}{origin}"
    for part in step.get("parts", ()):
        yield from _steps(part, indent + 2)
