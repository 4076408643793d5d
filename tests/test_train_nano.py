"""nano's recipe: scenes repeat, training learns and resumes, weights survive the export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from examples.train_nano import export, train
from examples.train_nano.prompts import boxes_of, click, make_prompts, pick_segments
from examples.train_nano.scenes import GROUND, LAYERS, Scene, Scenes

pytestmark = pytest.mark.usefixtures("one_thread")

TORCHS_OWN = torch.optim._muon._zeropower_via_newtonschulz  # before a trainer replaces it


@pytest.fixture
def small_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "STAGES", ((0.0, 64, 2),))


def small_trainer() -> train.Trainer:
    return train.Trainer(prompts=3, bank=16, reuse=1)


def test_scenes_repeat_under_a_seed_and_hold_valid_ids() -> None:
    first, second = (Scenes(seed=3, bank=16).sample(2, 64) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.ids, second.ids)
    assert first.images.shape == (2, 3, 64, 64)
    assert torch.equal(first.images, first.images.clamp(0, 1))
    assert set(first.ids.flatten().tolist()) <= set(range(GROUND + LAYERS))
    assert first.member.shape == (2, 2 * (GROUND + LAYERS), GROUND + LAYERS)


def test_scenes_differ_between_seeds() -> None:
    one, other = (Scenes(seed=s, bank=16).sample(1, 64).images for s in (1, 2))
    assert not torch.equal(one, other)


def test_segments_are_unions_of_ids_and_large_enough() -> None:
    scenes = Scenes(seed=5, bank=16)
    scene = scenes.sample(4, 64)
    targets, valid = pick_segments(scenes, scene, 4, least=0.01)
    assert targets.shape == (4, 4, 64, 64)
    assert valid.any()
    assert (targets[valid].mean((-1, -2)) > 0.01).all()
    for b, k in valid.nonzero().tolist():
        inside = set(scene.ids[b][targets[b, k] > 0].tolist())
        assert not inside & set(scene.ids[b][targets[b, k] == 0].tolist())


def test_segments_of_one_scene_differ() -> None:
    scenes = Scenes(seed=6, bank=16)
    targets, valid = pick_segments(scenes, scenes.sample(4, 64), 4)
    for b in range(4):
        chosen = targets[b][valid[b]].flatten(1)
        assert len(chosen.unique(dim=0)) == len(chosen)


def test_box_of_a_mask_is_tight_and_in_pixel_edges() -> None:
    mask = torch.zeros(1, 2, 8, 8)
    mask[0, 0, 2:4, 3:7] = 1
    assert boxes_of(mask).tolist() == [[[[3, 2], [7, 4]], [[0, 0], [0, 0]]]]


def test_clicks_lie_inside_and_prompts_are_boxes_or_points() -> None:
    scenes = Scenes(seed=7, bank=16)
    scene = scenes.sample(2, 64)
    prompts = make_prompts(scenes, scene, 4)
    at = click(scenes, prompts.targets).long()
    for b, k in prompts.valid.nonzero().tolist():
        x, y = at[b, k].tolist()
        assert prompts.targets[b, k, y, x] == 1
    assert {tuple(label) for label in prompts.labels.flatten(0, 1).tolist()} <= {(2, 3), (1, -1)}


def test_a_correction_adds_one_click_where_the_mask_is_wrong() -> None:
    scenes = Scenes(seed=8, bank=16)
    prompts = make_prompts(scenes, scenes.sample(2, 64), 2)
    nothing = torch.full((2, 2, 16, 16), -5.0)
    corrected = train.correct(scenes, prompts, nothing)
    assert corrected.coords.shape == (2, 2, 3, 2)
    assert (corrected.labels[..., -1][prompts.valid] == 1).all()
    perfect = F.interpolate(prompts.targets * 10 - 5, size=(64, 64))
    assert (train.correct(scenes, prompts, perfect).labels[..., -1] == -1).all()


def test_plain_attention_equals_the_fused_one() -> None:
    q, k, v = torch.randn(3, 2, 4, 10, 16).unbind(0)
    fused = F.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(train.plain_attention(q, k, v), fused, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_orthogonalizing_in_float32_equals_what_torch_does_in_bfloat16(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    settings = (3.4445, -4.775, 2.0315), 5, 1e-7
    ours = train.orthogonalize(matrix, *settings)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, TORCHS_OWN(matrix, *settings).float(), atol=0.03)
    assert 0.6 < torch.linalg.svdvals(ours).min() < torch.linalg.svdvals(ours).max() < 1.3


@pytest.mark.usefixtures("small_stage")
def test_a_few_steps_on_one_scene_reduce_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small_trainer()
    trainer.step = 200  # past the warm-up
    scene: Scene = trainer.scenes.sample(2, 64)
    prompts = make_prompts(trainer.scenes, scene, 3)
    monkeypatch.setattr(trainer, "next_scene", lambda done: scene)
    monkeypatch.setattr(train, "make_prompts", lambda *args: prompts)
    losses = [trainer.advance(0.0)["loss"] for _ in range(8)]
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.usefixtures("small_stage")
def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    first = small_trainer()
    first.advance(0.0)
    first.seconds = 12.0
    first.save(tmp_path / "checkpoint.pt")
    second = small_trainer()
    second.load(tmp_path / "checkpoint.pt")
    assert (second.step, second.seconds) == (1, 12.0)
    assert first.advance(0.2)["loss"] == pytest.approx(second.advance(0.2)["loss"], rel=1e-3)


@pytest.mark.usefixtures("small_stage")
def test_export_round_trips_in_float16(tmp_path: Path) -> None:
    trainer = small_trainer()
    trainer.save(tmp_path / "checkpoint.pt")
    target = tmp_path / "nano.safetensors"
    facts = export.export(tmp_path / "checkpoint.pt", target)
    assert json.loads(target.with_suffix(".json").read_text()) == facts
    assert facts["bytes"] == target.stat().st_size < 14_000_000
    model, about = export.load(target)
    assert about["steps"] == "0"
    saved = trainer.average.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, saved[name], atol=2e-3, rtol=2e-3), name
