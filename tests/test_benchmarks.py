import itertools
import json
import shlex

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from benchmarks.__main__ import PRESETS, main
from benchmarks.measure import CLOSE, EQUAL, ROUNDED, compare, time_interleaved
from benchmarks.peers import replaced
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenes import make_photo_scene, make_scene
from benchmarks.video_peers import missing


def rle_of(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def square(side):
    mask = np.zeros((20, 20), bool)
    mask[:side, :side] = True
    return rle_of(mask)


def test_equal_masks_pass_every_gate():
    agreement = compare([square(5), square(7)], [square(5), square(7)])
    assert str(agreement) == "2/2 equal"
    assert all(gate.passes(agreement) for gate in (EQUAL, ROUNDED, CLOSE))


def test_agreement_is_counted_in_pixels():
    agreement = compare([square(10), square(8)], [square(10), square(10)])
    assert (agreement.masks, agreement.differing) == (2, 1)
    assert agreement.mean_iou == pytest.approx((1 + 64 / 100) / 2)
    assert agreement.worst_flipped == pytest.approx(36 / 400)
    assert agreement.mean_flipped == pytest.approx(18 / 400)
    assert not any(gate.passes(agreement) for gate in (EQUAL, ROUNDED, CLOSE))


def test_a_slow_job_runs_less_often_but_twice_and_interleaved(monkeypatch):
    clock = itertools.count()
    now, calls = [0.0], []
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: now[0])

    def job(name, seconds):
        def run():
            now[0] += seconds
            calls.append((next(clock), name))

        return run

    jobs = {"slow": job("slow", 10), "quick": job("quick", 0.01)}
    timings, _ = time_interleaved(jobs, runs=20, warmups=0, seconds=1)
    assert len(timings["quick"].wall_s) == 20
    assert timings["slow"].wall_s == pytest.approx([10, 10])
    slow_turns = [turn for turn, name in calls if name == "slow"]
    assert slow_turns[0] == 0
    assert slow_turns[1] > 10


def test_a_replaced_method_comes_back():
    class Owner:
        def method(self):
            return "own"

    owner = Owner()
    with replaced(owner, "method", lambda: "other"):
        assert owner.method() == "other"
    assert owner.method() == "own"


def test_scenes_repeat_themselves():
    first, second = (make_scene((120, 160), 3, "small") for _ in range(2))
    np.testing.assert_array_equal(first.boxes_xyxy, second.boxes_xyxy)
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.logits.shape == (3, 3, 256, 256)


def test_boxes_of_the_photograph_lie_in_it():
    scene = make_photo_scene((480, 640), 9)
    assert scene.boxes_xyxy.shape == (9, 4)
    assert (scene.boxes_xyxy >= 0).all()
    assert (scene.boxes_xyxy[:, 2:] <= [639, 479]).all()
    assert (scene.boxes_xyxy[:, 2:] > scene.boxes_xyxy[:, :2]).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_scenarios(preset):
    assert {shlex.split(step)[0] for step in PRESETS[preset].steps} <= SCENARIOS.keys()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_nano_end_to_end_equals_the_official_masks(tmp_path, capsys):
    line = (
        f"boxes click --models nano --sizes VGA --counts 2 --device cpu --runs 1 --warmups 0 "
        f"--peers 'official float32' 'sam2_blocks strict' --name {tmp_path / 'out'}"
    )
    assert main(shlex.split(line)) == 0
    assert "sam2_blocks" in capsys.readouterr().out
    assert (tmp_path / "out.json").exists()
    assert (tmp_path / "out.png").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_masks_stand_beside_the_time_of_an_encoder(tmp_path):
    """From the picture on; those of random weights, which are noise, are not judged."""
    line = (
        f"encoder --models nano --batches 1 --device cpu --runs 1 --warmups 0 --peers "
        f"'official float32' 'official bf16' 'sam2_blocks strict' --name {tmp_path / 'out'}"
    )
    assert main(shlex.split(line)) == 0
    reference, half, ours = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (reference["agreement"], reference["gate"]) == (None, None)
    assert (half["agreement"]["masks"], half["gate"]["name"]) == (10, "near")
    assert half["agreement"]["differing"] > 0
    assert ours["agreement"]["mean_iou"] > half["agreement"]["mean_iou"]
    assert ours["gate"]["name"] == "but for rounding"


def test_an_unknown_scenario_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["box"])
    assert "no scenario box; there are rle, boxes" in capsys.readouterr().err


def test_a_peer_that_cannot_follow_says_why(monkeypatch):
    here = {"ultralytics"}
    monkeypatch.setattr("benchmarks.video_peers.find_spec", lambda name: name in here or None)
    assert missing("transformers", "nano") == "needs: pip install transformers"
    assert missing("ultralytics", "nano").startswith("builds sam2.1/hiera_tiny, ")
    assert not missing("ultralytics", "sam2.1/hiera_tiny")
    assert not missing("official", "nano")
