"""The perfusion detector: its golden case, its refusals of what is no dynamic volume, and its card."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from wetread.core.detector import Context, Volume
from wetread.core.errors import NotProcessable
from wetread.detection.registry import companion, load, read_folder
from wetread.testing.phantoms.perfusion import perfusion_phantom

HERE = Path(__file__).parent
GOLDEN = YAML(typ="safe").load(HERE / "golden.yaml")


@pytest.fixture(scope="module")
def detector():
    return load(read_folder(HERE))


def run(detector, volume):
    steps = detector.steps(volume, Context(volume))
    with pytest.raises(StopIteration) as done:
        next(steps)
    return done.value.value


@pytest.fixture(scope="module")
def golden_volume():
    given = dict(GOLDEN["input"])
    return perfusion_phantom(given.pop("seed"), **given).to_volume()


def test_the_golden_case(detector, golden_volume):
    result, expected = run(detector, golden_volume), GOLDEN["expected"]
    late, core, _, artery, vein = result.observations
    assert late.laterality == expected["laterality"]
    for seen, name in ((late, "hypoperfused_ml"), (core, "core_ml")):
        assert seen.measures[0].value == pytest.approx(expected[name], rel=GOLDEN["tolerance"]["volume_rel"])
    for seen, name in ((artery, "artery_lps_mm"), (vein, "vein_lps_mm")):
        place = [m.value for m in seen.measures[:3]]
        assert place == pytest.approx(expected[name], abs=GOLDEN["tolerance"]["position_mm"])
    medians = [float(np.nanmedian(item.values)) for item in result.maps]
    assert medians == pytest.approx(expected["map_medians"], rel=0.005)


def test_a_plain_volume_and_a_turned_one_are_refused(detector, golden_volume):
    plain = Volume(
        **{name: getattr(golden_volume, name) for name in Volume.__dataclass_fields__}  # the time axis is left out
    )
    turned = replace(
        golden_volume, row_direction=np.array([0.0, 1.0, 0.0]), column_direction=np.array([-1.0, 0.0, 0.0])
    )
    for volume, reason in ((plain, "too_few_time_points"), (turned, "mixed_orientation")):
        with pytest.raises(NotProcessable) as caught:
            next(detector.steps(volume, Context(volume)))
        assert caught.value.reason == reason


def test_every_figure_of_the_card_follows_from_the_rows():
    module = companion(read_folder(HERE), "evaluate")
    with (HERE / "evaluation.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda r: (r["set"], int(r["seed"])))
    card = json.loads((HERE / "model-card.json").read_text("utf-8"))
    assert rows
    assert card["metrics"] == {
        split: module.summary([r for r in rows if r["set"] == split]) for split in card["metrics"]
    }
    assert sum(figures["n"] for figures in card["metrics"].values()) == len(rows)
    assert (HERE / "README.md").read_text("utf-8") == module.readme(card)
