"""Reads the fitted emulator that ships with the package."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from wetread.core.errors import ConfigurationError

from .science.emulator import FEATURES, Emulator


@dataclass(frozen=True)
class ShippedEmulator:
    """The emulator and the SHA-256 of its file, which goes into results."""

    emulator: Emulator
    sha256: str


def parse_emulator(data: bytes) -> Emulator:
    """Build the emulator from its JSON; raises :class:`ConfigurationError` when it does not fit together."""
    try:
        document = json.loads(data)
        arrays = {
            name: np.array(document[name], dtype=np.float64) for name in ("x", "kt", "mean", "sd", "length_scales")
        }
        emulator = Emulator(
            **arrays,
            amplitude=float(document["amplitude"]),
            noise=float(document["noise"]),
            training_sha256=str(document["training_sha256"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"emulator file: {error}") from error
    width = len(FEATURES)
    shapes = (emulator.x.shape[1:], emulator.mean.shape, emulator.sd.shape, emulator.length_scales.shape)
    if any(shape != (width,) for shape in shapes) or emulator.kt.shape != emulator.x.shape[:1]:
        raise ConfigurationError("emulator file: arrays do not fit together")
    return emulator


@lru_cache(maxsize=1)
def shipped_emulator() -> ShippedEmulator:
    """Return the emulator of this version of the package."""
    data = (files("wetread.ffrct.science.reference") / "emulator_v1.json").read_bytes()
    return ShippedEmulator(parse_emulator(data), hashlib.sha256(data).hexdigest())
