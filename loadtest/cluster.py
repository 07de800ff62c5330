"""The cluster profile as processes on this machine, each killed -9 in turn: ``make bench BENCH=cluster``.

PostgreSQL with durable commits, S3 (moto, signatures checked), a real Triton, two gateways, worklist, FFR,
orchestration with triage, and pools for STAT work, other work and slides: told apart by settings alone. Phantom heads
and small studies arrive the whole time. Printed: what was read and by whom, how long each killed process was away, how
each study ended. A study that is lost, silent, answered twice or without a typed reason ends the run with an error.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.testing.cluster import SERVICES
from wetread.testing.cluster_site import DETECTOR_PROCESS, LANES, cluster_site
from wetread.testing.phantoms import BleedType, HeadSpec, make, write_dicom
from wetread.testing.small_studies import small_study

FIRST_SEED = 2_800_020


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    parser.add_argument("--studies", type=int, default=120, help="small studies")
    parser.add_argument("--heads", type=int, default=8, help="phantom head CTs, every other one with a bleed")
    parser.add_argument("--input", type=Path, help="folder of DICOM studies that are sent too")
    given = parser.parse_args(arguments)
    names = sorted(LANES)
    small = [small_study(7_100_000 + n, bright=n % 2 == 0, description=names[n % 3]) for n in range(given.studies)]
    with tempfile.TemporaryDirectory(prefix="wetread-cluster-") as scratch:
        folder = Path(scratch)
        heads = [_head(folder / "heads", n) for n in range(given.heads)]
        heads += scan_folder(given.input).studies if given.input else []
        began = time.monotonic()
        with cluster_site(folder / "site", durable=True) as site:
            print(f"{len(SERVICES)} services and Triton ready after {time.monotonic() - began:.0f} s", flush=True)
            report = site.under_fire(small, heads, [*SERVICES, DETECTOR_PROCESS, "triton"])
            print(report, flush=True)
            sent = {s.study_uid: len(s.sop_uids) for s in small} | {h.study_uid: len(h.instances) for h in heads}
            states: Counter[str] = Counter()
            for study_uid, instances in sent.items():
                site.wait_settled(study_uid)
                states.update(r["state"] for r in site.check(study_uid, instances=instances))
            site.check_events()
            site.wait_queue_empty()
            print(f"{len(sent)} studies acknowledged, all ended; results: {dict(states)}")
            for workflow, executors in sorted(site.executors().items()):
                print(f"{workflow}: {', '.join(sorted(executors))}")
            print(f"ich ran on {site.engine_of('ich')}; {time.monotonic() - began:.0f} s in all")
    return 0


def _head(folder: Path, number: int) -> FileStudy:
    bleeds = (BleedType.IPH,) * (number % 2)
    spec = HeadSpec(split="s0", matrix=256, bleeds=bleeds, volume_ml=60.0 if bleeds else None, thickness_mm=5.0,
                    step_mm=5.0, regular=True)  # fmt: skip
    write_dicom(make(FIRST_SEED + number, spec), folder / str(number))
    [study] = scan_folder(folder / str(number)).studies
    return study
