"""The services by name. Strings, so that a pod imports only its own."""

from __future__ import annotations

from typing import Final

SERVICES: Final[dict[str, str]] = {
    "gateway": "wetread.gateway.service:gateway",
    "dimse": "wetread.dimse.service:build",
    "worklist": "wetread.worklist.service:build",
    "ffrct": "wetread.ffrct.service:build",
    "pathology": "wetread.pathology.service:build",
    "orchestration": "wetread.orchestration.service:build",
    "triage": "wetread.triage.service:build",
    "detection": "wetread.detection.service:build",
    "health": "wetread.bootstrap.health:build",
}

WEB: Final = ("gateway", "worklist", "ffrct", "pathology")
"""Services of the web process of ``wetread up``."""

DIMSE: Final = ("dimse",)
"""The DICOM network edge: a process of its own under ``wetread up``, when it is asked for."""

EXTRAS: Final = DIMSE
"""Services whose packages are an extra of the same name, not in the base install."""

WORKER: Final = ("detection", "triage", "orchestration")
"""Services of the worker process of ``wetread up``: numeric work never shares the web process's GIL.

They end in reverse: the orchestration drains while the detectors that its runs need still live."""
