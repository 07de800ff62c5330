"""What the rules cost: 100 workflows put to the recorded facts of one study, as an evaluation does it.

The study has 324 CT slices in two series and a few others; every rule looks at all series. Timed is the whole of
``plan_study``'s rule part: the name space, the conditions of 100 workflows, and their values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

from wetread.core.expression_types import UNKNOWN
from wetread.core.facts import InstanceFacts, SeriesFacts, Source, StudyFacts
from wetread.core.workflow import WorkflowModel, check_workflow
from wetread.orchestration.namespace import namespace

GOAL_MS = 1.0
_HEAD = """any(s.modality == '{modality}' and (like(s.body_part, '*HEAD*') or like(s.description, '*BRAIN*', '*HEAD*'))
and s.contrast is False for s in series) and age_years(study) > {age}"""


def study() -> StudyFacts:
    """Return the facts."""
    series = []
    for number, (modality, slices, part) in enumerate(
        (("CT", 300, "HEAD"), ("CT", 24, "HEAD"), ("CT", 2, "HEAD"), ("SR", 1, ""), ("MR", 40, "BRAIN"))
    ):
        uid = f"1.2.{number}"
        members = tuple(
            InstanceFacts(f"{uid}.{n}", "1.2.840.10008.5.1.4.1.1.2", f"{n:064d}", "1.2.840.10008.1.2.1", n)
            for n in range(slices)
        )
        series.append(SeriesFacts(uid, modality, members, body_part=part, description="HEAD 1.0", contrast=False))
    source = Source(ae="CT_ER")
    return StudyFacts("default", "1.2", tuple(series), description="CT HEAD", patient_age_years=60.0, source=source)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="rules", description=__doc__)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args(arguments)
    workflows = [
        check_workflow(
            WorkflowModel.model_validate(
                {
                    "workflow": f"rule-{number}",
                    "version": 1,
                    "on": {
                        "event": "study.changed",
                        "when": _HEAD.format(modality=("CT", "MR", "XA", "US")[number % 4], age=number),
                    },
                    "tasks": {"report": {"uses": "evidence/standard"}},
                }
            )
        )
        for number in range(options.rules)
    ]
    facts = study()
    needed = any(e.names_instances for workflow in workflows for e in workflow.expressions)
    spans, outcomes = [], {}
    for _ in range(options.rounds):
        begun = time.perf_counter()
        names = namespace(facts, now=0.0, with_instances=needed)
        values = [workflow.when.evaluate(names) for workflow in workflows]
        spans.append((time.perf_counter() - begun) * 1000)
        outcomes = {kind: values.count(kind) for kind in (True, False, UNKNOWN)}
    ordered = sorted(spans)
    print(f"{options.rules} rules on {len(facts.series)} series, 367 instances; {options.rounds} rounds; {outcomes}")
    print(f"per study: median {median(spans):.2f} ms, p95 {ordered[int(0.95 * len(ordered))]:.2f} ms")
    print(f"goal: <= {GOAL_MS} ms")
    return 0 if median(spans) <= GOAL_MS else 1
