"""``wetread ffr ct`` and ``wetread ffr phantom``: a folder with a CT angiogram in, results and DICOM objects out."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

import wetread
from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import Result
from wetread.core.dicom.volume import assemble
from wetread.core.errors import NotFound, NotProcessable, WetreadError
from wetread.core.findings import Run
from wetread.core.identifiers import DEFAULT_TENANT, digest
from wetread.core.ports import EvidenceInput
from wetread.core.results import result_set
from wetread.ffrct.cta import answer, attachments, calcium_observation, label_mask, observations, refuse
from wetread.ffrct.series import header_refusal
from wetread.ffrct.summary import summary_lines
from wetread.testing.phantoms.coronary import write_phantom

VERSION = "0.2.1"
_ASSEMBLY_CODES = {"mixed_orientation": "geometry_inconsistent", "no_geometry": "geometry_inconsistent"}


def run_ct(
    folder: Path, out: Path, request: dict[str, Any], *, dicom: bool, threads: int = 2
) -> tuple[dict[str, Any], list[Path]]:
    """Compute CT-derived FFR of the largest CT series below *folder* and write everything into *out*.

    Writes ``ffr.json``, ``tree.json``, ``tree.png``, ``tree.glb``, ``tree.vtp``, a curved picture per main artery and,
    with *dicom*, the SR, SEG and SC objects. Returns the result and what was written.

    Raises NotApplicable or NotProcessable with a stable code (nothing is written then), NotFound without DICOM.
    """
    began = time.perf_counter()
    headers, objects = _largest_series(folder)
    refusal = header_refusal(headers)
    if refusal is not None:
        raise refuse(refusal)
    try:
        volume = assemble(objects, PydicomFrameDecoder(), threads=threads)
    except NotProcessable as error:
        raise NotProcessable(_ASSEMBLY_CODES.get(error.reason, error.reason), error.detail) from error
    del objects
    found = answer(volume, request)
    documents = attachments(found)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for item in documents:
        (out / item.name).write_bytes(item.data)
        written.append(out / item.name)
    if dicom:
        mask = label_mask(found)
        seen, calcium = observations(found), calcium_observation(mask)
        result = Result(
            state="measured",
            observations=(*seen, calcium) if calcium else seen,
            mask=mask,
            flags=tuple(found.result["flags"]),
        )
        by_uid = {str(h.SOPInstanceUID): h for h in headers}
        planes = [by_uid[frame.sop_instance_uid] for frame in volume.frames]
        evidence = EvidenceInput(
            result=result_set(_run(planes[0], found.result, request), result, volume.frames),
            headers=planes,
            mask=mask,
            read_plane=None,
            captures=[item.data for item in documents if item.capture],
        )
        for number, encoded in enumerate(Encoder().encode(evidence), start=1):
            path = out / f"{number:02d}-{encoded.role}.dcm"
            path.write_bytes(encoded.data)
            written.append(path)
    return {**found.result, "seconds": round(time.perf_counter() - began, 2)}, written


def _largest_series(folder: Path) -> tuple[list[Dataset], list[bytes]]:
    series: dict[str, list[tuple[Dataset, Path]]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        if "SOPInstanceUID" in header and "SeriesInstanceUID" in header:
            series[str(header.SeriesInstanceUID)].append((header, path))
    if not series:
        raise NotFound("no DICOM instances in the folder")
    largest = max(series.values(), key=lambda found: (found[0][0].get("Modality") == "CT", len(found)))
    return [header for header, _ in largest], [path.read_bytes() for _, path in largest]


def _run(header: Dataset, result: dict[str, Any], request: dict[str, Any]) -> Run:
    uids = [str(header.StudyInstanceUID), str(header.SeriesInstanceUID)]
    parameters = digest(request)
    model = digest(result["model"])
    return Run(
        result_key=digest("wetread.ffr.ct/1", *uids, parameters, model, wetread.__version__),
        tenant=DEFAULT_TENANT,
        study_uid=uids[0],
        series_uid=uids[1],
        detector="ffr-ct",
        version=VERSION,
        title="CT-derived FFR",
        model_digest=model,
        params_digest=parameters,
        input_digest=digest(*uids),
        rules_digest=digest("none"),
        software=f"wetread {wetread.__version__}",
        engine="none",
        started_at=time.time(),
    )


def command_ct(folder: Path, out: Path, request: dict[str, Any], *, dicom: bool, as_json: bool) -> int:
    """Run and print. Returns the exit code of ``wetread.cli``."""
    try:
        result, written = run_ct(folder, out, request, dicom=dicom)
    except WetreadError as error:
        code = getattr(error, "reason", None) or getattr(error, "code", None)
        if as_json:
            print(json.dumps({**error.problem(), "code": code}))
        else:
            print(f"wetread: {f'{code}: ' if code else ''}{error.detail}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(result))
        return 0
    for line in summary_lines(result):
        print(line)
    print(f"{len(written)} files in {result['seconds']:.1f} s: {', '.join(path.name for path in written)}")
    return 0


def command_phantom(seed: int, out: Path, *, size: str, noise_hu: float, calcium: bool) -> int:
    """Write a coronary phantom as a CT series with ``truth.json``. Returns the exit code of ``wetread.cli``."""
    try:
        truth = write_phantom(seed, out, size=size, noise_hu=noise_hu, calcium=calcium)
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    print(f"phantom {seed}, {len(truth['tree']['vessels'])} arteries, {len(truth['lesions'])} lesions")
    return 0
