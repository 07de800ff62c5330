"""docs/gateway.md and the conformance statement say what the gateway does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.gateway_support import CT, instance, reasons, running

from wetread.commands.conformance import TABLES, rendered_statement
from wetread.core.errors import ConfigurationError
from wetread.core.ruo import RUO_SHORT
from wetread.gateway import reasons as codes
from wetread.gateway.changefeed import LIMIT
from wetread.gateway.settings import GatewaySettings, IngestSettings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_tables_are_those_of_the_code() -> None:
    text = read("conformance-statement.md")
    assert rendered_statement(text) == text, "run: make schemas"
    assert set(re.findall(r"<!-- table: ([a-z-]+) -->", text)) == set(TABLES), "every table has its place"


def test_an_unknown_table_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="unknown table"):
        rendered_statement("<!-- table: nonsense -->\n<!-- end -->")


@pytest.mark.parametrize("name", ["gateway.md", "conformance-statement.md"])
def test_statement_of_use_is_there(name: str) -> None:
    assert "Research use only. Not a medical device." in " ".join(read(name).split()), RUO_SHORT


def test_every_resource_is_described(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        (resources,) = site.client.options("/dicom-web/", headers={"Accept": "application/json"}).json()["children"]
    text = read("gateway.md")
    for resource in resources["children"]:
        last = [part for part in resource["attributes"]["path"].split("/") if not part.startswith("{")][-1]
        assert f"/{last}" in text, resource["attributes"]["path"]
        for method in resource["children"]:
            if method["name"] == "method":
                assert f"{method['attributes']['name']} " in text


def test_figures_of_the_guide() -> None:
    text = " ".join(read("gateway.md").split())
    ingest, settings = IngestSettings(), GatewaySettings()
    assert f"part of {ingest.part_bytes >> 30} GiB, a request of {ingest.request_bytes >> 30} GiB" in text
    assert f"{ingest.request_parts:,} parts; {settings.frames_per_request:,} frames" in text
    assert f"for {ingest.idle_seconds:.0f} seconds is given up (408)" in text
    assert f"`limit` (1 to {LIMIT}, default 100)" in text


def test_sop_class_policy(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        assert site.store(instance(SOPClassUID="1.2.826.0.1.3680043.99.1")).status_code == 200, "private classes"
        refused = site.store(instance(SOPClassUID="1.2.840.10008.1.3.10"))
        assert reasons(refused) == [codes.SOP_CLASS_NOT_SUPPORTED]
        classes = {item["00080016"]["Value"][0] for item in site.get("/instances").json()}
        assert CT not in classes
        assert len(classes) == 1
