"""The golden case of a folder: a phantom by split and seed, and what the detector said about it when it was written.

``golden.yaml``: ``input`` (arguments of the folder's ``case``), ``expected``, ``tolerance``; ``golden.npz``: the mask.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wetread.core.detector import Result
from wetread.core.errors import ConfigurationError
from wetread.core.ports.inference import InferenceClient
from wetread.detection.evaluation.measure import case_maker, drive
from wetread.detection.registry import InstalledDetector, load

FIRST: Final = {"split": "s0", "seed": 2_000_000}
"""The golden case of a folder that has none."""
TOLERANCE: Final = {"score": 1e-4, "measure_rel": 0.005, "dice": 0.999}


def renew(installed: InstalledDetector, engine: InferenceClient, *, seed: int | None, reason: str) -> dict[str, Any]:
    """Write the golden case of a folder anew from its own recipe, options and tolerances included; return its input.

    *seed* takes the place of the recipe's. A folder without a golden case gets one: that seed, or the first, of s0.
    Raises ConfigurationError when the folder keeps its golden case in a form of its own, and as ``write`` does.
    """
    given: dict[str, Any] = dict(FIRST)
    tolerance: Mapping[str, float] = TOLERANCE
    if (installed.folder / "golden.yaml").exists():
        recipe = _recipe(installed.folder)
        if "measures" not in recipe.get("expected", {}):
            raise ConfigurationError(f"{installed.info.name} keeps its golden case in a form of its own: edit it there")
        given, tolerance = recipe["input"], recipe["tolerance"]
    if seed is not None:
        given |= {"seed": seed}
    write(installed, engine, given, reason=reason, tolerance=tolerance)
    return given


def write(
    installed: InstalledDetector,
    engine: InferenceClient,
    given: Mapping[str, Any],
    *,
    reason: str,
    tolerance: Mapping[str, float] = TOLERANCE,
) -> None:
    """Write the golden case *given* (``split``, ``seed``, options) as the detector answers it now, and why.

    Raises ConfigurationError without a reason or a hook; NotApplicable and NotProcessable when it is refused.
    """
    if not reason.strip():
        raise ConfigurationError("a golden case is changed for a reason: say it")
    case = case_maker(installed)(**given)
    result = drive(load(installed), engine, case.volume)
    content = {"reason": reason, "input": dict(given), "expected": _said(result), "tolerance": dict(tolerance)}
    with (installed.folder / "golden.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    mask = np.zeros(case.volume.voxels.shape, bool) if result.mask is None else result.mask > 0
    with io.BytesIO() as buffer:
        np.savez_compressed(buffer, mask=np.packbits(mask))
        (installed.folder / "golden.npz").write_bytes(buffer.getvalue())


def differences(installed: InstalledDetector, engine: InferenceClient) -> list[str]:
    """Run the golden case and say in words what differs from what was written; empty: nothing does.

    Raises ConfigurationError when there is no readable golden case.
    """
    recipe, packed = read(installed.folder)
    case = case_maker(installed)(**recipe["input"])
    result = drive(load(installed), engine, case.volume)
    now, then, allowed = _said(result), recipe["expected"], recipe["tolerance"]
    found = [f"{k}: {now[k]!r} instead of {then[k]!r}" for k in ("state", "findings") if now[k] != then[k]]
    if (now["score"] is None) != (then["score"] is None) or (
        now["score"] is not None and abs(now["score"] - then["score"]) > allowed["score"]
    ):
        found.append(f"score: {now['score']} instead of {then['score']}")
    for name in sorted(set(now["measures"]) | set(then["measures"])):
        one, other = now["measures"].get(name), then["measures"].get(name)
        if one is None or other is None or abs(one - other) > allowed["measure_rel"] * abs(other) + 1e-9:
            found.append(f"{name}: {one} instead of {other}")
    shape = case.volume.voxels.shape
    mask = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
    marked = np.zeros(shape, bool) if result.mask is None else result.mask > 0
    both = int(mask.sum() + marked.sum())
    if both and 2 * int((mask & marked).sum()) < allowed["dice"] * both:
        found.append("the mask is another one")
    return found


def read(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Return the recipe and the packed mask. Raises ConfigurationError."""
    recipe = _recipe(folder)
    try:
        with np.load(folder / "golden.npz", allow_pickle=False) as stored:
            return recipe, stored["mask"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{folder.name} has no readable golden case") from error


def _recipe(folder: Path) -> dict[str, Any]:
    try:
        recipe = YAML(typ="safe").load((folder / "golden.yaml").read_text("utf-8"))
    except (OSError, YAMLError, ValueError) as error:
        raise ConfigurationError(f"{folder.name} has no readable golden case") from error
    if not isinstance(recipe, dict):
        raise ConfigurationError(f"{folder.name} has no readable golden case")
    return recipe


def _said(result: Result) -> dict[str, Any]:
    measures: dict[str, float] = {}
    for k, seen in enumerate(result.observations):
        measures |= {f"{k} {seen.code} {m.name}": round(float(m.value), 5) for m in seen.measures}
    return {
        "state": result.state,
        "score": None if result.score is None else round(float(result.score), 6),
        "findings": [
            {"code": s.code, "state": s.state, "types": list(s.types), "laterality": s.laterality}
            for s in result.observations
        ],
        "measures": measures,
    }
