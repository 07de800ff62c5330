"""Tables of distributions as files: how ``phantom.yaml`` is written, and the digest by which a table is quoted."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any, Final

from ruamel.yaml import YAML

LINE: Final = 110


def evidence_id(table: Mapping[str, Any]) -> str:
    """Name *table* by content: the phantom-evidence id, quoted beside every phantom figure."""
    text = json.dumps(table, sort_keys=True, default=str)
    return "pe-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def as_yaml(table: Mapping[str, Any], heading: str) -> str:
    """Give ``phantom.yaml``: *table* under a *heading* of comment lines that says what it is."""
    writer = YAML()
    writer.default_flow_style = None
    writer.width = LINE
    text = io.StringIO(heading)
    text.seek(0, io.SEEK_END)
    writer.dump(table, text)
    return text.getvalue()
