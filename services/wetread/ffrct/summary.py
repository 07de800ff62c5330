"""The result of a call in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def summary_lines(result: dict[str, Any]) -> Iterator[str]:
    """Research-use statement first, then borders, vessels and lesions."""
    yield result["disclaimer"]
    if "bc" not in result:
        for vessel in result["vessels"]:
            yield f"{vessel['name']:24s} q {vessel['q']:.6g}  p {vessel['p_in']:.6g} -> {vessel['p_out']:.6g}"
        return
    bc = result["bc"]
    yield f"boundary conditions {bc['status']}, flow {bc['inlet_ml_min']:.1f} mL/min"
    for vessel in result["vessels"]:
        yield f"{vessel['id']:12s} {_ffr(vessel)}  {' '.join(vessel['flags'])}".rstrip()
    for lesion in result["lesions"]:
        place = f"{lesion['vessel']}, {lesion['diameter_stenosis_pct']:.0f} % diameter"
        yield f"{lesion['id']:12s} {place}: {_distal(lesion)}"


def _ffr(vessel: dict[str, Any]) -> str:
    if vessel["ffr"] is None:
        return f"FFR none ({vessel['reason']})"
    values = [value for value in vessel["ffr"] if value is not None]
    return f"FFR {values[-1]:.2f} at the end, lowest {min(values):.2f}"


def _distal(lesion: dict[str, Any]) -> str:
    value = lesion["ffr_distal_20mm"]
    if value is None:
        return f"no FFR ({lesion['reason']})"
    if lesion["ffr_p5"] is None:
        return f"FFR {value:.2f} 20 mm on"
    return f"FFR {value:.2f} ({lesion['ffr_p5']:.2f} to {lesion['ffr_p95']:.2f}) 20 mm on"
