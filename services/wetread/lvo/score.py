"""The score: a logistic of one side's features, with coefficients from the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wetread.core.errors import ConfigurationError
from wetread.lvo.asymmetry import FEATURES, SideReading


def side_score(side: SideReading, model: Mapping[str, Any]) -> float:
    """Return the score 0..1 of one side. Raises ConfigurationError when *model* is not of these features."""
    return logistic([float(v) for v in side.features], model)


def logistic(values: Sequence[float], model: Mapping[str, Any]) -> float:
    """Return the score of feature *values* in the order of FEATURES. Raises ConfigurationError like ``side_score``."""
    weights = model.get("weights", {})
    if set(weights) != set(FEATURES) or "offset" not in model:
        raise ConfigurationError("the card of lvo has no model of its features")
    total = float(model["offset"]) + sum(
        float(weights[name]) * float(v) for name, v in zip(FEATURES, values, strict=True)
    )
    return float(1.0 / (1.0 + np.exp(-np.clip(total, -30.0, 30.0))))
