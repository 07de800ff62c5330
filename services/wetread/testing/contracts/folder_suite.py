"""The detector contract for the folder that ``WETREAD_DETECTOR_FOLDER`` names: what ``wetread models test`` runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from wetread.detection.evaluation.cases import Case
from wetread.detection.evaluation.measure import case_maker
from wetread.detection.registry import companion, read_folder
from wetread.testing.contracts.detector import DetectorContract
from wetread.testing.contracts.strange import strange_files as write_strange_files
from wetread.testing.phantoms.series import series_of

FOLDER_VARIABLE = "WETREAD_DETECTOR_FOLDER"
FIRST_SEED = 2_000_000


def objects_of(folder: Path, seeds: range = range(FIRST_SEED, FIRST_SEED + 20)) -> list[bytes]:
    """Return the first positive case of a folder's own ``cases.py`` (else the first case) as a DICOM series.

    ``good_objects()`` of ``cases.py`` stands for it where the case is no stack of planes; ``CONTRACT_OPTIONS`` make
    cases that are quick to render and to read.
    """
    installed = read_folder(folder)
    cases = companion(installed, "cases")
    if hasattr(cases, "good_objects"):
        return list(cases.good_objects())
    options = getattr(cases, "CONTRACT_OPTIONS", {})
    make: Callable[..., Case] = partial(case_maker(installed), **options)
    chosen: Case | None = None
    for seed in seeds:
        case = make("s0", seed)
        chosen = case if chosen is None or case.truth.positive else chosen
        if case.truth.positive is not False:
            break
    assert chosen is not None
    return series_of(
        chosen.volume,
        seed=chosen.seed,
        modality=chosen.modality,
        body_part=chosen.body_part,
        attributes=chosen.attributes,
    )


class TestFolder(DetectorContract):
    """The folder under test reads its own first positive case."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls) -> Path:
        """Return the folder under test."""
        return Path(os.environ[FOLDER_VARIABLE])

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls, folder: Path) -> Sequence[bytes]:
        """Return one series that it can read."""
        return objects_of(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def strange_files(cls, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
        """Return files that no detector wants."""
        return write_strange_files(tmp_path_factory.mktemp("strange"))
