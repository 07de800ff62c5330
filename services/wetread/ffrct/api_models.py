"""Documents of the FFR calls: vessel tree, patient, borders and options, in clinical units."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TREE_SCHEMA: Literal["wetread.ffr.tree/1"] = "wetread.ffr.tree/1"
RESULT_SCHEMA: Literal["wetread.ffr.result/1"] = "wetread.ffr.result/1"
MAX_VESSELS = 200
MAX_POINTS = 2000
MAX_BATCH = 1024

Point = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VesselDocument(_Strict):
    """One vessel; lists hold one value per point."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    parent: str | None = None
    label: Annotated[str, Field(max_length=64)] = ""
    points_mm: list[Point]
    radius_mm: list[float]
    healthy_radius_mm: list[float] | None = None
    radius_kind: Literal["area", "inscribed"] = "area"
    aspect_ratio: list[float] | None = None
    radius_sd_mm: list[float] | None = None
    calcium: list[bool] | None = None


class PatientDocument(_Strict):
    """What is known of the patient; ``haematocrit`` is refused unless null: no viscosity law is shipped."""

    sbp_mmhg: Annotated[float, Field(gt=0, le=300)] | None = None
    dbp_mmhg: Annotated[float, Field(gt=0, le=300)] | None = None
    lv_mass_g: Annotated[float, Field(gt=0, le=1000)] | None = None
    q_hyp_ml_min: Annotated[float, Field(gt=0, le=5000)] | None = None
    q_rest_ml_min: Annotated[float, Field(gt=0, le=5000)] | None = None
    missing_ostium_radius_mm: Annotated[float, Field(gt=0, le=10)] | None = None
    haematocrit: None = None


class PressureInlet(_Strict):
    """Mean aortic pressure."""

    kind: Literal["pressure"]
    mmhg: Annotated[float, Field(gt=0, le=300)]


class FlowInlet(_Strict):
    """Flow into a tree with one ostium; FFR is then null and drops are given."""

    kind: Literal["flow"]
    ml_min: Annotated[float, Field(gt=0, le=5000)]


class OutletDocument(_Strict):
    """End of a vessel: resistance ``r`` in mmHg min/mL to ``pd`` in mmHg; ``r`` 0 fixes the pressure ``pd``."""

    vessel: str
    r: float
    pd: float


class BordersDocument(_Strict):
    """Inlet (null: from the patient) and outlets (``murray``: estimated from healthy radii)."""

    inlet: Annotated[PressureInlet | FlowInlet, Field(discriminator="kind")] | None = None
    outlets: Literal["murray"] | list[OutletDocument] = "murray"


class OptionsDocument(_Strict):
    """How to compute; ``uq_draws`` 0 leaves the uncertainty out."""

    tier: Literal["auto", "analytic", "calibrated", "rnsp"] = "auto"
    uq_draws: Annotated[int, Field(ge=0, le=5000)] = 500
    split_exponent: Annotated[float, Field(ge=2.0, le=4.0)] | None = None
    preset: Literal["svzerod"] | None = None
    match_healthy_flow: bool = False


class TreeDocument(_Strict):
    """Schema ``wetread.ffr.tree/1``: a vessel tree with everything needed to solve it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Annotated[Literal["wetread.ffr.tree/1"], Field(alias="schema")] = TREE_SCHEMA
    vessels: list[VesselDocument]
    patient: PatientDocument = PatientDocument()
    bc: BordersDocument = BordersDocument()
    options: OptionsDocument = OptionsDocument()


class FfrRequest(_Strict):
    """Body of ``POST /api/v1/ffr``: a ``tree`` or an svZeroDSolver ``network``.

    ``patient``, ``bc`` and ``options`` beside the tree take the place of those inside it.
    """

    tree: TreeDocument | None = None
    network: dict[str, Any] | None = None
    patient: PatientDocument | None = None
    bc: BordersDocument | None = None
    options: OptionsDocument | None = None


class FfrBatch(_Strict):
    """Body of ``POST /api/v1/ffr:batch``; items are checked one by one, so that a bad one fails alone."""

    items: Annotated[list[dict[str, Any]], Field(max_length=MAX_BATCH)]
