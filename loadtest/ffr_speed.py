"""Speed of CT-derived FFR: ``python loadtest/ffr_speed.py [--skip-cta]``. CPU time stands beside wall time.

Trees: 50 of ``testing.phantoms.vessel_trees``, seeds 0 to 49. CTA: phantom ``full`` (512 x 512 x 280), seed 20500, from
DICOM bytes in memory to SR, SEG and SC bytes. There is no svZeroDSolver in the package indexes here, so its side of the
first goal is not measured: milliseconds per tree are stated instead.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

from wetread.ffrct.api_models import TreeDocument
from wetread.ffrct.documents import case_of
from wetread.ffrct.emulator_file import shipped_emulator
from wetread.ffrct.parsing import validate
from wetread.ffrct.physiology_file import shipped_physiology
from wetread.ffrct.science.engine import solve
from wetread.ffrct.solving import solve_batch
from wetread.testing.phantoms.vessel_trees import vessel_tree

SEEDS = range(50)
SEED_CTA = 20_500


def clocked(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds and the answer."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return time.perf_counter() - wall, time.process_time() - cpu, answer


def engine(seed: int, tier: str, draws: int) -> tuple[float, float, int]:
    document = {**vessel_tree(seed), "options": {"tier": tier, "uq_draws": draws}}
    case = case_of(validate(TreeDocument, document))
    physiology, emulator = shipped_physiology(), shipped_emulator().emulator
    wall, cpu, answer = clocked(lambda: solve(case, physiology, np.random.default_rng(1), emulator))
    assert not isinstance(answer, tuple)
    return wall, cpu, len(document["vessels"])


def trees() -> None:
    engine(0, "auto", 64)  # imports and files
    for name, tier, draws, count in (
        ("analytic tree", "analytic", 0, 50),
        ("analytic tree, 500 draws", "analytic", 500, 20),
        ("rnsp tree", "rnsp", 0, 8),
    ):
        runs = [engine(seed, tier, draws) for seed in SEEDS[:count]]
        wall, cpu, size = (statistics.median(values) for values in zip(*runs, strict=True))
        figures = f"median {1000 * wall:9.2f} ms  CPU {1000 * cpu:9.2f} ms"
        print(f"{name:34s} {figures}  ({count} trees, {size:.0f} vessels)")
    items = [{"tree": vessel_tree(seed)} for seed in SEEDS]
    wall, cpu, answers = clocked(lambda: solve_batch(items))
    assert all("result" in answer for answer in answers)
    print(
        f"{'batch call, per tree':34s}        {1000 * wall / len(items):9.2f} ms  CPU {1000 * cpu / len(items):9.2f} ms"
    )


def network() -> None:
    """10,000 segments as one padded batch of the network solver."""
    from wetread.ffrct.science.laws import VesselLaws
    from wetread.ffrct.science.network import Rows, solve_rows
    from wetread.ffrct.science.topology import outlets_of, path_matrix

    parents = np.array([-1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9])
    rows, rng = 500, np.random.default_rng(1)
    path, count = path_matrix(parents), len(outlets_of(parents))
    inputs = Rows(
        path=path[None],
        laws=VesselLaws(rng.uniform(1e8, 4e9, (rows, len(parents))), rng.uniform(0.0, 2e15, (rows, len(parents))), {}),
        outlet_resistance=rng.uniform(4e10, 9e10, (rows, count)),
        outlet_pressure=np.full((rows, count), 666.0),
        inlet=np.full(rows, 12400.0),
        valid=np.ones((rows, count), dtype=bool),
        flow_inlet=False,
    )
    solve_rows(inputs)
    times = [clocked(lambda: solve_rows(inputs)) for _ in range(5)]
    wall, cpu = min(t[0] for t in times), min(t[1] for t in times)
    assert bool(times[0][2].converged.all())
    print(f"{'10,000 segments, one batch':34s} best   {1000 * wall:9.2f} ms  CPU {1000 * cpu:9.2f} ms  ({rows} trees)")


def angiogram() -> None:
    from wetread.adapters.codecs.decoder import PydicomFrameDecoder
    from wetread.core.dicom.volume import assemble
    from wetread.ffrct.cta import answer, attachments, label_mask, observations
    from wetread.testing.phantoms.coronary import make_phantom

    wall, cpu, (slices, truth) = clocked(lambda: make_phantom(SEED_CTA, size="full"))
    print(f"{'phantom full':34s}        {wall:9.1f} s   CPU {cpu:9.1f} s")
    objects = []
    for dataset in slices:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        objects.append(buffer.getvalue())
    del slices

    def run() -> Any:
        found = answer(assemble(objects, PydicomFrameDecoder(), threads=2), {"patient": truth["tree"]["patient"]})
        return found, observations(found), label_mask(found), attachments(found)

    wall, cpu, (found, *_) = clocked(run)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{'CTA full -> FFR, mask, pictures':34s}        {wall:9.1f} s   CPU {cpu:9.1f} s   peak memory {peak:.2f} GiB"
    )
    print(f"   lowest FFR {found.result['summary']['ffr_min']:.3f}, {len(found.extraction.arteries)} arteries")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ffr_speed")
    parser.add_argument("--skip-cta", action="store_true")
    given = parser.parse_args(arguments)
    trees()
    network()
    if not given.skip_cta:
        angiogram()
    return 0


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
