"""Several runners as one: a detector is run by the one that knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from wetread.core.detector import Applicability, InputSet
from wetread.core.errors import ConfigurationError, NotFound
from wetread.core.facts import StudyFacts
from wetread.core.ports.inference import (
    DetectorChooser,
    DetectorInfo,
    DetectorRunner,
    Report,
    RunOutcome,
    RunRequest,
)


class OwnedRunner(DetectorRunner, Protocol):
    """A runner with processes that are started and ended."""

    def start(self) -> None:
        """Start what has to be warm."""

    def close(self) -> None:
        """End every process."""


def only_once(kinds: Sequence[Mapping[str, DetectorInfo]]) -> dict[str, DetectorInfo]:
    """Return detectors of all kinds by name. Raises ConfigurationError when two have one name."""
    found: dict[str, DetectorInfo] = {}
    for infos in kinds:
        for name, info in infos.items():
            if name in found:
                raise ConfigurationError(f"two detectors are called {name!r}")
            found[name] = info
    return found


class ChooserSet:
    """``DetectorChooser`` over several."""

    def __init__(self, *choosers: DetectorChooser) -> None:
        self._choosers = choosers
        self._infos = only_once([chooser.detectors() for chooser in choosers])

    def detectors(self) -> Mapping[str, DetectorInfo]:
        """Return all detectors by name."""
        return self._infos

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        """Ask the detector, headers only. Raises NotFound."""
        return self._knowing(detector).applicable(detector, study)

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        """Ask the detector for its input. Raises NotApplicable, NotProcessable, NotFound."""
        return self._knowing(detector).select(detector, study)

    def _knowing(self, detector: str) -> DetectorChooser:
        found = next((chooser for chooser in self._choosers if detector in chooser.detectors()), None)
        if found is None:
            raise NotFound(f"no detector is called {detector!r}")
        return found


class RunnerSet(ChooserSet):
    """``DetectorRunner`` over several."""

    def __init__(self, *runners: OwnedRunner) -> None:
        super().__init__(*runners)
        self._runners = runners

    def start(self) -> None:
        """Start all."""
        for runner in self._runners:
            runner.start()

    def close(self) -> None:
        """End all."""
        for runner in self._runners:
            runner.close()

    def prepare(self) -> None:
        """Load what the answers of all need."""
        for runner in self._runners:
            runner.prepare()

    def names(self) -> Sequence[str]:
        """Return all names."""
        return tuple(self._infos)

    def result_key(self, request: RunRequest) -> str:
        """Return the identity of the run's result. Raises NotFound."""
        return self._runner(request).result_key(request)

    async def run(
        self, request: RunRequest, *, timeout_seconds: float | None = None, report: Report | None = None
    ) -> RunOutcome:
        """Run to a result set. Raises like the runner that does it; NotFound."""
        return await self._runner(request).run(request, timeout_seconds=timeout_seconds, report=report)

    def _runner(self, request: RunRequest) -> OwnedRunner:
        found = next((runner for runner in self._runners if request.detector in runner.names()), None)
        if found is None:
            raise NotFound(f"no detector is called {request.detector!r}")
        return found
