"""What a run is: its input digest, its result key, its run record, where its attachments lie.

The same run is recognised for ever, whichever kind of detector did it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import wetread
from wetread.core.findings import Run
from wetread.core.identifiers import digest
from wetread.core.ports.inference import DetectorInfo, RunRequest
from wetread.core.ports.studies import StoredInstance


def attachment_key(result_key: str, name: str) -> str:
    """Return the artifact key of a document or picture of a run."""
    return f"attachment/{result_key}/{name}"


def input_digest(instances: Iterable[StoredInstance]) -> str:
    """Return the digest of an input set: the sorted (SOP Instance UID, content hash) of its instances."""
    return digest(sorted([i.sop_instance_uid, i.content_hash] for i in instances))


def result_key(
    request: RunRequest, info: DetectorInfo, parameters: Mapping[str, Any], *, engine: str, encoder_version: str
) -> str:
    """Return the identity of a run's result.

    An early and a final run on the same input share it, so that an early result is promoted instead of repeated.
    """
    return digest(
        {
            "tenant": request.tenant,
            "study": request.study_uid,
            "detector": info.name,
            "version": info.version,
            "model": info.model_digest,
            "parameters": {**parameters, "engine": engine},
            "encoder": encoder_version,
            "input": _input(request),
        }
    )


def run_record(
    request: RunRequest, info: DetectorInfo, parameters: Mapping[str, Any], *, engine: str, encoder_version: str
) -> Run:
    """Return the record of what runs, on what, with what."""
    key = request.result_key or result_key(request, info, parameters, engine=engine, encoder_version=encoder_version)
    return Run(
        result_key=key,
        tenant=request.tenant,
        study_uid=request.study_uid,
        series_uid=request.series_uid or None,
        detector=info.name,
        version=info.version,
        title=info.manifest.title,
        model_digest=info.model_digest,
        params_digest=digest({**parameters, "engine": engine}),
        input_digest=_input(request),
        rules_digest=request.rules_digest,
        software=f"wetread {wetread.__version__}",
        engine=engine,
        phantom_evidence_id=info.card.phantom_evidence_id,
        started_at=request.started_at,
        shadow=request.shadow,
        priors=request.priors.record() if request.priors is not None else None,
    )


def _input(request: RunRequest) -> str:
    """Return the digest of what a run reads: its images and the earlier results it is handed."""
    if request.input_digest:
        return request.input_digest
    images = input_digest(request.instances)
    return request.priors.sealed(images) if request.priors is not None else images
