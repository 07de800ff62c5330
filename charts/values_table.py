"""Write the table of values into the chart's README from the ``# --`` comments: ``python charts/values_table.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "wetread"
_KEY = re.compile(r"( *)([A-Za-z][A-Za-z-]*):(.*)")
_BEGIN, _END = "<!-- values -->\n", "<!-- end of values -->\n"


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a values file whose line follows a ``# --`` comment, as a dotted path, with the comment."""
    path: list[str] = []
    comment = ""
    for line in text.splitlines():
        if line.strip().startswith("# -- "):
            comment = line.strip().removeprefix("# -- ")
        elif match := _KEY.fullmatch(line):
            path[len(match[1]) // 2 :] = [match[2]]
            if comment:
                yield ".".join(path), comment
            comment = ""


def table() -> str:
    """Return the Markdown table of the values that are no mere groups."""
    text = (CHART / "values.yaml").read_text("utf-8")
    rows = ["| value | default | meaning |", "|---|---|---|"]
    keys = dict(documented(text))
    values = yaml.safe_load(text)
    for key, comment in keys.items():
        value = values
        for part in key.split("."):
            value = value[part]
        if not any(other.startswith(f"{key}.") for other in keys):
            rows.append(f"| `{key}` | `{json.dumps(value)}` | {comment} |")
    return "\n".join(rows) + "\n"


def readme(text: str) -> str:
    """Return a README with its table of values written anew."""
    head, rest = text.split(_BEGIN)
    return head + _BEGIN + table() + _END + rest.split(_END)[1]


if __name__ == "__main__":
    file = CHART / "README.md"
    file.write_text(readme(file.read_text("utf-8")), "utf-8")
