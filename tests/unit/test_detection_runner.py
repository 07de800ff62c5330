"""The runner and its worker processes: results, refusals, time-outs, crashes, memory, cancellation, death."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.inference.onnxruntime import engine_identity
from wetread.core.errors import ComputationFailed, ConfigurationError, NotFound, Unavailable
from wetread.core.findings import Code, PriorReference, RunPriors
from wetread.core.ports.inference import RunRequest
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.studies import StoredInstance
from wetread.core.priors import PriorFinding, PriorResult, Priors
from wetread.core.run_identity import input_digest
from wetread.core.states import AiState
from wetread.detection import registry
from wetread.detection.artifact import explanation_key, mask_bytes, mask_key, read_mask
from wetread.detection.chooser import InstalledChooser
from wetread.detection.process import WorkerProcess, WorkerSpec
from wetread.detection.runner import ProcessDetectorRunner
from wetread.detection.service import build
from wetread.detection.worker import NICENESS
from wetread.testing.sections import ct_plane, instance_facts, part10, series_facts, study_facts
from wetread.testing.toy_detector import FOLDER_VARIABLE, FolderStore, write_toy

PORTS = "wetread.testing.toy_detector:folder_ports"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FolderStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory, store):
    models = tmp_path_factory.mktemp("models")
    write_toy(models)
    return WorkerSpec(PORTS, bundled=models, environment={FOLDER_VARIABLE: str(store._root)}, threads=1)


@pytest.fixture(scope="module")
def runner(spec):
    runner = ProcessDetectorRunner(spec, engine=engine_identity(), encoder_version="1")
    runner.start()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def instances(store):
    """Five planes in the store, a bright spot of eight voxels on the third."""
    stored = []
    for k in range(5):
        values = np.full((8, 8), 1024, np.int16)
        if k == 2:
            values[2:4, 2:6] = 1024 + 200
        header = ct_plane(values, (0, 0, 5.0 * k), number=k + 1)
        (ref,) = store.append("default", [(b"", [part10(header)])])
        uid, series = header.SOPInstanceUID, header.SeriesInstanceUID
        stored.append(StoredInstance(uid, series, ref, f"hash{k}", "1.2.840.10008.1.2.1"))
    return tuple(stored)


@pytest.fixture
def request_for(instances):
    def make(behave="well", **changes):
        values = {
            "tenant": "default",
            "study_uid": "1.2",
            "series_uid": instances[0].series_instance_uid,
            "detector": "toy",
            "version": "1.0.0",
            "instances": instances,
            "parameters": {"behave": behave},
            "started_at": 1000.0,
            **changes,
        }
        return RunRequest(**values)

    return make


def go(runner, request, **options):
    return asyncio.run(runner.run(request, **options)).result


def failure(runner, request, **options):
    with pytest.raises(ComputationFailed) as caught:
        go(runner, request, **options)
    return caught.value.reason


def test_where_a_score_came_from_is_stored_beside_the_mask(runner, request_for, store):
    result = go(runner, request_for("explain"))
    stored = result.explanation
    assert (stored.method, stored.note) == ("occlusion", "Toys only.")
    assert stored.key == explanation_key(result.run.result_key)
    with np.load(io.BytesIO(store.get("default", stored.key)), allow_pickle=False) as archive:
        assert archive["values"].shape == (2, 3, 4)
        assert archive["grid"].tolist() == [[1, 2, 3], [1, 0, 0], [0, 1, 0], [5, 2, 1]]


def test_an_empty_map_is_none_and_a_wrong_one_a_contradiction(runner, request_for):
    assert go(runner, request_for("explain nothing")).explanation is None
    assert failure(runner, request_for("explain too much")) == "crashed"


def test_a_run_ends_in_a_result_set_with_its_mask_stored(runner, request_for, instances, store):
    request = request_for()
    result = go(runner, request)
    assert result.state is AiState.POSITIVE
    assert result.sop_instance_uids == tuple(i.sop_instance_uid for i in instances)
    (finding,) = result.findings
    assert finding.volume_ml() == pytest.approx(8 * 0.25 * 5 / 1000)
    assert finding.key_image.plane == 2
    assert result.score.operating_point == "half"
    assert result.run.result_key == runner.result_key(request)
    assert result.run.engine == engine_identity()
    assert result.run.phantom_evidence_id == "toy"
    assert "toy" in result.quality
    assert set(result.timings) == {"read", "assemble", "infer", "detect"}
    mask = read_mask(store.get("default", result.mask_key))
    assert mask.sum() == 8
    assert mask[2, 2:4, 2:6].all()


def test_the_same_run_gives_the_same_result(runner, request_for, instances):
    first = go(runner, request_for()).model_dump(exclude={"timings"})
    shuffled = go(runner, request_for(instances=instances[::-1])).model_dump(exclude={"timings"})
    assert first == shuffled


def test_an_early_positive_is_preliminary_and_has_the_same_key(runner, request_for):
    early = go(runner, request_for(preliminary=True, shadow=True))
    assert early.state is AiState.PRELIMINARY_POSITIVE
    assert early.run.shadow
    assert early.run.result_key == runner.result_key(request_for())


def test_a_run_without_anything_marked_stores_no_mask(runner, request_for, instances):
    dark = go(runner, request_for(instances=tuple(i for k, i in enumerate(instances) if k not in {2, 3})))
    assert (dark.state, dark.mask_key) == (AiState.NOT_PROCESSABLE, None)
    assert dark.reason == "missing_slices"
    nothing = go(runner, request_for(instances=tuple(i for k, i in enumerate(instances) if k != 2)))
    assert (nothing.state, nothing.mask_key) == (AiState.NEGATIVE, None)
    assert "holes_bridged" in nothing.quality


def test_a_typed_refusal_of_the_detector_is_a_result(runner, request_for, instances):
    result = go(runner, request_for("refuse"))
    assert (result.state, result.reason, result.detail) == (AiState.NOT_PROCESSABLE, "motion", "the patient moved")
    assert len(result.sop_instance_uids) == len(instances)
    assert result.findings == ()


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        ("raise", "crashed"),
        ("contradict", "crashed"),
        ("nothing", "crashed"),
        ("memory", "out_of_memory"),
        ("die", "crashed"),
    ],
)
def test_our_failures_are_typed_and_the_next_run_works(runner, request_for, behave, reason):
    assert failure(runner, request_for(behave)) == reason
    assert go(runner, request_for()).state is AiState.POSITIVE


def test_what_an_exception_says_is_not_passed_on(runner, request_for):
    with pytest.raises(ComputationFailed) as caught:
        go(runner, request_for("raise"))
    assert "KeyError" in caught.value.detail
    assert "patient" not in caught.value.detail


def test_a_run_that_hangs_is_killed_at_its_time_out(runner, request_for):
    began = time.monotonic()
    assert failure(runner, request_for("hang"), timeout_seconds=0.3) == "timeout"
    assert time.monotonic() - began < 5
    assert go(runner, request_for()).state is AiState.POSITIVE


def test_cancelling_the_call_kills_the_run(runner, request_for):
    go(runner, request_for())
    (before,) = runner.worker_pids()

    async def cancelled():
        task = asyncio.create_task(runner.run(request_for("hang")))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert go(runner, request_for()).state is AiState.POSITIVE
    assert runner.worker_pids() != (before,)


def test_workers_leave_the_processor_to_everything_else(runner, request_for):
    go(runner, request_for())
    (pid,) = runner.worker_pids()
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, mine + NICENESS)
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {min(19, mine + NICENESS)}


def test_a_run_whose_process_is_killed_begins_again_once(runner, request_for):
    """In another process it goes on until its time is over; one that ends each process has failed ("die", above)."""
    go(runner, request_for())
    (pid,) = runner.worker_pids()

    async def killed():
        task = asyncio.create_task(runner.run(request_for("hang"), timeout_seconds=4))
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        return await task

    with pytest.raises(ComputationFailed) as caught:
        asyncio.run(killed())
    assert caught.value.reason == "timeout"
    assert go(runner, request_for()).state is AiState.POSITIVE


def test_a_store_that_is_down_is_worth_a_retry_and_a_lost_record_is_not(runner, request_for, instances):
    def at(locator):
        first = instances[0]
        moved = StoredInstance(first.sop_instance_uid, first.series_instance_uid, ObjectRef(locator, 1), "", "")
        return request_for(instances=(moved, *instances[1:]))

    with pytest.raises(Unavailable):
        go(runner, at("unavailable"))
    assert failure(runner, at("nowhere")) == "crashed"


def test_what_is_not_installed_is_said(runner, request_for):
    assert runner.names() == ("toy",)
    assert runner.detectors()["toy"].manifest.title == "Bright voxels"
    assert failure(runner, request_for(version="9.0.0")) == "model_unavailable"
    with pytest.raises(NotFound):
        go(runner, request_for(detector="absent"))
    with pytest.raises(ConfigurationError, match="no parameter"):
        runner.result_key(request_for(parameters={"colour": "red"}))


def test_headers_are_asked_in_this_process(runner):
    head = series_facts([instance_facts(5.0 * k, number=k) for k in range(4)])
    assert runner.applicable("toy", study_facts(head)).applicable
    assert runner.select("toy", study_facts(head)).completeness == "enough"


def test_detectors_are_loaded_once_and_by_one_thread(tmp_path, monkeypatch):
    """What cannot be loaded says so when it is asked, not when all are loaded."""
    folder = write_toy(tmp_path / "models")
    broken = write_toy(tmp_path / "models", name="broken")
    slow = (folder / "detector.py").read_text("utf-8")
    (folder / "detector.py").write_text(f"import time\n\ntime.sleep(0.3)\n{slow}", "utf-8")
    (broken / "detector.py").write_text("raise ImportError\n", "utf-8")
    chooser = InstalledChooser(registry.discover(bundled=tmp_path / "models"))
    loaded = []
    load = registry.load
    monkeypatch.setattr("wetread.detection.chooser.load", lambda one: (loaded.append(one.info.name), load(one))[1])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: chooser.prepare(), range(4)))
        found = list(threads.map(lambda _: chooser.applicable(folder.name, study_facts()), range(4)))
    assert loaded.count(folder.name) == 1
    assert all(answer == found[0] for answer in found)
    with pytest.raises(ConfigurationError):
        chooser.applicable("broken", study_facts())


def test_the_result_key_follows_everything_that_may_change_the_result(runner, spec, request_for, instances):
    other_engine = ProcessDetectorRunner(spec, engine="other", encoder_version="1")
    other_encoder = ProcessDetectorRunner(spec, engine=engine_identity(), encoder_version="2")
    keys = [
        runner.result_key(request_for()),
        runner.result_key(request_for("hang")),
        runner.result_key(request_for(tenant="b")),
        runner.result_key(request_for(study_uid="1.3")),
        runner.result_key(request_for(instances=instances[1:])),
        other_engine.result_key(request_for()),
        other_encoder.result_key(request_for()),
    ]
    assert len(set(keys)) == len(keys)
    assert runner.result_key(request_for(parameters={})) == keys[0]
    assert runner.result_key(request_for(started_at=5.0, instances=instances[::-1])) == keys[0]
    assert input_digest(instances) == input_digest(instances[::-1])


def test_another_engine_than_promised_is_not_used(spec, request_for):
    wrong = ProcessDetectorRunner(spec, engine="another engine", encoder_version="1")
    wrong.start()
    try:
        assert failure(wrong, request_for()) == "model_unavailable"
    finally:
        wrong.close()


def test_ports_that_cannot_be_made_are_a_typed_failure(spec, request_for):
    broken = ProcessDetectorRunner(
        WorkerSpec("wetread.nowhere:ports", bundled=spec.bundled), engine=engine_identity(), encoder_version="1"
    )
    broken.start()
    try:
        assert failure(broken, request_for()) == "model_unavailable"
    finally:
        broken.close()


def test_the_service_starts_and_ends_the_processes(spec, request_for):
    runner = ProcessDetectorRunner(spec, engine=engine_identity(), encoder_version="1", processes=2)
    assert failure(runner, request_for()) == "model_unavailable"
    with pytest.raises(ComputationFailed):
        runner.check()

    async def lived():
        service = build(runner)
        assert (service.name, service.http) == ("detection", None)
        async with service.lifespan():
            runner.check()
            results = await asyncio.gather(*(runner.run(request_for()) for _ in range(3)))
            return [r.result.state for r in results], runner.worker_pids()

    states, pids = asyncio.run(lived())
    assert states == [AiState.POSITIVE] * 3
    assert len(pids) == 2
    assert runner.worker_pids() == ()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    runner.close()


PARENT = """
import sys, time
from wetread.detection.process import WorkerProcess, WorkerSpec
from pathlib import Path
worker = WorkerProcess(WorkerSpec({ports!r}, bundled=Path({bundled!r}), environment={environment!r}, threads=1))
worker.greet({engine!r})
print(worker.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_dies_with_a_parent_that_is_killed(spec):
    code = PARENT.format(
        ports=PORTS, bundled=str(spec.bundled), environment=dict(spec.environment), engine=engine_identity()
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_a_closed_worker_is_gone_and_may_be_closed_again(spec):
    worker = WorkerProcess(spec)
    worker.greet(engine_identity())
    assert worker.alive
    worker.close()
    worker.close()
    assert not worker.alive


def test_masks_are_written_the_same_way_every_time():
    mask = np.zeros((4, 16, 16), np.uint8)
    mask[1, 2:5, 3:6] = 2
    assert mask_bytes(mask) == mask_bytes(mask.copy())
    assert np.array_equal(read_mask(mask_bytes(mask)), mask)
    assert mask_key("abc") == "mask/abc.npz"


def test_earlier_results_reach_the_detector_and_its_answer_names_them(runner, request_for):
    then = PriorFinding(finding_id="f", code=Code(value="1386000", scheme="SCT", meaning="x"), state="positive")
    prior = PriorResult(
        study_uid="1.1",
        result_key="k",
        version="1.0.0",
        state="positive",
        study_date=date(2025, 1, 1),
        days=90.5,
        findings=(then,),
    )
    result = go(runner, request_for(priors=Priors(results=(prior,), left_out=("sex",))))
    reference = PriorReference(study_uid="1.1", result_key="k", study_date=prior.study_date)
    assert result.run.priors == RunPriors(results=(reference,), left_out=("sex",))
    [finding] = result.findings
    assert (finding.change.course, finding.change.prior_result_key, finding.predecessor) == ("stable", "k", "f")
    assert result.run.result_key != go(runner, request_for()).run.result_key
