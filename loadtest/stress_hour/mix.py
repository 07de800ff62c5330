"""The hour of MONAI Deploy's published stress test: what is sent, how often, and when (specification, section 10).

337 transactions an hour (337.5 by its rates): 180 RF of one image and 1 MB, 75 US of 7 and 17 MB, 45 CT of 324 and
167 MB, 37.5 MR of 5 and 1 MB; models ran on 180, 7.5, 31.5 and 26.25 of them. This platform has a model for head CT, so
the 31.5 CTs that met a model there are head CTs here; everything else has to end with a typed "not applicable".
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the published table. ``megabytes``: published size of a study, in 10^6 bytes."""

    modality: str
    per_hour: float
    instances: int
    megabytes: float


PUBLISHED: Final = (
    Shape("RF", 180, 1, 1),
    Shape("US", 75, 7, 17),
    Shape("CT", 45, 324, 167),
    Shape("MR", 37.5, 5, 1),
)
MODEL_CTS_PER_HOUR: Final = 31.5
"""CTs that met a model in the published test: head CTs here."""
READ_BY: Final = {"CT head": "ich", "CT body": "lung-nodule"}
"""The detector that has a study of this kind read. The images of body CTs show no chest: it declines them once read."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One study to send. ``at``: seconds after the start. ``number``: its place in the schedule, unique in a run.

    ``kind``: the modality; of a CT "CT head", which meets a detector, or "CT body".
    """

    at: float
    number: int
    modality: str
    kind: str
    instances: int


def counts(hours: float, scale: float = 1.0) -> dict[str, int]:
    """Return the transactions per modality in *hours* at *scale* times the published rate, fractions dropped."""
    return {shape.modality: math.floor(shape.per_hour * hours * scale) for shape in PUBLISHED}


def schedule(
    *,
    minutes: float = 60.0,
    scale: float = 1.0,
    compress: float = 1.0,
    seed: int = 1,
    slices: Mapping[str, int] | None = None,
) -> list[Transaction]:
    """Return the transactions of the first *minutes* of the hour at *scale* times its rate, by time.

    Given their number, arrivals are independent and uniform in time, as those of a Poisson process are. *compress*
    plays the same transactions in a shorter time. *slices*: instances per modality where not the published ones.
    """
    draw = random.Random(seed)
    hours = minutes / 60
    found: list[tuple[float, Shape, str]] = []
    for shape in PUBLISHED:
        number = counts(hours, scale)[shape.modality]
        heads = math.floor(MODEL_CTS_PER_HOUR * hours * scale)
        for place in range(number):
            kind = ("CT head" if place < heads else "CT body") if shape.modality == "CT" else shape.modality
            found.append((draw.uniform(0, minutes * 60 / compress), shape, kind))
    found.sort(key=lambda item: item[0])
    chosen = slices or {}
    return [
        Transaction(at, number, shape.modality, kind, chosen.get(shape.modality, shape.instances))
        for number, (at, shape, kind) in enumerate(found)
    ]
