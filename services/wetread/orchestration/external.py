"""External performers: detectors that are not installed here, offered as workitems and performed by others.

Seen by rules and plans like installed ones; their input is every image series of a complete study, and a run of theirs
is a workitem that waits for a claim (``performing``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from wetread.core.detector import Applicability, InputSet
from wetread.core.errors import ComputationFailed, NotApplicable
from wetread.core.facts import StudyFacts
from wetread.core.findings import DOCUMENT_MODALITIES
from wetread.core.identifiers import digest
from wetread.core.manifest import Card, Manifest
from wetread.core.ports.inference import DetectorChooser, DetectorInfo, DetectorRunner, Report, RunOutcome, RunRequest
from wetread.core.workflow import Workflow, base_detector

_NO_MODEL: Final = "0" * 64
"""Model digest of a detector whose model we never see."""


def external_detectors(workflows: Sequence[Workflow]) -> dict[str, DetectorInfo]:
    """Return the detectors that workflows leave to external performers, by name."""
    return {
        detector: _info(detector, workflow.model.tasks[task].version_range)
        for workflow in workflows
        for detector, task in workflow.detectors.items()
        if workflow.model.tasks[task].external
    }


def _info(name: str, version_range: str) -> DetectorInfo:
    numbers = [int(part) for part in version_range.removeprefix("^").split(".") if part.isdigit()]
    version = ".".join(str(number) for number in (*numbers, 0, 0, 0)[:3])
    manifest = Manifest.model_validate(
        {
            "schema": "wetread.detector/1",
            "name": name,
            "version": version,
            "title": f"{name} (external performer)",
            "intended_use": "As its performer states.",
            "not_for": ["diagnosis or patient care"],
            "input": {"modality": ["OT"], "select": "everything"},
            "findings": [],
            "resources": {"memory_mb": 0},
            "licence": {"code": "of the performer", "weights": "of the performer", "training_data": "of the performer"},
        }
    )
    return DetectorInfo(name, version, manifest, Card(name=name, version=version), _NO_MODEL)


class _ByPair(dict[str, DetectorInfo]):
    """Detectors by name; a pair of a fan-out (``ich.3f2a9c1d``) is found by its detector."""

    def __missing__(self, name: str) -> DetectorInfo:
        base = base_detector(name)
        if base == name:
            raise KeyError(name)
        return self[base]


class ExternalChooser:
    """DetectorChooser of installed and external detectors."""

    def __init__(self, installed: DetectorChooser, external: Mapping[str, DetectorInfo]) -> None:
        self._installed = installed
        self._external = external

    def detectors(self) -> Mapping[str, DetectorInfo]:
        """Return both kinds by name; an external performer replaces an installed detector of its name."""
        return _ByPair({**self._installed.detectors(), **self._external})

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        """Ask; an external performer may be offered any study with images."""
        if detector not in self._external:
            return self._installed.applicable(detector, study)
        if _images(study):
            return Applicability(applicable=True)
        return Applicability(applicable=False, reason="no_suitable_series", detail="no images")

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        """Return the input: for an external performer every image of the study."""
        if detector not in self._external:
            return self._installed.select(detector, study)
        images = _images(study)
        if not images:
            msg = "no_suitable_series"
            raise NotApplicable(msg, "no images")
        return InputSet(next(iter(images.values())), tuple(images), "enough", "every image, for an external performer")


def _images(study: StudyFacts) -> dict[str, str]:
    """Return SOP Instance UID -> Series Instance UID of everything that is a picture."""
    return {
        instance.sop_instance_uid: series.series_instance_uid
        for series in study.series
        if series.modality not in DOCUMENT_MODALITIES
        for instance in series.instances
    }


class ExternalRunner(ExternalChooser):
    """DetectorRunner of installed and external detectors; only installed ones are ever run here."""

    def __init__(self, installed: DetectorRunner, external: Mapping[str, DetectorInfo]) -> None:
        super().__init__(installed, external)
        self._runner = installed

    def prepare(self) -> None:
        """Load what the installed ones' answers need."""
        self._runner.prepare()

    def result_key(self, request: RunRequest) -> str:
        """Return the identity of the run's result."""
        if request.detector not in self._external:
            return self._runner.result_key(request)
        parameters = dict(request.parameters)
        parts = (request.tenant, request.study_uid, request.detector, request.version, parameters, request.input_digest)
        return digest("external", *parts)

    async def run(
        self, request: RunRequest, *, timeout_seconds: float | None = None, report: Report | None = None
    ) -> RunOutcome:
        """Run an installed detector. Raises ComputationFailed for one that only others perform."""
        if request.detector in self._external:
            msg = "crashed"
            raise ComputationFailed(msg, "an external performer's task cannot be run here")
        return await self._runner.run(request, timeout_seconds=timeout_seconds, report=report)

    def names(self) -> Sequence[str]:
        """Return all names."""
        return tuple(self.detectors())
