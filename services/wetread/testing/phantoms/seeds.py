"""Keep training, tuning and test phantoms apart by seed range.

A generator call names the split it is for; a seed outside that split's range is refused, so a
training script cannot obtain a test case by accident or on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wetread.testing.phantoms.errors import PhantomSeedError

SPLITS: Mapping[str, range] = MappingProxyType(
    {
        "train": range(1_000_000),
        "tune": range(1_000_000, 2_000_000),
        "s0": range(2_000_000, 3_000_000),
        "s1": range(3_000_000, 3_100_000),
        "s2": range(3_100_000, 3_200_000),
        "s3": range(3_200_000, 3_300_000),
        "s4": range(3_300_000, 3_400_000),
        "s5": range(3_400_000, 3_500_000),
    }
)


def split_of(seed: int) -> str:
    """Name the split that owns `seed`; raises PhantomSeedError for a seed of no split."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise PhantomSeedError(f"seed {seed} belongs to no split (0 .. 3499999)")


def require_split(seed: int, split: str) -> None:
    """Raise PhantomSeedError unless `seed` lies in the range of `split`."""
    if split not in SPLITS:
        raise PhantomSeedError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    if seed not in SPLITS[split]:
        seeds = SPLITS[split]
        raise PhantomSeedError(f"seed {seed} is not of split {split} ({seeds.start} .. {seeds.stop - 1})")
