"""docs/detectors.md names every reason and every flag that the code can give."""

from __future__ import annotations

import re
from pathlib import Path

import wetread

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = Path(wetread.__file__).parent
SOURCES = [
    *(PACKAGE / "core" / "dicom" / f"{name}.py" for name in ("planes", "rescale", "selection", "stacking", "volume")),
    *(PACKAGE / "adapters" / "codecs").glob("*.py"),
    *(PACKAGE / "adapters" / "inference").glob("*.py"),
    *(PACKAGE / "detection").glob("*.py"),
]
RAISED = re.compile(r'(?:NotProcessable|NotApplicable|ComputationFailed)\(\s*"(\w+)"')
REFUSED = re.compile(r'(?:_Refusal\(\d, \w+, |, )"([a-z]+_[a-z_]+)", f?"')
FLAGGED = re.compile(r'flags\.append\("(\w+)"\)')


def test_every_reason_and_flag_is_documented():
    text = (ROOT / "docs" / "detectors.md").read_text("utf-8")
    code = "\n".join(path.read_text("utf-8") for path in SOURCES)
    reasons = set(RAISED.findall(code)) | set(REFUSED.findall(code))
    flags = set(FLAGGED.findall(code))
    assert {"decode_error", "crashed", "missing_slices", "no_geometry", "lossy_not_allowed"} <= reasons
    assert {"holes_bridged", "lossy", "frame_of_reference_missing"} <= flags
    assert [word for word in sorted(reasons | flags) if f"`{word}`" not in text] == []
