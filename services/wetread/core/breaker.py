"""The breaker of the guard: a detector that flags more than its card predicts no longer moves the reading order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

WINDOW: Final = 100
"""Latest studies of a detector that are looked at."""
LEAST: Final = 50
"""With fewer nothing is concluded."""
SIGNIFICANCE: Final = 0.001
PREVALENCE: Final = 0.25
"""Share of ill patients that is taken for granted: above that of any emergency list, so that the benefit of the doubt
is the detector's."""


def predicted_share(sensitivity: float, specificity: float, prevalence: float = PREVALENCE) -> float:
    """Return the share of studies that a detector of this card flags at most."""
    return prevalence * sensitivity + (1 - prevalence) * (1 - specificity)


def upper_tail(flagged: int, studies: int, share: float) -> float:
    """Return the probability of *flagged* or more of *studies* when each is flagged with probability *share*."""
    if flagged <= 0:
        return 1.0
    if share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    log_share, log_rest = math.log(share), math.log1p(-share)
    terms = (
        math.lgamma(studies + 1) - math.lgamma(k + 1) - math.lgamma(studies - k + 1) + k * log_share
        + (studies - k) * log_rest
        for k in range(flagged, studies + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def is_open(flags: Sequence[bool], predicted: float) -> bool:
    """Return whether the breaker is open: so many *flags* come by chance less than once in a thousand."""
    return len(flags) >= LEAST and upper_tail(sum(flags), len(flags), predicted) < SIGNIFICANCE
