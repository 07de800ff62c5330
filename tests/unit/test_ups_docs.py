"""docs/ups.md says what the code does, and the sample performer needs nothing but httpx."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from pathlib import Path

from wetread.core.ups import UpsStatus
from wetread.worklist.ups import UpsSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ups.md").read_text()


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+)", PAGE, re.MULTILINE))
    settings = {field.name: field.default for field in dataclasses.fields(UpsSettings)}
    assert rows.keys() >= settings.keys()
    for name, default in settings.items():
        if isinstance(default, bool):
            assert rows[name] == str(default).lower()
        elif isinstance(default, (int, float)):
            assert float(rows[name]) == default
        elif isinstance(default, str):
            assert rows[name] == f"`{default}`"


def test_every_refusal_is_documented():
    failures = {f"{status:04X}" for status in UpsStatus if status >= 0xC300}
    assert failures <= set(re.findall(r"C3[01]\w", PAGE))


def test_every_lifecycle_transaction_of_aiw_i_has_its_test_file():
    files = {path.name for path in (ROOT / "tests" / "conformance").glob("test_ups_rs_rad*.py")}
    for number in (80, 81, 82, 83, 84, 85, 86, 87, 88, 109):
        assert f"RAD-{number}" in PAGE
        assert any(name.startswith(f"test_ups_rs_rad{number}_") for name in files)


def test_the_sample_performer_imports_only_httpx():
    tree = ast.parse((ROOT / "docs" / "examples" / "ups_performer.py").read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"httpx"}
