"""One gateway that holds every real file that it took, for all tests that look at them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from tests.gateway_support import Parts, reasons, running


@dataclass(frozen=True)
class Kept:
    """A stored real file. ``path``: of the instance below the base path."""

    name: str
    part: bytes
    path: str

    @property
    def data(self) -> pydicom.Dataset:
        return pydicom.dcmread(io.BytesIO(self.part), force=True)


@dataclass
class Variety:
    """``refused``: file name to failure reason."""

    site: Parts
    kept: list[Kept] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)


def variety_files(shared: Path) -> list[Path]:
    return [path for path in sorted((shared / "dicom-variety").rglob("*")) if path.is_file()]


@pytest.fixture(scope="session")
def variety(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Variety]:
    with running(tmp_path_factory.mktemp("variety")) as site:
        found = Variety(site)
        for path in variety_files(shared):
            name, part = str(path.relative_to(shared / "dicom-variety")), path.read_bytes()
            response = site.store(part)
            if response.status_code == 409:
                (found.refused[name],) = reasons(response)
                continue
            assert response.status_code in (200, 202), name
            (reference,) = response.json()["00081199"]["Value"]
            url = reference["00081190"]["Value"][0]
            found.kept.append(Kept(name, part, url.removeprefix("http://testserver/dicom-web")))
        yield found
