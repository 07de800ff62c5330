"""MONAI Deploy's published stress hour against a real ``wetread up`` on loopback: ``make bench BENCH=stress_hour``.

337 transactions (RF, US, MR, CT in the published sizes) arrive at the published rate; head CTs are phantoms that the
detector reads, everything else has to end with a typed "not applicable". Every instance is fetched and compared byte
for byte; what the server took and does not give back is lost, what ends without result and reason is silent. Exit code
1 when anything was lost, silent or turned away.

``--scale 10 --minutes 30 --delete-checked``: ten times the rate for half an hour. ``--compress 20``: the same hour in
three minutes. ``--ct-slices 32``: a cut matrix, 5 mm instead of 0.5 mm head CTs; the output says so.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stress_hour import images, mix
from stress_hour.running import READY_SECONDS, Terms, drive
from stress_hour.summary import lines, summarize
from wetread.commands.local_server import local_server


def main(arguments: Sequence[str]) -> int:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(prog="stress_hour", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how much of the hour")
    parser.add_argument("--scale", type=float, default=1.0, help="times the published rate")
    parser.add_argument("--compress", type=float, default=1.0, help="play the transactions so much faster")
    parser.add_argument("--ct-slices", type=int, default=324, help="slices of a CT (published: 324)")
    parser.add_argument("--associations", type=int, default=4, help="senders at a time")
    parser.add_argument("--batch", type=int, default=64, help="instances per STOW request")
    parser.add_argument("--phantoms", type=int, default=2, help="head CT phantoms sent in turn")
    parser.add_argument("--announce", action="store_true", help="say how many instances a study has")
    parser.add_argument("--delete-checked", action="store_true", help="delete studies once they are checked")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds without an end: the rest is silent")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the data folder is made"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    slices = {"CT": options.ct_slices}
    transactions = mix.schedule(
        minutes=options.minutes, scale=options.scale, compress=options.compress, seed=options.seed, slices=slices
    )
    if not transactions:
        print("nothing to send: the time is too short for one transaction")
        return 2
    made = images.build(transactions, phantoms=options.phantoms)
    print(
        f"stress hour: {options.minutes:g} min at {options.scale:g} x the published rate, {options.compress:g} x "
        f"faster, {len(transactions)} transactions, CT of {options.ct_slices} slices"
        f"{'' if options.ct_slices == 324 else ' (CUT: published are 324)'}, {options.associations} associations, "
        f"{options.batch} instances a request, seed {options.seed}",
        flush=True,
    )
    terms = Terms(
        associations=options.associations,
        batch=options.batch,
        announce=options.announce,
        delete=options.delete_checked,
        patience=options.patience,
    )
    with tempfile.TemporaryDirectory(prefix="wetread-stress-", dir=options.folder) as scratch:
        data = Path(scratch) / "data"
        with local_server(data, ready_seconds=READY_SECONDS) as server:
            summary = summarize(drive(server, data, transactions, made, terms))
    print("\n".join(lines(summary)))
    print("goal: 0 lost, 0 silent:", "met" if summary.passed else "MISSED")
    return 0 if summary.passed else 1
