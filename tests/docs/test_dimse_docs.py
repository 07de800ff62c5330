"""What the documents of the DIMSE edge claim is what the code works with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.uid import UID

from wetread.adapters.telemetry.dimse import DimseMetrics
from wetread.core.dicom.file_meta import IMPLEMENTATION_CLASS_UID
from wetread.dimse import peers, settings, statuses
from wetread.dimse.service import _SYNTAXES, SERVICES

DOCS = Path(__file__).resolve().parents[2] / "docs"
STATEMENT = (DOCS / "dimse-conformance.md").read_text(encoding="utf-8")


def test_services_of_the_statement() -> None:
    names = ", ".join(
        {"1.2.840.10008.1.2.1": "Explicit VR LE", "1.2.840.10008.1.2": "Implicit VR LE"}.get(uid, "Explicit VR BE")
        for uid in _SYNTAXES
    )
    rows = [f"| `{uid}` | {UID(uid).name} | {names} |" for uid in SERVICES]
    table = STATEMENT.partition("<!-- table: dimse-services -->")[2].partition("<!-- end -->")[0]
    assert table.strip().splitlines()[2:] == rows


def test_numbers_of_the_statement() -> None:
    defaults = settings.DimseSettings()
    assert IMPLEMENTATION_CLASS_UID in STATEMENT
    for value in (defaults.max_pdu, defaults.max_associations, int(defaults.idle_seconds)):
        assert f"default {value}" in STATEMENT
    for name in ("CALLING_UNKNOWN", "CALLED_UNKNOWN", "NOT_ADMITTED", "CONGESTED"):
        refusal = getattr(peers, name)
        assert re.search(rf"\({refusal.result}\) \| \w+ \({refusal.source}\) \| {refusal.diagnostic} \|", STATEMENT)


@pytest.mark.parametrize(
    "name", [name for name in vars(statuses) if name.isupper() and not name.startswith(("_", "PENDING_"))]
)
def test_every_status_is_documented(name: str) -> None:
    assert f"{getattr(statuses, name):04X}" in STATEMENT


def test_every_metric_of_the_edge_is_documented() -> None:
    text = (DOCS / "operations" / "metrics.md").read_text(encoding="utf-8")
    for collector in DimseMetrics().collectors:
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            assert f"`{name}`" in text, name
