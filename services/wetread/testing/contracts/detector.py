"""The contract of a detector folder, as tests: subclass, give ``folder`` and ``objects``, and pytest does the rest.

``folder`` is the detector's folder; ``objects`` are PS3.10 byte strings of one series that it can read.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.detector import BaseDetector, Cine, Context, DynamicVolume, Request, Result, Tensors, Volume
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.ports.inference import NetworkFile
from wetread.detection.commands import detect
from wetread.detection.folder import studies_of
from wetread.detection.registry import InstalledDetector, load, read_folder
from wetread.testing.contracts.purity import impurities

_MIRRORED = {"left": "right", "right": "left"}


class DetectorContract:
    """Every detector folder passes these.

    A subclass adds two class-scoped fixtures, ``folder`` and ``objects``; the test session gives ``strange_files``:
    DICOM files of every kind that detectors must answer for.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def installed(cls, folder: Path) -> InstalledDetector:
        """Return the checked folder."""
        return read_folder(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, installed: InstalledDetector) -> BaseDetector:
        """Return the detector."""
        return load(installed)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, installed: InstalledDetector) -> OnnxRuntimeClient:
        """Return a warm engine."""
        engine = OnnxRuntimeClient(installed.networks, threads=2)
        engine.warm_up()
        return engine

    @pytest.fixture(scope="class")
    @classmethod
    def volume(cls, objects: Sequence[bytes], detector: BaseDetector) -> Volume:
        """Return the series as a volume."""
        return assemble_input(objects, PydicomFrameDecoder(), detector.manifest.input)

    @pytest.fixture(scope="class")
    @classmethod
    def reading(cls, detector: BaseDetector, engine: OnnxRuntimeClient, volume: Volume) -> Result:
        """Return what the detector says about the volume."""
        return drive(detector, engine, volume)

    def test_manifest_card_and_weights_belong_together(self, installed: InstalledDetector, folder: Path) -> None:
        manifest, card = installed.info.manifest, installed.info.card
        assert manifest.name == folder.name
        assert card.version == manifest.version
        wanted = manifest.triage.needs_operating_point
        assert wanted is None or card.operating_point(wanted) is not None
        assert manifest.model is None or "onnxruntime" in manifest.model.engines

    def test_the_engine_serves_the_tensors_of_the_manifest(self, engine: OnnxRuntimeClient) -> None:
        engine.warm_up()

    def test_every_strange_study_gets_a_typed_answer(self, detector: BaseDetector, strange_files: list[Path]) -> None:
        answers = 0
        for study in studies_of(strange_files):
            answer = detector.applicable(study.facts)
            assert answer.applicable or answer.reason
            try:
                chosen = detector.select(study.facts)
            except (NotApplicable, NotProcessable) as refusal:
                assert refusal.reason  # noqa: PT017 - either outcome is right, an untyped one is not
            else:
                assert set(chosen.sop_instance_uids) <= set(study.files)
                assert chosen.sop_instance_uids
            answers += 1
        assert answers == len(studies_of(strange_files)) > 0

    def test_a_second_run_touches_nothing_but_numbers_and_says_the_same(
        self, detector: BaseDetector, engine: OnnxRuntimeClient, volume: Volume, reading: Result
    ) -> None:
        """No file, socket, process or clock; the volume stays as it was; the result is equal bit by bit."""
        before = hashlib.sha256(volume.voxels.tobytes()).digest()
        steps = detector.steps(volume, context(detector, volume))
        deeds: list[str] = []
        answer: Tensors | None = None
        again: Result | None = None
        while again is None:
            with impurities() as seen:
                try:
                    request = next(steps) if answer is None else steps.send(answer)
                except StopIteration as done:
                    again = done.value
            deeds += seen
            if again is None:
                answer = engine.infer(request.network, request.tensors)
        assert deeds == []
        assert_same(again, reading)
        assert hashlib.sha256(volume.voxels.tobytes()).digest() == before

    def test_a_fresh_process_says_the_same(self, folder: Path, objects: Sequence[bytes], reading: Result) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for number, data in enumerate(objects):
                (Path(scratch) / f"{number:05d}.dcm").write_bytes(data)
            done = subprocess.run(
                [sys.executable, "-m", __name__, str(folder), scratch],
                env={"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""},
                capture_output=True,
                check=True,
            )
        (answer,) = json.loads(done.stdout)
        assert (answer["state"], answer["score"]) == (reading.state, reading.score)
        values = [[m["value"] for m in finding["measurements"]] for finding in answer["findings"]]
        assert values == [[m.value for m in seen.measures] for seen in reading.observations]

    def test_the_order_of_arrival_does_not_matter(
        self, detector: BaseDetector, engine: OnnxRuntimeClient, objects: Sequence[bytes], reading: Result
    ) -> None:
        order = np.random.default_rng(7).permutation(len(objects))
        shuffled = assemble_input([objects[k] for k in order], PydicomFrameDecoder(), detector.manifest.input)
        assert_same(drive(detector, engine, shuffled), reading)

    def test_a_mirrored_grid_of_the_same_patient_gives_the_same_finding(
        self, detector: BaseDetector, engine: OnnxRuntimeClient, volume: Volume, reading: Result
    ) -> None:
        """The columns run the other way and the affine says so: left stays left."""
        if isinstance(volume, Cine):
            pytest.skip("a clip has no affine")
        flipped = drive(detector, engine, mirrored(volume))
        assert flipped.state == reading.state
        assert [o.laterality for o in flipped.observations] == [o.laterality for o in reading.observations]
        if reading.score is not None and flipped.score is not None:
            assert flipped.score == pytest.approx(reading.score, abs=0.02)
        if reading.mask is not None and flipped.mask is not None:
            assert dice(flipped.mask[::-1, :, ::-1] > 0, reading.mask > 0) >= 0.95

    def test_a_mirrored_patient_has_the_finding_on_the_other_side(
        self, detector: BaseDetector, engine: OnnxRuntimeClient, volume: Volume, reading: Result
    ) -> None:
        """The columns run the other way and the affine does not say so: left and right swap.

        Findings without a side may be other ones: arteries are named by their course.
        """
        other = drive(detector, engine, flipped_patient(volume))
        assert other.state == reading.state
        expected = [_MIRRORED.get(o.laterality, o.laterality) for o in reading.observations if o.laterality]
        assert [o.laterality for o in other.observations if o.laterality] == expected

    def test_the_rescale_of_the_header_is_honoured(
        self, detector: BaseDetector, engine: OnnxRuntimeClient, objects: Sequence[bytes], reading: Result
    ) -> None:
        if "CT" not in detector.manifest.input.modality:
            pytest.skip("only CT numbers have a unit")
        moved = assemble_input([offset(data, 40) for data in objects], PydicomFrameDecoder(), detector.manifest.input)
        assert_same(drive(detector, engine, moved), reading)

    def test_a_hole_beyond_the_limit_gives_the_reason_and_no_finding(
        self, detector: BaseDetector, objects: Sequence[bytes]
    ) -> None:
        needs = detector.manifest.input.series
        if needs.max_step_mm is None and needs.max_step_ratio is None:
            pytest.skip("the manifest limits no step")
        heights = sorted((height(data), k) for k, data in enumerate(objects))
        middle, limit = heights[len(heights) // 2][0], needs.max_step_mm or 30.0
        kept = [objects[k] for z, k in heights if abs(z - middle) > limit / 2 + 1e-3]
        with pytest.raises(NotProcessable) as caught:
            assemble_input(kept, PydicomFrameDecoder(), detector.manifest.input)
        assert caught.value.reason == "missing_slices"

    def test_a_run_stays_within_the_memory_of_the_manifest(
        self, detector: BaseDetector, engine: OnnxRuntimeClient, objects: Sequence[bytes]
    ) -> None:
        """Counts what NumPy and Python allocate beyond the input; the engine's own arena is not seen here."""
        tracemalloc.start()
        try:
            drive(detector, engine, assemble_input(objects, PydicomFrameDecoder(), detector.manifest.input))
            peak = tracemalloc.get_traced_memory()[1] + sum(map(len, objects))
        finally:
            tracemalloc.stop()
        assert peak <= detector.manifest.resources.memory_mb << 20


def context(detector: BaseDetector, volume: Volume) -> Context:
    """Return a context with the manifest's own parameters."""
    return Context(volume, detector.manifest.parameters)


def drive(detector: BaseDetector, engine: OnnxRuntimeClient, volume: Volume) -> Result:
    """Run a detector on a volume."""
    steps: Iterator[Request] = detector.steps(volume, context(detector, volume))
    try:
        request = next(steps)
        while True:
            request = steps.send(engine.infer(request.network, request.tensors))  # type: ignore[attr-defined]
    except StopIteration as done:
        result: Result = done.value
        return result


def run_folder(folder: Path, files: Path) -> list[dict[str, object]]:
    """Run ``wetread detect`` on a folder of DICOM files and return its answers."""

    def engine(networks: Sequence[NetworkFile]) -> OnnxRuntimeClient:
        return OnnxRuntimeClient(networks, threads=2)

    return detect(folder.name, files, decoder=PydicomFrameDecoder(), inference=engine, bundled=folder.parent)


def assert_same(one: Result, other: Result) -> None:
    """Assert that two results are equal, masks and maps bit by bit."""
    for name in ("mask", "explanation"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        left, right = (getattr(found, "values", found) for found in (left, right))
        assert left is None or np.array_equal(left, right)
    assert [(m.name, m.unit) for m in one.maps] == [(m.name, m.unit) for m in other.maps]
    for this, that in zip(one.maps, other.maps, strict=True):
        assert np.array_equal(this.values, that.values, equal_nan=True)
    left, right = (replace(result, mask=None, explanation=None, maps=()) for result in (one, other))
    assert left == right


def mirrored(volume: Volume) -> Volume:
    """Return the same patient on a grid whose columns run the other way (planes follow: the normal turns)."""
    width = (volume.voxels.shape[2] - 1) * volume.pixel_spacing[1]
    if isinstance(volume, DynamicVolume):
        volume = replace(
            volume,
            dynamic=np.ascontiguousarray(volume.dynamic[:, ::-1, :, ::-1]),
            times_s=volume.times_s[:, ::-1].copy(),
        )
    return replace(
        volume,
        voxels=np.ascontiguousarray(volume.voxels[::-1, :, ::-1]),
        origins=(volume.origins + width * volume.row_direction)[::-1].copy(),
        row_direction=-volume.row_direction,
        weights_mm=volume.weights_mm[::-1].copy(),
        frames=volume.frames[::-1],
    )


def flipped_patient(volume: Volume) -> Volume:
    """Return the mirror image of the patient on the same grid."""
    if isinstance(volume, DynamicVolume):
        volume = replace(volume, dynamic=np.ascontiguousarray(volume.dynamic[:, :, :, ::-1]))
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels[:, :, ::-1]))


def offset(data: bytes, value: int) -> bytes:
    """Return the object with *value* added to its stored values and taken off its rescale intercept."""
    header: Dataset = dcmread(io.BytesIO(data))
    stored = header.pixel_array.astype(np.int32) + value
    kind = np.dtype(f"<{'i' if header.PixelRepresentation else 'u'}{header.BitsAllocated // 8}")
    header.BitsStored, header.HighBit = header.BitsAllocated, header.BitsAllocated - 1
    header.PixelData = stored.astype(kind).tobytes()
    header.RescaleIntercept = float(header.RescaleIntercept) - value * float(header.RescaleSlope)
    if "PixelPaddingValue" in header:
        del header.PixelPaddingValue
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def height(data: bytes) -> float:
    """Return the position of an object along its own normal."""
    header = dcmread(io.BytesIO(data), stop_before_pixels=True)
    orientation = [float(v) for v in header.ImageOrientationPatient]
    normal = np.cross(orientation[:3], orientation[3:])
    return float(np.dot([float(v) for v in header.ImagePositionPatient], normal))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice overlap; two empty masks overlap fully."""
    both = int(one.sum()) + int(other.sum())
    return 1.0 if both == 0 else 2.0 * int((one & other).sum()) / both


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_folder(Path(sys.argv[1]), Path(sys.argv[2]))))
