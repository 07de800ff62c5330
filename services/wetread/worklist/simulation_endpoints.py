"""``POST /api/v1/simulations``: the what-if simulator as a call. Nothing about anybody's studies goes in or out."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Final, Literal

from anyio import CapacityLimiter
from anyio.to_process import run_sync as run_in_process
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from wetread.core.errors import InvalidInput
from wetread.core.ruo import RUO_STATEMENT
from wetread.worklist.ports import WorklistPorts
from wetread.worklist.simulator import FIFO, GUARDED, STRICT, Arm, Reading, Scenario, bound_only, simulate

_LARGEST: Final = 400_000
"""Studies of one call: a few seconds. ``wetread simulate`` takes more."""
Share = Annotated[float, Field(ge=0, le=1)]
PolicyName = Literal["fifo", "strict", "guard", "bound"]


class SimulationIn(BaseModel):
    """A reading room and the policies to compare. Times in minutes, rates per hour, shares in [0, 1]."""

    model_config = ConfigDict(extra="forbid")

    arrivals_per_hour: Annotated[float, Field(gt=0, le=10_000)] = 16.2
    arrival_profile: Annotated[
        list[Annotated[float, Field(ge=0)]],
        Field(max_length=24, description="24 factors, one per hour of the day; empty: constant rate"),
    ] = []
    reading_minutes: Annotated[float, Field(gt=0, le=1_440)] = 10.0
    reading: Reading = Reading.EXPONENTIAL
    reading_cv: Annotated[float, Field(ge=0, le=10, description="coefficient of variation of lognormal times")] = 1.0
    readers: Annotated[int, Field(ge=1, le=1_000)] = 3
    reader_shifts: Annotated[
        list[Annotated[int, Field(ge=0, le=1_000)]],
        Field(max_length=24, description="24 numbers of readers, one per hour of the day, instead of `readers`"),
    ] = []
    prevalence: Share = 0.12
    sensitivity: Share = 0.95
    specificity: Share = 0.90
    detector: Annotated[
        str | None, Field(max_length=64, description="take sensitivity and specificity from this detector's card")
    ] = None
    ai_delay: Annotated[float, Field(ge=0, le=1_440)] = 0.0
    ai_failure: Share = 0.0
    target: Annotated[float, Field(gt=0, description="wait that is to be kept")] = 60.0
    studies: Annotated[int, Field(ge=100, le=_LARGEST)] = 100_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    policies: Annotated[list[PolicyName], Field(min_length=1, max_length=4)] = ["fifo", "strict", "guard"]
    bound_minutes: Annotated[float, Field(ge=0, description="of the policy `bound`")] = 240.0


class WaitsOut(BaseModel):
    """Waits of a group of studies in minutes. ``margin``: half width of the 95 % interval of the mean."""

    studies: int
    mean: float
    margin: float
    p50: float
    p95: float
    p999: float
    longest: float
    past_target: float


class ArmOut(BaseModel):
    """One policy on the same studies. Groups: all, positive, found, missed, flagged, unflagged, negative."""

    policy: str
    groups: dict[str, WaitsOut]
    late_flags: float


class SimulationOut(BaseModel):
    load: Annotated[float, Field(description="work per reading capacity; from 1 on the list grows without end")]
    sensitivity: float
    specificity: float
    arms: list[ArmOut]
    ruo: str = RUO_STATEMENT


def router(ports: WorklistPorts) -> APIRouter:
    """Return the route, without its ``/api/v1`` prefix."""
    api = APIRouter(tags=["worklist"])
    # One at a time, in a process of its own: the web process answers others meanwhile.
    turns = CapacityLimiter(1)

    @api.post("/simulations", summary="How long studies wait, with and without AI", description=RUO_STATEMENT)
    async def simulations(body: SimulationIn) -> SimulationOut:
        scenario = _scenario(ports, body)
        known = {"fifo": FIFO, "strict": STRICT, "guard": GUARDED, "bound": bound_only(body.bound_minutes)}
        policies = [known[name] for name in body.policies]
        arms: list[Arm] = await run_in_process(partial(simulate, scenario, policies), cancellable=True, limiter=turns)
        return SimulationOut(
            load=scenario.load,
            sensitivity=scenario.sensitivity,
            specificity=scenario.specificity,
            arms=[ArmOut.model_validate(asdict(arm)) for arm in arms],
        )

    return api


def _scenario(ports: WorklistPorts, body: SimulationIn) -> Scenario:
    """Raises InvalidInput."""
    given = body.model_dump(exclude={"policies", "bound_minutes", "detector"})
    scenario = Scenario(**given | {name: tuple(given[name]) for name in ("arrival_profile", "reader_shifts")})
    if body.detector is not None:
        info = ports.detectors().get(body.detector)
        point = info.card.operating_point() if info else None
        if point is None:
            msg = "no such detector, or its card names no operating point"
            raise InvalidInput(msg)
        scenario = scenario.at(point.sensitivity, point.specificity)
    scenario.check()
    return scenario
