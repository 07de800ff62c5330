"""Detectors asked from headers alone, in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress

from wetread.core.detector import Applicability, BaseDetector, InputSet
from wetread.core.errors import ConfigurationError, NotFound
from wetread.core.facts import StudyFacts
from wetread.core.ports.inference import DetectorInfo
from wetread.detection.registry import InstalledDetector, load


class InstalledChooser:
    """``DetectorChooser`` over installed detectors; each one's code is imported when it is first asked. Thread-safe."""

    def __init__(self, installed: Mapping[str, InstalledDetector]) -> None:
        self._installed = installed
        self._loaded: dict[str, BaseDetector] = {}
        self._loading = threading.Lock()
        self._prepared = False

    def prepare(self) -> None:
        """Import the code of all. One that cannot be imported says so when it is asked."""
        if self._prepared:
            return
        for name in self._installed:
            with suppress(ConfigurationError):
                self._detector(name)
        self._prepared = True

    def detectors(self) -> Mapping[str, DetectorInfo]:
        """Return the installed detectors by name."""
        return {name: found.info for name, found in self._installed.items()}

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        """Ask the detector, headers only. Raises NotFound, ConfigurationError."""
        return self._detector(detector).applicable(study)

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        """Ask the detector for its input. Raises NotApplicable or NotProcessable; NotFound, ConfigurationError."""
        return self._detector(detector).select(study)

    def _detector(self, name: str) -> BaseDetector:
        if name not in self._installed:
            raise NotFound(f"no detector is called {name!r}")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = load(self._installed[name])
            return self._loaded[name]
