"""Measured unit costs of capacity planning: one typed JSON file, with where its figures come from.

``unit-costs.json`` beside this module is written by ``make bench BENCH=unit_costs``; a site measures its own machine
the same way and passes the file to ``wetread capacity --costs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wetread.core.errors import InvalidInput

SHIPPED: Final = Path(__file__).with_name("unit-costs.json")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Typed):
    """How the figures were obtained. ``machine``: cores, memory, system; ``load``: load average before the run."""

    command: str
    machine: str
    date: str
    load: Amount
    note: str = ""


class PerStudy(_Typed):
    """A cost that grows with studies (requests), instances and megabytes of 10^6 bytes."""

    study: Amount
    instance: Amount
    megabyte: Amount = 0.0

    def of(self, instances: float, megabytes: float) -> float:
        """Return the cost of one study."""
        return self.study + self.instance * instances + self.megabyte * megabytes


class GatewayCosts(_Typed):
    """CPU seconds of the web process. ``loop_share``: part of them spent in the event loop, which has one core."""

    store: PerStudy
    read: PerStudy
    loop_share: Annotated[float, Field(ge=0, le=1)]


class OrchestrationCosts(_Typed):
    """CPU seconds of the orchestration. ``per_run``: what a detector's run adds (evidence, report, workitem)."""

    per_study: Amount
    per_run: Amount


class DetectorCosts(_Typed):
    """One run of a detector, alone on the machine, in seconds. ``wall``: for which it has its process.

    ``inference``: part of ``wall`` that a GPU would take over. ``report``: from its answer to the stored report.
    ``cpu``: of all threads of its process. ``memory_megabytes``: peak of it. ``result_megabytes``: what it stores.
    ``input``: what was read.
    """

    wall: Positive
    cpu: Positive
    inference: Amount
    report: Amount = 0.0
    memory_megabytes: Positive
    result_megabytes: Amount
    input: str


class DatabaseCosts(_Typed):
    """PostgreSQL. ``size``: bytes that the database grows by. ``log``: bytes of write-ahead log; ``syncs``: of the log.

    ``serial``: seconds for which the writers' turn is held (ADR 1201).
    """

    size: PerStudy
    log: PerStudy
    syncs: PerStudy
    serial: PerStudy


class UnitCosts(_Typed):
    """Everything that was measured."""

    schema_: Literal["wetread.unit-costs/1"] = Field(alias="schema")
    provenance: Provenance
    gateway: GatewayCosts
    orchestration: OrchestrationCosts
    detectors: dict[str, DetectorCosts]
    database: DatabaseCosts


def load_costs(path: Path = SHIPPED) -> UnitCosts:
    """Read a file of unit costs. Raises InvalidInput, naming the field, when it is not one."""
    try:
        return UnitCosts.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read"
        raise InvalidInput(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InvalidInput(msg) from error
