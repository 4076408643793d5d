"""Training nano's memory with painters of clips, as on a GPU; here the device is the CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from examples.train_nano import (
    video_check,
    video_evaluate,
    video_export,
    video_log,
    video_painters,
    video_shelf,
    video_train,
)
from examples.train_nano.bank import Dice
from examples.train_nano.export import WEIGHTS, load
from examples.train_nano.model import set_image_size
from examples.train_nano.scenes import GROUND
from examples.train_nano.video_model import memory_parameters, picture_state
from examples.train_nano.video_painters import IDS, Errand, Painters
from examples.train_nano.video_pool import hides_for
from examples.train_nano.video_scenes import VideoScenes
from examples.train_nano.video_shelf import Shelf

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Python 3.12 warns of any fork beside threads; painters use none of what those threads hold.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


@pytest.fixture
def painters() -> Iterator[Painters]:
    started = Painters(1, frames=8, size=64, seed=3, bank=16)
    yield started
    started.stop()


@pytest.fixture
def short_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("SIZE", 64), ("PAINTED", 8), ("FEWEST", 2), ("SHORT", 4), ("LONG", 5)):
        monkeypatch.setattr(video_train, name, value)
    monkeypatch.setattr(video_check, "FRAMES", 6)
    monkeypatch.setattr(video_check, "SHOWN", (1, 5))
    # What the run sets of torch is set back: it has one switch for the whole process.
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    yield
    torch.set_flush_denormal(False)


def trainer_with(painters: Painters, **options: Any) -> video_train.VideoTrainer:
    return video_train.VideoTrainer(half=False, painters=painters, objects=6, room=4, **options)


def test_painters_hand_over_what_their_seed_makes(painters: Painters) -> None:
    shelf = Shelf(painters, Dice("cpu", 0), room=2)
    shelf.take_in(3)  # the third takes the place of the first
    scenes = VideoScenes(seed=3, bank=16)
    clips = [scenes.clip(8, 64, hidden=hides_for(scenes, 8)) for _ in range(shelf.clips)]
    assert len(shelf) == 2
    for number, clip in list(enumerate(clips))[-2:]:
        row = number % 2
        assert torch.equal(shelf._ids[row], clip.ids)
        assert torch.equal(shelf._member[row], clip.member)
        off = shelf._images[row].float() / 255 - clip.images
        assert off.abs().max() <= 0.51 / 255


def test_painters_that_all_died_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_painters, "_paint", sys.exit)  # with what is no number: code 1
    dead = Painters(2, frames=8, size=64, bank=16)
    shelf = Shelf(dead, Dice("cpu", 0), room=2)
    with pytest.raises(RuntimeError, match=r"all 2 painters of clips have ended \(exit codes"):
        shelf.take_in()


def test_an_errand_brings_its_result() -> None:
    assert Errand(sorted, [3, 1, 2]).result() == [1, 2, 3]


def test_stretches_are_evenly_spaced_and_inside_either_way_round() -> None:
    frames = video_shelf.stretches(Dice("cpu", 0), 200, 24, 8)
    steps = frames.diff(dim=1)
    assert (steps == steps[:, :1]).all()
    assert set(steps[:, 0].tolist()) == {-3, -2, -1, 1, 2, 3}
    assert frames.min() == 0
    assert frames.max() == 23
    assert video_shelf.stretches(Dice("cpu", 0), 50, 8, 8).diff(dim=1).abs().eq(1).all()


def test_pictures_and_ids_are_reframed_alike() -> None:
    ids = torch.zeros(40, 3, 64, 64, dtype=torch.uint8)
    ids[..., 10:30, 20:50] = 7
    images = (ids * 30)[:, :, None].expand(-1, -1, 3, -1, -1)
    seen, same = video_shelf.reframe(Dice("cpu", 0), images, ids)
    assert set(same.unique().tolist()) == {0, 7}
    unlike = (seen[:, :, 0] > 105 / 255) != (same == 7)
    assert unlike.float().mean() < 0.01  # along the borders
    areas = (same == 7).flatten(2).sum(-1)
    assert (areas > 700).any()  # nearer
    assert (areas == 600).any()  # as it was, perhaps mirrored
    mirrored = same[:, 0, 20, 15] == 7
    assert mirrored.any()


def test_colours_change_within_their_range() -> None:
    images = torch.rand(6, 2, 3, 8, 8)
    changed = video_shelf.recolour(Dice("cpu", 0), images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not torch.allclose(changed, images, atol=0.02)


def test_chosen_objects_are_seen_on_the_first_frame_of_their_clip(painters: Painters) -> None:
    shelf = Shelf(painters, Dice("cpu", 0), room=4)
    shelf.take_in(4)
    ids, member = shelf._ids, shelf._member
    chosen, clip_of = video_shelf.choose(Dice("cpu", 1), ids, member)
    assert 0 < len(chosen) <= 4 * video_shelf.EACH
    area = video_shelf.paint(chosen, ids[:, 0][clip_of]).sum((1, 2))
    assert (area > 0.006 * 64**2).all()
    for what, clip in zip(chosen, clip_of, strict=True):
        assert (member[clip] == what).all(-1).any()


def test_those_that_leave_are_often_chosen_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_shelf, "EACH", 1)
    ids = torch.zeros(400, 4, 32, 32, dtype=torch.uint8)
    ids[..., :8] = GROUND
    ids[:, :3, :, 24:] = GROUND + 1  # gone on the last frame
    member = torch.zeros(400, 2 * IDS, IDS, dtype=torch.bool)
    member[:, GROUND, GROUND] = member[:, GROUND + 1, GROUND + 1] = True
    chosen, _ = video_shelf.choose(Dice("cpu", 0), ids, member)
    assert len(chosen) == 400
    assert 0.65 < chosen[:, GROUND + 1].float().mean() < 0.85  # 1 of 2, and half of the rest


@pytest.mark.usefixtures("short_run")
def test_batches_of_the_shelf_fit_the_trainer(painters: Painters) -> None:
    trainer = trainer_with(painters)
    batch = trainer.batch(0.0)
    n = batch.targets.shape[1]
    assert 0 < n <= 6
    assert batch.targets.shape == (4, n, 1, 64, 64)
    assert batch.present[0].all()
    assert [level.shape[0] for f in batch.features for level in f.levels] == [n] * 12
    assert len(trainer.batch(0.9).features) == 5


class NeedsDevice(TorchFunctionMode):
    """Notes where a tensor is made without saying on which device, outside of SAM 2's code."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _device_constructors() and (kwargs or {}).get("device") is None:
            frame: Any = sys._getframe(1)
            while "/torch/" in frame.f_code.co_filename:
                frame = frame.f_back
            if "/sam2/" not in frame.f_code.co_filename:
                self.places.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("short_run")
def test_a_step_makes_no_tensor_on_the_default_device(painters: Painters) -> None:
    trainer = trainer_with(painters)
    with NeedsDevice() as mode:
        for _ in range(6):  # prompts of all kinds, with and without a correction
            trainer.advance(0.6)
    assert mode.places == set()


@pytest.mark.usefixtures("short_run")
def test_a_step_that_does_not_fit_is_made_with_fewer_objects(
    painters: Painters, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_with(painters)
    trainer.objects = 40
    advance, asked = trainer.advance, []

    def short_of_memory(done: float) -> dict[str, Tensor]:
        asked.append(trainer.objects)
        if trainer.objects > 25:
            raise torch.OutOfMemoryError("no room")
        return advance(done)

    monkeypatch.setattr(trainer, "advance", short_of_memory)
    trainer.advance_or_shrink(0.0)
    assert asked == [40, 30, 22]
    assert trainer.step == 1
    assert "from now on 22 objects a step" in capsys.readouterr().out
    trainer.objects = 10

    def never_fits(done: float) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(trainer, "advance", never_fits)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        trainer.advance_or_shrink(0.0)


def test_a_run_goes_on_from_a_trained_memory(painters: Painters) -> None:
    trainer = trainer_with(painters, start=WEIGHTS)
    memory = video_export.shift_score(memory_parameters(trainer.model), video_export.SEEN_ODDS)
    packaged = load_file(WEIGHTS)
    for name, value in memory.items():
        assert torch.allclose(value, packaged[name].float(), atol=1e-6), name
    assert trainer.lesson(0.0) == video_train.TRAINED
    assert trainer.lesson(1.0) == 1


@pytest.mark.usefixtures("short_run")
def test_a_whole_run_ends_in_time_checks_itself_and_can_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_log, "SAY_EVERY_S", 0.5)
    words = "--minutes 0.05 --device cpu --workers 1 --bank 16 --objects 4 --room 8 --held-out 2"
    video_train.main([*words.split(), "--no-half", "--start", str(WEIGHTS), "--out", str(tmp_path)])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    average, start = lines[-2:]
    assert (average["weights"], start["weights"]) == ("average", "start")
    assert average["objects"] == start["objects"] > 0
    assert {"step", "objects x frames", "loss", "clips", "clips/s", "steps/s"} <= lines[0].keys()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == lines[-3]["step"] > 0
    assert 3 <= state["seconds"] < 60
    rates = {group["lr"] for o in state["optimizers"] for group in o["param_groups"]}
    assert max(rates) < 0.5 * video_train.MUON * 1e-3
    assert (tmp_path / "checkpoint.pt").stat().st_size < 16 * 2**20
    target = tmp_path / "nano.safetensors"
    target.write_bytes(WEIGHTS.read_bytes())
    video_export.export(tmp_path / "checkpoint.pt", target)
    old, new = picture_state(load_file(WEIGHTS)), picture_state(load_file(target))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.usefixtures("short_run")
def test_the_check_finds_what_sam2s_own_step_finds() -> None:
    model, _ = load()
    set_image_size(model, 128)
    clips = video_check.held_out(2, model.image_size, bank=16)
    found, seen = [], []
    for images, truth in clips:
        wanted = torch.from_numpy(truth)
        boxes = video_evaluate.first_boxes(wanted)
        tracks = video_evaluate.track(model, torch.from_numpy(images), boxes)
        found.append(video_evaluate.iou_of(tracks.masks, wanted)[1:])
        least = video_evaluate.least_pixels(model.image_size)
        seen.append((wanted.flatten(2).sum(-1) >= least)[1:])
    figures = video_check.check(model, clips)
    expected = torch.cat(found, 1)[torch.cat(seen, 1)].mean().item()
    assert figures["J"] == pytest.approx(expected, abs=0.01)


def test_the_log_writes_json_even_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_log, "SAY_EVERY_S", 0)
    log = video_log.Log(tmp_path / "log.jsonl")
    true, said = torch.tensor([[0.5, 1.0], [0.0, 0.25]]), torch.tensor([[True, False]] * 2)
    present = torch.tensor([[True, True], [True, True]])
    figures = video_log.figures_of(true, said, present)
    log.add(figures, 10.0, step=1, tracked=4, clips=2)
    [line] = (tmp_path / "log.jsonl").read_text().splitlines()
    facts = json.loads(line)
    assert (facts["iou"], facts["last"], facts["seen"]) == (0.4375, 0.125, 0.5)
    assert facts["lost"] is None
