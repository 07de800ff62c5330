"""JSON Schemas of ``detector.yaml`` and ``model-card.json``, generated from ``core.manifest`` and committed.

``python -m wetread.detection.schemas`` writes them; a test fails while a committed file is stale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel

import wetread
from wetread.core.manifest import Card, Manifest, NetworkManifest

_KINDS: Final[dict[str, tuple[type[BaseModel], str]]] = {
    "detector.schema.json": (Manifest, "wetread detector manifest (detector.yaml)"),
    "network.schema.json": (NetworkManifest, "wetread network manifest (network.yaml): weights without code"),
    "model-card.schema.json": (Card, "wetread model card (model-card.json): the parts that code reads"),
}


def schema_folder() -> Path:
    """Return the folder of committed schemas."""
    return Path(wetread.__file__).resolve().parent / "schemas"


def rendered() -> dict[str, str]:
    """Return file name -> text of every schema, as it should be committed."""
    texts = {}
    for name, (kind, title) in _KINDS.items():
        schema = kind.model_json_schema(by_alias=True)
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}
        texts[name] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


def write(folder: Path) -> None:
    """Write every schema into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write(schema_folder())
