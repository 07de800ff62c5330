"""The detector contract for every bundled folder, and for the toy that the runner's tests use."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.detection.folder import studies_in
from wetread.detection.registry import bundled_folder, load, read_folder
from wetread.testing.contracts.detector import DetectorContract
from wetread.testing.phantoms.coronary import make_phantom
from wetread.testing.sections import ct_plane, part10
from wetread.testing.toy_detector import write_toy

SLOW = {"ffr-ct"}
"""Seven runs of the whole chain: a minute, so with ``make test-slow``."""
BUNDLED = [
    pytest.param(
        path.parent,
        id=path.parent.name,
        marks=[pytest.mark.slow, pytest.mark.timeout(600)] if path.parent.name in SLOW else [],
    )
    for path in sorted(bundled_folder().glob("*/detector.yaml"))
]


@pytest.fixture(scope="session")
def strange_files(shared):
    return sorted(path for path in (shared / "dicom-variety").rglob("*") if path.is_file())


class TestToy(DetectorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return write_toy(tmp_path_factory.mktemp("models"))

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls):
        objects = []
        for k in range(10):
            values = np.full((8, 8), 1024, np.int16)
            if k in {4, 5}:
                values[2:4, 1:3] = 1024 + 200
            objects.append(part10(ct_plane(values, (0, 0, 5.0 * k), number=k + 1)))
        return objects


@pytest.mark.parametrize("folder", BUNDLED, scope="class")
class TestBundled(DetectorContract):
    """Bundled detectors read the first demo phantom that they select; ``ffr-ct`` a short coronary angiogram."""

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls, folder, tmp_path_factory):
        from wetread.testing.phantoms import demo_studies

        if folder.name == "ffr-ct":
            slices, _ = make_phantom(20_310, size="short", stenoses=1, severity=(0.45, 0.45), profiles=("cosine",))
            return [part10(dataset) for dataset in slices]
        detector, scratch = load(read_folder(folder)), tmp_path_factory.mktemp(folder.name)
        for _ in demo_studies(scratch):
            for study in studies_in(scratch):
                if detector.applicable(study.facts).applicable:
                    chosen = detector.select(study.facts)
                    return [study.files[uid].read_bytes() for uid in chosen.sop_instance_uids]
        return pytest.skip(f"NOT RUN: no phantom for {folder.name}")
