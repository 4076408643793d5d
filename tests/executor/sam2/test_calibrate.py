"""Whether int8 is kept hangs on its masks and its speed, on pictures it has not seen."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.openvino.calibrations import calibration_path, find_calibration
from sam2_blocks.executor.sam2 import calibrate as module
from sam2_blocks.executor.sam2.calibrate import (
    Measured,
    calibrate,
    find_problems,
    split_pictures,
)
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from tests.conftest import ROOT
from tests.executor.conftest import NEEDS_OPENVINO

PICTURES = sorted((ROOT / "examples" / "pictures").glob("*.jpg"))
GOOD = Measured("int8, openvino", 10, 10, 0.97, 0.9, 1e-3)
OTHER = Measured("bfloat16, openvino", 20, 20, 0.98, 0.91, 9e-4)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "calibrated"


@pytest.fixture
def quick(monkeypatch):
    """Few prompts, and time by the kind of model: a busy machine decides nothing."""
    settings = dataclasses.replace(module.EVERYTHING, points_per_side=4)
    monkeypatch.setattr(module, "EVERYTHING", settings)
    monkeypatch.setattr(
        module, "_time", lambda model, picture: (0.1,) * 2 if model.calibration else (0.2,) * 2
    )


def test_every_other_picture_is_held_out_and_many_are_thinned_out():
    paths = [Path(f"{i}.jpg") for i in range(400)]
    seen, held_out = split_pictures(paths[:5])
    assert [path.stem for path in seen] == ["0", "2", "4"]
    assert [path.stem for path in held_out] == ["1", "3"]
    seen, held_out = split_pictures(paths)
    assert len(seen) == len(held_out) == 20
    assert not set(seen) & set(held_out)
    assert held_out[-1].stem == "390"


def test_too_few_pictures_are_refused():
    with pytest.raises(ModelError, match="at least 4 pictures, better 20 or more, got 3"):
        split_pictures([Path("a.jpg")] * 3)


def test_without_openvino_nothing_is_measured(monkeypatch):
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[openvino\]'"):
        calibrate("no such model", PICTURES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu_ms": 19.9}, "not faster than bfloat16, openvino: 20 ms .* against 20"),
        ({"mean_iou": 0.949}, "mean IoU 0.949, wanted 0.95 or more"),
        ({"p1_iou": 0.79}, "first percentile of IoU 0.790, wanted 0.8 or more"),
        ({"flipped": 0.006}, "0.60% of pixels flipped, wanted 0.50% or less"),
    ],
)
def test_what_is_slow_or_wrong_is_a_problem(change, message):
    assert find_problems(GOOD, OTHER) == ()
    [problem] = find_problems(dataclasses.replace(GOOD, **change), OTHER)
    assert re.search(message, problem)


@NEEDS_OPENVINO
@pytest.mark.usefixtures("quick")
def test_what_pays_is_kept_with_its_figures_and_used():
    outcome = calibrate("nano", PICTURES)
    assert outcome.problems == ()
    assert [row.name.split(",")[0] for row in outcome.rows][::2] == ["float32", "int8"]
    truth, half, int8 = outcome.rows
    assert (truth.mean_iou, truth.flipped) == (1, 0)
    assert 0.9 < int8.mean_iou < 1
    assert int8.mean_iou != half.mean_iou
    assert (outcome.pictures, outcome.held_out) == (2, 2)
    assert 0 < outcome.masks <= 2 * module.BOXES
    weights = load("nano", device="cpu").model.weights
    kept = find_calibration(weights)
    assert outcome.path == calibration_path(weights)
    assert (kept.pictures, kept.forced) == (2, False)
    assert kept.figures["p1_iou"] == int8.p1_iou
    executor = load("nano", device="cpu", dtype="int8", backend="openvino")
    assert executor.model.calibration == kept


@NEEDS_OPENVINO
@pytest.mark.usefixtures("quick")
def test_ranges_that_are_too_narrow_are_found_by_their_masks(monkeypatch):
    measure = module.measure_ranges

    def too_narrow(*arguments):
        return {name: (low / 30, high / 30) for name, (low, high) in measure(*arguments).items()}

    monkeypatch.setattr(module, "measure_ranges", too_narrow)
    outcome = calibrate("nano", PICTURES, force=True)
    assert any("mean IoU" in problem for problem in outcome.problems)
    assert find_calibration(load("nano", device="cpu").model.weights).forced


@pytest.fixture
def found(quick, monkeypatch):
    """Say what is measured, so that nothing is converted."""
    monkeypatch.setattr(module, "_ways", lambda *arguments: [])

    def say(int8):
        monkeypatch.setattr(module.Judge, "measure", lambda judge, ways: [OTHER, OTHER, int8])

    return say


@NEEDS_OPENVINO
def test_what_fails_is_not_kept_and_leaves_an_older_one(found, folder):
    found(dataclasses.replace(GOOD, mean_iou=0.9))
    assert calibrate("nano", PICTURES).path is None
    assert not folder.exists()
    kept = calibrate("nano", PICTURES, force=True).path
    before = kept.read_bytes()
    assert calibrate("nano", PICTURES).path is None
    assert kept.read_bytes() == before


@NEEDS_OPENVINO
def test_each_size_has_a_calibration_of_its_own(found):
    found(GOOD)
    calibrate("nano", PICTURES, input_px=128)
    weights = load("nano", device="cpu").model.weights
    assert find_calibration(weights) is None
    assert find_calibration(f"{weights}-128px").figures["cpu_ms"] == GOOD.cpu_ms


@NEEDS_OPENVINO
def test_a_folder_that_cannot_be_written_is_said(found, folder):
    found(GOOD)
    folder.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot be kept: .* let SAM2_BLOCKS_CACHE name another"):
        calibrate("nano", PICTURES)


@NEEDS_OPENVINO
def test_time_is_that_of_the_encoder():
    model = load("nano", device="cpu", seed=1).model
    picture = module.read_image(PICTURES[0])
    wall, cpu = module._time(model, picture)
    assert 0 < wall < 60
    assert cpu > 0
