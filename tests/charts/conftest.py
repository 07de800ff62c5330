"""Fixtures of the chart tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import need, shared_folder


@pytest.fixture(scope="session")
def crds() -> Path:
    """Folder of the schemas of custom resources; tests that need it skip loudly elsewhere."""
    need("crds")
    return shared_folder().parent / "crds"
