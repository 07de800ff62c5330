"""``wetread detect NAME FOLDER``: one detector on a folder of DICOM, without a server or a worker process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wetread.core.errors import NotApplicable, NotFound, NotProcessable
from wetread.core.findings import Run, result_json
from wetread.core.identifiers import DEFAULT_TENANT, digest
from wetread.core.ports.inference import NetworkFile, RunRequest
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.pixels import FrameDecoder
from wetread.core.ports.studies import StoredInstance
from wetread.core.run_identity import run_record
from wetread.detection import registry
from wetread.detection.artifact import explanation_bytes, maps_bytes, mask_bytes
from wetread.detection.execution import Engines, Execution, execute, merged_parameters, refused
from wetread.detection.folder import FolderStudy, studies_in
from wetread.detection.worker_ports import WarmInferenceClient

ENCODER: str = "none"
"""Nothing is encoded here, so no encoder's version is part of these result keys."""


def detect(
    name: str,
    folder: Path,
    *,
    decoder: FrameDecoder,
    inference: Callable[[Sequence[NetworkFile]], WarmInferenceClient],
    threads: int = 2,
    detectors: str = "",
    bundled: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Run detector *name* on every study below *folder* and return one result per study, as the findings API shows it.

    *out* receives the label masks as ``<result key>.npz``, and beside them a folder with attachments, maps and
    ``explanation.npz``, where the score came from.
    Raises NotFound (no such detector, no DICOM in the folder), ConfigurationError, ComputationFailed.
    """
    installed = registry.discover(detectors, bundled=bundled).get(name)
    if installed is None:
        raise NotFound(f"no detector is called {name!r}")
    studies = studies_in(folder)
    if not studies:
        raise NotFound("no DICOM instances in the folder")
    client = inference(installed.networks)
    session = _Session(installed, Engines(client, decoder, threads), parameters or {})
    results = []
    for study in studies:
        began = time.perf_counter()
        execution, run = session.run(study)
        if execution.mask is not None and out is not None:
            _write(out / f"{run.result_key}.npz", mask_bytes(execution.mask))
        if out is not None and execution.maps:
            _write(out / run.result_key / "maps.npz", maps_bytes(execution.maps))
        if out is not None and execution.explanation is not None:
            _write(out / run.result_key / "explanation.npz", explanation_bytes(execution.explanation))
        if out is not None:
            for item in execution.attachments:
                _write(out / run.result_key / item.name, item.data)
        answer = result_json(execution.result, ())
        answer |= {"study_uid": run.study_uid, "series_uid": run.series_uid, "seconds": time.perf_counter() - began}
        results.append(answer)
    return results


class _Session:
    """One detector, loaded once, over several studies."""

    def __init__(self, installed: registry.InstalledDetector, engines: Engines, given: Mapping[str, Any]) -> None:
        self._installed, self._engines = installed, engines
        self._detector = registry.load(installed)
        self._parameters = merged_parameters(installed.info.manifest, given)

    def run(self, study: FolderStudy) -> tuple[Execution, Run]:
        answer = self._detector.applicable(study.facts)
        if not answer.applicable:
            return self._refused(study, NotApplicable(answer.reason or "no_suitable_series", answer.detail))
        try:
            chosen = self._detector.select(study.facts)
        except (NotApplicable, NotProcessable) as refusal:
            return self._refused(study, refusal)
        run = self._record(study, chosen.series_instance_uid, chosen.sop_instance_uids)
        objects = [study.files[uid].read_bytes() for uid in chosen.sop_instance_uids]
        return execute(self._detector, objects, run, self._engines, parameters=self._parameters), run

    def _refused(self, study: FolderStudy, refusal: NotApplicable | NotProcessable) -> tuple[Execution, Run]:
        run = self._record(study, "", ())
        return Execution(refused(run, refusal), None), run

    def _record(self, study: FolderStudy, series_uid: str, sop_instance_uids: Sequence[str]) -> Run:
        facts = {i.sop_instance_uid: i for series in study.facts.series for i in series.instances}
        chosen = [facts[uid] for uid in sop_instance_uids]
        request = RunRequest(
            tenant=DEFAULT_TENANT,
            study_uid=study.facts.study_instance_uid,
            series_uid=series_uid,
            detector=self._installed.info.name,
            version=self._installed.info.version,
            instances=tuple(
                StoredInstance(i.sop_instance_uid, series_uid, ObjectRef("", 0), i.content_hash, i.transfer_syntax_uid)
                for i in chosen
            ),
            rules_digest=digest("none"),
            started_at=time.time(),
        )
        engine = self._engines.inference.engine
        return run_record(request, self._installed.info, self._parameters, engine=engine, encoder_version=ENCODER)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
