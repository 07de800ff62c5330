"""An analysed clip as a detector's result: ejection fraction with its band, volumes if mm are known, outlines."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from wetread.core.detector import Attachment, Cine, LabelArray, Measure, Observation, Result
from wetread.core.ruo import RUO_STATEMENT
from wetread.echo.analysis import VIEWS, Echo
from wetread.echo.outline import grid_document, line_of, on_screen
from wetread.echo.picture import summary_png

DIASTOLE, SYSTOLE = 1, 2
"""Labels of the mask: the cavity on one frame each."""
METHOD: Final = "single-plane method of discs (20), beats from the volume curve"


def result_of(found: Echo, cine: Cine, band: float) -> Result:
    """Return the result on the frames of *cine*; *band* is half the width of the band, per cent points."""
    shown = found.shown
    ends = (
        ("left_ventricle_diastole", "end_diastolic_volume", shown.diastole, _mean_ml(found, "full"), DIASTOLE),
        ("left_ventricle_systole", "end_systolic_volume", shown.systole, _mean_ml(found, "emptied"), SYSTOLE),
    )
    beats = f"{len(found.beats)} beat" + ("s" if len(found.beats) > 1 else "")
    whole = Observation(
        code="left_ventricle",
        state="measured",
        measures=(Measure("ejection_fraction", round(found.fraction, 2), "%", METHOD, uncertainty=round(band, 2)),),
        site=f"{VIEWS[found.view]} view, {beats}",
        key_plane=_source(found, shown.diastole),
    )
    return Result(
        state="measured",
        observations=(whole, *(_end(found, cine, *end) for end in ends)),
        mask=_mask(found, cine),
        flags=found.flags,
        attachments=(
            Attachment("echo-ef.json", "application/json", _document(found, cine, band)),
            Attachment("echo-ef.png", "image/png", summary_png(found, cine, _headline(found, band)), capture=True),
        ),
    )


def _end(found: Echo, cine: Cine, code: str, volume: str, frame: int, ml: float | None, label: int) -> Observation:
    source = _source(found, frame)
    measures = [Measure("frame_time", round(float(cine.times_s[source]), 3), "s")]
    if ml is not None:
        measures.append(Measure(volume, round(ml, 1), "mL", METHOD))
    return Observation(code=code, state="measured", measures=tuple(measures), label=label, key_plane=source)


def _mean_ml(found: Echo, name: str) -> float | None:
    return found.volume_ml(float(np.mean([getattr(beat, name) for beat in found.beats])))


def _source(found: Echo, frame: int) -> int:
    """Return which frame of the clip a chosen one is."""
    return int(found.clip.chosen[frame])


def _region(found: Echo, cine: Cine, frame: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    shape = (cine.voxels.shape[1], cine.voxels.shape[2])
    return on_screen(found.probability[frame], found.clip.sector.square, shape)


def _mask(found: Echo, cine: Cine) -> LabelArray:
    mask = np.zeros(cine.voxels.shape, dtype=np.uint8)
    for frame, label in ((found.shown.diastole, DIASTOLE), (found.shown.systole, SYSTOLE)):
        mask[_source(found, frame)][_region(found, cine, frame)] = label
    return mask


def _headline(found: Echo, band: float) -> str:
    text = f"echo-ef: ejection fraction {found.fraction:.0f} % (band {band:.0f} points, phantom-trained)"
    full, emptied = _mean_ml(found, "full"), _mean_ml(found, "emptied")
    return text if full is None or emptied is None else f"{text}   EDV {full:.0f} mL, ESV {emptied:.0f} mL"


def _document(found: Echo, cine: Cine, band: float) -> bytes:
    square = found.clip.sector.square
    document: dict[str, Any] = {
        "schema": "wetread.echo/1",
        "disclaimer": RUO_STATEMENT,
        "view": VIEWS[found.view],
        "apical_certainty": round(found.apical_score, 4),
        "ejection_fraction_percent": round(found.fraction, 2),
        "band_percent_points": round(band, 2),
        "method": METHOD,
        "mm_per_pixel": None if found.cell_mm is None else round(found.cell_mm / square.step, 5),
        "grid": grid_document(square),
        "frames": [int(frame) + 1 for frame in found.clip.chosen],
        "times_s": [round(float(time), 4) for time in found.clip.times_s],
        "volume_share": [round(float(v), 4) for v in found.curve / found.curve.max()],
        "beats": [
            {
                "end_diastole_frame": _source(found, beat.diastole) + 1,
                "end_systole_frame": _source(found, beat.systole) + 1,
                "ejection_fraction_percent": round(100 * beat.fraction, 2),
            }
            for beat in found.beats
        ],
        "outlines": [
            {"phase": phase, "frame": _source(found, frame) + 1, "points": line_of(_region(found, cine, frame))}
            for phase, frame in (("end of diastole", found.shown.diastole), ("end of systole", found.shown.systole))
        ],
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
