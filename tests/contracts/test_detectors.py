"""The detector contract for every bundled folder, and for the toy that the runner's tests use."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.detection.folder import studies_in
from wetread.detection.registry import bundled_folder, load, read_folder
from wetread.testing.contracts.detector import DetectorContract
from wetread.testing.sections import ct_plane, part10
from wetread.testing.toy_detector import write_toy

BUNDLED = sorted(path.parent for path in bundled_folder().glob("*/detector.yaml"))


def perfusion_objects():
    """A coarse dynamic series: what counts here is the contract, not the figures."""
    from wetread.testing.phantoms.perfusion import perfusion_phantom
    from wetread.testing.phantoms.perfusion_dicom import perfusion_images

    phantom = perfusion_phantom(
        2_900_002, matrix=64, planes=6, step_mm=8.0, interval_s=2.0, duration_s=50.0, side="left", half_angle_deg=50.0
    )
    return [part10(image) for image in perfusion_images(phantom)]


MAKERS = {"perfusion": perfusion_objects}
"""Detectors that read nothing of the demo: how to make a series for each."""


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


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda path: path.name, scope="class")
class TestBundled(DetectorContract):
    """Bundled detectors read the first demo phantom that they select."""

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls, folder, tmp_path_factory):
        from wetread.testing.phantoms import demo_studies

        if folder.name == "ffr-ct":
            return pytest.skip("NOT RUN: a coronary phantom takes a minute; tests/e2e/test_ffrct_chain.py is slow")

        if folder.name in MAKERS:
            return MAKERS[folder.name]()

        detector, scratch = load(read_folder(folder)), tmp_path_factory.mktemp(folder.name)
        for _ in demo_studies(scratch):
            for study in studies_in(scratch):
                if detector.applicable(study.facts).applicable:
                    chosen = detector.select(study.facts)
                    return [study.files[uid].read_bytes() for uid in chosen.sop_instance_uids]
        return pytest.skip(f"NOT RUN: no phantom for {folder.name}")
