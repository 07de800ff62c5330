"""The calls of the service without HTTP: solve a request, a batch, or a file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wetread.core.errors import WetreadError

from .api_models import FfrRequest, OptionsDocument, TreeDocument
from .documents import canonical_seed, case_of, tree_of
from .emulator_file import shipped_emulator
from .errors import FfrDocumentInvalid, raise_problems
from .outputs.result_json import result_document
from .outputs.svzerod import input_document, network_result, result_csv
from .outputs.vtp import vtp_text
from .parsing import parse_json, validate
from .physiology_file import shipped_physiology
from .science.boundary_conditions import Patient, Prescription
from .science.engine import Case, Options, Solution, solve
from .science.problems import Problem
from .science.svzerod import SvZeroDNetwork, SvZeroDSolution, read_svzerod, solve_svzerod
from .science.tiers import RequestedTier
from .vtp_reader import tree_of_vtp

BATCH_OPTIONS = OptionsDocument(tier="analytic", uq_draws=0)
"""Defaults of a batch item that gives no options: many trees at once want the fast tier."""


@dataclass(frozen=True)
class FileResult:
    """What :func:`solve_file` wrote, and the result document."""

    result: dict[str, Any]
    written: tuple[Path, ...]


def solve_request(document: Any, *, default_options: OptionsDocument | None = None) -> dict[str, Any]:
    """Answer one parsed request body; raises the coded errors of :mod:`.errors`, and never half a result."""
    request = validate(FfrRequest, document)
    if (request.tree is None) == (request.network is None):
        raise FfrDocumentInvalid((Problem("schema_invalid", "/tree", "give exactly one of tree and network"),))
    if request.network is not None:
        case, solution = _solve_network(request.network)
        return network_result(solution, pulsatile_mean=case.pulsatile_mean)
    tree = tree_of(request)
    given = request.options is not None or "options" in tree.model_fields_set
    if default_options is not None and not given:
        tree = tree.model_copy(update={"options": default_options})
    _, result = solve_case(case_of(tree), canonical_seed(tree.model_dump(mode="json", by_alias=True)))
    return result


def solve_batch(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Answer every item in order with a result or a problem; one bad item never fails the others."""
    answers: list[dict[str, Any]] = []
    for item in items:
        try:
            answers.append({"result": solve_request(item, default_options=BATCH_OPTIONS)})
        except WetreadError as error:
            answers.append({"problem": error.problem()})
    return answers


def solve_case(case: Case, seed: int) -> tuple[Solution, dict[str, Any]]:
    """Solve a case with the shipped constants; ``seed`` fixes the uncertainty draws."""
    physiology = shipped_physiology()
    begun = time.perf_counter()
    shipped = shipped_emulator()
    solution = solve(case, physiology, np.random.default_rng(seed), shipped.emulator)
    if isinstance(solution, tuple):
        raise_problems(solution)
    return solution, result_document(solution, physiology, shipped.sha256, time.perf_counter() - begun)


def _solve_network(document: dict[str, Any]) -> tuple[SvZeroDNetwork, SvZeroDSolution]:
    case = read_svzerod(document)
    if isinstance(case, Problem):
        raise_problems((case,))
    solution = solve_svzerod(case)
    if isinstance(solution, Problem):
        raise_problems((solution,))
    return case, solution


def solve_file(
    source: Path, out: Path, *, tier: RequestedTier | None = None, uq_draws: int | None = None
) -> FileResult:
    """Solve a tree JSON, an svZeroDSolver input or a VTP file and write the results into folder *out*.

    A tree gives ``<name>.ffr.json``, ``<name>.ffr.vtp`` and ``<name>.svzerod.json`` (its analytic network
    as svZeroDSolver input, SI); an svZeroDSolver input gives ``<name>.ffr.json`` and ``<name>.csv``.
    ``tier`` and ``uq_draws`` take the place of those in the file. Raises the coded errors of :mod:`.errors` before
    anything is written.
    """
    data = source.read_bytes()
    if source.suffix.lower() == ".vtp":
        case = Case(tree_of_vtp(data), Patient(), Prescription(), Options())
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
        return _write_tree(_chosen(case, tier, uq_draws), seed, out, source.stem)
    document = parse_json(data)
    if isinstance(document, dict) and "vessels" in document and "boundary_conditions" in document:
        network, solved = _solve_network(document)
        result = network_result(solved, pulsatile_mean=network.pulsatile_mean)
        return _write(out, result, {f"{source.stem}.csv": result_csv(solved)}, source.stem)
    tree = validate(TreeDocument, document)
    case = _chosen(case_of(tree), tier, uq_draws)
    return _write_tree(case, canonical_seed(tree.model_dump(mode="json", by_alias=True)), out, source.stem)


def _chosen(case: Case, tier: RequestedTier | None, uq_draws: int | None) -> Case:
    options = case.options
    if tier is not None:
        options = replace(options, tier=tier)
    if uq_draws is not None:
        options = replace(options, uq_draws=uq_draws)
    return replace(case, options=options)


def _write_tree(case: Case, seed: int, out: Path, stem: str) -> FileResult:
    solution, result = solve_case(case, seed)
    physiology = shipped_physiology()
    network = input_document(solution, physiology.si("loss.kt_laminar"))
    texts = {
        f"{stem}.ffr.vtp": vtp_text(solution, result),
        f"{stem}.svzerod.json": _json(network),
    }
    return _write(out, result, texts, stem)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _write(out: Path, result: dict[str, Any], texts: dict[str, str], stem: str) -> FileResult:
    out.mkdir(parents=True, exist_ok=True)
    texts = {f"{stem}.ffr.json": _json(result), **texts}
    written = []
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
        written.append(out / name)
    return FileResult(result, tuple(written))
