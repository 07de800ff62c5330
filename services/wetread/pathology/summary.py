"""What a run says about a slide: counts, areas, regions. Typed: ``result.json`` (``wetread.slide-result/1``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from wetread.core.ruo import RUO_STATEMENT
from wetread.pathology.plan import Geometry

State = Literal["complete", "partial", "no_tissue", "stopped"]
_REGIONS = 5


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Region(_Value):
    """A connected area of the target class. Level-0 pixels; square millimetres."""

    x: float
    y: float
    box: tuple[int, int, int, int]
    """x, y, width, height."""
    area_mm2: float
    score: float
    """Mean probability of its cells."""


class TileCounts(_Value):
    planned: int
    done: int
    failed: int
    resumed: int


class ReaderUsed(_Value):
    name: str
    reason: str = ""
    """Why it is not the native one."""
    compared: int = 0
    """Regions that were compared with OpenSlide's before the run."""


class SlideResult(_Value):
    """One slide's result."""

    schema_: Literal["wetread.slide-result/1"] = Field(default="wetread.slide-result/1", alias="schema")
    state: State
    reason: str = ""
    detail: str = ""
    plan_hash: str
    slide_digest: str
    reader: ReaderUsed
    model: str
    model_sha256: str
    classes: tuple[str, ...]
    target: str
    tiles: TileCounts
    failed_tiles: tuple[str, ...] = ()
    """First hundred failed tiles as ``L{level}_{x0}_{y0}: reason``."""
    tissue_area_mm2: float
    class_share: dict[str, float]
    """Share of the analysed tissue per most probable class."""
    nuclei_per_mm2: float | None
    haematoxylin_density: float | None
    eosin_density: float | None
    regions: tuple[Region, ...]
    result_level: Annotated[int | None, Field(description="Pyramid level of the segmentation; None: no map.")] = None
    flags: tuple[str, ...] = ()
    ruo: str = RUO_STATEMENT


def regions_of(grid: npt.NDArray[np.float32], geometry: Geometry, threshold: float = 0.5) -> tuple[Region, ...]:
    """Return the five largest connected areas of ``grid[row, column]`` at or above *threshold*, weighed by score."""
    above = np.nan_to_num(grid) >= threshold
    labels: Any
    labels, count = ndimage.label(above)
    found = []
    step = [geometry.stride * geometry.target_mpp / mpp for mpp in geometry.base_mpp]
    cell_mm2 = (geometry.stride * geometry.target_mpp / 1000) ** 2
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels == number)
        weights = grid[rows, columns]
        left, top = columns.min() * step[0], rows.min() * step[1]
        found.append(
            Region(
                x=float(np.average(columns + 0.5, weights=weights) * step[0]),
                y=float(np.average(rows + 0.5, weights=weights) * step[1]),
                box=(
                    int(left),
                    int(top),
                    int((columns.max() + 1) * step[0] - left),
                    int((rows.max() + 1) * step[1] - top),
                ),
                area_mm2=float(len(rows) * cell_mm2),
                score=float(weights.mean()),
            )
        )
    found.sort(key=lambda region: -region.area_mm2 * region.score)
    return tuple(found[:_REGIONS])


def class_shares(scores: npt.NDArray[np.float32], classes: tuple[str, ...]) -> dict[str, float]:
    """Return the share of tiles per most probable class; tiles without scores are left out."""
    known = scores[np.isfinite(scores).all(axis=1)] if scores.size else scores
    if not len(known):
        return dict.fromkeys(classes, 0.0)
    counts = np.bincount(known.argmax(axis=1), minlength=len(classes))
    return {name: round(float(count / len(known)), 6) for name, count in zip(classes, counts, strict=True)}
