"""Write the generated documents anew (``make schemas``).

JSON Schemas, OpenAPI, the tables of the conformance statement, the table of capacity planning.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import wetread
from wetread.commands.capacity import rendered_page
from wetread.commands.conformance import rendered_statement
from wetread.core.workflow import schema_json
from wetread.detection.schemas import rendered
from wetread.registry import SERVICES
from wetread.settings import Settings


def openapi_json() -> str:
    """Return the OpenAPI description of all services together."""
    from fastapi import FastAPI

    from wetread.bootstrap.cors import Cors
    from wetread.bootstrap.house import House
    from wetread.bootstrap.shell import Shell

    with tempfile.TemporaryDirectory() as scratch:
        house = House(Settings(data=Path(scratch)), shard="web")
        try:
            outermost = house.application(house.services([name for name in SERVICES if name not in _WITHOUT_HTTP]))
            assert isinstance(outermost, Cors)
            shell = outermost.app
            assert isinstance(shell, Shell)
            assert isinstance(shell.app, FastAPI)
            return json.dumps(shell.app.openapi(), indent=1, sort_keys=True) + "\n"
        finally:
            house.close()


_WITHOUT_HTTP = frozenset({"orchestration", "triage", "detection"})


def generated() -> dict[Path, str]:
    """Return every generated document by its path in the repository."""
    package = Path(wetread.__file__).resolve().parent
    schemas = package / "schemas"
    texts = {schemas / name: text for name, text in rendered().items()}
    texts[schemas / "workflow.schema.json"] = schema_json().decode()
    docs = package.parent.parent / "docs"
    texts[docs / "openapi.json"] = openapi_json()
    statement = docs / "conformance-statement.md"
    texts[statement] = rendered_statement(statement.read_text(encoding="utf-8"))
    planning = docs / "operations" / "capacity.md"
    texts[planning] = rendered_page(planning.read_text(encoding="utf-8"))
    return texts


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(path.name)
