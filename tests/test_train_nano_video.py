"""nano's video memory: clips move as told, training is SAM 2's own step, pictures never change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from examples.train_nano import evaluate, video_evaluate, video_export, video_pool, video_train
from examples.train_nano.export import WEIGHTS, load
from examples.train_nano.model import MEAN, STD, set_image_size
from examples.train_nano.scenes import GROUND, LAYERS
from examples.train_nano.video_model import Features, Memory, Tracker, encode, picture_state
from examples.train_nano.video_scenes import Motion, VideoScenes, affine
from sam2_blocks.executor import load as load_executor
from sam2_blocks.values import Image, PromptSet

pytestmark = pytest.mark.usefixtures("one_thread")

# Of the tensors for pictures before nano had a memory; see `digest`.
PICTURES = "9742799e4424a2713ddf9c39ee02275c39013167693d1090c3fca229c044d1e7"


@pytest.fixture
def small_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_train, "STAGES", (video_pool.Stage(0.0, 64, 4, 2, 2),))
    monkeypatch.setattr(video_pool, "FEWEST", 2)


def small_trainer() -> video_train.VideoTrainer:
    return video_train.VideoTrainer(bank=16, half=False)


def digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of names and bytes, in the order of the names."""
    hashed = hashlib.sha256()
    for name in sorted(state):
        hashed.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return hashed.hexdigest()


def test_the_packaged_weights_for_pictures_are_what_they_were_without_a_memory() -> None:
    assert digest(picture_state(load_file(WEIGHTS))) == PICTURES
    assert WEIGHTS.stat().st_size < 16_000_000


def test_masks_of_pictures_do_not_depend_on_the_memory(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    other = load_file(WEIGHTS)
    pictures = picture_state(other)
    for name, value in other.items():
        if name not in pictures:
            other[name] = torch.randn(value.shape, generator=generator).to(value.dtype)
    save_file(other, tmp_path / "other.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = PromptSet.from_boxes(np.array([[10, 10, 60, 70], [30, 5, 110, 80]], np.float32))
    answers = []
    for model in ("nano", str(tmp_path / "other.safetensors")):
        executor = load_executor(model, device="cpu", config=None if model == "nano" else "nano")
        [embedding] = executor.embed([Image(pixels)])
        [prediction] = executor.segment([(embedding, boxes)])
        counts = [rle.counts.tolist() for rle in prediction.rles]
        answers.append((counts, prediction.iou_prediction.tolist()))
    assert answers[0] == answers[1]


def test_clips_repeat_under_a_seed_and_hold_valid_ids() -> None:
    first, second = (VideoScenes(seed=3, bank=16).clip(5, 64) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.ids, second.ids)
    assert first.images.shape == (5, 3, 64, 64)
    assert first.images.min() >= 0
    assert first.images.max() <= 1
    assert set(first.ids.flatten().tolist()) <= set(range(GROUND + LAYERS))


def test_a_way_and_the_way_back_meet() -> None:
    shift, zoom = torch.tensor([[0.1, -0.2], [0.3, 0.0]]), torch.tensor([0.2, -0.1])
    way = affine(shift, zoom, torch.tensor([0.3, 1.0]), torch.tensor([0.5, 0.2]))
    centre = way @ torch.tensor([0.5, 0.2, 1.0])
    assert torch.allclose(centre[:, :2], torch.tensor([0.5, 0.2]) + shift, atol=1e-6)
    motion = Motion(torch.linalg.inv(way)[:, :2], torch.zeros(2, 4), torch.ones(2))
    x, y = motion.rest_of(centre[:, 0, None, None], centre[:, 1, None, None])
    assert torch.allclose(x.flatten(), torch.full((2,), 0.5), atol=1e-5)
    assert torch.allclose(y.flatten(), torch.full((2,), 0.2), atol=1e-5)


def test_a_bent_layer_is_traced_along_its_wave() -> None:
    still = torch.eye(3)[None, :2]
    bend = torch.tensor([[0.5, 0.0, 0.0, 0.0]])
    motion = Motion(still, bend, torch.tensor([torch.pi / 2, 1.0]))
    x, y = motion.rest_of(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    assert (x.item(), y.item()) == pytest.approx((0.5, 1.0))


def test_some_layer_is_hidden_for_as_long_as_asked_and_comes_back() -> None:
    scenes = VideoScenes(seed=5, bank=16)
    hidden = 0
    for _ in range(12):
        clip = scenes.clip(24, 48, hidden=video_evaluate.HIDDEN + 1)
        truth = video_evaluate.objects_of(scenes, clip, 6)
        hidden += int(video_evaluate.hidden_once(truth).sum())
    assert hidden > 0


def test_hidden_once_wants_one_absence_that_is_long_enough() -> None:
    seen = torch.ones(16, 4, dtype=torch.bool)
    seen[3:13, 0] = False
    seen[3:12, 1] = False  # too short
    seen[3:, 2] = False  # never returns
    seen[[2, 4, 5, 6, 7, 8, 9, 10, 11, 12], 3] = False  # twice
    truth = seen[:, :, None, None].expand(-1, -1, 8, 8)
    assert video_evaluate.hidden_once(truth).tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_training_tracks_as_sam2_does(kind: str) -> None:
    model, _ = load()
    set_image_size(model, 128)
    images = VideoScenes(seed=2, bank=16).clip(5, 128).images
    boxes = torch.tensor([[[20.0, 20.0], [90.0, 100.0]], [[40.0, 10.0], [120.0, 60.0]]])
    masks = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    masks[0, 0, 20:100, 20:90] = masks[1, 0, 10:60, 40:120] = True
    with torch.no_grad():
        official = sam2_steps(model, images, boxes if kind == "box" else None, masks)
        ours = our_steps(model, images, boxes if kind == "box" else None, masks)
    for t, (theirs, mine) in enumerate(zip(official, ours, strict=True)):
        for name in ("maskmem_features", "obj_ptr"):
            assert torch.allclose(theirs[name], mine[name], atol=1e-3), (t, name)


def sam2_steps(
    model: SAM2Base, images: Tensor, boxes: Tensor | None, masks: Tensor
) -> list[dict[str, Any]]:
    """Track with SAM 2's ``track_step``."""
    labels = torch.tensor([[2, 3]], dtype=torch.int32).expand(2, 2)
    points = None if boxes is None else {"point_coords": boxes, "point_labels": labels}
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for t in range(len(images)):
        image = (images[t : t + 1] - MEAN) / STD
        _, levels, encodings, sizes = model._prepare_backbone_features(model.forward_image(image))
        first = t == 0
        answer = model.track_step(
            t, first, [v.expand(-1, 2, -1) for v in levels],
            [v.expand(-1, 2, -1) for v in encodings], sizes, points if first else None,
            masks if first and boxes is None else None, outputs, 64,
        )  # fmt: skip
        outputs["cond_frame_outputs" if first else "non_cond_frame_outputs"][t] = answer
    return [*outputs["cond_frame_outputs"].values(), *outputs["non_cond_frame_outputs"].values()]


def our_steps(
    model: SAM2Base, images: Tensor, boxes: Tensor | None, masks: Tensor
) -> list[dict[str, Any]]:
    """Track as training does, believing the predicted object score."""
    tracker, memory = Tracker(model), Memory()
    features = encode(model, images)
    for t in range(len(images)):
        two = Features(tuple(level[t].expand(2, -1, -1, -1) for level in features.levels))
        conditioned = tracker.condition(t, two, memory)
        if t == 0 and boxes is None:
            memory.prompted[t] = tracker.remember_mask(two, masks)
            continue
        labels = torch.tensor([[2, 3]]).expand(2, 2)
        prompt = (boxes, labels) if t == 0 and boxes is not None else None
        answer = tracker.decode(conditioned, two, prompt)
        logits, token = tracker.choose(answer, multimask=t > 0)
        kept = memory.tracked if t else memory.prompted
        kept[t] = tracker.remember(two, logits, token, answer.score > 0)
    return [*memory.prompted.values(), *memory.tracked.values()]


@pytest.mark.usefixtures("small_stage")
def test_a_few_steps_on_one_batch_reduce_the_loss_and_change_only_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = small_trainer()
    before = {n: t.clone() for n, t in picture_state(trainer.model.state_dict()).items()}
    trainer.step = 100  # past the warm-up
    batch = trainer.batch(0.0)
    monkeypatch.setattr(trainer, "batch", lambda done: batch)
    losses = [trainer.advance(0.0)["loss"] for _ in range(10)]
    assert min(losses[-3:]) < 0.9 * losses[0]
    after = picture_state(trainer.model.state_dict())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("small_stage")
def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    first = small_trainer()
    first.advance(0.0)
    first.seconds = 12.0
    first.save(tmp_path / "checkpoint.pt")
    second = small_trainer()
    second.load(tmp_path / "checkpoint.pt")
    assert (second.step, second.seconds, second.tracked) == (1, 12.0, first.tracked)
    own = video_train.memory_parameters(second.model)
    for name, value in video_train.memory_parameters(first.model).items():
        assert torch.equal(own[name], value), name
    assert second.advance(0.2)["loss"] > 0


@pytest.mark.usefixtures("small_stage")
def test_export_changes_the_memory_and_no_byte_of_the_rest(tmp_path: Path) -> None:
    trainer = small_trainer()
    trainer.advance(0.0)
    trainer.save(tmp_path / "checkpoint.pt")
    target = tmp_path / "nano.safetensors"
    target.write_bytes(WEIGHTS.read_bytes())
    facts = video_export.export(tmp_path / "checkpoint.pt", target, hardware="a test")
    old, new = load_file(WEIGHTS), load_file(target)
    assert facts["bytes"] == target.stat().st_size
    assert old.keys() == new.keys()
    assert digest(picture_state(old)) == digest(picture_state(new))
    model, about = load(target)
    assert (about["video_steps"], about["video_hardware"]) == ("1", "a test")
    trained = video_export.shift_score(
        video_train.memory_parameters(trainer.average), video_export.SEEN_ODDS
    )
    for name, value in video_train.memory_parameters(model).items():
        assert torch.allclose(value, trained[name], atol=2e-3, rtol=2e-3), name


def test_the_score_loses_what_counting_absence_more_gave_it() -> None:
    name = video_export.SCORE_BIAS
    memory = {name: torch.zeros(1), "other": torch.ones(2)}
    shifted = video_export.shift_score(memory, 3.0)
    assert shifted[name].sigmoid().item() == pytest.approx(0.75)  # odds of 3 instead of 1
    assert torch.equal(shifted["other"], memory["other"])
    assert memory[name].item() == 0
    back = video_export.shift_score(shifted, 1 / 3.0)
    assert back[name].item() == pytest.approx(0, abs=1e-6)


def test_weights_that_lack_pictures_are_refused(tmp_path: Path) -> None:
    state = {n: t for n, t in load_file(WEIGHTS).items() if "iou_token" not in n}
    save_file(state, tmp_path / "some.safetensors")
    with pytest.raises(ValueError, match=r"some\.safetensors does not hold .*iou_token\.weight"):
        video_export.load_pictures(tmp_path / "some.safetensors")


def square(at: int, size: int = 64) -> Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[0, 20:40, at : at + 20] = True
    return mask


@pytest.mark.parametrize(("at", "measure"), [(20, 1.0), (21, 1.0), (43, 0.0)])
def test_boundaries_are_compared_within_a_tolerance(at: int, measure: float) -> None:
    assert video_evaluate.boundary_f(square(at), square(20)).item() == pytest.approx(measure)


def test_boundaries_of_nothing_match_nothing_only() -> None:
    nothing = torch.zeros(1, 64, 64, dtype=torch.bool)
    assert video_evaluate.boundary_f(nothing, nothing).item() == 1
    assert video_evaluate.boundary_f(nothing, square(20)).item() == 0


def test_each_evaluation_writes_its_own_part_of_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL_CARD.md", "model_card.template", "video_card.template"):
        (tmp_path / name).write_text((evaluate.HERE / name).read_text())
    monkeypatch.setattr(evaluate, "HERE", tmp_path)
    monkeypatch.setattr(video_evaluate, "HERE", tmp_path)
    model, about = load()
    rows = {k: [0.25] * video_evaluate.FRAMES for k in ("J", "F", "seen")} | {"mean": [0.5] * 3}
    motion = dict.fromkeys(video_evaluate.METHODS, rows) | {"count": {"objects": [7.0]}}
    hiding = {name: {"objects": 3.0, "mean J": 0.75} for name in video_evaluate.METHODS}
    video_evaluate.write_section(about, motion, hiding)
    evaluate.write_card(model, about, {"scenes": {"box": 0.125}})
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert card.count(evaluate.VIDEO_HEADING) == 1
    assert "| box | 0.125 |" in card
    assert "| mean J | 0.750 | 0.750 | 0.750 |" in card
    assert "7 objects over 24 frames" in card
