"""SR, SEG and SC of an answered angiogram under dciodvfy: no line may begin with ``Error``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.ffrct_case import case, result_of

from wetread.adapters.evidence.encoder import Encoder
from wetread.core.ports import EvidenceInput
from wetread.ffrct.cta import attachments


@pytest.mark.server("dicom3tools")
@pytest.mark.parametrize("calcium", [False, True])
def test_ffr_objects_are_valid(tmp_path: Path, calcium: bool) -> None:
    found = case(calcium=calcium)
    result, mask, headers = result_of(found)
    captures = [item.data for item in attachments(found) if item.capture]
    evidence = EvidenceInput(result=result, headers=headers, mask=mask, read_plane=None, captures=captures)
    objects = Encoder().encode(evidence)
    assert {item.role for item in objects} == {"sr", "seg", "sc"}
    for item in objects:
        path = tmp_path / f"{item.role}.dcm"
        path.write_bytes(item.data)
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], item.role
