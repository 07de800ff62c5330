"""Every end-to-end test takes its stores from one place, so that the suite runs on either profile by one variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.e2e.stores import VARIABLE, profile_of

SERVERS = re.compile(r"local_server\(|cluster\(|cluster_site\(|\"(up|serve|demo)\"")
ASKED = re.compile(
    r"\b(module_)?stores: None|usefixtures\(\"stores\"\)|use_stores\(|mark\.stores\(\"(embedded|cluster)\", reason="
)
FILES = [path for path in sorted(Path(__file__).parent.glob("test_*.py")) if path.name != Path(__file__).name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_who_starts_a_server_takes_the_stores_of_the_run_or_says_why_not(path: Path) -> None:
    text = path.read_text("utf-8")
    assert ASKED.search(text) or not SERVERS.search(text)


@pytest.mark.stores("embedded", reason="of this test")
def test_a_mark_goes_before_the_variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cluster")
    assert profile_of(request.node) == "embedded"
    assert profile_of(request.node.parent) == "cluster"
    monkeypatch.setenv(VARIABLE, "elsewhere")
    with pytest.raises(AssertionError, match="one of"):
        profile_of(request.node.parent)
