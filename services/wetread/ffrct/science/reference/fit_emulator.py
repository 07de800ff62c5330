"""Fits the emulator to the stored Navier-Stokes set and scores it on what it did not see.

Run as ``python -m wetread.ffrct.science.reference.fit_emulator NS.json OUT.json``; a few seconds.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from wetread.ffrct.science.emulator import Emulator, lesion_shape
from wetread.ffrct.science.healthy import fit_healthy
from wetread.ffrct.science.lesions import LesionRule, describe_lesion, find_narrowings
from wetread.ffrct.science.tree import FloatArray

from .shapes import Shape

SINGLE: Final = ("cosine", "blunt", "skewed")
DIAMETER_M: Final = 3e-3
SAMPLES_PER_DIAMETER: Final = 50
START_SCALES: Final = (0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 2.0)
START_NOISE: Final = 1e-4


@dataclass(frozen=True)
class Sample:
    """One record as the fit sees it; drops in rho U^2 of the inlet.

    ``viscous`` and ``base`` give the head drop as viscous + kt * base; ``static`` is what must be added
    to the head drop to get the static drop of the record.
    """

    record: dict[str, Any]
    features: FloatArray
    kt: float
    viscous: float
    base: float
    static: float

    def drop(self, kt: float) -> float:
        """Static drop with a given Kt."""
        return self.viscous + kt * self.base + self.static


def lumen_of(record: dict[str, Any]) -> tuple[FloatArray, FloatArray]:
    """Positions and radii (n,) in inlet diameters of a record's whole tube."""
    shape = Shape(record["family"], **record["params"])
    count = round(record["length"] * SAMPLES_PER_DIAMETER) + 1
    x = np.linspace(0.0, record["length"], count)
    return x, shape.radius(x - record["inlet"])


def sample_of(record: dict[str, Any], rule: LesionRule, ke_factor: float) -> Sample | None:
    """Extract features with the production detector; None when it does not find exactly one lesion."""
    x, r = lumen_of(record)
    s, radius = x * DIAMETER_M, r * DIAMETER_M
    healthy = fit_healthy(s, radius, rule)
    found = find_narrowings(s, radius, healthy, rule)
    if len(found) != 1:
        return None
    plain = np.ones_like(s)
    lesion = describe_lesion(0, found[0], s, radius, healthy, plain, np.zeros(len(s), dtype=bool))
    shape = lesion_shape(lesion, s, radius, healthy)
    throat, normal = lesion.radius_throat_m / DIAMETER_M, lesion.healthy_throat_m / DIAMETER_M
    throat_re = record["re"] * 0.5 / throat
    viscous = float(np.trapezoid(2.0 / (record["re"] * r**4), x))
    base = 0.5 * ((normal / throat) ** 2 - 1.0) ** 2 * (0.5 / normal) ** 4
    static = 0.5 * ke_factor * ((0.5 / r[-1]) ** 4 - (0.5 / r[0]) ** 4)
    kt = (record["dp"] - viscous - static) / base
    return Sample(record, shape.features(np.array([throat_re]))[0], float(kt), viscous, float(base), float(static))


def samples_of(records: Sequence[dict[str, Any]], rule: LesionRule, ke_factor: float) -> list[Sample]:
    """Samples of all single-lesion records."""
    found = (sample_of(record, rule, ke_factor) for record in records if record["family"] in SINGLE)
    return [sample for sample in found if sample is not None]


def fit(samples: Sequence[Sample], training_sha256: str) -> Emulator:
    """Maximise the marginal likelihood from a fixed start: the same set gives the same process."""
    x = np.array([sample.features for sample in samples])
    kt = np.array([sample.kt for sample in samples])
    mean, sd = x.mean(axis=0), x.std(axis=0)
    sd = np.where(sd > 0.0, sd, 1.0)
    z, target = (x - mean) / sd, (kt - kt.mean()) / kt.std()
    apart = (z[:, None, :] - z[None]) ** 2

    def cost(log_theta: FloatArray) -> tuple[float, FloatArray]:
        scales, amplitude, noise = np.exp(log_theta[:-2]), np.exp(log_theta[-2]), np.exp(log_theta[-1])
        kernel = amplitude * np.exp(-0.5 * (apart / scales**2).sum(axis=-1))
        factor = cho_factor(kernel + noise * np.eye(len(z)), lower=True)
        weights = cho_solve(factor, target)
        value = 0.5 * target @ weights + np.log(np.diag(factor[0])).sum()
        inner = np.outer(weights, weights) - cho_solve(factor, np.eye(len(z)))
        gradient = [-0.5 * np.sum(inner * kernel * apart[:, :, i] / scales[i] ** 2) for i in range(z.shape[1])]
        gradient += [-0.5 * np.sum(inner * kernel), -0.5 * noise * np.trace(inner)]
        return float(value), np.array(gradient)

    start = np.log([*START_SCALES, 4.0, START_NOISE])
    bounds = [(np.log(0.05), np.log(50.0))] * z.shape[1] + [(np.log(0.1), np.log(100.0)), (np.log(1e-5), np.log(1e-2))]
    best = minimize(cost, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 200})
    theta = np.exp(best.x)
    return Emulator(x, kt, mean, sd, theta[:-2], float(theta[-2]), float(theta[-1]), training_sha256)


def relative_errors(emulator: Emulator, samples: Sequence[Sample]) -> FloatArray:
    """Relative error (n,) of the total static drop."""
    kt, _ = emulator.predict(np.array([sample.features for sample in samples]))
    return np.array([s.drop(float(k)) / s.record["dp"] - 1.0 for s, k in zip(samples, kt, strict=True)])


def leave_level_out(samples: Sequence[Sample], key: Callable[[dict[str, Any]], float]) -> FloatArray:
    """Errors of every sample when all samples of its own level were kept from the fit."""
    errors = np.zeros(len(samples))
    levels = [key(sample.record) for sample in samples]
    for level in sorted(set(levels)):
        out = [i for i, own in enumerate(levels) if own == level]
        kept = [sample for i, sample in enumerate(samples) if i not in out]
        errors[out] = relative_errors(fit(kept, ""), [samples[i] for i in out])
    return errors


def document_of(emulator: Emulator) -> dict[str, Any]:
    """The emulator as JSON; numbers to 9 digits."""

    def listed(values: FloatArray) -> Any:
        return np.vectorize(lambda v: float(f"{v:.9g}"))(values).tolist()

    return {
        "schema": "wetread.ffr.emulator/1",
        "training_sha256": emulator.training_sha256,
        "length_scales": listed(emulator.length_scales),
        "amplitude": float(f"{emulator.amplitude:.9g}"),
        "noise": float(f"{emulator.noise:.9g}"),
        "mean": listed(emulator.mean),
        "sd": listed(emulator.sd),
        "kt": listed(emulator.kt),
        "x": listed(emulator.x),
    }


def main(source: Path, target: Path) -> None:
    """Fit on the ``fit`` records of *source* and write *target*."""
    from wetread.ffrct.physiology_file import shipped_physiology
    from wetread.ffrct.science.lumen_model import lesion_rule

    data = source.read_bytes()
    physiology = shipped_physiology()
    records = [record for record in json.loads(data)["records"] if record["role"] == "fit"]
    samples = samples_of(records, lesion_rule(physiology), physiology.si("ke_factor"))
    document = document_of(fit(samples, hashlib.sha256(data).hexdigest()))
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
