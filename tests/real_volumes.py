"""Real masks through our segmentation objects, and the reference import: what ``real_cases`` prints of them."""

from __future__ import annotations

import csv
import re
import shutil
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import highdicom as hd
import numpy as np
from tests.evidence_cases import detected, positive
from tests.nifti import as_volume, read_nifti

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.detector import Volume
from wetread.core.dicom.volume import assemble
from wetread.detection.evaluation.measure import drive, measured_values
from wetread.detection.importing.door import Accepted, bring_in, look
from wetread.detection.registry import InstalledDetector, discover, load
from wetread.testing.phantoms.series import series_of

LEFT, RIGHT, TOTAL = "hippocampus.left.volume", "hippocampus.right.volume", "intracranial_structure.volume"
Line = tuple[str, str, str, bool]
"""Case, what was found, what is known, whether the gate holds."""
MASKS = {
    "aorta": "cardiac-ct",
    "vertebrae_T12": "cardiac-ct",
    "pul_bifurcation": "ct-segmentation",
    "pulmonary_artery": "ct-segmentation",
}
"""Not the heart: its mask is on the grid of a CT before it was cropped, which is not there."""


def import_hippodeep(home: Path, scratch: Path) -> InstalledDetector:
    """Bring the reference model in through the door, as an operator does."""
    source, into = scratch / "source", scratch / "detectors"
    source.mkdir()
    into.mkdir()
    for path in [home / "README.md", *(home / "torchparams").glob("*.pt")]:
        shutil.copyfile(path, source / path.name)
    seen = look(source)
    assert seen.licence == "MIT"
    bring_in(source, into, "hippodeep", Accepted(seen.digest, "MIT"))
    return discover(str(into))["hippodeep"]


def known_volumes(shared: Path) -> dict[str, int]:
    """Return what the authors' program says of its example, from the manifest of the data, mm3."""
    with (shared / "brain-mri" / "MANIFEST.tsv").open() as file:
        rows = {row["path"]: row["expected"] for row in csv.DictReader(file, delimiter="\t")}
    numbers = re.search(r"eTIV (\d+) mm3, hippocampus L (\d+) R (\d+) mm3", rows["hippodeep/example_brain_t1.nii.gz"])
    assert numbers is not None
    return dict(zip((TOTAL, LEFT, RIGHT), map(int, numbers.groups()), strict=True))


def hippocampi(shared: Path) -> Iterator[Line]:
    """The example directly, and written as a DICOM series."""
    home, known = shared / "brain-mri" / "hippodeep", known_volumes(shared)
    text = f"left {known[LEFT]}, right {known[RIGHT]}, eTIV {known[TOTAL]} mm3 (authors' program)"
    with TemporaryDirectory() as scratch:
        imported = import_hippodeep(home, Path(scratch))
        engine = OnnxRuntimeClient(imported.networks, threads=2)
        given = as_volume(*read_nifti(home / "example_brain_t1.nii.gz"))
        objects = series_of(given, seed=2_950_001, modality="MR", body_part="BRAIN")
        written = assemble(objects, PydicomFrameDecoder(), needs=imported.info.manifest.input.series)
        for case, volume, limit in (("directly", given, None), ("by DICOM", written, 0.005)):
            found = measured_values(drive(load(imported), engine, volume))
            gaps = {name: abs(found[name] - known[name]) for name in (LEFT, RIGHT)}
            held = all(gap <= (1.0 if limit is None else limit * known[name]) for name, gap in gaps.items())
            held &= abs(1000 * found[TOTAL] / known[TOTAL] - 1) <= 5e-4 or limit is not None
            answer = f"left {found[LEFT]:.1f}, right {found[RIGHT]:.1f}, eTIV {1000 * found[TOTAL]:.0f} mm3"
            yield f"hippodeep example {case}", answer, text, held


def round_trips(shared: Path) -> Iterator[Line]:
    """Masks of others on their CT: written as SEG on a DICOM series, read back by highdicom."""
    with TemporaryDirectory() as scratch:
        with tarfile.open(shared / "cardiac-ct" / "totalseg-aorta-ct.tar.xz", "r:xz") as tar:
            tar.extractall(scratch, filter="data")
        folders = {
            "cardiac-ct": Path(scratch) / "test_result" / "models",
            "ct-segmentation": shared / "ct-segmentation" / "totalseg" / "pulmonary_report" / "models",
        }
        for name, where in MASKS.items():
            image = as_volume(*read_nifti(folders[where] / "ct_cropped.nii.gz"))
            values, affine = read_nifti(folders[where] / f"{name}.nii.gz")
            true_ml = float((values > 0).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
            true_centre = (affine @ [*np.argwhere(values > 0).mean(axis=0), 1.0])[:3] * (-1, -1, 1)
            found_ml, centre = _through_seg(image, as_volume(values, affine).voxels > 0)
            away = float(np.linalg.norm(centre - true_centre))
            held = abs(found_ml / true_ml - 1) <= 1e-3 and away <= 0.1
            known = f"{true_ml:.2f} mL (reference mask of TotalSegmentator)"
            yield f"{where} {name}", f"{found_ml:.2f} mL, centre {away:.3f} mm away", known, held


def _through_seg(image: Volume, mask: np.ndarray) -> tuple[float, np.ndarray]:
    """Return volume in mL and centre in LPS mm of a mask, from the pixels and geometry of its SEG alone."""
    sources = series_of(image, seed=2_950_003, modality="CT", body_part="CHEST")
    volume = assemble(sources, PydicomFrameDecoder())
    result = positive(mask.astype(np.uint8), observations=positive().observations[:1])
    objects = Encoder().encode(detected("reference masks", sources, volume, result))
    seg = hd.seg.segread(BytesIO(next(item.data for item in objects if item.role == "seg")))
    shared_groups = seg.SharedFunctionalGroupsSequence[0]
    measures = shared_groups.PixelMeasuresSequence[0]
    turn = np.array(shared_groups.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    down, across = (float(v) for v in measures.PixelSpacing)
    places, count = np.zeros(3), 0
    heights = []
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, np.atleast_3d(seg.pixel_array), strict=True):
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        heights.append(float(corner @ np.cross(turn[:3], turn[3:])))
        rows, columns = np.nonzero(pixels)
        places += len(rows) * corner + rows.sum() * down * turn[3:] + columns.sum() * across * turn[:3]
        count += len(rows)
    step = float(np.median(np.diff(sorted(heights))))
    return count * down * across * step / 1000, places / count
