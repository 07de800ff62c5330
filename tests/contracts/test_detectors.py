"""The detector contract for every bundled folder."""

from __future__ import annotations

import pytest

from wetread.detection.folder import studies_in
from wetread.detection.registry import bundled_folder, companion, load, read_folder
from wetread.testing.contracts.detector import DetectorContract
from wetread.testing.contracts.folder_suite import objects_of
from wetread.testing.phantoms.coronary import make_phantom
from wetread.testing.sections import part10

SLOW = {"brain-volumetry", "echo-ef", "ffr-ct", "lvo", "perfusion"}
"""Seven runs of the whole chain, up to a minute: with ``make test-slow``."""
BUNDLED = [
    pytest.param(
        path.parent,
        id=path.parent.name,
        marks=[pytest.mark.slow, pytest.mark.timeout(600)] if path.parent.name in SLOW else [],
    )
    for path in sorted(bundled_folder().glob("*/detector.yaml"))
]


def coronary_objects():
    """A short coronary angiogram."""
    slices, _ = make_phantom(20_310, size="short", stenoses=1, severity=(0.45, 0.45), profiles=("cosine",))
    return [part10(dataset) for dataset in slices]


def perfusion_objects():
    """A coarse dynamic series: what counts here is the contract, not the figures."""
    from wetread.testing.phantoms.perfusion import perfusion_phantom
    from wetread.testing.phantoms.perfusion_dicom import perfusion_images

    phantom = perfusion_phantom(
        2_900_002, matrix=64, planes=6, step_mm=8.0, interval_s=2.0, duration_s=50.0, side="left", half_angle_deg=50.0
    )
    return [part10(image) for image in perfusion_images(phantom)]


MAKERS = {"ffr-ct": coronary_objects, "perfusion": perfusion_objects}
"""Detectors that read nothing of the demo: how to make a series for each."""


@pytest.fixture(scope="session")
def strange_files(shared):
    return sorted(path for path in (shared / "dicom-variety").rglob("*") if path.is_file())


@pytest.mark.parametrize("folder", BUNDLED, scope="class")
class TestBundled(DetectorContract):
    """Bundled detectors read the first demo phantom that they select, or a quick case of their own."""

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls, folder, tmp_path_factory):
        from wetread.testing.phantoms import demo_studies

        if folder.name in MAKERS:
            return MAKERS[folder.name]()
        installed = read_folder(folder)
        own = companion(installed, "cases") if (folder / "cases.py").is_file() else None
        if installed.info.manifest.input.cine is not None or hasattr(own, "CONTRACT_OPTIONS"):
            return objects_of(folder)
        detector, scratch = load(installed), tmp_path_factory.mktemp(folder.name)
        for _ in demo_studies(scratch):
            for study in studies_in(scratch):
                if detector.applicable(study.facts).applicable:
                    chosen = detector.select(study.facts)
                    return [study.files[uid].read_bytes() for uid in chosen.sop_instance_uids]
        return pytest.skip(f"NOT RUN: no phantom for {folder.name}")
