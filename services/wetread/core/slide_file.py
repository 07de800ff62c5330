"""A slide's result as one file: what an encoder needs beside the slide's headers, between a run and its report.

An ``.npz`` without pickled objects: arrays, and everything else as JSON in one of them. Equal results give equal bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from pydicom import Dataset

from wetread.core.errors import CorruptRecord
from wetread.core.findings import Run
from wetread.core.ports.slide_evidence import SlideEvidence, SlideRegion

SLIDE_EVIDENCE: Final = "slide-evidence.npz"
"""Name of the attachment; a result that has it is written by the encoder of slides."""
MEDIA_TYPE: Final = "application/vnd.wetread.slide-evidence"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_ARRAYS: Final = ("grid", "map_rows", "map_columns", "boxes", "scores", "points")
_WORDS: Final = ("state", "reason", "classes", "target", "map_level", "facts", "flags")


def pack(evidence: SlideEvidence) -> bytes:
    """Return the file. Headers are left out: the study has them."""
    words: dict[str, Any] = {name: getattr(evidence, name) for name in _WORDS}
    words["run"] = evidence.run.model_dump(mode="json")
    words["regions"] = [asdict(region) for region in evidence.regions]
    arrays = {name: array for name in _ARRAYS if (array := getattr(evidence, name)) is not None}
    arrays["words"] = np.frombuffer(json.dumps(words, sort_keys=True).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, headers: Sequence[Dataset]) -> SlideEvidence:
    """Return the result of a file with the slide's *headers*, finest level first. Raises CorruptRecord."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        words = json.loads(arrays.pop("words").tobytes())
        return SlideEvidence(
            run=Run.model_validate(words.pop("run")),
            headers=headers,
            regions=tuple(SlideRegion(tuple(r["box"]), r["area_mm2"], r["score"]) for r in words.pop("regions")),
            classes=tuple(words.pop("classes")),
            facts=tuple((key, value, unit, kind) for key, value, unit, kind in words.pop("facts")),
            flags=tuple(words.pop("flags")),
            **words,
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise CorruptRecord("a stored slide result cannot be read") from error
