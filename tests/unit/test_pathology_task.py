"""Slides of the archive as tasks: which series, what is asked of the process, how it ends, what is kept."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.orchestration_world import World, workflow

from wetread.adapters.telemetry.slides import SlideMetrics
from wetread.bootstrap.house import installed_detectors, load_rules
from wetread.bootstrap.runners import ChooserSet, only_once
from wetread.core.errors import (
    ComputationFailed,
    ConfigurationError,
    CorruptRecord,
    NotApplicable,
    NotFound,
    Unavailable,
)
from wetread.core.facts import InstanceFacts, SeriesFacts, StudyFacts
from wetread.core.ports.inference import RunRequest
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.slide_evidence import SlideEvidence, SlideRegion
from wetread.core.ports.studies import StoredInstance as Located
from wetread.core.slide_file import pack, unpack
from wetread.core.states import AiState
from wetread.core.workflow import pair_name
from wetread.orchestration.execute import Execution
from wetread.orchestration.ports import Rules
from wetread.pathology.errors import SeriesNotSuitable
from wetread.pathology.runner import SlideProcesses, SlideRunner, forget_before
from wetread.pathology.slide.dicom import WSM_SOP_CLASS
from wetread.pathology.study import SlideChooser
from wetread.pathology.task import plan_options
from wetread.pathology.tile_model import detector_info, installed_tile_models
from wetread.settings import Settings

MODELS = installed_tile_models()
INFO = detector_info(MODELS["he-tile"])


def level(uid, kind="VOLUME", frames=1, frame_of_reference="1.9"):
    return InstanceFacts(
        uid, WSM_SOP_CLASS, "h", "t", number_of_frames=frames, image_type=("ORIGINAL", "PRIMARY", kind, "NONE"),
        frame_of_reference_uid=frame_of_reference,
    )  # fmt: skip


def study(*series):
    return StudyFacts("default", "1.2.3", tuple(SeriesFacts(uid, "SM", tuple(levels)) for uid, levels in series))


def test_the_levels_of_one_slide_are_chosen_and_labels_are_not():
    chooser = SlideChooser({"he-tile": INFO})
    slide = study(
        ("1.1", [level("a", frames=4), level("b", frames=64), level("c", kind="LABEL")]), ("1.2", [level("d")])
    )
    assert chooser.applicable("he-tile", slide).applicable
    chosen = chooser.select("he-tile", slide)
    assert (chosen.series_instance_uid, chosen.sop_instance_uids) == ("1.1", ("b", "a"))


def test_what_is_no_slide_is_refused_by_reason():
    chooser = SlideChooser({"he-tile": INFO})
    ct = StudyFacts("default", "1.2.3", (SeriesFacts("1.1", "CT", ()),))
    assert chooser.applicable("he-tile", ct).reason == "modality"
    with pytest.raises(NotApplicable):
        chooser.select("he-tile", ct)
    with pytest.raises(SeriesNotSuitable, match="LABEL") as label:
        chooser.select("he-tile", study(("1.1", [level("a", kind="LABEL")])))
    assert label.value.reason == "series_not_suitable"
    with pytest.raises(SeriesNotSuitable, match="frames of reference"):
        chooser.select("he-tile", study(("1.1", [level("a"), level("b", frame_of_reference="1.8")])))
    own = replace(study(("1.1", [level("a")])).series[0], detector_result=True)
    assert not chooser.applicable("he-tile", StudyFacts("default", "1.2.3", (own,))).applicable
    for ask in (chooser.applicable, chooser.select):
        with pytest.raises(NotFound):
            ask("ich", ct)


def test_a_tile_model_is_shown_as_a_detector_of_slides():
    assert (INFO.kind, INFO.manifest.input.modality, INFO.version) == ("slide", ("SM",), "0.1.0")
    options, nuclei = plan_options(INFO.manifest.parameters, MODELS["he-tile"])
    assert (options.mpp, options.tile, nuclei) == (0.5, 256, False)
    for wrong in ({"mpp": 0.0001}, {"overlap": "much"}, {"tiles": 3}):
        with pytest.raises(ConfigurationError, match="make no plan"):
            plan_options({**INFO.manifest.parameters, **wrong}, MODELS["he-tile"])


def test_the_shipped_rules_choose_the_slides_of_a_study_one_by_one():
    from wetread.detection.chooser import InstalledChooser
    from wetread.detection.registry import discover
    from wetread.orchestration.dry_run import dry_run

    settings = Settings()
    chooser = ChooserSet(InstalledChooser(discover()), SlideChooser({"he-tile": INFO}))
    assert set(chooser.detectors()) == set(installed_detectors(settings)) >= {"ich", "he-tile"}
    case = study(("1.1", [level("a")]), ("1.2", [level("b")]), ("1.3", [level("c", kind="LABEL")]))
    plans = {d.plan.detector: d.plan for d in dry_run(case, load_rules(settings), chooser, at=0.0).detectors}
    told = {name: (str(plan.verdict), plan.reason) for name, plan in plans.items()}
    assert told[pair_name("he-tile", "1.1")] == told[pair_name("he-tile", "1.2")] == ("run", "")
    assert told[pair_name("he-tile", "1.3")] == ("refused", "series_not_suitable")
    assert told["ich"][0] == "not wanted"
    with pytest.raises(NotFound):
        chooser.select("none", case)
    with pytest.raises(ConfigurationError, match="two detectors"):
        only_once([{"he-tile": INFO}, {"he-tile": INFO}])


def evidence(**changes):
    from wetread.core.findings import Run

    blank = dict.fromkeys(
        ["version", "model_digest", "params_digest", "input_digest", "rules_digest", "software", "engine"], "1"
    )
    run = Run(result_key="k", tenant="t", study_uid="1.2", series_uid=None, detector="he-tile", started_at=0.0, **blank)
    made = SlideEvidence(
        run, (), "complete", "", ("background", "dense"), "dense", 1, np.ones((2, 3, 2), np.float32),
        np.zeros(5, np.int32), np.arange(4, dtype=np.int32), np.ones((1, 4), np.float32), np.ones(1, np.float32),
        None, (("class_share", 0.5, "1", "dense"),), (SlideRegion((1, 2, 3, 4), 0.5, 0.9),), ("upsampled",),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize("changes", [{}, {"grid": None, "map_level": None}, {"points": np.ones((2, 2), np.float32)}])
def test_what_the_encoder_needs_travels_as_one_file(changes):
    given = evidence(**changes)
    data = pack(given)
    assert data == pack(given)
    found = unpack(data, ["header"])
    assert found.headers == ["header"]
    for name in SlideEvidence.__slots__:
        if name == "headers":
            continue
        left, right = getattr(given, name), getattr(found, name)
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right, name
    for broken in (b"", data[:-40], b"PK\x05\x06" + bytes(18)):
        with pytest.raises(CorruptRecord):
            unpack(broken, ())


# --- the process of a run ---------------------------------------------------------------------------------------------

PROCESS = """
import argparse, json, os, sys, time
from multiprocessing.connection import Connection
parser = argparse.ArgumentParser(); parser.add_argument("--pipe", type=int)
pipe = Connection(parser.parse_args().pipe)
order = json.loads(pipe.recv_bytes())
behaviour = order["parameters"]["mpp"]
def say(message): pipe.send_bytes(json.dumps(message).encode())
counts = {"total": 10, "resumed": 1, "failed": 0, "recomputed": 1, "quarantined": 0, "read": 1.0}
say({"progress": {**counts, "finished": 4, "done": 3}})
if behaviour == 0.6: os._exit(3)
if behaviour == 0.7: time.sleep(600)
if behaviour == 0.8: say({"failed": "no_progress", "detail": "stands still", "transient": False})
if behaviour == 0.9: say({"failed": "unavailable", "detail": "store down", "transient": True})
say({"progress": {**counts, "finished": 10, "done": 9}})
say({"result": {"run": order["run"], "state": "measured", "detail": order["folder"] + " " + str(order["levels"])}})
"""


@pytest.fixture
def runner(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "slide_process_of_test.py").write_text(PROCESS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    meter = SlideMetrics()
    processes = SlideProcesses("slide_process_of_test", tmp_path / "slides")
    made = SlideRunner(MODELS, processes, engine="e", encoder_version="1", meter=meter)
    made.meter = meter
    made.start()
    yield made
    made.close()


def request(tenant="default", version="0.1.0", **parameters):
    where = Located(
        series_instance_uid="1.1", sop_instance_uid="1.1.1", transfer_syntax_uid="t",
        content_hash="h", ref=ObjectRef("locator", 7),
    )  # fmt: skip
    return RunRequest(tenant, "1.2.3", "1.1", "he-tile", version, (where,), parameters)


def sample(meter, name, **labels):
    for family in (family for collector in meter.collectors for family in collector.collect()):
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return each.value
    return None


def test_a_run_reports_counts_and_ends_with_its_result(runner):
    told = []
    outcome = asyncio.run(runner.run(request(), timeout_seconds=60, report=told.append))
    assert told == [40, 100]
    assert outcome.result.state is AiState.MEASURED
    assert outcome.result.detail.endswith("[['locator', 7]]")
    assert outcome.result.run.result_key == runner.result_key(request())
    assert sample(runner.meter, "wetread_pathology_tiles_total", status="done") == 9
    assert sample(runner.meter, "wetread_pathology_tiles_total", status="resumed") == 1
    assert sample(runner.meter, "wetread_pathology_chunks_recomputed_total") == 1
    assert sample(runner.meter, "wetread_pathology_run_seconds_count", outcome="measured") == 1


def test_no_two_tenants_share_a_folder(runner):
    folders = {
        asyncio.run(runner.run(request(tenant=tenant), timeout_seconds=60)).result.detail.split()[0]
        for tenant in ("default", "other")
    }
    assert len(folders) == len({Path(folder).parent for folder in folders}) == 2
    assert not any("other" in folder.rsplit("slides", 1)[1] for folder in folders)


@pytest.mark.parametrize(
    ("mpp", "seconds", "error", "reason"),
    [
        (0.6, 60, Unavailable, None),
        (0.7, 1, ComputationFailed, "timeout"),
        (0.8, 60, ComputationFailed, "no_progress"),
        (0.9, 60, Unavailable, None),
    ],
)
def test_every_end_of_a_process_has_its_reason(runner, mpp, seconds, error, reason):
    with pytest.raises(error) as ended:
        asyncio.run(runner.run(request(mpp=mpp), timeout_seconds=seconds))
    assert getattr(ended.value, "reason", None) == reason


def test_cancelling_kills_the_process(runner):
    async def cancelled():
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(
            runner.run(request(mpp=0.7), timeout_seconds=300, report=lambda _: loop.call_soon_threadsafe(started.set))
        )
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    asyncio.run(cancelled())
    runner.close()  # waits for the thread, which waits for the process
    assert time.monotonic() - began < 100
    with pytest.raises(ComputationFailed, match="not running"):
        asyncio.run(runner.run(request()))


def test_what_cannot_be_run_is_said_before_a_process_starts(runner):
    with pytest.raises(ComputationFailed, match="not installed"):
        asyncio.run(runner.run(request(version="9.0.0")))
    with pytest.raises(ConfigurationError, match="no parameter"):
        asyncio.run(runner.run(request(colour="red")))
    with pytest.raises(NotFound):
        runner.result_key(replace(request(), detector="ich"))
    assert runner.names() == ("he-tile",)


def test_folders_that_nobody_came_back_for_are_forgotten(tmp_path):
    old, new = tmp_path / "t" / "old", tmp_path / "t" / "new"
    for folder in (old, new):
        (folder / "parts" / "plan").mkdir(parents=True)
    for path in (old, old / "parts" / "plan"):
        os.utime(path, (1, 1))
    forget_before(tmp_path, 1000.0)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_missing_package_is_a_typed_answer(monkeypatch):
    from wetread.bootstrap import pathology, slide_process

    monkeypatch.setattr(pathology, "missing_packages", lambda names: ["simplejpeg"])
    answer = slide_process.carry_out({}, None)
    assert answer["failed"] == "model_unavailable"
    assert "wetread[pathology]" in answer["detail"]


# --- progress in task and workitem ------------------------------------------------------------------------------------


def test_progress_is_written_into_task_and_workitem_and_never_goes_back(tmp_path):
    made = World(tmp_path, rules=Rules((workflow(),), early_settle_seconds=0.0))
    try:
        made.runner.percents = [10, 60, 60, 30]
        seen = []
        made.runner.answer = None
        execution = Execution(made.ports, made.rules)
        made.deliver(range(1, 9), transfer_end=True)
        original = Execution.advance

        def watched(self, run_id, percent):
            original(self, run_id, percent)
            task = made.task()
            item = made.workitems.items[task.workitem_uid]["dataset"]
            seen.append((task.progress, item["00741002"]["Value"][0]["00741004"]["Value"][0]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Execution, "advance", watched)
            made.settle()
        assert seen == [(10, 10), (60, 60), (60, 60), (60, 60)]
        assert made.task().progress == 100
        execution.advance("no such run", 5)
    finally:
        made.close()


def test_the_service_loads_nothing_heavy():
    import subprocess

    heavy = ["ray", "torch", "openslide", "wsidicomizer", "highdicom", "onnxruntime"]
    code = f"import sys, wetread.pathology.service; print([m for m in {heavy} if m in sys.modules])"
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert done.stdout.strip() == "[]"
